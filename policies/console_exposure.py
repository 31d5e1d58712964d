"""console-exposure: whoever reaches a screen from another machine is asked who they are.

A VNC or SPICE screen beyond loopback without password or TLS hands the keyboard of a machine to the
whole network. A password of a libvirt screen only exists in what the stylesheet makes, so that is
judged. The same for serial consoles over TCP, which know no password at all, and for the screens of
guests that a hypervisor's own commands make: a port of that hypervisor is not of its guests alone.
"""

from __future__ import annotations

import shlex
from ipaddress import ip_address
from typing import TYPE_CHECKING

import machines
import qemu_words
from domain_xml import Made, Unjudgeable, domain, shown
from known import UNKNOWN, number, text, value
from pulumi_policy import (
    EnforcementLevel,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
)

if TYPE_CHECKING:
    import xml.etree.ElementTree as ET

SCREENS = {"vnc", "spice"}


def loopback(address: str) -> bool:
    """Return whether only this machine reaches ``address``; empty is libvirt's default, which is."""
    if address in {"", "localhost"}:
        return True
    try:
        return ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def _asks_who_is_there(args: ResourceValidationArgs, report: ReportViolation) -> None:
    if args.resource_type == machines.DOMAIN:
        try:
            said = _libvirt(args)
        except Unjudgeable as why:
            said = [str(why)]
    elif args.resource_type == machines.VSPHERE_VM:
        said = _vsphere(args)
    elif args.resource_type in machines.PROXMOX_VMS:
        said = _qemu(text(args.props, "kvmArguments") or "")
    elif args.resource_type == machines.PROXMOX_GATE:
        said = _qemu(text(args.props, "config", "args") or "")
    elif args.resource_type == machines.REMOTE:
        said = _driven(args)
    else:
        return
    for each in said:
        report(f"{args.name}: {each}", None)


def _libvirt(args: ResourceValidationArgs) -> list[str]:
    made = domain(args.props)
    found = [*_serial(made), *qemu_words.judged(made.commandline(), loopback)]
    if made.settled:
        for screen in made.all("devices/graphics"):
            found += _screen(screen)
    return found


def _screen(screen: ET.Element) -> list[str]:
    kind = screen.get("type", "")
    if kind not in SCREENS or _is_guarded(screen, kind):
        return []
    return [
        f"{kind} listens on {where} without a password"
        for where in _listens(screen)
        if where is not None and not loopback(where)
    ]


def _is_guarded(screen: ET.Element, kind: str) -> bool:
    password = shown(screen.get("passwd"))
    return (
        password is None
        or bool(password)
        or (kind == "spice" and screen.get("defaultMode") == "secure")
    )


def _listens(screen: ET.Element) -> list[str | None]:
    """Return where a screen listens: an address, a network's name, None for not known yet."""
    found = [shown(screen.get("listen"))] if screen.get("listen") else []
    for listener in screen.findall("listen"):
        kind = shown(listener.get("type"))
        if kind is None or kind in {"socket", "none"}:
            continue
        if kind == "network":
            found.append(f"network {listener.get('network') or 'of nobody knows where'}")
        else:
            found.append(shown(listener.get("address")))
    return found


def _serial(made: Made) -> list[str]:
    found = []
    for part in ("console", "serial"):
        for port in made.all(f"devices/{part}"):
            if port.get("type") not in {"tcp", "udp"}:
                continue
            for source in port.findall("source"):
                host = shown(source.get("host"))
                if source.get("mode") == "bind" and host is not None and not loopback(host):
                    found.append(f"a {part} listens on {host}, and has no password at all")
    return found


def _qemu(commandline: str) -> list[str]:
    """Judge what is given to QEMU itself, past Proxmox VE, which splits it as a shell does."""
    try:
        words = shlex.split(commandline)
    except ValueError:
        return ["QEMU is given words whose quotes don't end"]
    return list(qemu_words.judged(words, loopback))


def _vsphere(args: ResourceValidationArgs) -> list[str]:
    prefix = "RemoteDisplay.vnc."
    if str(value(args.props, "extraConfig", f"{prefix}enabled")).upper() != "TRUE":
        return []
    password = value(args.props, "extraConfig", f"{prefix}password")
    address = text(args.props, "extraConfig", f"{prefix}ip")
    if password is UNKNOWN or password or address is None or (address and loopback(address)):
        return []
    return [f"VNC listens on {address or 'every address'} without a password"]


def _driven(args: ResourceValidationArgs) -> list[str]:
    kind, address, password = (
        text(args.props, "wanted", "console", key) for key in ("type", "listen", "password")
    )
    port = number(args.props, "wanted", "console", "port")
    if not kind or kind == "none" or not port or address is None or password is None or password:
        return []
    return [] if loopback(address) else [f"{kind} listens on {address} without a password"]


CONSOLE_EXPOSURE = ResourceValidationPolicy(
    name="console-exposure",
    description="A screen that other machines can reach asks for a password.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.CRITICAL,
    remediation_steps="Listen on 127.0.0.1 and come by SSH, or give the screen a password "
    "(libvirt: attribute passwd by xml.xslt) or TLS.",
    validate=_asks_who_is_there,
)
