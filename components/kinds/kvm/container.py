"""LXC containers, by the lxc tools of a nested KVM host (R9: a container shares the host's kernel).

The lxc tools and not libvirt's LXC driver, which upstream no longer develops. Addresses are set by
LXC itself, so that a container needs no DHCP client. What the lab decides stands in one file,
``nestlab.conf`` beside the container's own configuration, which includes it. A file beside the
container's folder says from before its first command that it is the lab's.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import shlex
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.libvirt.census import census, changed
from components.kinds.libvirt.virsh import Virsh
from components.reach.driver import Driver, foreign, must, refusal
from components.reach.media import send
from components.reach.orders import ContainerOrder
from components.reach.waiting import Seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.reach.shell import Shell

HOME = "/var/lib/lxc"
"""Where LXC keeps containers (lxc.conf(5), ``lxc.lxcpath``)."""
NICS = "/sys/class/net"
LIBVIRT = "qemu:///system"
"""The libvirt of the same host, which shares its census."""
STOP_S = 10
"""How long a container may take to end by itself, seconds."""
UPLOAD_S = 900.0
NOT_RUNNING = 2
"""lxc-stop's exit code where there was nothing to stop (lxc-stop(1))."""
RUNS = frozenset({"RUNNING", "FROZEN", "STARTING"})
LAST_WITH_BROADCAST = 30
"""Length of the longest prefix whose network has a broadcast address (RFC 3021)."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""A name that is a folder, a host's and a word of a shell as it stands."""


class LxcDriver(Driver[ContainerOrder]):
    """See `components.reach.driver.Driver`."""

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "template", "archive", "sha256")

    @override
    def problem(self, wanted: ContainerOrder) -> str:
        if not NAME.fullmatch(wanted.name):
            return (
                f"a container can't be called {wanted.name!r}: letters, digits, - _ . only, a letter "
                "or digit first, 63 at most"
            )
        if any("\n" in word for word in wanted.command):
            return "a word of its command holds a line break, which LXC's settings can't: use ; instead"
        if any(not _writable(word) for word in wanted.command):
            return "a word of its command holds what no file of settings can: NUL, or half a letter"
        for what in ("bridge", "mac", "address", "gateway"):
            if not re.fullmatch(r"[A-Za-z0-9.:/_-]*", str(getattr(wanted, what)), re.ASCII):
                return f"its {what} {getattr(wanted, what)!r} can't be written in LXC's settings"
        # Its archive is compared with its sum before anything is made, and again when it has arrived.
        return ""

    @override
    def look(self, shell: Shell, wanted: ContainerOrder) -> Seen:
        name = wanted.name
        script = (
            f"cat {HOME}/{name}/nestlab.conf 2>/dev/null || exit 3\n"
            f"printf '\\n--\\n'; lxc-info -n {name} -sH\n"
            f"[ -e {NICS}/{plug(name)}/master ] && echo plugged\nexit 0\n"
        )
        done = shell.run(["sh", "-c", script])
        if not done.ok:
            return Seen(ok=False, text=f"container {name} is not there any more")
        settings, _, told = done.out.partition("\n--\n")
        if settings.strip() != configuration(wanted).strip():
            return Seen(ok=False, text=f"container {name} is not set up as the stack says")
        state, *plugged = told.split() or ["in an unknown state"]
        if state == "RUNNING" and wanted.bridge and not plugged:
            return Seen(ok=False, text=f"container {name} is not plugged into its network")
        return Seen(ok=state == "RUNNING", text=f"container {name} is {state.lower()}")

    @override
    def glance(self, shell: Shell, wanted: ContainerOrder) -> Seen:
        name = wanted.name
        taken = census(Virsh(shell, LIBVIRT))
        found = taken.containers.get(name)
        if found is None:
            return Seen(ok=False, text=f"container {name} is not there any more")
        if found.settings.strip() != configuration(wanted).strip():
            return Seen(ok=False, text=f"container {name} is not set up as the stack says")
        if not found.runs:
            return Seen(ok=False, text=f"container {name} is stopped")
        if wanted.bridge and plug(name) not in taken.ports:
            # Its network was stopped and started: the bridge that it was plugged into is gone.
            return Seen(ok=False, text=f"container {name} is not plugged into its network")
        return Seen(ok=True, text=f"container {name} is running")

    @override
    def ensure(self, shell: Shell, wanted: ContainerOrder) -> None:
        changed(Virsh(shell, LIBVIRT))
        name = wanted.name
        home = f"{HOME}/{name}"
        if not shell.run(["test", "-e", f"{home}/complete"]).ok:
            # What is not complete was left half-made by a connection that was cut, if it is the lab's.
            if shell.run(["test", "-e", home]).ok:
                if not self._ours(shell, name):
                    remedy = (
                        f"rename it in the stack, or remove it there with `lxc-destroy -n {name}`"
                    )
                    raise foreign(shell, f"a container {name}", remedy)
                self.remove(shell, wanted)
            must(shell, ["touch", _mark(name)])
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
        if state in {"RUNNING", "FROZEN"} and wanted.bridge:
            must(shell, ["ip", "link", "set", plug(name), "master", wanted.bridge, "up"])

    def _set(self, shell: Shell, wanted: ContainerOrder) -> str:
        """Give a container the settings of the stack, stopping it if they are new; return its state."""
        name, settings = wanted.name, configuration(wanted)
        file = f"{HOME}/{name}/nestlab.conf"
        if shell.run(["cat", file]).out.strip() != settings.strip():
            # One that runs on by other settings than are written here would look as it should.
            if _state(shell, name) in RUNS:
                _stop(shell, name)
            _write(shell, file, settings)
        return _state(shell, name)

    @override
    def remove(self, shell: Shell, wanted: ContainerOrder) -> None:
        name = wanted.name
        if not self._ours(shell, name):
            return
        # Before all else: what is half gone must neither be taken for whole, nor for somebody else's.
        must(shell, ["touch", _mark(name)])
        must(shell, ["rm", "-f", f"{HOME}/{name}/complete"])
        # What is half made LXC may not be able to tell anything of.
        if shell.run(_asked(name)).out.strip() in RUNS:
            _stop(shell, name)
        shell.run(["lxc-destroy", "-n", name, "-f"])
        # What lxc-create did not finish, lxc-destroy does not know.
        must(shell, ["rm", "-rf", "--one-file-system", f"{HOME}/{name}"])
        must(shell, ["rm", "-f", _mark(name)])

    def _ours(self, shell: Shell, name: str) -> bool:
        """Whether it is the lab's: by its mark, or, made by an earlier nestlab, by what is in it."""
        files = (_mark(name), f"{HOME}/{name}/complete", f"{HOME}/{name}/nestlab.conf")
        return any(shell.run(["test", "-e", file]).ok for file in files)

    def _make(self, shell: Shell, wanted: ContainerOrder) -> None:
        name = wanted.name
        home = f"{HOME}/{name}"
        if wanted.archive:
            must(shell, ["mkdir", "-p", f"{home}/rootfs"])
            # Sent and unpacked in two steps: a template may be larger than this machine's memory.
            there = f"{home}/template"
            send(shell, wanted.archive, wanted.sha256, there, mode=0o600, timeout_s=UPLOAD_S)
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
            must(shell, ["lxc-create", "-n", name, "-t", wanted.template])
            # The template's own network settings and LXC's defaults would come first.
            edit = ["-e", "/^ *lxc\\.net/d", "-e", f"$a lxc.include = {home}/nestlab.conf"]
            must(shell, ["sed", "-i", *edit, f"{home}/config"])


def configuration(wanted: ContainerOrder) -> str:
    """Return what the lab decides of a container, in LXC's format (lxc.container.conf(5))."""
    lines = [
        f"lxc.start.auto = {int(wanted.autostart)}",
        f"lxc.cgroup2.memory.max = {wanted.memory_mib}M",
        f"lxc.cgroup2.cpu.max = {wanted.cores * 100000} 100000",
    ]
    if wanted.command:
        lines += _init(wanted.command)
    if wanted.bridge:
        lines += [
            "lxc.net.0.type = veth",
            f"lxc.net.0.veth.pair = {plug(wanted.name)}",
            f"lxc.net.0.link = {wanted.bridge}",
            f"lxc.net.0.hwaddr = {wanted.mac}",
            "lxc.net.0.flags = up",
        ]
        if wanted.address:
            lines += [
                f"lxc.net.0.ipv4.address = {_with_broadcast(wanted.address)}",
                f"lxc.net.0.ipv4.gateway = {wanted.gateway}",
            ]
    else:
        lines.append("lxc.net.0.type = empty")
    return "\n".join(lines) + "\n"


def _with_broadcast(address: str) -> str:
    """Return the address with its network's broadcast behind it, which LXC 5 sets to 0.0.0.N otherwise.

    lxc.container.conf(5), ``lxc.net.[i].ipv4.address``: "optionally followed by the broadcast address".
    """
    try:
        network = ipaddress.IPv4Interface(address).network
    except ValueError:
        return address
    if network.prefixlen > LAST_WITH_BROADCAST:
        return address
    return f"{address} {network.broadcast_address}"


def _mark(name: str) -> str:
    """Return the file that says that a container is the lab's; LXC passes hidden ones over."""
    return f"{HOME}/.{name}.nestlab"


def _writable(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


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


def _asked(name: str) -> list[str]:
    return ["lxc-info", "-n", name, "-sH"]


def _state(shell: Shell, name: str) -> str:
    return must(shell, _asked(name)).strip()


def _stop(shell: Shell, name: str) -> None:
    argv = ["lxc-stop", "-n", name, "-t", str(STOP_S)]
    done = shell.run(argv, timeout_s=STOP_S + 30.0)
    if done.code not in {0, NOT_RUNNING}:
        raise refusal(shell, argv, done.said)


def _write(shell: Shell, path: str, text: str) -> None:
    must(shell, ["tee", path], stdin=text.encode())


DRIVER = LxcDriver()
