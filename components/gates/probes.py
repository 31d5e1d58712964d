"""When a machine counts as up: one function for each way of asking.

A probe asks the thing itself, not a sign of it: a lease shows that an installer runs, a ping that a
kernel does, and neither that a hypervisor takes orders. A *glance* is the cheap version for diffs.
"""

from __future__ import annotations

import socket
from typing import Any

from components.remote.census import census, foresee
from components.remote.shell import CONNECT_S, LocalShell, fresh_shell, shell_of
from components.remote.virsh import Virsh, VirshError
from components.remote.waiting import Seen

Props = dict[str, Any]
Probe = "Callable[[Props, Virsh], Seen]"

SSH_PORT = 22
INNER = "qemu:///system"
"""A nested libvirt's URI, seen from its own host."""
FORWARD = "nestlab-forward-{port}"
"""systemd unit on a nested host that carries a port of it to a host one layer deeper."""


def running(props: Props, virsh: Virsh) -> Seen:
    """The domain runs, and nothing more is asked."""
    del props, virsh
    return Seen(ok=True, text="running")


def lease(props: Props, virsh: Virsh) -> Seen:
    """It took its address by DHCP."""
    probe = props["probe"]
    if isinstance(virsh.shell, LocalShell):
        address = virsh.lease(probe["network"], probe["mac"])
    else:
        address = census(virsh).leases.get(probe["mac"])
    if address is None:
        return Seen(ok=False, text=f"no DHCP lease for {probe['mac']} on {probe['network']} yet")
    return Seen(ok=True, text=f"leased {address}")


def tcp(props: Props, virsh: Virsh) -> Seen:
    """It takes a connection, asked from the place it lives on."""
    probe = props["probe"]
    host, port = probe["host"], int(probe["port"])
    if virsh.shell.connects(host, port):
        return Seen(ok=True, text=f"{host}:{port} answers")
    return Seen(ok=False, text=f"{host}:{port} takes no connection yet")


def libvirt(props: Props, virsh: Virsh) -> Seen:
    """A nested libvirt answers over SSH, as the machine whose host key was planned."""
    _forward(props, virsh)
    inner = Virsh(fresh_shell(props["reach"]), INNER)
    try:
        version = inner.must("version", timeout_s=30)
    except VirshError as not_yet:
        return Seen(ok=False, text=str(not_yet))
    lines = [line for line in version.splitlines() if line.startswith("Running")]
    return Seen(ok=True, text=lines[0] if lines else "libvirt answers")


def libvirt_glance(props: Props, virsh: Virsh) -> Seen:
    """Its SSH server takes connections: a login would cost an emulated machine half a second."""
    del virsh
    reach = props["reach"]
    host, port = reach["host"], int(reach["port"])
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as silent:
        text = silent.strerror or "no answer"
        return Seen(ok=False, text=f"{host}:{port} does not answer ({text})")
    # The gates inside ask next, while the engine's own connection is being made.
    foresee(Virsh(shell_of(reach), INNER))
    return Seen(ok=True, text=f"{host}:{port} answers")


def _forward(props: Props, virsh: Virsh) -> None:
    """Carry a port of the nested host above to this one, when there is one above.

    A network behind a nested host can't be entered from outside; systemd's own proxy on that host
    carries connections in, without touching libvirt's firewall rules.
    """
    forward = props["probe"].get("forward")
    if not forward:
        return
    port = int(forward["port"])
    unit = FORWARD.format(port=port)
    if virsh.shell.run(["systemctl", "is-active", f"{unit}.socket"]).ok:
        return
    virsh.shell.run(
        [
            "systemd-run",
            "--collect",
            f"--unit={unit}",
            f"--socket-property=ListenStream={port}",
            "/lib/systemd/systemd-socket-proxyd",
            f"{forward['host']}:{SSH_PORT}",
        ]
    )


PROBES: dict[str, Any] = {
    "none": running,
    "lease": lease,
    "tcp": tcp,
    "libvirt": libvirt,
}
"""What `MachineGate` takes as ``probe["kind"]``; a kind of hypervisor adds its own."""

GLANCES: dict[str, Any] = {
    # A lease expires while its guest sleeps, so on a diff a running domain is enough.
    "lease": running,
    "libvirt": libvirt_glance,
}


def probe(props: Props, virsh: Virsh) -> Seen:
    """Ask fully; see `PROBES`."""
    seen: Seen = PROBES[props["probe"]["kind"]](props, virsh)
    return seen


def glance(props: Props, virsh: Virsh) -> Seen:
    """Ask cheaply; see `GLANCES`."""
    kind = props["probe"]["kind"]
    seen: Seen = GLANCES.get(kind, PROBES[kind])(props, virsh)
    return seen
