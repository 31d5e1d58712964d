"""What the appliance does for each kind beyond its stub. Light modules only."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

State = dict[str, Any]


def _as_it_is(state: State, *_: Any) -> State:
    return state


def _nothing(_: State) -> None:
    pass


class Kind(NamedTuple):
    """One product."""

    module: str
    stub: str
    first: Callable[[State, State], State] = _as_it_is
    """Makes the state of a new machine."""
    after_power_off: Callable[[State], State] = _as_it_is
    """Makes the state of a machine that was switched off the hard way."""
    start: Callable[[State], None] = _nothing
    """Starts what it has beside its commands."""


def _device(path: str) -> None:
    if not Path(path).exists():
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(10, 250))


def _virtualbox(_: State) -> None:
    _device("/dev/vboxdrv")
    finished = Path("/var/lib/cloud/instance/boot-finished")
    finished.parent.mkdir(parents=True, exist_ok=True)
    finished.touch()


def _virtualbox_off(state: State) -> State:
    for guest in state["vms"].values():
        if guest["VMState"] == "running":
            guest["VMState"], guest["session"] = "aborted", 0
    return state


def _cloud_init(_: State) -> None:
    _device("/dev/vmmon")
    program = Path("/usr/bin/cloud-init")
    program.write_text("#!/bin/sh\necho 'status: done'\n")
    program.chmod(0o755)


def _workstation_first(state: State, _: State) -> State:
    from tests.support.stubs.workstation import DEFAULTS  # noqa: PLC0415 - one kind's alone

    for name, text in DEFAULTS.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    return state


def _workstation_off(state: State) -> State:
    return state | {"running": {}, "connected": {}, "up": []}


def _xapi(_: State) -> None:
    cookie = Path("/var/run/xapi_init_complete.cookie")
    cookie.parent.mkdir(parents=True, exist_ok=True)
    cookie.touch()


def _xenserver_off(state: State) -> State:
    for guest in state["vm"].values():
        if guest["power-state"] == "running" and guest.get("is-control-domain") != "true":
            guest["power-state"] = "halted"
    return state


def _esxi_first(state: State, config: State) -> State:
    from tests.support.stubs.esxi import Esxi  # noqa: PLC0415 - one kind's alone

    Esxi.furnish(Path("/vmfs/volumes"))
    # %firstboot: what it writes below /etc/ssh is gone at the next boot, and local.sh is kept.
    local = Path("/etc/rc.local.d/local.sh")
    local.parent.mkdir(parents=True, exist_ok=True)
    local.write_text("#!/bin/sh\nexit 0\n")
    for name, text in (
        ("/sbin/auto-backup.sh", "exit 0"),
        ("/etc/init.d/SSH", "exit 0"),
        ("/usr/lib/vmware/openssh/bin/sshd", "exit 0"),
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"#!/bin/sh\n{text}\n")
        Path(name).chmod(0o755)
    script = config["firstboot"].replace("\nreboot\n", "\n")
    subprocess.run(["busybox", "sh"], input=script, text=True, check=True)
    return state


def _esxi_off(state: State) -> State:
    for guest in state["vms"].values():
        guest["power"] = "Powered off"
    return state


def _esxi(config: State) -> None:
    """Boot: a fresh /etc/ssh, then local.sh; beside it the SDK, as govmomi's simulator has it."""
    shutil.rmtree("/etc/ssh/keys-root", ignore_errors=True)
    for key in Path("/etc/ssh").glob("ssh_host_*"):
        key.unlink()
    subprocess.run(
        ["busybox", "sh", "/etc/rc.local.d/local.sh"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    Path("/etc/ssh/ssh_host_ecdsa_key").chmod(0o600)
    from tests.support.appliance import sdk  # noqa: PLC0415 - one kind's alone

    sdk.serve(config["password"])


def _proxmox_first(state: State, config: State) -> State:
    for name, text in (
        ("blkid", '[ "$1" = -L ] && exec busybox findfs "LABEL=$2"'),
        ("udevadm", "exit 0"),
        ("systemctl", "exit 0"),
    ):
        # What its packages would bring, as far as the executable for the first boot uses it.
        Path(f"/usr/sbin/{name}").write_text(f"#!/bin/sh\n{text}\n")
        Path(f"/usr/sbin/{name}").chmod(0o755)
    Path(config["hook"][0]).with_name("pending-first-boot-setup").touch()
    return state | {"release": config["release"], "node": config["name"]}


def _proxmox(config: State) -> None:
    """Boot: what waits for the first one, as proxmox-first-boot's unit has it; then the API."""
    executable, ordering = config["hook"]
    pending = Path(executable).with_name("pending-first-boot-setup")
    if pending.exists():
        subprocess.run([executable, ordering], check=True)
        pending.unlink()
    own = "/var/lib/appliance"
    words = [f"{own}/config.json", f"{own}/machine"]
    subprocess.Popen([sys.executable, "-m", "tests.support.appliance.proxmox", *words])


def _hyperv_first(state: State, config: State) -> State:
    address, _, prefix = config["cidr"].partition("/")
    state["addresses"] = [{"IPAddress": address, "PrefixLength": int(prefix), "InterfaceIndex": 4}]
    state["ssh"] = f"{config['gateway']} 50000 {address} 22"
    return state


def _hyperv_off(state: State) -> State:
    for guest in state["vms"].values():
        guest["State"] = "Off"
    return state


KINDS = {
    "virtualbox": Kind(
        "virtualbox", "VirtualBox", after_power_off=_virtualbox_off, start=_virtualbox
    ),
    "workstation": Kind(
        "workstation",
        "Workstation",
        first=_workstation_first,
        after_power_off=_workstation_off,
        start=_cloud_init,
    ),
    "xenserver": Kind("xenserver", "XenServer", after_power_off=_xenserver_off, start=_xapi),
    "esxi": Kind("esxi", "Esxi", first=_esxi_first, after_power_off=_esxi_off, start=_esxi),
    "proxmox": Kind("proxmox", "Proxmox", first=_proxmox_first, start=_proxmox),
    "hyperv": Kind("hyperv", "Hyperv", first=_hyperv_first, after_power_off=_hyperv_off),
}
