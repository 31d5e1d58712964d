"""The XML that libvirt is really given: pulumi-libvirt's own, after the resource's stylesheet.

A stylesheet can change whatever the inputs say, so rules judge what comes out of it. It is run as
the provider runs it, by xsltproc on this machine; where that is missing, a resource with a
stylesheet can't be judged, nor made, and rules say so instead of letting it pass.
"""

from __future__ import annotations

import copy
import functools
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

from known import UNKNOWN, items, number, text, value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

HIDDEN = "nestlab-not-known-yet"
"""Stands in the XML for what is not known yet."""
MEMORY_MIB = 512
"""The provider's own default."""
ARCH, EMULATOR = "x86_64", "/usr/bin/qemu-system-x86_64"
"""What the provider asks the host for when they are not given; a stylesheet may look for them."""
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
OTHERS = {
    "devices": ("controller", "memballoon", "input", "sound"),
    "features": ("vmport",),
    "forward": ("nat",),
}
"""What libvirt or another version of the provider adds, by where."""
FILLED_IN = frozenset(tag for tags in OTHERS.values() for tag in tags)
BARE = {
    ".": ("features",),
    "devices": ("emulator", "channel", "rng"),
}
"""What no input says, by where, and another version of the provider may leave out."""
JUDGED = (
    "name",
    "description",
    "metadata",
    "memory",
    "vcpu",
    "cpu",
    "forward",
    "bridge",
    "ip",
    "portgroup",
    "devices/graphics",
    "devices/interface",
    "devices/console",
    "devices/serial",
    "devices/disk",
)
VARIANTS = 3
"""Documents that a stylesheet is run on."""
_DECLARATION = re.compile(r"<\?xml[^>]{0,200}\?>")
TIMEOUT_S = 20
"""Far beyond what any stylesheet needs; one that recurses for ever ends here."""
REMEMBERED = 256
"""Domains that are kept as they were made, for the next question about the same inputs."""
UNITS = {"b": 1, "bytes": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {
    unit: 1 << power
    for units, power in (
        (("k", "kib"), 10),
        (("m", "mib"), 20),
        (("g", "gib"), 30),
        (("t", "tib"), 40),
    )
    for unit in units
}
"""Bytes by libvirt's names of units of memory, in lower case."""


class Unjudgeable(Exception):
    """The stylesheet could not be run; says why, and never what is in it."""


class Made:
    """A domain or network as libvirt is given it."""

    def __init__(self, root: ET.Element, *, settled: bool) -> None:
        self.root = root
        self.settled = settled
        """Whether the stylesheet is known: if not, these are the inputs alone."""

    def get(self, path: str, attribute: str = "") -> str | None:
        """Return text or attribute of the first element at ``path``, None when not known yet."""
        element = self.root if path == "." else self.root.find(path)
        if element is None:
            return ""
        return shown(element.get(attribute) if attribute else element.text)

    def all(self, path: str) -> list[ET.Element]:
        """Return every element at ``path``."""
        return self.root.findall(path)

    def memory_mib(self) -> float | None:
        """Return the domain's memory, None when it is not known yet."""
        element = self.root.find("memory")
        size = shown(element.text) if element is not None else ""
        if element is None or not size or not size.strip().isdigit():
            return None
        return int(size) * UNITS.get(element.get("unit", "KiB").lower(), 1 << 10) / (1 << 20)

    def commandline(self) -> list[str]:
        """Return the words that libvirt passes to QEMU as they are."""
        found = self.root.iter(f"{{{QEMU}}}arg")
        return [argument.get("value", "") for argument in found]


_MADE: dict[int, tuple[Any, Made]] = {}
"""By the identity of inputs, which are kept with it so that it stays theirs."""


def shown(found: str | None) -> str | None:
    """Return ``found``, empty for nothing, None when it is not known yet."""
    return None if found and HIDDEN in found else found or ""


def domain(props: Any) -> Made:
    """Return the domain that pulumi-libvirt makes of ``props``.

    Raises:
        Unjudgeable: its stylesheet can't be run.
    """
    before = _MADE.get(id(props))
    if before is not None and before[0] is props:
        return before[1]
    made = _styled(props, _domain(props))
    if len(_MADE) >= REMEMBERED:
        _MADE.clear()
    _MADE[id(props)] = props, made
    return made


def network(props: Any) -> Made:
    """Return the network that pulumi-libvirt makes of ``props``.

    Raises:
        Unjudgeable: its stylesheet can't be run.
    """
    return _styled(props, _network(props))


def _styled(props: Any, root: ET.Element) -> Made:
    sheet = text(props, "xml", "xslt")
    if sheet is None:
        return Made(root, settled=False)
    if not sheet.strip():
        return Made(root, settled=True)
    return Made(_agreed(tuple(_variants(root)), sheet.strip()), settled=True)


@functools.lru_cache(maxsize=512)
def _agreed(documents: tuple[str, ...], sheet: str) -> ET.Element:
    """Return what ``sheet`` makes of the first of ``documents``.

    Raises:
        Unjudgeable: it makes something else of another one, or can't be run.
    """
    made, *others = _read(_transformed(documents, sheet))
    judged = _judged(made)
    if any(_judged(other) != judged for other in others):
        raise Unjudgeable(
            "its xml.xslt makes one thing or another of it by what the host or libvirt fills in: match "
            "on what the program gives"
        )
    return made


def _read(made: str) -> list[ET.Element]:
    """Return the documents that were ``made`` one behind the other, the first one first."""
    try:
        # What came out of the program's own stylesheet; libxml2 has expanded its entities.
        found = list(ET.fromstring(f"<all>{_DECLARATION.sub('', made)}</all>"))  # noqa: S314
    except ET.ParseError:
        found = []
    if len(found) != VARIANTS:
        raise Unjudgeable("what its xml.xslt makes is no XML")
    return found


def _variants(root: ET.Element) -> Iterator[str]:
    """Yield the document as it is known here, and as other hosts and versions would fill it.

    The provider asks its host for machine and emulator, and writes and leaves out by its version what no
    input says. A stylesheet that asks for any of it may do something else there than here.
    """
    yield ET.tostring(root, encoding="unicode")
    filled = copy.deepcopy(root)
    for tag in ("title", "uuid", "clock", "on_poweroff", "on_crash", "seclabel", "mtu"):
        filled.append(ET.Element(tag))
    for element, tag in _each(filled, OTHERS):
        ET.SubElement(element, tag)
    for element in filled.iterfind("os/type"):
        element.set("machine", _canonical(element.get("machine", "")))
    for element in filled.iterfind("devices/emulator"):
        element.text = "/usr/libexec/qemu-kvm"
    yield ET.tostring(filled, encoding="unicode")
    bare = copy.deepcopy(root)
    for parent, tag in _each(bare, BARE):
        _drop(parent, tag)
    yield ET.tostring(bare, encoding="unicode")


def _form(element: ET.Element, without: frozenset[str] = frozenset()) -> tuple[object, ...]:
    """Return what two elements that say the same have the same of; ``without``: tags in it that don't count."""
    inside = [
        (_form(each), (each.tail or "").strip()) for each in element if each.tag not in without
    ]
    text = (element.text or "").strip()
    return (element.tag, sorted(element.attrib.items()), text, inside)


def _each(
    root: ET.Element, where: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[ET.Element, str]]:
    for path, tags in where.items():
        for parent in root.findall(path):
            yield from ((parent, tag) for tag in tags)


def _drop(parent: ET.Element, tag: str) -> None:
    for element in parent.findall(tag):
        parent.remove(element)


def _canonical(machine: str) -> str:
    """Return the name under which libvirt knows ``machine``, one of its versions."""
    return {"pc": "pc-i440fx-8.2", "q35": "pc-q35-8.2"}.get(machine, machine)


def _judged(made: ET.Element) -> list[object]:
    """Return the parts of a document that any rule looks at, but for what was filled in."""
    found: list[object] = [sorted(made.attrib.items())]
    found += [_form(each, FILLED_IN) for path in JUDGED for each in made.findall(path)]
    found += [each.get("value", "") for each in made.iter(f"{{{QEMU}}}arg")]
    return found


@functools.lru_cache(maxsize=512)
def _transformed(documents: tuple[str, ...], sheet: str) -> str:
    """Return ``documents`` after ``sheet``, one behind the other, once for all rules that ask."""
    with tempfile.TemporaryDirectory() as folder:
        style = Path(folder, "style.xsl")
        # The folder is its owner's alone: a stylesheet may hold a screen's password.
        style.write_text(sheet)
        sources = [Path(folder, f"{number}.xml") for number in range(len(documents))]
        for source, document in zip(sources, documents, strict=True):
            source.write_text(document)
        words = ["xsltproc", "--nomkdir", "--nonet", "--nowrite", str(style), *map(str, sources)]
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except FileNotFoundError:
            raise Unjudgeable(
                "its xml.xslt can't be run here: install xsltproc, which the provider needs too"
            ) from None
        except subprocess.TimeoutExpired:
            raise Unjudgeable(f"its xml.xslt did not end within {TIMEOUT_S} s") from None
    if done.returncode:
        raise Unjudgeable(f"xsltproc refuses its xml.xslt (status {done.returncode})")
    return done.stdout


def _said(props: Any, *path: str | int) -> str:
    found = text(props, *path)
    return HIDDEN if found is None else found


def _add(parent: ET.Element, tag: str, content: str = "", **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, {k: v for k, v in attributes.items() if v})
    element.text = content or None
    return element


def _whole(found: float | None) -> str:
    return HIDDEN if found is None else str(int(found))


def _entries(props: Any, name: str) -> Iterable[Any]:
    return (one for one in items(props, name) or () if one is not UNKNOWN)


def _domain(props: Any) -> ET.Element:
    root = ET.Element("domain", {"type": _said(props, "type") or "kvm"})
    _add(root, "name", _said(props, "name"))
    if described := _said(props, "description"):
        _add(root, "description", described)
    _add(root, "memory", _whole(number(props, "memory", default=MEMORY_MIB)), unit="MiB")
    _add(root, "vcpu", _whole(number(props, "vcpu", default=1)))
    system = _add(root, "os")
    _add(
        system,
        "type",
        "hvm",
        arch=_said(props, "arch") or ARCH,
        machine=_said(props, "machine") or "pc",
    )
    for part in ("kernel", "initrd"):
        if given := _said(props, part):
            _add(system, part, given)
    features = _add(root, "features")
    for feature in ("pae", "acpi", "apic"):
        _add(features, feature)
    _add(root, "cpu", mode=_said(props, "cpu", "mode"))
    devices = _add(root, "devices")
    _add(devices, "emulator", _said(props, "emulator") or EMULATOR)
    _disks(props, devices)
    for nic in _entries(props, "networkInterfaces"):
        _nic(nic, devices)
    for console in _entries(props, "consoles"):
        _console(console, devices)
    channel = _add(devices, "channel", type="unix")
    _add(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    _graphics(props, devices)
    video = _add(devices, "video")
    _add(video, "model", type=_said(props, "video", "type") or "cirrus")
    entropy = _add(devices, "rng", model="virtio")
    _add(entropy, "backend", "/dev/urandom", model="random")
    return root


def _disks(props: Any, devices: ET.Element) -> None:
    isos = 0
    for index, disk in enumerate(_entries(props, "disks")):
        file, url = _said(disk, "file"), _said(disk, "url")
        iso = (file or url).endswith(".iso")
        scsi = value(disk, "scsi") is True
        source = {"file": "file", "url": "network"}.get("file" if file else "url" if url else "")
        element = _add(devices, "disk", type=source or "volume", device="cdrom" if iso else "disk")
        if url and not file:
            scheme, _, rest = url.partition("://") if "://" in url else ("", "", url)
            host, _, name = rest.partition("/")
            origin = _add(element, "source", protocol=scheme, name=f"/{name}")
            _add(origin, "host", name=host)
        else:
            _add(element, "source", file=file, volume="" if file else _said(disk, "volumeId"))
        _add(element, "driver", name="qemu", type="raw" if iso else "qcow2")
        letter = chr(ord("a") + (isos if iso else index) % 26)
        prefix, bus = ("hd", "ide") if iso else ("sd", "scsi") if scsi else ("vd", "virtio")
        _add(element, "target", dev=prefix + letter, bus=bus)
        isos += iso


def _nic(nic: Any, devices: ET.Element) -> None:
    direct = {"macvtap": "bridge", "vepa": "vepa", "private": "private"}
    direct["passthrough"] = "passthrough"
    network_name = _said(nic, "networkName") or _said(nic, "networkId")
    bridge = _said(nic, "bridge")
    device, mode = next(
        ((_said(nic, key), mode) for key, mode in direct.items() if _said(nic, key)), ("", "")
    )
    if network_name or not (bridge or device):
        element = _add(devices, "interface", type="network")
        _add(element, "source", network=network_name)
    elif bridge:
        element = _add(devices, "interface", type="bridge")
        _add(element, "source", bridge=bridge)
    else:
        element = _add(devices, "interface", type="direct")
        _add(element, "source", dev=device, mode=mode)
    _add(element, "mac", address=_said(nic, "mac"))
    _add(element, "model", type="virtio")


def _console(console: Any, devices: ET.Element) -> None:
    kind = _said(console, "type")
    element = _add(devices, "console", type=kind)
    if kind == "tcp":
        host = _said(console, "sourceHost") or "127.0.0.1"
        service = _said(console, "sourceService")
        _add(element, "source", mode="bind", host=host, service=service)
    _add(element, "target", type=_said(console, "targetType"), port=_said(console, "targetPort"))


def _graphics(props: Any, devices: ET.Element) -> None:
    given = value(props, "graphics")
    if given is None:
        _add(devices, "graphics", type="spice", autoport="yes")
        return
    kind = _said(props, "graphics", "type")
    automatic = "no" if value(props, "graphics", "autoport") is False else "yes"
    listen = _said(props, "graphics", "listenType")
    address = _said(props, "graphics", "listenAddress")
    websocket = number(props, "graphics", "websocket")
    element = _add(
        devices,
        "graphics",
        type=kind,
        autoport=automatic,
        websocket=str(int(websocket)) if websocket else "",
    )
    _add(element, "listen", type=listen, address=address if listen == "address" else "")


def _network(props: Any) -> ET.Element:
    root = ET.Element("network")
    _add(root, "name", _said(props, "name"))
    mode = _said(props, "mode") or "nat"
    if mode != "none":
        _add(root, "forward", mode=mode)
    bridge = _said(props, "bridge")
    if bridge:
        _add(root, "bridge", name=bridge)
    for subnet in _entries(props, "addresses"):
        address, _, prefix = str(subnet).partition("/")
        element = _add(root, "ip", address=address, prefix=prefix)
        if value(props, "dhcp", "enabled") is True:
            _add(element, "dhcp")
    return root
