"""A lab on vSphere, played by govmomi's simulator, which keeps nothing: what was there is made in it again.

Objects' ids are the simulator's own counters. They are kept beside the names that they had, and stand in the
state for whatever has these names now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from components.kinds.vsphere.api import sdk
from tests.double import test_vsphere as outer
from tests.double.test_proxmox_outer import program
from tests.support.kept import ISO, ROOT, Lab, exchanged
from tests.support.vcsim import Vcsim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.kinds.vsphere.api import Vsphere

SERVER = "kept-vcenter:443"
FIRST_OWN = 202
"""Key of the first device that the simulator does not give every machine by itself."""
FIELDS = ("name", "uuid", "instanceUuid", "annotation", "guestId", "firmware", "version")


class VsphereLab(Lab):
    """Its outer host is a host of the vCenter."""

    media: ClassVar[Mapping[str, bytes]] = {"live.iso": ISO}

    @override
    def begin(self) -> None:
        self.vcsim = self.running.enter_context(Vcsim())
        self.ids: dict[str, str] = {}
        outer.trusted(self.project, self.vcsim)
        self.project.write(program(outer.lab(self.vcsim), self.folder))

    @override
    def world(self) -> Any:
        with outer.by_hand(self.vcsim) as vcenter:
            info = self._networks(vcenter).networkInfo
            machines = [_told(vcenter, each) for each in self._machines(vcenter).values()]
            return {
                "switches": [
                    {"name": each.name, "xml": _xml(each.spec)} for each in info.vswitch[1:]
                ],
                "groups": [_xml(each.spec) for each in info.portgroup if _ours(each.spec.name)],
                "networks": self._network_ids(vcenter),
                "files": sorted(
                    {
                        path.partition("] ")[2]
                        for each in self.vcsim.machines().values()
                        for path in each.cdroms
                    }
                ),
                "machines": sorted(machines, key=lambda each: str(each["id"])),
            }

    @override
    def have(self, world: Any) -> None:
        with outer.by_hand(self.vcsim) as vcenter:
            networks = self._networks(vcenter)
            for each in world["switches"]:
                networks.AddVirtualSwitch(each["name"], _read(each["xml"]))
            for each in world["groups"]:
                networks.AddPortGroup(_read(each))
            there = self._network_ids(vcenter)
            self.ids = {kept: there[name] for name, kept in world["networks"].items()}
            # In XML each is all that an element holds.
            inside = {f">{kept}<": f">{now}<" for kept, now in self.ids.items()}
            for each in exchanged(world["machines"], inside):
                made = self._make(vcenter, each)
                self.ids[each["id"]] = made._moId
                if each["runs"]:
                    vcenter.power_on(made, 30)

        for file in world["files"]:
            self.vcsim.put(file, ISO)

    @override
    def harm(self) -> None:
        self.vcsim.stop("lab-live")

    @override
    def left(self) -> set[str]:
        groups = set().union(*self.vcsim.switches().values())
        return set(self.vcsim.machines()) | {each for each in groups if _ours(each)}

    @override
    def marked(self, told: Any) -> Any:
        return exchanged(told, {str(self.folder): ROOT, self.vcsim.server: SERVER})

    @override
    def own(self, told: Any) -> Any:
        return exchanged(told, {ROOT: str(self.folder), SERVER: self.vcsim.server}, self._id)

    def _id(self, part: Any) -> str | None:
        return self.ids.get(part) if isinstance(part, str) else None

    def _networks(self, vcenter: Vsphere) -> Any:
        node = vcenter.node(self.vcsim.datacenter, self.vcsim.host, self.vcsim.datastore)
        return vcenter.networks(node.host)

    def _network_ids(self, vcenter: Vsphere) -> dict[str, str]:
        return {
            name: vcenter.network_id(self.vcsim.datacenter, name)
            for groups in self.vcsim.switches().values()
            for name in groups
            if _ours(name)
        }

    def _machines(self, vcenter: Vsphere) -> dict[str, Any]:
        return {
            name: vcenter.by_name(self.vcsim.datacenter, name) for name in self.vcsim.machines()
        }

    def _make(self, vcenter: Vsphere, told: Any) -> Any:
        vim = sdk().vim
        node = vcenter.node(self.vcsim.datacenter, self.vcsim.host, self.vcsim.datastore)
        devices = []
        for each in told["devices"]:
            device = _read(each)
            change = vim.vm.device.VirtualDeviceSpec(operation="add", device=device)
            if isinstance(device, vim.vm.device.VirtualDisk):
                change.fileOperation = "create"
            devices.append(change)
        spec = vim.vm.ConfigSpec(
            files=vim.vm.FileInfo(vmPathName=told["file"]),
            numCPUs=told["cpus"],
            memoryMB=told["memory"],
            extraConfig=[vim.option.OptionValue(key=k, value=v) for k, v in told["extra"].items()],
            deviceChange=devices,
            **{field: told[field] for field in FIELDS},
        )
        made = vcenter.create(self.vcsim.datacenter, spec, node.pool, node.host)
        # It takes no order of boot devices before there are devices.
        vcenter.reconfigure(made, vim.vm.ConfigSpec(bootOptions=_read(told["boot"])))
        return made


def _ours(name: str) -> bool:
    return name.startswith("lab-")


def _told(vcenter: Vsphere, machine: Any) -> dict[str, Any]:
    read = vcenter.read(machine, "config", "runtime.powerState")
    config = read["config"]
    devices = [each for each in config.hardware.device if FIRST_OWN <= each.key < 1000]
    return {
        "id": machine._moId,
        "file": config.files.vmPathName,
        "cpus": config.hardware.numCPU,
        "memory": config.hardware.memoryMB,
        "extra": {each.key: each.value for each in config.extraConfig},
        "boot": _xml(config.bootOptions),
        "devices": [_xml(each) for each in devices],
        "runs": read["runtime.powerState"] == "poweredOn",
        **{field: getattr(config, field) for field in FIELDS},
    }


def _xml(thing: Any) -> str:
    # With all its fields, and not only those of the first API that had it.
    newest = sdk().VmomiSupport.newestVersions.Get("vim")
    return str(sdk().SoapAdapter.SerializeToStr(thing, version=newest))


def _read(xml: str) -> Any:
    return sdk().SoapAdapter.Deserialize(xml)


LAB = VsphereLab
