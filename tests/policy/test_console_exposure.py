"""console-exposure: a failure here leaves a machine's keyboard to the whole network."""

from __future__ import annotations

from typing import Any

import pytest
from pulumi_policy.secret import Secret

from components.kinds.libvirt.domain_xml import DomainProfile
from components.kinds.libvirt.domain_xml import domain as styled
from tests.policy.judging import (
    ANYWHERE,
    CONTAINER,
    PROXMOX,
    UNKNOWN,
    VSPHERE,
    Res,
    attribute,
    judge,
    lab,
    machine,
    sheet,
)

OPEN = {"type": "vnc", "listenType": "address", "listenAddress": ANYWHERE}
GATE = "pulumi-python:dynamic/nestlab:PveGuestGate"
AT = "/domain/devices/graphics"
LISTENS = f'<xsl:template match="{AT}"><graphics type="{{}}">{{}}</graphics></xsl:template>'

UNSEEN = (
    f'<xsl:template match="{AT}"><xsl:choose><xsl:when test="{{}}"><graphics type="vnc">'
    '<listen type="address" address="0.0.0.0"/></graphics></xsl:when>'
    '<xsl:otherwise><xsl:copy-of select="."/></xsl:otherwise></xsl:choose></xsl:template>'
)
"""Opens the screen where a test holds that this machine's own document does not."""


def screen(kind: str, inner: str) -> dict[str, str]:
    return sheet(LISTENS.format(kind, inner))


def guarded(password: str) -> dict[str, str]:
    return {"xslt": styled(DomainProfile(uuid="u", console_password=password))}


def qemu(*words: str) -> dict[str, str]:
    namespace = "http://libvirt.org/schemas/domain/qemu/1.0"
    given = "".join(f'<q:arg value="{word}"/>' for word in words)
    return sheet(
        f'<xsl:template match="/domain"><xsl:copy><xsl:apply-templates select="@*|node()"/>'
        f'<q:commandline xmlns:q="{namespace}">{given}</q:commandline></xsl:copy></xsl:template>'
    )


def proxmox(arguments: str) -> Res:
    return Res(PROXMOX, "vm", {"kvmArguments": arguments})


def driven(
    listen: str = ANYWHERE, port: float = 5901, password: Any = "", kind: str = "vnc"
) -> Res:
    """A guest that its hypervisor's own commands make."""
    console = {"type": kind, "listen": listen, "port": port, "password": password}
    return Res(CONTAINER, "vm", {"driver": "workstation.guest", "wanted": {"console": console}})


def later(arguments: str) -> Res:
    return Res(GATE, "vm-gate", {"config": {"args": arguments}})


def vsphere(**extra: Any) -> Res:
    return Res(
        VSPHERE, "vm", {"extraConfig": {f"RemoteDisplay.vnc.{k}": v for k, v in extra.items()}}
    )


@pytest.mark.parametrize(
    "stack",
    [
        lab(machine(graphics=OPEN)),
        lab(machine(graphics={**OPEN, "type": "spice", "listenAddress": "::"})),
        lab(machine(graphics={**OPEN, "listenAddress": "192.0.2.7"})),
        lab(machine(graphics={**OPEN, "listenAddress": "host.example"})),
        lab(machine(graphics={"type": "vnc", "listenType": "network"})),
        lab(machine(graphics=OPEN, xml=guarded(""))),
        lab(machine(graphics=OPEN, xml=sheet(attribute(f"{AT}/@type", "type", "spice")))),
        lab(machine(xml=screen("vnc", '<listen type="address" address="0.0.0.0"/>'))),
        lab(
            machine(
                xml=screen(
                    "spice",
                    '<listen type="address" address="127.0.0.1"/>'
                    '<listen type="address" address="10.0.0.1"/>',
                )
            )
        ),
        lab(machine(consoles=[{"type": "tcp", "sourceHost": ANYWHERE, "sourceService": "23"}])),
        lab(machine(xml=qemu("-vnc", "0.0.0.0:5"))),
        lab(machine(xml=qemu("-vnc", ":5"))),
        lab(machine(xml={"xslt": "<not a stylesheet"})),
        (proxmox("-vnc 0.0.0.0:101"),),
        (proxmox("-spice port=5930,disable-ticketing=on"),),
        (vsphere(enabled="TRUE", port="5901"),),
        (driven(),),
        (driven("192.0.2.7", kind="rdp"),),
        (driven("::"),),
        (later("-vnc 0.0.0.0:101"),),
        lab(machine(xml=qemu("-display", "vnc=0.0.0.0:77"))),
        lab(machine(xml=qemu("--vnc", "0.0.0.0:5"))),
        lab(machine(xml=qemu("-vnc", "0.0.0.0:5,password=off"))),
        lab(machine(xml=qemu("-vnc", "0.0.0.0:5,nopassword"))),
        lab(machine(xml=qemu("-vnc", "0.0.0.0:5,sasl=off,tls-creds="))),
        lab(machine(xml=qemu("-vnc", "192.0.2.1:5,reverse=on"))),
        lab(machine(xml=qemu("-spice", "port=5930,password-secret=s,disable-ticketing=on"))),
        lab(machine(xml=qemu("-monitor", "tcp:0.0.0.0:4444,server=on,wait=off"))),
        lab(machine(xml=qemu("-qmp", "tcp:0.0.0.0:4444,server=on"))),
        lab(machine(xml=qemu("-chardev", "socket,id=c,host=0.0.0.0,port=1,server=on"))),
        lab(machine(xml=qemu("-gdb", "tcp::1234"))),
        lab(machine(xml=qemu("-s"))),
        lab(machine(xml=qemu("-netdev", "user,id=n,hostfwd=tcp::22-:22"))),
        lab(machine(xml=qemu("-drive", "file=/etc/shadow,format=raw"))),
        lab(machine(xml=qemu("-fw_cfg", "name=opt/a,file=/etc/shadow"))),
        lab(machine(xml=qemu("-incoming", "tcp:0.0.0.0:1"))),
        lab(machine(xml=qemu("/etc/shadow"))),
        (proxmox("'-vnc' '0.0.0.0:101,password=off'"),),
        (proxmox("-monitor tcp:0.0.0.0:4444"),),
        (proxmox("-vnc '0.0.0.0:1"),),
        lab(machine(xml=sheet(UNSEEN.format("not(/domain/os/type/@machine='pc')")))),
        lab(machine(xml=sheet(UNSEEN.format("/domain/os/type[contains(@machine, 'i440fx')]")))),
        lab(
            machine(
                xml=sheet(
                    UNSEEN.format("not(/domain/devices/emulator='/usr/bin/qemu-system-x86_64')")
                )
            )
        ),
        lab(machine(xml=sheet(UNSEEN.format("/domain/clock")))),
        lab(machine(xml=sheet(UNSEEN.format("count(/domain/*) > 12")))),
        lab(machine(xml=sheet(UNSEEN.format("not(/domain/devices/rng)")))),
    ],
)
def test_a_screen_for_everybody_is_refused(stack: tuple[Res, ...]) -> None:
    assert set(judge(*stack)) == {"console-exposure"}


@pytest.mark.parametrize(
    "stack",
    [
        lab(machine()),
        lab(machine(graphics=None)),
        lab(machine(graphics={**OPEN, "listenAddress": "::1"})),
        lab(machine(graphics={**OPEN, "listenAddress": "127.8.8.8"})),
        lab(machine(graphics={"type": "vnc", "listenType": "socket"})),
        lab(machine(graphics={"type": "vnc", "listenType": "none"})),
        lab(machine(graphics=OPEN, xml=sheet(f'<xsl:template match="{AT}"/>'))),
        lab(machine(consoles=[{"type": "pty"}, {"type": "tcp", "sourceHost": "127.0.0.1"}])),
        lab(machine(xml=qemu("-vnc", "127.0.0.1:5"))),
        lab(machine(xml=qemu("-vnc", "0.0.0.0:5,password=on"))),
        lab(machine(xml=qemu("-display", "none", "-nodefaults", "-cpu", "host"))),
        lab(machine(xml=qemu("-display", "vnc=127.0.0.1:7"))),
        lab(machine(xml=qemu("-vnc", "0.0.0.0:5,password"))),
        lab(machine(xml=qemu("-fw_cfg", "name=opt/a,string=b,,file=c"))),
        (proxmox("-vnc unix:/run/vm.sock"),),
        (proxmox("-vnc 0.0.0.0:101,tls-creds=t0"),),
        (vsphere(enabled="FALSE"),),
        (vsphere(enabled="TRUE", ip="127.0.0.1"),),
        (driven("127.0.0.1"),),
        (driven(port=0),),
        (driven(kind="none"),),
        (driven(password=Secret("abcd2345")),),
        (later("-vnc unix:/run/vm.sock"),),
    ],
)
def test_a_screen_for_some_passes(stack: tuple[Res, ...]) -> None:
    assert judge(*stack) == {}


@pytest.mark.parametrize(
    "stack",
    [
        lab(machine(graphics=OPEN, xml={"xslt": UNKNOWN})),
        lab(machine(graphics=UNKNOWN)),
        lab(machine(graphics={**OPEN, "listenAddress": UNKNOWN})),
        (vsphere(enabled="TRUE", password=UNKNOWN),),
        (driven(password=UNKNOWN),),
        (driven(UNKNOWN),),
    ],
)
def test_what_is_not_known_yet_is_not_judged(stack: tuple[Res, ...]) -> None:
    assert judge(*stack) == {}


def test_a_password_that_only_the_stylesheet_gives_is_seen() -> None:
    sheets = {"xslt": Secret(guarded("abcd2345")["xslt"])}
    assert judge(*lab(machine(graphics=OPEN, xml=sheets))) == {}


def test_the_message_says_where_it_listens() -> None:
    (said,) = judge(*lab(machine(graphics=OPEN)))["console-exposure"]
    assert said == "vm: vnc listens on 0.0.0.0 without a password"


def test_without_xsltproc_a_stylesheet_is_not_taken_on_trust(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    xml = sheet("<!-- never seen before -->")
    said = judge(*lab(machine(kind="kvm", xml=xml), machine("b", xml=xml), machine("c")))
    assert set(said) == {"console-exposure", "nested-cpu", "sizes"}
    assert all("install xsltproc" in each for each in said["console-exposure"])
    assert [each.partition(":")[0] for each in said["console-exposure"]] == ["vm", "b"]
