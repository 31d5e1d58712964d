"""``xe`` of an XCP-ng host with nothing behind it but XAPI's rules about its objects.

After xen-api's own sources: how words are read, lists printed and refusals worded
(``xapi-cli-server/cli_frontend.ml``, ``cli_operations.ml``, ``cli_printer.ml``, ``cli_util.ml``,
``idl/datamodel_errors.ml``), and what the ISO repository lists (sm's ``ISOSR.py``). The real ``xe``
ignores parameters that it does not know; here they fail the test.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, ClassVar

from tests.support.stubs import Refused, Stub, command

MIB = 1 << 20
GIB = 1 << 30
HOST = "0000aaaa-0000-4000-8000-000000000001"
UPLINK = "0000aaaa-0000-4000-8000-000000000010"
SECOND = "0000aaaa-0000-4000-8000-000000000011"
STORAGE = "0000aaaa-0000-4000-8000-000000000020"
POOL = "0000aaaa-0000-4000-8000-000000000030"
TEMPLATE = "0000aaaa-0000-4000-8000-000000000040"
DOM0 = "0000aaaa-0000-4000-8000-000000000041"
THEIRS = "0000aaaa-0000-4000-8000-000000000042"
THEIR_DISK = "0000aaaa-0000-4000-8000-000000000050"
THEIR_VBD = "0000aaaa-0000-4000-8000-000000000051"
THEIR_NETWORK = "0000aaaa-0000-4000-8000-000000000012"
NONE = "<not in database>"

FIELDS = {
    "vm": {
        "uuid": " RO", "name-label": " RW", "name-description": " RW", "is-a-template": " RW",
        "is-a-snapshot": " RO", "snapshot-of": " RO", "is-control-domain": " RO",
        "power-state": " RO", "memory-static-max": " RW", "memory-dynamic-max": " RW",
        "memory-dynamic-min": " RW", "memory-static-min": " RW", "VCPUs-max": " RW",
        "VCPUs-at-startup": " RW", "platform": "MRW", "HVM-boot-policy": " RW",
        "HVM-boot-params": "MRW", "other-config": "MRW", "dom-id": " RO",
    },
    "vbd": {
        "uuid": " RO", "vm-uuid": " RO", "vdi-uuid": " RO", "empty": " RO", "userdevice": " RW",
        "bootable": " RW", "mode": " RW", "type": " RW", "currently-attached": " RO",
    },
    "vif": {
        "uuid": " RO", "vm-uuid": " RO", "device": " RO", "MAC": " RO",
        "currently-attached": " RO", "network-uuid": " RO",
    },
    "vdi": {
        "uuid": " RO", "name-label": " RW", "name-description": " RW", "is-a-snapshot": " RO",
        "snapshot-of": " RO", "sr-uuid": " RO", "vbd-uuids": "SRO", "virtual-size": " RO",
        "location": " RO", "type": " RO", "managed": " RO", "other-config": "MRW",
    },
    "network": {
        "uuid": " RO", "name-label": " RW", "name-description": " RW", "bridge": " RO",
        "other-config": "MRW",
    },
    "pif": {
        "uuid": " RO", "device": " RO", "currently-attached": " RO", "management": " RO",
        "network-uuid": " RO",
    },
    "sr": {
        "uuid": " RO", "name-label": " RW", "name-description": " RW", "type": " RO",
        "content-type": " RO", "other-config": "MRW",
    },
    "pbd": {
        "uuid": " RO", "host-uuid": " RO", "sr-uuid": " RO", "device-config": "MRO",
        "currently-attached": " RO",
    },
    "pool": {"uuid": " RO", "name-label": " RW", "default-SR": " RW", "other-config": "MRW"},
    "host": {"uuid": " RO", "name-label": " RW", "enabled": " RO"},
}  # fmt: skip  # one class after the other
"""Fields in the order in which they are printed, and what the list says of each."""
CLASSES = {"vm": "VM", "vbd": "VBD", "vif": "VIF", "vdi": "VDI", "network": "network", "sr": "SR",
           "pbd": "PBD", "pif": "PIF", "pool": "pool", "host": "host"}  # fmt: skip
LISTS = {
    "vm": ("vm", {"is-a-template": "false"}),
    "template": ("vm", {"is-a-template": "true", "is-a-snapshot": "false"}),
    "snapshot": ("vm", {"is-a-snapshot": "true"}),
} | {name: (name, {}) for name in FIELDS if name != "vm"}
TABLE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "vm-install": (("new-name-label",), ("template", "sr-uuid")),
    "vm-start": ((), ("uuid",)),
    "vm-shutdown": ((), ("uuid", "force")),
    "vm-suspend": ((), ("uuid",)),
    "vm-resume": ((), ("uuid",)),
    "vm-pause": ((), ("uuid",)),
    "vm-unpause": ((), ("uuid",)),
    "vm-destroy": (("uuid",), ()),
    "vm-clone": (("new-name-label",), ("uuid",)),
    "vm-snapshot": (("new-name-label",), ("uuid",)),
    "snapshot-destroy": ((), ("uuid", "snapshot-uuid")),
    "vm-memory-limits-set": (
        ("static-min", "static-max", "dynamic-min", "dynamic-max"), ("uuid",)
    ),
    "vbd-create": (
        ("vm-uuid", "device"), ("vdi-uuid", "bootable", "type", "mode", "unpluggable")
    ),
    "vbd-destroy": (("uuid",), ()),
    "vbd-insert": (("uuid", "vdi-uuid"), ()),
    "vbd-eject": (("uuid",), ()),
    "vif-create": (("device", "network-uuid", "vm-uuid"), ("mac",)),
    "vif-destroy": (("uuid",), ()),
    "vdi-create": (
        ("sr-uuid", "name-label", "virtual-size"), ("sm-config:", "sharable", "tags:", "type")
    ),
    "vdi-destroy": (("uuid",), ()),
    "vdi-clone": (("uuid",), ("new-name-label", "new-name-description")),
    "vdi-resize": (("uuid", "disk-size"), ("online",)),
    "vdi-import": (("uuid", "filename"), ("format", "progress")),
    "network-create": (("name-label",), ("name-description", "MTU", "bridge", "managed")),
    "network-destroy": (("uuid",), ()),
    "sr-create": (
        ("name-label", "type"),
        ("host-uuid", "device-config:", "shared", "physical-size", "content-type", "sm-config:"),
    ),
    "sr-scan": (("uuid",), ()),
    "sr-forget": (("uuid",), ()),
    "pbd-plug": (("uuid",), ()),
    "pbd-unplug": (("uuid",), ()),
}  # fmt: skip
"""Required and optional parameters, after ``cmdtable_data``; autogenerated ones are made of FIELDS."""
STANDARD = {"minimal", "force", "multiple", "all"}

ERRORS = {
    "UUID_INVALID": ("The uuid you supplied was invalid.", ("type", "uuid")),
    "VM_BAD_POWER_STATE": (
        (
            "You attempted an operation on a VM that was not in an appropriate power state at the time; "
            "for example, you attempted to start a VM that was already running. The parameters returned "
            "are the VM's handle, and the expected and actual VM state at the time of the call."
        ),
        ("vm", "expected", "actual"),
    ),
    "VM_LACKS_FEATURE_SHUTDOWN": (
        (
            "You attempted an operation which needs the cooperative shutdown feature on a VM which lacks "
            "it."
        ),
        ("vm",),
    ),
    "VM_HVM_REQUIRED": ("HVM is required for this operation", ("vm",)),
    "NO_HOSTS_AVAILABLE": (
        "There were no servers available to complete the specified operation.",
        (),
    ),
    "DEVICE_ALREADY_EXISTS": (
        "A device with the name given already exists on the selected VM",
        ("device",),
    ),
    "INVALID_DEVICE": ("The device name is invalid", ("device",)),
    "VBD_CDS_MUST_BE_READONLY": ("Read/write CDs are not supported", ()),
    "VBD_IS_EMPTY": ("Operation could not be performed because the drive is empty", ("vbd",)),
    "VBD_NOT_EMPTY": ("Operation could not be performed because the drive is not empty", ("vbd",)),
    "VDI_IS_NOT_ISO": (
        "This operation can only be performed on CD VDIs (iso files or CDROM drives)",
        ("vdi", "type"),
    ),
    "VDI_IN_USE": (
        "This operation cannot be performed because this VDI is in use by some other operation",
        ("vdi", "operation"),
    ),
    "OPERATION_NOT_ALLOWED": ("You attempted an operation that was not allowed.", ("reason",)),
    "MAC_INVALID": ("The MAC address specified is not valid.", ("MAC",)),
    "INVALID_VALUE": ("The value given is invalid", ("field", "value")),
    "MEMORY_CONSTRAINT_VIOLATION": (
        "The dynamic memory range does not satisfy the following constraint.",
        ("constraint",),
    ),
    "NETWORK_CONTAINS_VIF": (
        "The network contains active VIFs and cannot be deleted.",
        ("vifs",),
    ),
    "NETWORK_CONTAINS_PIF": (
        "The network contains active PIFs and cannot be deleted.",
        ("pifs",),
    ),
    "SR_HAS_PBD": (
        "The SR is still connected to a host via a PBD. It cannot be destroyed or forgotten.",
        ("sr",),
    ),
    "SR_NO_PBDS": ("The SR has no attached PBDs", ("sr",)),
    "SR_FULL": (
        "The SR is full. Requested new size exceeds the maximum size",
        ("requested", "maximum"),
    ),
    "SR_UNKNOWN_DRIVER": (
        "The SR could not be connected because the driver was not recognised.",
        ("driver",),
    ),
}
"""Words of XAPI's refusals and names of their parameters (datamodel_errors.ml)."""


def machine(uuid: str, label: str, **other: Any) -> dict[str, Any]:
    """Return a VM as XAPI notes it."""
    plain = {
        "uuid": uuid, "name-label": label, "name-description": "", "is-a-template": "false",
        "is-a-snapshot": "false", "snapshot-of": NONE, "is-control-domain": "false",
        "power-state": "halted", "memory-static-max": str(256 * MIB),
        "memory-dynamic-max": str(256 * MIB), "memory-dynamic-min": str(256 * MIB),
        "memory-static-min": str(128 * MIB), "VCPUs-max": "1", "VCPUs-at-startup": "1",
        "platform": {"acpi": "true", "apic": "true", "pae": "true", "viridian": "true",
                     "vga": "std", "videoram": "8"},
        "HVM-boot-policy": "BIOS order", "HVM-boot-params": {"order": "dc"},
        "other-config": {"mac_seed": uuid},
    }  # fmt: skip
    return plain | other


def disk(uuid: str, label: str, sr: str, size: int, **other: Any) -> dict[str, Any]:
    """Return a VDI as XAPI notes it; ``content`` and ``parent`` are the stub's own."""
    plain = {
        "uuid": uuid, "name-label": label, "name-description": "", "is-a-snapshot": "false",
        "snapshot-of": NONE, "sr-uuid": sr, "virtual-size": str(size), "location": uuid,
        "type": "user", "managed": "true", "other-config": {}, "content": "", "parent": "",
    }  # fmt: skip
    return plain | other


def network(uuid: str, label: str, bridge: str, about: str = "") -> dict[str, Any]:
    """Return a network as XAPI notes it."""
    return {
        "uuid": uuid, "name-label": label, "name-description": about, "bridge": bridge,
        "other-config": {},
    }  # fmt: skip


def pif(device: str, where: str, management: str) -> dict[str, Any]:
    """Return a network interface of the host."""
    return {
        "uuid": f"0000aaaa-0000-4000-8000-0000000000{device[-1]}f", "device": device,
        "currently-attached": "true", "management": management, "network-uuid": where,
    }  # fmt: skip


def by_uuid(*objects: dict[str, Any]) -> dict[str, Any]:
    """Return ``objects`` by their UUIDs."""
    return {each["uuid"]: each for each in objects}


class XenServer(Stub):
    """One host alone in its pool, just installed, and a VM that somebody made by hand."""

    roots = ("/var/opt/xen",)
    initial: ClassVar[dict[str, Any]] = {
        "serial": 1,
        "free": 6144 * MIB,
        "space": 500 * GIB,
        "hvm": True,
        "up": True,
        "reacts": [],
        "vm": by_uuid(
            machine(DOM0, "Control domain on host: xcp1", **{"is-control-domain": "true",
                    "power-state": "running", "other-config": {"storage_driver_domain": "x"}}),
            machine(TEMPLATE, "Other install media", **{"is-a-template": "true", "other-config":
                    {"default_template": "true", "install-methods": "cdrom"}}),
            machine(THEIRS, "theirs,\\and more", **{"power-state": "running",
                    "name-description": "two\n\nlines\npower-state ( RO): halted"}),
        ),
        "vbd": by_uuid({"uuid": THEIR_VBD, "vm-uuid": THEIRS, "vdi-uuid": THEIR_DISK,
                        "empty": "false", "userdevice": "0", "bootable": "true", "mode": "RW",
                        "type": "Disk", "currently-attached": "true"}),
        "vif": {},
        "vdi": by_uuid(disk(THEIR_DISK, "theirs", STORAGE, GIB)),
        "network": by_uuid(
            network(UPLINK, "Pool-wide network associated with eth0", "xenbr0"),
            network(SECOND, "Pool-wide network associated with eth1", "xenbr1"),
            network(THEIR_NETWORK, "class", "xapi7", "somebody's"),
        ),
        "pif": by_uuid(pif("eth0", UPLINK, "true"), pif("eth1", SECOND, "false")),
        "sr": by_uuid({"uuid": STORAGE, "name-label": "Local storage", "name-description": "",
                       "type": "ext", "content-type": "user", "other-config": {}}),
        "pbd": by_uuid({"uuid": "0000aaaa-0000-4000-8000-000000000021", "host-uuid": HOST,
                        "sr-uuid": STORAGE, "device-config": {"device": "/dev/sda3"},
                        "currently-attached": "true"}),
        "pool": by_uuid({"uuid": POOL, "name-label": "", "default-SR": STORAGE,
                         "other-config": {}}),
        "host": by_uuid({"uuid": HOST, "name-label": "xcp1", "enabled": "true"}),
    }  # fmt: skip

    @command("xe")
    def xe(self, argv: list[str], stdin: bytes) -> str:
        """Carry out one command of XAPI's."""
        del stdin
        if not self.state["up"]:
            raise Refused("Error: Connection refused (calling connect )")
        # The client sends its words as lines, and the server reads lines.
        lines = [line.removesuffix("\r") for line in "\n".join(argv).split("\n")]
        name, words = lines[0], lines[1:]
        if "=" in name:
            raise self._syntax("Syntax error", "")
        params = [self._param(word) for word in words]
        return self._printed(self._done(name, params), dict(params))

    def _printed(self, result: list[Any] | str, params: dict[str, str]) -> str:
        if isinstance(result, str):
            return f"{result}\n" if result or params.get("minimal") == "true" else ""
        if params.get("minimal") == "true":
            first = [next(iter(record.values()), "") for record in result]
            plain = [each[1].replace("\\", "\\\\").replace(",", "\\,") for each in first]
            return ",".join(plain) + "\n"
        return "".join(_record(list(record.values())) + "\n\n" for record in result)

    @staticmethod
    def _param(word: str) -> tuple[str, str]:
        if word.startswith("--"):
            return word[2:], "true"
        assert not word.startswith("-"), f"a switch: {word!r}"
        key, _, value = word.partition("=")
        return key, value

    @staticmethod
    def _syntax(what: str, text: str) -> Refused:
        return Refused(f"{what}: {text}\nFor usage run: 'xe help'\n")

    def _done(self, name: str, params: list[tuple[str, str]]) -> Any:
        if name in TABLE:
            required, optional = TABLE[name]
            self._check(name, params, required, optional)
            return getattr(self, f"_{name.replace('-', '_')}")(dict(params))
        for prefix, (what, default) in LISTS.items():
            if name == f"{prefix}-list":
                return self._list(what, default, params)
            if name == f"{prefix}-param-get":
                self._check(name, params, ("uuid", "param-name"), ("param-key",))
                return self._get(what, dict(params))
            if name == f"{prefix}-param-remove":
                self._check(name, params, ("uuid", "param-name", "param-key"), ())
                return self._remove(what, dict(params))
            if name == f"{prefix}-param-set":
                return self._set(what, params)
        raise self._syntax("Unknown command", name)

    def _check(
        self,
        name: str,
        params: list[tuple[str, str]],
        required: tuple[str, ...],
        optional: tuple[str, ...],
    ) -> None:
        given = [key for key, _ in params]
        for key in required:
            if key not in given:
                raise self._syntax("Required parameter not found", key)
        for key in given:
            known = {*required, *optional, *STANDARD}
            stem = f"{key.partition(':')[0]}:"
            assert key in known or (":" in key and stem in known), (
                f"{name} has no parameter {key!r}"
            )

    # Objects ------------------------------------------------------------------------------------

    def _new(self, what: str, record: dict[str, Any]) -> str:
        self.state["serial"] += 1
        uuid = f"{self.state['serial']:08x}-1111-4000-8000-000000000000"
        self.state[what][uuid] = record | {"uuid": uuid}
        return uuid

    def _one(self, what: str, uuid: str) -> dict[str, Any]:
        found: dict[str, Any] | None = self.state[what].get(uuid)
        if found is None:
            raise self._error("UUID_INVALID", CLASSES[what], uuid)
        return found

    def _vm(self, params: dict[str, str]) -> dict[str, Any]:
        """Return the VM that ``uuid=`` selects (do_vm_op)."""
        assert "uuid" in params, "a selection of VMs by anything but uuid"
        vm: dict[str, Any] | None = self.state["vm"].get(params["uuid"])
        if vm is None or vm["is-a-template"] == "true":
            raise Refused("Error: No matching VMs found")
        return vm

    def _error(self, code: str, *values: str) -> Refused:
        text, names = ERRORS[code]
        told = [f"{name}: {self._named(value)}" for name, value in zip(names, values, strict=True)]
        return Refused("\n".join([text, *told]))

    def _named(self, value: str) -> str:
        for what in FIELDS:
            if value in self.state[what]:
                label = self.state[what][value].get("name-label")
                return f"{value} ({label})" if label is not None else value
        return value

    def _in(self, vm: dict[str, Any], *states: str) -> None:
        if vm["power-state"] not in states:
            raise self._error(
                "VM_BAD_POWER_STATE", vm["uuid"], ", ".join(states), vm["power-state"]
            )

    def _value(self, what: str, record: dict[str, Any], field: str) -> Any:
        if (what, field) == ("vdi", "vbd-uuids"):
            plugs = self.state["vbd"].values()
            return [vbd["uuid"] for vbd in plugs if vbd["vdi-uuid"] == record["uuid"]]
        if (what, field) == ("vm", "dom-id"):
            # Of its domain, which is there while it runs.
            known = [*self.state["vm"]].index(record["uuid"])
            return str(known) if record["power-state"] in {"running", "paused"} else "-1"
        return record[field]

    # Lists --------------------------------------------------------------------------------------

    def _list(
        self, what: str, default: dict[str, str], params: list[tuple[str, str]]
    ) -> list[dict[str, tuple[str, str]]]:
        fields = FIELDS[what]
        filters = [
            *default.items(),
            *((key, value) for key, value in params if key not in {"params", *STANDARD}),
        ]
        found = list(self.state[what].values())
        for key, value in filters:
            if found:
                found = [each for each in found if self._matches(what, each, key, value)]
        wanted = dict(params).get("params", "uuid").split(",")
        for field in wanted:
            assert field in fields, f"the stub has no field {field!r} of {what}"
        return [
            {
                field: (f"{field} ({mark})", _shown(self._value(what, each, field)))
                for field, mark in fields.items()
                if field in wanted
            }
            for each in found
        ]

    def _matches(self, what: str, record: dict[str, Any], key: str, value: str) -> bool:
        field, colon, inner = key.partition(":")
        if field not in FIELDS[what]:
            raise Refused(f"Error: Unknown field '{key}'")
        has = self._value(what, record, field)
        if colon:
            return bool(has.get(inner) == value)
        return _shown(has) == value or (field == "MAC" and has.lower() == value.lower())

    def _get(self, what: str, params: dict[str, str]) -> str:
        record = self._one(what, params["uuid"])
        field = params["param-name"]
        if field not in FIELDS[what]:
            raise Refused(f"Missing parameter\n{field}")
        value = self._value(what, record, field)
        if "param-key" in params:
            if params["param-key"] not in value:
                raise Refused(f"Error: Key {params['param-key']} not found in map")
            return str(value[params["param-key"]])
        return _shown(value)

    def _remove(self, what: str, params: dict[str, str]) -> str:
        """Take a key out of a map, or nothing where it is not there (cli_operations.ml, gen_param_remove)."""
        record = self._one(what, params["uuid"])
        if FIELDS[what].get(params["param-name"]) != "MRW":
            raise Refused("Error: Cannot remove from parameters of this kind")
        record[params["param-name"]].pop(params["param-key"], None)
        return ""

    def _set(self, what: str, params: list[tuple[str, str]]) -> str:
        if "uuid" not in dict(params):
            raise self._syntax("Required parameter not found", "uuid")
        record = self._one(what, dict(params)["uuid"])
        for key, value in params:
            if key in {"uuid", *STANDARD}:
                continue
            field, colon, inner = key.partition(":")
            mark = FIELDS[what].get(field)
            if mark is None:
                raise Refused(f"Error: Unknown field '{key}'", half_way=True)
            if colon and mark == "MRW":
                record[field][inner] = value
            elif mark == "MRW":
                text = f"Field '{key}' is a map or set. use the 'name:key=value' syntax."
                raise Refused(f"Error: {text}", half_way=True)
            elif mark != " RW":
                raise Refused(f"Error: Field '{key}' is read-only.", half_way=True)
            elif field.startswith("VCPUs"):
                self._set_vcpus(record, field, value)
            else:
                record[field] = value
        return ""

    def _set_vcpus(self, vm: dict[str, Any], field: str, value: str) -> None:
        self._in(vm, "halted")
        now = {key: int(vm[key]) for key in ("VCPUs-max", "VCPUs-at-startup")}
        now[field] = int(value)
        if not 0 < now["VCPUs-at-startup"] <= now["VCPUs-max"]:
            rule = "VCPU values must satisfy: 0 < VCPUs_at_startup <= VCPUs_max"
            no = self._error("INVALID_VALUE", rule, value)
            no.half_way = True
            raise no
        vm[field] = value

    # Guests -------------------------------------------------------------------------------------

    def _vm_install(self, params: dict[str, str]) -> str:
        assert "sr-uuid" not in params, "a copy, not a clone"
        found = [
            vm
            for vm in self.state["vm"].values()
            if vm["is-a-template"] == "true"
            and params.get("template") in {vm["uuid"], vm["name-label"]}
        ]
        if not found:
            raise Refused("Error: No templates matched")
        if len(found) > 1:
            raise Refused("Error: More than one matching template found")
        return self._copy(found[0], params["new-name-label"], about="Installed via xe CLI")

    def _copy(self, vm: dict[str, Any], label: str, *, about: str = "", of: str = "") -> str:
        other = {k: v for k, v in vm["other-config"].items() if k != "default_template"}
        if not of:
            other["mac_seed"] = f"seed-{self.state['serial']}"
        if vm["is-a-template"] == "true":
            other["base_template_name"] = vm["name-label"]
        uuid = self._new(
            "vm",
            vm
            | {
                "name-label": label,
                "name-description": about or vm["name-description"],
                "is-a-template": "true" if of else "false",
                "is-a-snapshot": "true" if of else "false",
                "snapshot-of": of or NONE,
                "power-state": "halted",
                "other-config": other,
                "platform": dict(vm["platform"]),
                "HVM-boot-params": dict(vm["HVM-boot-params"]),
            },
        )
        for vbd in list(self.state["vbd"].values()):
            if vbd["vm-uuid"] == vm["uuid"]:
                vdi = vbd["vdi-uuid"]
                if vbd["type"] == "Disk":
                    vdi = self._clone(self._one("vdi", vdi), snapshot=bool(of))
                self._new("vbd", vbd | {"vm-uuid": uuid, "vdi-uuid": vdi,
                                        "currently-attached": "false"})  # fmt: skip
        for vif in list(self.state["vif"].values()):
            if vif["vm-uuid"] == vm["uuid"]:
                mac = vif["MAC"] if of else f"02:00:00:00:00:{self.state['serial'] % 256:02x}"
                self._new("vif", vif | {"vm-uuid": uuid, "MAC": mac, "currently-attached": "false"})
        return uuid

    def _vm_clone(self, params: dict[str, str]) -> str:
        vm = self._vm(params)
        self._in(vm, "halted")
        return self._copy(vm, params["new-name-label"])

    def _vm_snapshot(self, params: dict[str, str]) -> str:
        vm = self._vm(params)
        return self._copy(vm, params["new-name-label"], of=vm["uuid"])

    def _snapshot_destroy(self, params: dict[str, str]) -> str:
        uuid = params.get("snapshot-uuid") or params.get("uuid")
        if uuid is None:
            raise Refused("Error: Required parameter not found: snapshot-uuid or uuid.")
        snapshot = self._one("vm", uuid)
        if snapshot["is-a-snapshot"] != "true":
            text = "This operation can only be performed on a VM snapshot."
            raise Refused(f"Error: {text} {uuid} is not a VM snapshot.")
        return self._vm_destroy({"uuid": uuid})

    def _vm_start(self, params: dict[str, str]) -> str:
        vm = self._vm(params)
        self._in(vm, "halted")
        if not self.state["hvm"]:
            raise self._error("VM_HVM_REQUIRED", vm["uuid"])
        used = sum(
            int(each["memory-static-max"])
            for each in self.state["vm"].values()
            if each["power-state"] in {"running", "paused"} and each["is-control-domain"] == "false"
        )
        if used + int(vm["memory-static-max"]) > self.state["free"]:
            no = self._error("NO_HOSTS_AVAILABLE")
            no.out = (
                "There are no suitable hosts to start this VM on.\nThe following table provides "
                "per-host reasons for why the VM could not be started:\n\n"
                "xcp1    : Cannot start here [Not enough free memory]\n\n\n"
            )
            raise no
        self._attach(vm, "running")
        return ""

    def _attach(self, vm: dict[str, Any], state: str) -> None:
        vm["power-state"] = state
        for what in ("vbd", "vif"):
            for each in self.state[what].values():
                if each["vm-uuid"] == vm["uuid"]:
                    each["currently-attached"] = (
                        "true" if state in {"running", "paused"} else "false"
                    )

    def _vm_shutdown(self, params: dict[str, str]) -> str:
        vm = self._vm(params)
        if params.get("force") == "true":
            self._in(vm, "running", "suspended", "paused")
        else:
            self._in(vm, "running")
            if vm["uuid"] not in self.state["reacts"]:
                raise self._error("VM_LACKS_FEATURE_SHUTDOWN", vm["uuid"])
        self._attach(vm, "halted")
        return ""

    def _move(self, params: dict[str, str], before: str, after: str) -> str:
        vm = self._vm(params)
        self._in(vm, before)
        self._attach(vm, after)
        return ""

    def _vm_suspend(self, params: dict[str, str]) -> str:
        return self._move(params, "running", "suspended")

    def _vm_resume(self, params: dict[str, str]) -> str:
        return self._move(params, "suspended", "running")

    def _vm_pause(self, params: dict[str, str]) -> str:
        return self._move(params, "running", "paused")

    def _vm_unpause(self, params: dict[str, str]) -> str:
        return self._move(params, "paused", "running")

    def _vm_destroy(self, params: dict[str, str]) -> str:
        vm = self._one("vm", params["uuid"])
        if vm["is-control-domain"] == "true":
            raise self._error(
                "OPERATION_NOT_ALLOWED", "You cannot destroy a control domain via the CLI"
            )
        self._in(vm, "halted")
        for what in ("vbd", "vif"):
            kept = self.state[what].items()
            self.state[what] = {k: v for k, v in kept if v["vm-uuid"] != vm["uuid"]}
        del self.state["vm"][vm["uuid"]]
        for each in self.state["vm"].values():
            if each["snapshot-of"] == vm["uuid"]:
                each["snapshot-of"] = NONE
        return ""

    def _vm_memory_limits_set(self, params: dict[str, str]) -> str:
        vm = self._vm(params)
        self._in(vm, "halted")
        order = ("static-min", "dynamic-min", "dynamic-max", "static-max")
        sizes = [_bytes(params[key]) for key in order]
        if sizes != sorted(sizes):
            rule = (
                "Memory limits must satisfy: static_min <= dynamic_min <= dynamic_max <= static_max"
            )
            raise self._error("MEMORY_CONSTRAINT_VIOLATION", rule)
        for key, size in zip(order, sizes, strict=True):
            vm[f"memory-{key}"] = str(size)
        return ""

    # Drives and NICs ----------------------------------------------------------------------------

    def _vbd_create(self, params: dict[str, str]) -> str:
        vm = self._one("vm", params["vm-uuid"])
        kind = {"cd": "CD", "disk": "Disk"}[params.get("type", "disk").lower()]
        vdi = self._one("vdi", params["vdi-uuid"]) if "vdi-uuid" in params else None
        if kind == "Disk" and vdi is None:
            raise Refused("Error: Empty VBDs can only be made for type=CD")
        mode = params.get("mode", "rw").upper()
        if kind == "CD" and mode != "RO":
            raise self._error("VBD_CDS_MUST_BE_READONLY")
        if vdi is not None:
            self._fits(vdi, kind)
        device = params["device"]
        if not device.isdigit():
            raise self._error("INVALID_DEVICE", device)
        for other in self.state["vbd"].values():
            if (other["vm-uuid"], other["userdevice"]) == (vm["uuid"], device):
                raise self._error("DEVICE_ALREADY_EXISTS", device)
        return self._new(
            "vbd",
            {
                "vm-uuid": vm["uuid"], "vdi-uuid": vdi["uuid"] if vdi else NONE,
                "empty": "false" if vdi else "true", "userdevice": device,
                "bootable": params.get("bootable", "false"), "mode": mode, "type": kind,
                "currently-attached": "false",
            },
        )  # fmt: skip

    def _fits(self, vdi: dict[str, Any], kind: str) -> None:
        content = self._one("sr", vdi["sr-uuid"])["content-type"]
        if kind == "CD" and content != "iso":
            raise self._error("VDI_IS_NOT_ISO", vdi["uuid"], content)

    def _vbd_destroy(self, params: dict[str, str]) -> str:
        vbd = self._one("vbd", params["uuid"])
        if vbd["currently-attached"] == "true":
            reason = f"VBD '{vbd['uuid']}' still attached to '{vbd['vm-uuid']}'"
            raise self._error("OPERATION_NOT_ALLOWED", reason)
        del self.state["vbd"][vbd["uuid"]]
        return ""

    def _vbd_insert(self, params: dict[str, str]) -> str:
        vbd = self._one("vbd", params["uuid"])
        vdi = self._one("vdi", params["vdi-uuid"])
        if vbd["empty"] != "true":
            raise self._error("VBD_NOT_EMPTY", vbd["uuid"])
        self._fits(vdi, "CD")
        vbd |= {"vdi-uuid": vdi["uuid"], "empty": "false"}
        return ""

    def _vbd_eject(self, params: dict[str, str]) -> str:
        vbd = self._one("vbd", params["uuid"])
        if vbd["empty"] == "true":
            raise self._error("VBD_IS_EMPTY", vbd["uuid"])
        vbd |= {"vdi-uuid": NONE, "empty": "true"}
        return ""

    def _vif_create(self, params: dict[str, str]) -> str:
        vm = self._one("vm", params["vm-uuid"])
        where = self._one("network", params["network-uuid"])
        device, mac = params["device"], params.get("mac", "random")
        if mac == "random":
            mac = f"02:00:00:00:01:{self.state['serial'] % 256:02x}"
        if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", mac):
            raise self._error("MAC_INVALID", mac)
        if not device.isdigit() or int(device) > 6:
            raise self._error("INVALID_DEVICE", device)
        for other in self.state["vif"].values():
            if (other["vm-uuid"], other["device"]) == (vm["uuid"], device):
                raise self._error("DEVICE_ALREADY_EXISTS", device)
        return self._new(
            "vif",
            {
                "vm-uuid": vm["uuid"], "device": device, "MAC": mac.lower(),
                "currently-attached": "false", "network-uuid": where["uuid"],
            },
        )  # fmt: skip

    def _vif_destroy(self, params: dict[str, str]) -> str:
        vif = self._one("vif", params["uuid"])
        if vif["currently-attached"] == "true":
            reason = "VIF currently attached to a running VM"
            raise self._error("OPERATION_NOT_ALLOWED", reason)
        del self.state["vif"][vif["uuid"]]
        return ""

    # Disks --------------------------------------------------------------------------------------

    def _room(self, size: int) -> None:
        used = sum(
            int(each["virtual-size"])
            for each in self.state["vdi"].values()
            if each["sr-uuid"] == STORAGE
        )
        if used + size > self.state["space"]:
            raise self._error("SR_FULL", str(size), str(self.state["space"] - used))

    def _vdi_create(self, params: dict[str, str]) -> str:
        sr = self._one("sr", params["sr-uuid"])
        size = _rounded(_bytes(params["virtual-size"]))
        self._room(size)
        return self._added(disk("", params["name-label"], sr["uuid"], size))

    def _added(self, record: dict[str, Any]) -> str:
        uuid = self._new("vdi", record)
        if not record["location"]:
            self.state["vdi"][uuid]["location"] = uuid
        return uuid

    def _clone(self, vdi: dict[str, Any], *, snapshot: bool = False) -> str:
        return self._added(
            vdi
            | {
                "location": "",
                "parent": vdi["uuid"],
                "other-config": dict(vdi["other-config"]),
                "is-a-snapshot": "true" if snapshot else "false",
                "snapshot-of": vdi["uuid"] if snapshot else NONE,
            }
        )

    def _vdi_clone(self, params: dict[str, str]) -> str:
        vdi = self._one("vdi", params["uuid"])
        self._unused(vdi, "clone")
        uuid = self._clone(vdi)
        if "new-name-label" in params:
            self.state["vdi"][uuid]["name-label"] = params["new-name-label"]
        return uuid

    def _unused(self, vdi: dict[str, Any], operation: str) -> None:
        for vbd in self.state["vbd"].values():
            if vbd["vdi-uuid"] == vdi["uuid"] and vbd["currently-attached"] == "true":
                raise self._error("VDI_IN_USE", vdi["uuid"], operation)

    def _vdi_resize(self, params: dict[str, str]) -> str:
        vdi = self._one("vdi", params["uuid"])
        self._unused(vdi, "resize")
        size = _rounded(_bytes(params["disk-size"]))
        if size < int(vdi["virtual-size"]):
            raise Refused(
                "Error code: SR_BACKEND_FAILURE_79\nError parameters: , VDI Invalid size "
                f"[opterr=VDI size must be larger than {vdi['virtual-size']}], "
            )
        self._room(size - int(vdi["virtual-size"]))
        vdi["virtual-size"] = str(size)
        return ""

    def _vdi_destroy(self, params: dict[str, str]) -> str:
        vdi = self._one("vdi", params["uuid"])
        self._unused(vdi, "destroy")
        kept = self.state["vbd"].items()
        self.state["vbd"] = {k: v for k, v in kept if v["vdi-uuid"] != vdi["uuid"]}
        del self.state["vdi"][vdi["uuid"]]
        return ""

    def _vdi_import(self, params: dict[str, str]) -> str:
        vdi = self._one("vdi", params["uuid"])
        if params.get("format", "raw") not in {"raw", "vhd"}:
            raise Refused(f"Error: Unknown format {params['format']}")
        file = self.path(params["filename"])
        if not file.is_file():
            raise Refused(f"Operation failed. Error: file '{params['filename']}' does not exist")
        data = file.read_bytes()
        if params.get("format") == "vhd" and not data.startswith(b"conectix"):
            raise Refused("Error code: VDI_IO_ERROR\nError parameters: Device I/O errors")
        if params.get("format", "raw") == "raw" and len(data) > int(vdi["virtual-size"]):
            raise Refused("Error code: VDI_IO_ERROR\nError parameters: Device I/O errors")
        vdi["content"] = f"{params.get('format', 'raw')} {hashlib.sha256(data).hexdigest()}"
        return ""

    # Networks and storage -----------------------------------------------------------------------

    def _network_create(self, params: dict[str, str]) -> str:
        taken = {each["bridge"] for each in self.state["network"].values()}
        bridge = next(f"xapi{n}" for n in range(99) if f"xapi{n}" not in taken)
        about = params.get("name-description", "")
        return self._new("network", network("", params["name-label"], bridge, about))

    def _network_destroy(self, params: dict[str, str]) -> str:
        one = self._one("network", params["uuid"])["uuid"]
        vifs = [each for each in self.state["vif"].values() if each["network-uuid"] == one]
        if busy := [each["uuid"] for each in vifs if each["currently-attached"] == "true"]:
            raise self._error("NETWORK_CONTAINS_VIF", busy[0])
        pifs = [each for each in self.state["pif"].values() if each["network-uuid"] == one]
        if pifs:
            raise self._error("NETWORK_CONTAINS_PIF", pifs[0]["uuid"])
        for vif in vifs:
            del self.state["vif"][vif["uuid"]]
        del self.state["network"][one]
        return ""

    def _sr_create(self, params: dict[str, str]) -> str:
        if params["type"] != "iso":
            raise self._error("SR_UNKNOWN_DRIVER", params["type"])
        config = {k.partition(":")[2]: v for k, v in params.items() if ":" in k}
        assert config.get("legacy_mode") == "true", "a share that is mounted"
        self._folder(config)
        uuid = self._new(
            "sr",
            {
                "name-label": params["name-label"], "name-description": "", "type": "iso",
                "content-type": params.get("content-type", ""), "other-config": {},
            },
        )  # fmt: skip
        self._new(
            "pbd",
            {
                "host-uuid": HOST, "sr-uuid": uuid, "device-config": config,
                "currently-attached": "true",
            },
        )  # fmt: skip
        self._sr_scan({"uuid": uuid})
        return uuid

    def _folder(self, config: dict[str, str]) -> None:
        if "location" not in config:
            raise Refused("Error code: SR_BACKEND_FAILURE_90\nError parameters: , The request is "
                          "missing the location parameter, ")  # fmt: skip
        if not self.path(config["location"]).is_dir():
            raise Refused("Error code: SR_BACKEND_FAILURE_226\nError parameters: , The local ISO SR "
                          "path does not exist, ")  # fmt: skip

    def _pbds(self, sr: str, attached: str = "true") -> list[dict[str, Any]]:
        return [
            each
            for each in self.state["pbd"].values()
            if each["sr-uuid"] == sr and each["currently-attached"] == attached
        ]

    def _sr_scan(self, params: dict[str, str]) -> str:
        sr = self._one("sr", params["uuid"])
        if not (pbds := self._pbds(sr["uuid"])):
            raise self._error("SR_NO_PBDS", sr["uuid"])
        if sr["type"] != "iso":
            return ""
        folder = self.path(pbds[0]["device-config"]["location"])
        files = {
            each.name: each
            for each in folder.iterdir()
            if re.search(r"\.iso$|\.img$", each.name, re.IGNORECASE) and each.is_file()
        }
        known = {}
        for uuid, vdi in list(self.state["vdi"].items()):
            if vdi["sr-uuid"] == sr["uuid"]:
                if vdi["location"] in files:
                    known[vdi["location"]] = vdi
                else:
                    del self.state["vdi"][uuid]
                    for vbd in self.state["vbd"].values():
                        if vbd["vdi-uuid"] == uuid:
                            vbd |= {"vdi-uuid": NONE, "empty": "true"}
        for name, file in files.items():
            size = str(file.stat().st_size)
            if name in known:
                known[name]["virtual-size"] = size
            else:
                self._added(disk("", name, sr["uuid"], int(size), location=name))
        return ""

    def _sr_forget(self, params: dict[str, str]) -> str:
        sr = self._one("sr", params["uuid"])["uuid"]
        if self._pbds(sr):
            raise self._error("SR_HAS_PBD", sr)
        for what in ("pbd", "vdi"):
            kept = self.state[what].items()
            self.state[what] = {k: v for k, v in kept if v["sr-uuid"] != sr}
        del self.state["sr"][sr]
        return ""

    def _pbd_plug(self, params: dict[str, str]) -> str:
        pbd = self._one("pbd", params["uuid"])
        self._folder(pbd["device-config"])
        pbd["currently-attached"] = "true"
        self._sr_scan({"uuid": pbd["sr-uuid"]})
        return ""

    def _pbd_unplug(self, params: dict[str, str]) -> str:
        pbd = self._one("pbd", params["uuid"])
        for vdi in self.state["vdi"].values():
            if vdi["sr-uuid"] == pbd["sr-uuid"]:
                self._unused(vdi, "unplug")
        pbd["currently-attached"] = "false"
        return ""


def _record(fields: list[tuple[str, str]]) -> str:
    """Lay a record out as `multi_line_record` of cli_printer.ml does."""
    width = 4 + max(len(name) for name, _ in fields)
    names = [fields[0][0].ljust(width), *(name.rjust(width) for name, _ in fields[1:])]
    values = [value for _, value in fields]
    return "".join(f"{name}: {value}\n" for name, value in zip(names, values, strict=True))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {each}" for key, each in value.items())
    return "; ".join(value) if isinstance(value, list) else str(value)


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)(B|KiB|MiB|GiB|TiB)?", text)
    if found is None:
        raise Refused(f"Error: Failed to parse parameter '{text}': expecting an integer")
    units = {None: 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
    return int(found[1]) << units[found[2]]


def _rounded(size: int) -> int:
    """Return the size of a VHD: whole blocks of 2 MiB."""
    return -(-size // (2 * MIB)) * 2 * MIB
