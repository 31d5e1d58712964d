"""LXC containers, by the lxc tools of a nested KVM host (R9: a container shares the host's kernel).

The lxc tools and not libvirt's LXC driver, which upstream no longer develops. Addresses are set by
LXC itself, so that a container needs no DHCP client. What the lab decides stands in one file,
``nestlab.conf`` beside the container's own configuration, which includes it.
"""

from __future__ import annotations

import hashlib
import shlex
from typing import TYPE_CHECKING

from components.remote.census import census, changed
from components.remote.driver import must
from components.remote.media import send
from components.remote.virsh import Virsh
from components.remote.waiting import Seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.remote.driver import Props
    from components.remote.shell import Shell

HOME = "/var/lib/lxc"
"""Where LXC keeps containers (lxc.conf(5), ``lxc.lxcpath``)."""
LIBVIRT = "qemu:///system"
"""The libvirt of the same host, which shares its census."""
STOP_S = 10
"""How long a container may take to end by itself, seconds."""
UPLOAD_S = 900.0


class LxcDriver:
    """See `components.remote.driver.Driver`."""

    replaced_by = ("name", "template", "archive", "sha256")

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        if any("\n" in word for word in wanted["command"]):
            return "a word of its command holds a line break, which LXC's settings can't: use ; instead"
        # Its archive is compared with its sum before anything is made, and again when it has arrived.
        return ""

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        name = wanted["name"]
        script = (
            f"cat {HOME}/{name}/nestlab.conf 2>/dev/null || exit 3\n"
            f"printf '\\n--\\n'; lxc-info -n {name} -sH\n"
        )
        done = shell.run(["sh", "-c", script])
        if not done.ok:
            return Seen(ok=False, text=f"container {name} is not there any more")
        settings, _, state = done.out.partition("\n--\n")
        if settings.strip() != configuration(wanted).strip():
            return Seen(ok=False, text=f"container {name} is not set up as the stack says")
        state = state.strip() or "in an unknown state"
        return Seen(ok=state == "RUNNING", text=f"container {name} is {state.lower()}")

    def glance(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.glance`."""
        name = wanted["name"]
        taken = census(Virsh(shell, LIBVIRT))
        found = taken.containers.get(name)
        if found is None:
            return Seen(ok=False, text=f"container {name} is not there any more")
        if found.settings.strip() != configuration(wanted).strip():
            return Seen(ok=False, text=f"container {name} is not set up as the stack says")
        if not found.runs:
            return Seen(ok=False, text=f"container {name} is stopped")
        if wanted["bridge"] and plug(name) not in taken.ports:
            # Its network was stopped and started: the bridge that it was plugged into is gone.
            return Seen(ok=False, text=f"container {name} is not plugged into its network")
        return Seen(ok=True, text=f"container {name} is running")

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        changed(Virsh(shell, LIBVIRT))
        name = wanted["name"]
        home = f"{HOME}/{name}"
        if not shell.run(["test", "-e", f"{home}/complete"]).ok:
            # A container without the mark was left half-made by a connection that was cut.
            if shell.run(["test", "-e", home]).ok:
                self.remove(shell, wanted)
            self._make(shell, wanted)
            _write(shell, f"{home}/nestlab.conf", configuration(wanted))
            must(shell, ["touch", f"{home}/complete"])
            state = "STOPPED"
        else:
            state = self._set(shell, wanted)
        if state == "FROZEN":
            must(shell, ["lxc-unfreeze", "-n", name])
        elif state != "RUNNING":
            must(shell, ["lxc-start", "-n", name, "-o", f"{home}/start.log", "-l", "WARN"])
        if state in {"RUNNING", "FROZEN"} and wanted["bridge"]:
            must(shell, ["ip", "link", "set", plug(name), "master", wanted["bridge"], "up"])

    def _set(self, shell: Shell, wanted: Props) -> str:
        """Give a container the settings of the stack, stopping it if they are new; return its state."""
        name, settings = wanted["name"], configuration(wanted)
        file = f"{HOME}/{name}/nestlab.conf"
        if shell.run(["cat", file]).out.strip() != settings.strip():
            _stop(shell, name)
            _write(shell, file, settings)
        return shell.run(["lxc-info", "-n", name, "-sH"]).out.strip()

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        name = wanted["name"]
        # First: what is half gone must not be taken for whole.
        must(shell, ["rm", "-f", f"{HOME}/{name}/complete"])
        _stop(shell, name)
        shell.run(["lxc-destroy", "-n", name, "-f"])
        # What lxc-create did not finish, lxc-destroy does not know.
        must(shell, ["rm", "-rf", "--one-file-system", f"{HOME}/{name}"])

    def _make(self, shell: Shell, wanted: Props) -> None:
        name = wanted["name"]
        home = f"{HOME}/{name}"
        if wanted["archive"]:
            must(shell, ["mkdir", "-p", f"{home}/rootfs"])
            # Sent and unpacked in two steps: a template may be larger than this machine's memory.
            there = f"{home}/template"
            medium = {"path": wanted["archive"], "sha256": wanted["sha256"]}
            send(shell, medium, there, mode=0o600, timeout_s=UPLOAD_S)
            unpack = ["tar", "--numeric-owner", "-xpf", there, "-C", f"{home}/rootfs"]
            must(shell, unpack, timeout_s=UPLOAD_S)
            must(shell, ["rm", "-f", there])
            settings = (
                "lxc.include = /usr/share/lxc/config/common.conf\n"
                "lxc.arch = linux64\n"
                f"lxc.uts.name = {name}\nlxc.rootfs.path = dir:{home}/rootfs\n"
                f"lxc.include = {home}/nestlab.conf\n"
            )
            _write(shell, f"{home}/config", settings)
        else:
            must(shell, ["lxc-create", "-n", name, "-t", wanted["template"]])
            # The template's own network settings and LXC's defaults would come first.
            edit = ["-e", "/^ *lxc\\.net/d", "-e", f"$a lxc.include = {home}/nestlab.conf"]
            must(shell, ["sed", "-i", *edit, f"{home}/config"])


def configuration(wanted: Props) -> str:
    """Return what the lab decides of a container, in LXC's format (lxc.container.conf(5))."""
    lines = [
        f"lxc.start.auto = {int(wanted['autostart'])}",
        f"lxc.cgroup2.memory.max = {wanted['memory_mib']}M",
        f"lxc.cgroup2.cpu.max = {wanted['cores'] * 100000} 100000",
    ]
    if wanted["command"]:
        lines += _init(wanted["command"])
    if wanted["bridge"]:
        lines += [
            "lxc.net.0.type = veth",
            f"lxc.net.0.veth.pair = {plug(wanted['name'])}",
            f"lxc.net.0.link = {wanted['bridge']}",
            f"lxc.net.0.hwaddr = {wanted['mac']}",
            "lxc.net.0.flags = up",
        ]
        if wanted["address"]:
            lines += [
                f"lxc.net.0.ipv4.address = {wanted['address']}",
                f"lxc.net.0.ipv4.gateway = {wanted['gateway']}",
            ]
    else:
        lines.append("lxc.net.0.type = empty")
    return "\n".join(lines) + "\n"


def plug(name: str) -> str:
    """Return the device on the host that is the other end of the container's NIC."""
    return f"nlc{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def _init(command: Sequence[str]) -> list[str]:
    """Return what makes ``command`` the container's init.

    LXC cuts it at every blank and knows no quotes (split_init_cmd of lxccontainer.c), so words with
    blanks are handed to a shell in the environment.
    """
    if all(word and not any(letter.isspace() for letter in word) for word in command):
        return [f"lxc.init.cmd = {' '.join(command)}"]
    return [
        f"lxc.environment = NESTLAB_COMMAND=exec {shlex.join(command)}",
        'lxc.init.cmd = /bin/sh -c eval${IFS}"$NESTLAB_COMMAND"',
    ]


def _stop(shell: Shell, name: str) -> None:
    if shell.run(["lxc-info", "-n", name, "-sH"]).out.strip() in {"RUNNING", "FROZEN", "STARTING"}:
        shell.run(["lxc-stop", "-n", name, "-t", str(STOP_S)], timeout_s=STOP_S + 30.0)


def _write(shell: Shell, path: str, text: str) -> None:
    must(shell, ["tee", path], stdin=text.encode())


DRIVERS = {"container": LxcDriver()}
