"""What breaks a rule, said once more: from the plan of a lab and plain inputs, with nothing of the pack.

Relations come from the plan (what stands where), limits from the spec's kinds, and what a stylesheet
does from who wrote it (`Styled`). So that the pack is not asked whether the pack is right.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from pulumi_policy.secret import Secret

from components.stackfile.registry import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from components.stackfile.plan import MachinePlan, PlacePlan
    from tests.policy.judging import Res
    from tests.policy.shipped import Shipped

GIB = 1 << 30
ENDINGS = {
    "Domain": "-domain",
    "VmLegacy": "-vm",
    "VirtualMachine": "-vm",
    "ContainerLegacy": "-ct",
}
FLAGS = ("allowPromiscuous", "allowForgedTransmits", "allowMacChanges")
OUTSIDE = ("bridge", "passthrough", "vepa", "private", "hostdev", "macvtap")
WAYS_OUT = ("", "vmbr0", "vSwitch0")
NESTED = ("nluplink",)
"""The same of hosts from our own images."""
MAKERS = (("proxmox-ve_", "proxmox"), ("VMware-VMvisor", "esxi"), ("xcp-ng-", "xenserver"))
LEAST = (2, 2048, 8)
"""Cores, memory and disk of the smallest kind: what is asked of a hypervisor of no kind."""
RESERVES = (512, 2)
BOTH = frozenset({"svm", "vmx"})
"""What a hypervisor needs of its CPU; one of them is there."""


@dataclass(frozen=True)
class Styled:
    """What a domain's stylesheet makes of it, besides what the inputs say."""

    nics: tuple[str, ...] = ()
    """Models, in order; virtio for further ones."""
    password: bool = False
    model: str = ""
    disabled: frozenset[str] = frozenset()
    """CPU features that are switched off, of those that a hypervisor needs."""
    trusted: bool = False
    """Whether its NICs may pretend to be others."""
    broken: bool = False
    commandline: str = ""


@dataclass
class Oracle:
    """Judges one stack, one resource of which was changed."""

    shipped: Shipped
    now: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Inputs in clear, by URN."""
    styled: dict[str, Styled] = field(default_factory=dict)
    """By URN of a domain."""

    def __post_init__(self) -> None:
        self.now = {each.urn: clear(each.props) for each in self.shipped.resources}
        self.places = {each.urn: self._place(each) for each in self.shipped.resources}
        self.machines: dict[str, MachinePlan] = {}
        for place in self.shipped.plan.places:
            self.machines |= {"-".join(each.path): each for each in place.machines.values()}
        networks = [one for place in self.shipped.plan.places for one in place.networks.values()]
        self.stated = {one.bridge for one in networks if one.mode == "bridge" and one.bridge}
        self.names = {each.name: each for each in self.shipped.resources}
        for each in self.of("Domain"):
            plan = self.machines[each.name.removesuffix("-domain")]
            self.styled[each.urn] = Styled(
                nics=tuple(nic.model or "virtio" for nic in plan.nics),
                password=True,
                model=plan.hardware.cpu if self.shipped.accelerator == "tcg" else "",
                disabled=BOTH.intersection(plan.hardware.cpu_without),
            )

    def of(self, *kinds: str) -> list[Res]:
        """The resources of these types."""
        return [each for each in self.shipped.resources if short(each) in kinds]

    def broken(
        self, changed: Res, props: Mapping[str, Any], styled: Styled | None = None
    ) -> set[str]:
        """The rules that the stack breaks once ``changed`` has other inputs."""
        before = self.now[changed.urn], self.styled.get(changed.urn)
        self.now[changed.urn] = clear(props)
        if styled is not None:
            self.styled[changed.urn] = styled
        try:
            return set(self._all())
        finally:
            self.now[changed.urn] = before[0]
            if before[1] is not None:
                self.styled[changed.urn] = before[1]

    def _all(self) -> Iterator[str]:
        for each in self.shipped.resources:
            props, kind = self.now[each.urn], short(each)
            if kind in ENDINGS:
                yield from self._machine(each, kind, props)
            yield from _media(kind, props)
            if kind == "RemoteObject" and _open(part(part(props, "wanted"), "console")):
                yield "console-exposure"
            if kind == "PveGuestGate":
                yield from _set_later(each, part(props, "config"))
        yield from self._isolation()
        yield from self._overlaps()
        yield from self._shared()
        yield from self._capacity()
        yield from self._spoofing()

    # What a machine is.

    def hypervisor(self, each: Res) -> str | None:
        """Its kind; empty for one of no kind, None for none."""
        props, kind = self.now[each.urn], short(each)
        fields = {"Domain": ("description", "metadata"), "VirtualMachine": ("annotation",)}
        told = " ".join(str(props.get(one) or "") for one in fields.get(kind, ("description",)))
        tags = props.get("tags") if isinstance(props.get("tags"), list) else []
        found = re.findall("nestlab:kind=([a-z]+)", told)
        found += [tag[13:] for tag in tags or [] if str(tag).startswith("nestlab-kind-")]
        if found:
            return None if found[0] == "guest" else str(found[0])
        guest = str(props.get("guestId") or "")
        if kind == "VirtualMachine" and guest.startswith("vmkernel"):
            return "esxi"
        if kind == "VirtualMachine" and guest == "windowsHyperVGuest":
            return "hyperv"
        cds = {
            "Domain": ("disks", ("file", "url", "volumeId")),
            "VirtualMachine": ("cdroms", ("path",)),
        }
        where, keys = cds.get(kind, ("cdrom", ("fileId",)))
        drives = props.get(where) or []
        for drive in drives if isinstance(drives, list) else [drives]:
            for key in keys if isinstance(drive, dict) else ():
                for begins, of in MAKERS:
                    if str(drive.get(key) or "").rpartition("/")[2].startswith(begins):
                        return of
        return "" if each.under.endswith("NestedHypervisorLab") else None

    def size(self, each: Res) -> tuple[float, float, float, float]:
        """Cores, memory, all disks, the largest disk; 0 for what has none."""
        props, kind = self.now[each.urn], short(each)
        if kind == "RemoteObject":
            wanted = part(props, "wanted")
            cores, memory, disk = (
                float(wanted.get(key) or 0) for key in ("cores", "memory_mib", "disk_gib")
            )
            return cores, memory, disk, disk
        if kind == "Domain":
            volumes = [
                self.now[one.urn] for one in each.needs.get("disks", ()) if short(one) == "Volume"
            ]
            disks = [float(one.get("size") or 0) / GIB for one in volumes]
            given = (props.get("vcpu"), 1), (props.get("memory"), 512)
        else:
            each_disk = 8 if kind == "VmLegacy" else 0
            listed = props.get("disks") if isinstance(props.get("disks"), list) else []
            disks = [float(one.get("size") or each_disk) for one in listed or []]
            cpu, memory_of = part(props, "cpu"), part(props, "memory")
            if kind == "VirtualMachine":
                given = (props.get("numCpus"), 1), (props.get("memory"), 1024)
            else:
                sockets = cpu.get("sockets")
                cores = (cpu.get("cores") or 1) * (1 if sockets is None else sockets)
                given = (cores, 1), (memory_of.get("dedicated"), 512)
        cores, memory = (float(default if one is None else one) for one, default in given)
        return cores, memory, sum(disks), max(disks, default=0)

    def _machine(self, each: Res, kind: str, props: Mapping[str, Any]) -> Iterator[str]:
        hypervisor, styled = self.hypervisor(each), self.styled.get(each.urn, Styled())
        if kind == "Domain":
            if styled.broken:
                yield from (
                    "console-exposure",
                    *(() if hypervisor is None else ("nested-cpu", "sizes")),
                )
                if hypervisor == "esxi":
                    yield "esxi-nic"
                return
            yield from _screens(props, styled)
        elif _qemu_screen(str(props.get("kvmArguments") or "")) or _vnc(part(props, "extraConfig")):
            yield "console-exposure"
        if hypervisor is None:
            return
        cores, memory, _, largest = self.size(each)
        least = limits(hypervisor)
        if cores < least[0] or memory < least[1]:
            yield "sizes"
        if largest and largest < least[2]:
            yield "capacity" if kind == "Domain" else "sizes"
        unnested = self._unnested(each) and hypervisor in KINDS and KINDS[hypervisor].spares
        judge = hides if unnested else virtualizes
        if not judge(kind, hypervisor, props, styled):
            yield "nested-cpu"
        if hypervisor == "esxi" and not _has_driver(kind, props, styled):
            yield "esxi-nic"

    def _unnested(self, each: Res) -> bool:
        plan = self.machines.get(re.sub(r"-(domain|vm)$", "", each.name))
        ours = each.under.endswith("NestedHypervisorLab")
        return bool(plan and ours and BOTH.issubset(plan.hardware.cpu_without))

    # What hangs together.

    def place_of(self, each: Res) -> tuple[str, ...]:
        """The path of the place that a machine or network is in."""
        return self.places[each.urn]

    def _place(self, each: Res) -> tuple[str, ...]:
        found: tuple[str, ...] = ()
        own = re.sub(r"-(domain|vm|ct|guest|container|network|gate|medium)$", "", each.name)
        for place in self.shipped.plan.places:
            inside = [*place.networks, *place.machines]
            if own in {"-".join((*place.path, name)) for name in inside}:
                found = place.path
        return found

    def _plan(self, path: tuple[str, ...]) -> PlacePlan:
        return self.shipped.plan.place(*path)

    def _isolation(self) -> Iterator[str]:
        for each in self.of("Network"):
            broken, props = self.styled.get(each.urn, Styled()).broken, self.now[each.urn]
            if broken or (props.get("mode") in OUTSIDE and props.get("bridge") not in self.stated):
                yield "isolation"
        for each in self.of("RemoteObject", "PveNetworkGate", "VsphereNetworkGate"):
            out = _way_out(short(each), self.now[each.urn])
            if out is None:
                continue
            place, name = self._plan(self.place_of(each)), each.name.rpartition("-")[0]
            planned = {"-".join((*place.path, one.name)): one for one in place.networks.values()}
            stated = planned[name].mode == "bridge" and not planned[name].bridge
            driver = str(self.now[each.urn].get("driver"))
            if not (stated and out in (NESTED if driver == "xen.network" else WAYS_OUT)):
                yield "isolation"
        for each in self.of("Domain"):
            nics = parts(self.now[each.urn], "networkInterfaces")
            direct = any(_is_direct(nic, self.stated) for nic in nics)
            if direct and not self.styled[each.urn].broken:
                yield "isolation"

    def _nets(self) -> Iterator[tuple[Res, tuple[str, ...], str, str, str]]:
        for each in self.of("Network", "RemoteObject", "PveNetworkGate"):
            props, kind, place = self.now[each.urn], short(each), self.place_of(each)
            if kind == "Network":
                subnets = (
                    [] if self.styled.get(each.urn, Styled()).broken else props.get("addresses")
                )
                for subnet in subnets or [""]:
                    yield each, place, props.get("name") or "", props.get("bridge") or "", subnet
            elif kind == "PveNetworkGate":
                own = props.get("bridge") or "" if props.get("owner") else ""
                yield each, place, "", own, props.get("cidr") or ""
            elif str(props.get("driver")).endswith(".network"):
                wanted = part(props, "wanted")
                bridge = "" if wanted.get("mode") == "bridge" else wanted.get("bridge") or ""
                yield each, place, wanted.get("name") or "", bridge, wanted.get("subnet") or ""

    def _overlaps(self) -> Iterator[str]:
        nets = list(self._nets())
        for number, (one, here, *mine) in enumerate(nets):
            for other, there, *yours in nets[:number]:
                if one is other:
                    continue
                around = here[: len(there)] == there or there[: len(here)] == here
                same_host = here == there
                if same_host and any(
                    a and a == b for a, b in zip(mine[:2], yours[:2], strict=True)
                ):
                    yield "overlaps"
                if around and mine[2] and yours[2] and overlap(mine[2], yours[2]):
                    yield "overlaps"

    def _own(self, place: tuple[str, ...], *kinds: str, node: Any = None) -> set[str]:
        found = set()
        for each in self.of(*kinds):
            props = self.now[each.urn]
            if node is not None and props.get("node") not in {node, None}:
                continue
            if self.place_of(each) == place and each.name.endswith(("-network", "-gate")):
                wanted = part(props, "wanted")
                outs = each.outputs or {}
                found |= {
                    props.get("name"),
                    props.get("bridge"),
                    wanted.get("name"),
                    outs.get("called"),
                }
                found |= {outs.get("network"), outs.get("network_id")}
        return {name for name in found if name}

    def _shared(self) -> Iterator[str]:
        for each in self.of(*ENDINGS, "RemoteObject"):
            props, kind, place = self.now[each.urn], short(each), self.place_of(each)
            if kind == "Domain" and not self.styled[each.urn].broken:
                nics = parts(props, "networkInterfaces")
                on = {nic.get("networkName") or nic.get("networkId") for nic in nics}
                own = self._own(place, "Network")
            elif kind == "VmLegacy":
                nics = parts(props, "networkDevices")
                on = {nic.get("bridge") or "vmbr0" for nic in nics}
                own = self._own(place, "PveNetworkGate", node=props.get("nodeName"))
            elif kind == "VirtualMachine":
                # That a network is the stack's own is told by what its input is made of.
                continue
            elif kind == "RemoteObject" and not str(props.get("driver")).endswith(
                (".network", ".medium")
            ):
                wanted = part(props, "wanted")
                on = {nic.get("network") for nic in parts(wanted, "nics")} | {wanted.get("bridge")}
                own = self._own(place, "RemoteObject", "Network")
            else:
                continue
            if {name for name in on if name} - own:
                yield "shared-objects"
        pools = {self.now[each.urn].get("name") for each in self.of("Pool")}
        for each in self.of("Volume", "CloudInitDisk"):
            if (self.now[each.urn].get("pool") or "default") not in pools:
                yield "shared-objects"

    def _capacity(self) -> Iterator[str]:
        by_name: dict[str, tuple[Res, tuple[float, float, float, float]]] = {}
        for each in self.of(*ENDINGS, "RemoteObject"):
            name = each.name.rpartition("-")[0]
            if name in self.machines and not each.name.endswith("-medium"):
                by_name[name] = each, self.size(each)
        outer = [size for name, (_, size) in by_name.items() if not self.machines[name].place]
        for name, (each, own) in by_name.items():
            kind = self.hypervisor(each) if short(each) in ENDINGS else None
            inside = [
                size
                for other, (_, size) in by_name.items()
                if self.machines[other].place == self.machines[name].path
            ]
            if kind is None:
                # What would be in it stands on the outer host then, by the pack's lights.
                outer += inside
                continue
            memory, disk = reserves(kind, own)
            if inside and sum(size[1] for size in inside) + memory > own[1]:
                yield "capacity"
            if (need := sum(size[2] for size in inside)) and own[2] and need + disk > own[2]:
                yield "capacity"
            if any(size[0] > own[0] for size in inside):
                yield "capacity"
        yield from self._budget(outer)

    def _budget(self, outer: list[tuple[float, float, float, float]]) -> Iterator[str]:
        host = self.shipped.spec.host
        nodes = getattr(host, "nodes", None)
        if not nodes:
            # Of a libvirt on another machine nobody knows more than the stack says.
            for number, what in enumerate(("cores", "memory_mib", "disk_gib")):
                most = getattr(host, what, None)
                if most is not None and sum(size[number] for size in outer) > most:
                    yield "capacity"
        given = [self.now[each.urn].get("node") for each in self.of("VsphereNode")]
        given += [
            self.now[each.urn].get("nodeName")
            for each in self.of("VmLegacy")
            if not self.place_of(each)
        ]
        known = {name for name in given if nodes and name in nodes}
        if nodes and len(known) == 1:
            node = nodes[known.pop()]
            for number, most in enumerate((node.cores, node.memory_mib, node.disk_gib)):
                if sum(size[number] for size in outer) > most:
                    yield "capacity"

    def _spoofing(self) -> Iterator[str]:
        stated = {"vsphere": {"out"}}.get(self.shipped.name, set())
        for each in self.of("VsphereNetworkGate"):
            if not any(self.now[each.urn].get(flag) is True for flag in FLAGS):
                continue
            network = each.name.removesuffix("-gate")
            if network not in stated:
                yield "teaching-safety"
            users = [
                one
                for one in self.of("VirtualMachine")
                if any(nic.network == network for nic in self.machines[one.name[:-3]].nics)
            ]
            if all(self.hypervisor(one) is None for one in users):
                yield "spoofing-need"
        for each in self.of("Domain"):
            if self.styled[each.urn].trusted:
                yield "teaching-safety"
                if self.hypervisor(each) is None:
                    yield "spoofing-need"
        for each in self.of("RemoteObject"):
            if part(self.now[each.urn], "wanted").get("macSpoofing") is True:
                yield from ("teaching-safety", "spoofing-need")


def short(each: Res) -> str:
    """The last word of a resource's type."""
    return each.type.rpartition(":")[2]


def _way_out(kind: str, props: Mapping[str, Any]) -> str | None:
    """What of its place a network is on; None for one that is on nothing."""
    wanted = part(props, "wanted")
    if kind == "RemoteObject" and str(props.get("driver")).endswith(".network"):
        return wanted.get("bridge") or "" if wanted.get("mode") == "bridge" else None
    if kind == "PveNetworkGate" and not (props.get("cidr") and props.get("owner")):
        return props.get("bridge") or ""
    if kind == "VsphereNetworkGate" and props.get("own") is False:
        return props.get("switch") or ""
    return None


def _is_direct(nic: Mapping[str, Any], stated: set[str]) -> bool:
    if nic.get("networkName") or nic.get("networkId"):
        return False
    ways = [nic.get(key) for key in ("bridge", "vepa", "macvtap", "passthrough", "private")]
    return next(filter(None, ways), None) not in {None, *stated}


def part(props: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What is under a key, empty for anything that holds nothing."""
    found = props.get(key)
    return found if isinstance(found, dict) else {}


def parts(props: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The same for a list."""
    found = props.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def clear(given: Any) -> Any:
    """Inputs without the marks of secrets."""
    if isinstance(given, Secret):
        return clear(given.value)
    if isinstance(given, dict):
        return {key: clear(each) for key, each in given.items()}
    return [clear(each) for each in given] if isinstance(given, list) else given


def limits(kind: str) -> tuple[int, int, int]:
    """Least cores, memory and disk of a kind."""
    if kind not in KINDS:
        return LEAST
    of = KINDS[kind]
    return int(of.cores.value), int(of.memory_mib.value), int(of.disk_gib.value)


def reserves(kind: str, have: tuple[float, float, float, float]) -> tuple[float, float]:
    """Memory and disk that a kind keeps for itself of what it has."""
    if kind not in KINDS:
        return RESERVES
    of = KINDS[kind]
    shares = (have[1] * of.share_mib, have[2] * of.share_gib)
    return of.reserve_mib + math.ceil(shares[0] / 1000), of.reserve_gib + math.ceil(
        shares[1] / 1000
    )


def overlap(one: str, other: str) -> bool:
    """Whether two subnets have addresses in common."""
    try:
        return ip_network(one, strict=False).overlaps(ip_network(other, strict=False))
    except (ValueError, TypeError):
        return False


def beyond(address: str) -> bool:
    """Whether others than this machine reach an address."""
    if address in {"", "localhost"}:
        return False
    try:
        return not ip_address(address).is_loopback
    except ValueError:
        return True


def virtualizes(kind: str, of: str, props: Mapping[str, Any], styled: Styled) -> bool:
    """Whether a machine's CPU can do what its kind needs."""
    if kind == "VirtualMachine":
        return props.get("nestedHvEnabled") is True
    if kind == "VmLegacy":
        cpu = part(props, "cpu")
        given = "-cpu" in str(props.get("kvmArguments") or "").split()
        flags = cpu.get("flags") or []
        cut = any(one in flags for one in ("-vmx", "-svm"))
        added = any(one in flags for one in ("+vmx", "+svm"))
        return not given and not cut and (added or cpu.get("type") in {"host", "max"})
    if "-cpu" in styled.commandline.split():
        return False
    mode = part(props, "cpu").get("mode")
    emulated = props.get("type") == "qemu"
    if of == "xen" and emulated:
        return mode == "custom" and styled.model == "Nehalem"
    return not styled.disabled and mode == ("maximum" if emulated else "host-passthrough")


def hides(kind: str, of: str, props: Mapping[str, Any], styled: Styled) -> bool:
    """Whether a machine's CPU is what one has that its stack shows no hardware virtualization."""
    if kind == "VirtualMachine":
        return props.get("nestedHvEnabled") is not True
    if kind == "VmLegacy":
        cpu = part(props, "cpu")
        added = any(one in (cpu.get("flags") or []) for one in ("+vmx", "+svm"))
        given = "-cpu" in str(props.get("kvmArguments") or "").split()
        return not given and not added and cpu.get("type") not in {"host", "max"}
    if of == "xen" and props.get("type") == "qemu":
        return virtualizes(kind, of, props, styled)
    seen = replace(styled, disabled=frozenset())
    return styled.disabled == BOTH and virtualizes(kind, of, props, seen)


def _has_driver(kind: str, props: Mapping[str, Any], styled: Styled) -> bool:
    if kind == "Domain":
        count = len(parts(props, "networkInterfaces"))
        models = [*styled.nics, *["virtio"] * count][:count]
    elif kind == "VirtualMachine":
        models = [nic.get("adapterType") or "vmxnet3" for nic in parts(props, "networkInterfaces")]
    else:
        models = [nic.get("model") or "virtio" for nic in parts(props, "networkDevices")]
    return bool(models) and all(model in {"vmxnet3", "e1000e"} for model in models)


def _screens(props: Mapping[str, Any], styled: Styled) -> Iterator[str]:
    screen = part(props, "graphics")
    if screen.get("type") in {"vnc", "spice"} and not styled.password:
        how = screen.get("listenType")
        if how == "network" or (how == "address" and beyond(screen.get("listenAddress") or "")):
            yield "console-exposure"
    for console in parts(props, "consoles"):
        if console.get("type") == "tcp" and beyond(console.get("sourceHost") or "127.0.0.1"):
            yield "console-exposure"
    if _qemu_screen(styled.commandline):
        yield "console-exposure"


def _qemu_screen(arguments: str) -> bool:
    return "-vnc 0.0.0.0" in arguments and "password=on" not in arguments


def _vnc(extra: Mapping[str, Any]) -> bool:
    given = {key.rpartition(".")[2]: value for key, value in extra.items() if ".vnc." in key}
    if str(given.get("enabled")).upper() != "TRUE" or given.get("password"):
        return False
    return not given.get("ip") or beyond(given["ip"])


def _open(console: Mapping[str, Any]) -> bool:
    shown = console.get("type") not in {None, "", "none"} and bool(console.get("port"))
    return shown and not console.get("password") and beyond(console.get("listen") or "")


def _set_later(each: Res, config: Mapping[str, Any]) -> Iterator[str]:
    if _qemu_screen(str(config.get("args") or "")):
        yield "console-exposure"
    if not each.under.endswith("NestedHypervisorLab"):
        return
    model = str(config.get("cpu") or "host").partition(",")[0]
    if (
        "-cpu" in str(config.get("args") or "").split()
        or str(config.get("kvm")) in {"0", "0.0"}
        or model not in {"host", "max"}
    ):
        yield "nested-cpu"


def _media(kind: str, props: Mapping[str, Any]) -> Iterator[str]:
    wanted, source = part(props, "wanted"), props.get("sourceFile")
    unchecked: list[Any] = []
    if kind == "Volume":
        unchecked = [props.get("source")]
    elif kind == "File":
        unchecked = [source]
    elif kind == "FileLegacy" and isinstance(source, dict):
        unchecked = [] if source.get("checksum") else [source.get("path")]
    elif kind == "InstallMedium":
        tools = props.get("tools")
        unchecked = [props.get("iso"), *(tools.values() if isinstance(tools, dict) else [])]
    elif kind == "RemoteObject":
        unchecked = [wanted.get("iso"), wanted.get("image")]
        unchecked += [] if wanted.get("sha256") else [wanted.get("path"), wanted.get("archive")]
    elif kind == "Domain":
        disks = props.get("disks") if isinstance(props.get("disks"), list) else []
        unchecked = [disk.get("url") for disk in disks or [] if not disk.get("file")]
        unchecked = [one for one in unchecked if not str(one).startswith("rbd:")]
    for one in unchecked:
        if "://" in str(one or "") and not str(one).startswith("file:"):
            yield "media"
