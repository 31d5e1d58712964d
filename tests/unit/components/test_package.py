"""The component package: its schema says what the models say, and its lab is the lab of the face."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pulumi
import pytest
from pulumi.errors import InputPropertiesError

from components.lab import Lab
from components.package import served
from components.package.schema import OUTPUTS, PIECES, TOKEN, schema
from components.package.served import Components, whole
from components.stackfile.registry import KINDS
from components.stackfile.schema import schema as shapes
from tests.support.engine import deploy
from tests.unit.components import test_face
from tests.unit.components.labs import answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from components.args import MediumArgs

checkout, esxi = test_face.checkout, test_face.esxi
ARGS: dict[str, Any] = {
    "media": {"page": {"path": "page.iso"}},
    "networks": {"lan": {"subnet": "10.77.0.0/24"}},
    "guests": {"web": {"iso": "page", "network": "lan", "memory_mib": 64.0}},
}


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for each in node.values():
            yield from references(each)
    if isinstance(node, list):
        for each in node:
            yield from references(each)


def test_the_schema_has_every_field_of_every_model() -> None:
    told, models = schema(), dict(shapes()["$defs"])
    lab = models.pop("LabSpec")
    inputs = told["resources"][TOKEN]["inputProperties"]
    assert set(inputs) == {*lab["properties"], "host_password", "checkout", "holds"}
    for token, kind in PIECES.items():
        made = told["resources"][token]
        for output in made["properties"]:
            assert isinstance(getattr(kind, output), property), (token, output)
        assert {"place", "name", "lab", "host_password", "checkout"} <= set(made["inputProperties"])
    nested = told["resources"]["nestlab:index:NestedHypervisorLab"]
    assert set(nested["requiredInputs"]) == {"kind", "network"}
    for model in (kind.model.__name__ for kind in KINDS.values()):
        assert set(models[model]["properties"]) <= set(nested["inputProperties"]), model
    assert "name" not in told["resources"][TOKEN]["requiredInputs"]
    for name, model in models.items():
        made = told["types"][f"nestlab:index:{name.removesuffix('Spec')}"]
        assert set(made["properties"]) == set(model["properties"]), name
        assert made["required"] == model.get("required", []), name
    known = {f"#/types/{each}" for each in told["types"]} | {"pulumi.json#/Any"}
    assert set(references(told)) <= known


def test_what_is_secret_is_said_to_be() -> None:
    made = schema()["resources"][TOKEN]
    assert {name for name, each in OUTPUTS.items() if each.get("secret")} == {
        "passwords",
        "logins",
        "key",
    }
    assert made["inputProperties"]["host_password"]["secret"]
    assert {name for name in OUTPUTS if not isinstance(getattr(Lab, name, None), property)} == set()


def test_numbers_arrive_as_they_were_said() -> None:
    given = {"a": [1.0, {"b": 2.5, "c": True, "d": "3.0", "e": None}]}
    assert repr(whole(given)) == "{'a': [1, {'b': 2.5, 'c': True, 'd': '3.0', 'e': None}]}"


def test_its_lab_is_the_lab_of_the_face() -> None:
    def served() -> dict[str, Any]:
        made = Components().construct("red", TOKEN, ARGS)
        return dict(made.state)

    def face() -> None:
        Lab("red", whole(ARGS))

    ours, theirs = (deploy(each, outputs=answers, project="outside") for each in (served, face))
    assert {urn: each.inputs for urn, each in ours.resources.items()} == {
        urn: each.inputs for urn, each in theirs.resources.items()
    }
    assert ours.secret_published[ours.stack_urn] == {"passwords", "logins", "key"}
    assert ours.stack_outputs["addresses"].keys() == {"web"}
    seen = deploy(served, preview=True, project="outside")
    assert seen.stack_outputs["addresses"] == ours.stack_outputs["addresses"]
    assert seen.stack_outputs["consoles"] == "<unknown>"


def test_what_another_resource_turns_out_to_be_is_refused_not_guessed() -> None:
    def program() -> None:
        later = pulumi.Output.from_input("10.77.0.0/24")
        Components().construct("red", TOKEN, ARGS | {"networks": {"lan": {"subnet": later}}})

    with pytest.raises(InputPropertiesError) as refused:
        deploy(program, project="outside")
    assert told(refused.value) == {
        "networks.lan.subnet": "an Output given, but a lab is planned before any of it exists, from what is "
        "known then: give the value itself; only a word of a container's command and an ESXi's licence may be an "
        "Output"
    }


PIECE = "nestlab:index:GuestFromIso"


@pytest.mark.parametrize(
    ("token", "args", "path"),
    [
        (TOKEN, lambda it: {"holds": {"guests": [it]}}, "holds.guests.0"),
        (TOKEN, lambda it: {"checkout": it}, "checkout"),
        (TOKEN, lambda it: {"guests": it}, "guests"),
        (PIECE, lambda it: {"place": it}, "place"),
        (PIECE, lambda it: {"name": it}, "name"),
        (PIECE, lambda it: {"lab": it}, "lab"),
        (PIECE, lambda it: {"lab": {"media": {"page": {"path": it}}}}, "media.page.path"),
        (PIECE, lambda it: {"network": it}, "network"),
        (PIECE, lambda it: {"memory_mib": it}, "memory_mib"),
        (PIECE, lambda it: {"checkout": it}, "checkout"),
    ],
)
def test_an_output_where_none_may_stand_is_told_by_its_input(
    token: str, args: Callable[[object], dict[str, Any]], path: str
) -> None:
    def program() -> dict[str, Any]:
        given = {"iso": "page"} if token == PIECE else {}
        given |= args(pulumi.Output.from_input("x"))
        return dict(Components().construct("web", token, given).state)

    with pytest.raises(InputPropertiesError) as refused:
        deploy(program, outputs=answers, project="outside")
    [[at, reason]] = told(refused.value).items()
    assert at == path
    assert reason.startswith("an Output given, but a lab is planned before any of it exists")


@pytest.mark.parametrize(
    ("token", "args", "path"),
    [
        (TOKEN, {"holds": ["web"]}, "holds"),
        (TOKEN, {"holds": {"guests": "web"}}, "holds"),
        (TOKEN, {"holds": {"guests": ["web"], "guest": []}}, "holds"),
        (TOKEN, {"holds": {"guests": [["web"]]}}, "holds"),
        (TOKEN, {"guests": ["web"]}, "guests"),
        (TOKEN, {"checkout": 5.0}, "checkout"),
        (TOKEN, {"hostPassword": 5.0}, "hostPassword"),
        (PIECE, {"place": {"a": 1.0}}, "place"),
        (PIECE, {"place": ["red"]}, "place"),
        (PIECE, {"name": {"a": 1.0}}, "name"),
        (PIECE, {"name": 5.0}, "name"),
        (PIECE, {"lab": 5.0}, "lab"),
        (PIECE, {"lab": ["a"]}, "lab"),
        ("nestlab:index:NestedHypervisorLab", {"holds": 5.0, "kind": "kvm"}, "holds"),
        (PIECE, {"cloud_init": ["x"]}, "cloud_init"),
    ],
    ids=str,
)
def test_what_a_language_without_types_gives_is_told_by_its_input(
    token: str, args: dict[str, Any], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program() -> dict[str, Any]:
        return dict(Components().construct("web", token, args).state)

    monkeypatch.setattr(served, "WAIT_S", 0.05)
    with pytest.raises(InputPropertiesError) as refused:
        deploy(program, outputs=answers, project="outside")
    assert path in told(refused.value)


@pytest.mark.parametrize("secret", [True, False])
def test_a_licence_may_be_known_later_by_a_piece_too(secret: bool, esxi: MediumArgs) -> None:
    def program() -> dict[str, Any]:
        word = pulumi.Output.from_input(test_face.LICENCE)
        around = {"media": {"esxi": esxi}, "networks": {"lan": test_face.LAN}}
        args = test_face.ESXI | {"lab": around}
        args["licence"] = pulumi.Output.secret(word) if secret else word
        token = "nestlab:index:NestedHypervisorLab"
        return dict(Components().construct("esx1", token, args).state)

    made = deploy(program, outputs=answers, project="outside")
    discs = [each for each in made.resources.values() if test_face.LICENCE in str(each.inputs)]
    assert [each.name for each in discs] == ["esx1-discs"]
    assert "answers" in discs[0].secret_inputs


def test_where_an_output_may_stand_the_schema_says_so() -> None:
    made = schema()
    later = {
        (name, field)
        for name, shape in made["types"].items()
        for field, each in shape["properties"].items()
        if not each.get("plain") and not name.endswith(":Holds")
    }
    assert later == {("nestlab:index:Container", "command"), ("nestlab:index:Esxi", "licence")}
    inputs = {
        (token, field)
        for token in PIECES
        for field, each in made["resources"][token]["inputProperties"].items()
        if not each.get("plain")
    }
    entry = {"host_password", "checkout"}
    assert {each for each in inputs if each[1] not in entry} == {
        ("nestlab:index:ContainerFromTemplate", "command"),
        ("nestlab:index:NestedHypervisorLab", "licence"),
    }


def told(refused: InputPropertiesError) -> dict[str, str]:
    return {each["property_path"]: each["reason"] for each in refused.errors or ()}


def test_what_is_wrong_is_told_by_its_input(checkout: Path) -> None:
    def program(**more: Any) -> None:
        deploy(
            lambda: dict(Components().construct("red", TOKEN, ARGS | more).state), project="outside"
        )

    with pytest.raises(InputPropertiesError) as refused:
        program(guests={"web": {"iso": "page", "network": "lan", "memory_mib": 8.0}})
    assert told(refused.value) == {
        "guests.web.memory_mib": "8 MiB given, but at least 16 MiB is needed (memory, MiB): write 16 or more"
    }
    (checkout / ".nestlab" / "host.json").unlink()
    with pytest.raises(InputPropertiesError) as refused:
        program()
    assert (
        f"run `make doctor` in {checkout}" in told(refused.value)[f"{checkout}/.nestlab/host.json"]
    )


def pieces(*types: str, **more: Any) -> dict[str, Any]:
    """Ask for a lab of pieces, those of ``types`` in that order; return their outputs by name."""
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "red": (TOKEN, {"media": ARGS["media"], "holds": {"networks": ["lan"], "guests": ["web"]}}),
        "red-lan": (
            "nestlab:index:BridgedNetwork",
            {"place": "red", "name": "lan", "subnet": "10.77.0.0/24"},
        ),
        "web": ("nestlab:index:GuestFromIso", {"place": "red", **ARGS["guests"]["web"]}),
    }
    package = Components()
    made = {}
    for name in types:
        kind, args = asked[name]
        made[name] = package.construct(name, kind, args | more.get(name.replace("-", "_"), {}))
    return {
        f"{name} {output}": value
        for name, each in made.items()
        for output, value in each.state.items()
    }


@pytest.mark.parametrize(
    "order", [("red", "red-lan", "web"), ("web", "red-lan", "red"), ("red-lan", "red", "web")]
)
def test_a_lab_of_pieces_is_the_lab_in_whatever_order_they_come(order: tuple[str, ...]) -> None:
    ours = deploy(lambda: pieces(*order), outputs=answers, project="outside")
    face = deploy(
        lambda: {"red": Lab("red", whole(ARGS)).addresses}, outputs=answers, project="outside"
    )
    for kind in ("Domain", "Network"):
        made, wanted = ([one.inputs for one in each.of_type(kind)] for each in (ours, face))
        # A password is made up by a resource's name, which differs.
        assert json.dumps(made) == json.dumps(wanted).replace("of-red-web", "of-web"), kind
    for name in ("red-lan", "web"):
        assert ours.named(name).parent == ours.named("red").urn, "where the program names no other"
    assert ours.stack_outputs["red-lan subnet"] == "10.77.0.0/24"
    assert ours.stack_outputs["web address"] == face.stack_outputs["red"]["web"]
    assert "web password" in ours.secret_published[ours.stack_urn]


def test_a_piece_alone_has_a_lab_of_its_own() -> None:
    def program() -> dict[str, Any]:
        lab = {"media": ARGS["media"], "networks": ARGS["networks"]}
        args = {"lab": lab, **ARGS["guests"]["web"]}
        return dict(Components().construct("web", "nestlab:index:GuestFromIso", args).state)

    made = deploy(program, outputs=answers, project="outside")
    assert made.stack_outputs["address"].startswith("10.77.0.")
    assert made.secret_published[made.stack_urn] == {"password"}
    assert len(made.of_type("libvirt:index/domain:Domain")) == 1
    seen = deploy(program, preview=True, project="outside")
    assert seen.stack_outputs["console"] == "<unknown>"
    assert seen.stack_outputs["address"] == made.stack_outputs["address"]


def test_a_piece_that_never_comes_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "WAIT_S", 0.05)
    with pytest.raises(InputPropertiesError) as refused:
        deploy(lambda: pieces("red", "web"), project="outside")
    assert "waited 0.05 s" in told(refused.value)["networks.lan"]
    with pytest.raises(InputPropertiesError) as refused:
        deploy(lambda: pieces("web"), project="outside")
    assert "none came in 0.05 s" in told(refused.value)["place"]


def test_a_piece_that_its_place_does_not_hold_is_refused() -> None:
    with pytest.raises(InputPropertiesError) as refused:
        deploy(lambda: pieces("red", "red-lan", "web", web={"name": "other"}), project="outside")
    [reason] = told(refused.value).values()
    assert "add other to its `holds.guests`" in reason


def test_a_pieces_mistake_is_told_by_its_own_input() -> None:
    with pytest.raises(InputPropertiesError) as refused:
        deploy(lambda: pieces("red", "red-lan", "web", web={"memory_mib": 8.0}), project="outside")
    assert "memory_mib" in "".join(told(refused.value))


def test_another_type_is_not_taken_for_it() -> None:
    with pytest.raises(pulumi.RunError, match="nestlab:index:Box given, but nestlab has"):
        Components().construct("red", "nestlab:index:Box", ARGS)
