"""The effects that a stylesheet can have, each as a mutant that says which inputs would do the same.

Templates are put behind those of the sound stack and come before them, so that all else stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pulumi_policy.secret import Secret

from tests.policy.judging import ANYWHERE, attribute
from tests.policy.oracle import Styled, clear, limits, short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.policy.judging import Res
    from tests.policy.oracle import Oracle

    Made = tuple[Res, str, Styled, Mapping[str, Any]]

URL = "https://media.example/a.iso"
ADDRESSES = [ANYWHERE, "::", "192.0.2.7", "host.example", "::1", "127.0.0.2"]
MODELS = ["vmxnet3", "e1000e", "e1000", "virtio", "rtl8139"]
NIC = "/domain/devices/interface[1]"
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
ALL = '<xsl:apply-templates select="@*|node()"/>'
WORDS = ("-vnc 0.0.0.0:5", "-vnc 127.0.0.1:5", "-vnc 0.0.0.0:5,password=on", "-cpu qemu64")


@dataclass(frozen=True)
class Effect:
    """Templates, and what they do to a domain: in its inputs' words, and beyond them."""

    what: str
    template: str
    means: Mapping[str, Any] = field(default_factory=dict)
    beyond: Mapping[str, Any] = field(default_factory=dict)


def sheets(each: Res, oracle: Oracle) -> Iterator[Made]:
    """Yield a domain or network with each effect: changed, what it is, what its sheet does, inputs."""
    props, styled = clear(each.props), oracle.styled.get(each.urn, Styled())
    for effect in _network() if short(each) == "Network" else _domain(each, oracle):
        changed, means = _with(each, effect.template), {**props, **effect.means}
        yield changed, f"{each.name} {effect.what} by XSLT", replace(styled, **effect.beyond), means
    broken = {**each.props, "xml": Secret({"xslt": "<not a stylesheet"})}
    yield replace(each, props=broken), f"{each.name} no XSLT", replace(styled, broken=True), props
    bare = {key: value for key, value in each.props.items() if key != "xml"}
    yield replace(each, props=bare), f"{each.name} without its XSLT", Styled(), bare


def _with(each: Res, template: str) -> Res:
    sheet = clear(each.props)["xml"]["xslt"].replace("</xsl:stylesheet>", "")
    strong = template.replace("<xsl:template ", '<xsl:template priority="9" ')
    made = {"xslt": f"{sheet}{strong}</xsl:stylesheet>"}
    marked = isinstance(each.props["xml"], Secret)
    return replace(each, props={**each.props, "xml": Secret(made) if marked else made})


def _at(match: str, inside: str) -> str:
    return f'<xsl:template match="{match}">{inside}</xsl:template>'


def _domain(each: Res, oracle: Oracle) -> Iterator[Effect]:
    props, kind = clear(each.props), oracle.hypervisor(each)
    yield from _cpus(props, model_counts=kind == "xen" and props["type"] == "qemu")
    yield from _sizes(limits(kind or ""))
    yield from _nics(props["networkInterfaces"], oracle.styled[each.urn].nics[1:])
    yield from _screens()
    yield from _qemu()
    inside = (
        '<disk type="network" device="cdrom"><source protocol="https" name="/a.iso">'
        '<host name="media.example"/></source></disk>'
    )
    disks = [{"url": URL}, *props["disks"][1:]]
    yield Effect("disk by https", _at("/domain/devices/disk[1]", inside), {"disks": disks})


def _cpus(props: Mapping[str, Any], *, model_counts: bool) -> Iterator[Effect]:
    for mode in ("custom", "host-model", "maximum", "host-passthrough"):
        for model in ("", "Nehalem", "qemu64"):
            inside = f"<model>{model}</model>" if model else ""
            yield Effect(
                f"cpu {mode} {model}",
                _at("/domain/cpu", f'<cpu mode="{mode}">{inside}</cpu>'),
                {"cpu": {"mode": mode}},
                {"model": model, "disabled": frozenset()},
            )
    for off in ("vmx", "svm"), ("vmx",), ("svm",):
        if not model_counts:
            inside = "".join(f'<feature policy="disable" name="{name}"/>' for name in off)
            inside = f'<cpu mode="{props["cpu"]["mode"]}">{inside}</cpu>'
            beyond = {"disabled": frozenset(off)}
            yield Effect(f"no {', no '.join(off)}", _at("/domain/cpu", inside), beyond=beyond)
    for kind in ("qemu", "kvm"):
        yield Effect(f"type {kind}", attribute("/domain/@type", "type", kind), {"type": kind})


def _sizes(least: tuple[int, int, int]) -> Iterator[Effect]:
    for size in (least[1] - 1, least[1], 10 * least[1]):
        inside = f'<memory unit="MiB">{size}</memory>'
        yield Effect(f"memory {size}", _at("/domain/memory", inside), {"memory": size})
    for count in (least[0] - 1, least[0]):
        yield Effect(
            f"cores {count}", _at("/domain/vcpu", f"<vcpu>{count}</vcpu>"), {"vcpu": count}
        )


def _nics(nics: list[Any], models: tuple[str, ...]) -> Iterator[Effect]:
    others = nics[1:]
    for attributes, means in (
        ('type="bridge"><source bridge="br0"', {"bridge": "br0"}),
        ('type="direct"><source mode="bridge" dev="eno1"', {"macvtap": "eno1"}),
        ('type="network"><source network="theirs"', {"networkName": "theirs"}),
    ):
        inside = f'<interface {attributes}/><model type="vmxnet3"/></interface>'
        on = {"networkInterfaces": [means, *others]}
        yield Effect(f"NIC {means}", _at(NIC, inside), on, {"nics": ("vmxnet3", *models)})
    # Of one on a bridge the same changes nothing.
    theirs = {"networkInterfaces": [{"networkName": "theirs"}, *others]}
    moved = theirs if nics[0].get("networkName") else {}
    yield Effect("NIC on theirs", attribute(f"{NIC}/source/@network", "network", "theirs"), moved)
    for model in MODELS:
        made = attribute(f"{NIC}/model/@type", "type", model)
        yield Effect(f"NIC {model}", made, beyond={"nics": (model, *models)})
    trusts = '<xsl:attribute name="trustGuestRxFilters">yes</xsl:attribute>'
    made = _at(NIC, f"<xsl:copy>{trusts}{ALL}</xsl:copy>")
    yield Effect("trusted NIC", made, beyond={"trusted": True})


def _screens() -> Iterator[Effect]:
    for kind in ("vnc", "spice"):
        for address in ADDRESSES:
            for word in ("", "hidden12"):
                asks = f' passwd="{word}"' if word else ""
                yield Effect(
                    f"{kind} {address} {word}",
                    _at(
                        "/domain/devices/graphics",
                        f'<graphics type="{kind}"{asks} listen="{address}"/>',
                    ),
                    {"graphics": {"type": kind, "listenType": "address", "listenAddress": address}},
                    {"password": bool(word)},
                )
    for address in (ANYWHERE, "::", "127.0.0.2"):
        source = f'<source mode="bind" host="{address}" service="23"/>'
        yield Effect(
            f"console {address}",
            _at("/domain/devices/console", f'<console type="tcp">{source}</console>'),
            {"consoles": [{"type": "tcp", "sourceHost": address}]},
        )


def _qemu() -> Iterator[Effect]:
    for words in WORDS:
        inside = "".join(f'<q:arg value="{word}"/>' for word in words.split())
        inside = (
            f'<xsl:copy-of select="."/><q:commandline xmlns:q="{QEMU}">{inside}</q:commandline>'
        )
        yield Effect(f"QEMU {words}", _at("/domain/os", inside), beyond={"commandline": words})


def _network() -> Iterator[Effect]:
    for mode in ("bridge", "passthrough", "hostdev", "route", "open"):
        inside = f'<xsl:copy-of select="."/><forward mode="{mode}"/>'
        yield Effect(f"mode {mode}", _at("/network/name", inside), {"mode": mode})
