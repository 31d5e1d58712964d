"""The components as any program uses them: the plan, the checks and the names of a stack file's lab."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi
import pytest

from components.args import ContainerArgs, KvmArgs, LabArgs, MediumArgs, NetworkArgs
from components.bridged_network import BridgedNetwork
from components.container_from_template import ContainerFromTemplate
from components.guest_from_iso import GuestFromIso
from components.lab import Lab
from components.nested_hypervisor_lab import NestedHypervisorLab
from components.stackfile import SpecError, args, load
from components.stackfile.registry import KINDS
from tests.support import standins
from tests.support.checkout import Checkout
from tests.support.engine import UNKNOWN, deploy
from tests.support.images import iso
from tests.unit.components.labs import GOLDEN, answers, fresh

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.engine import Recorder

MEDIA: dict[str, MediumArgs] = {"page": {"path": "page.iso"}}
LAN: NetworkArgs = {"subnet": "10.77.0.0/28"}
# Of two that share a first choice one gives way, by its name and not by who came first.
GUESTS = [f"g{number}" for number in range(9)]
GUEST: dict[str, Any] = {"iso": "page", "network": "lan", "memory_mib": 64}


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which the set-up commands ran; programs run beside it."""
    folder = tmp_path / ".nestlab"
    folder.mkdir()
    host = {"version": 1, "accelerator": "tcg", "cores": 2, "memory_mib": 8000}
    (folder / "host.json").write_text(json.dumps(host))
    (folder / "golden.json").write_text(GOLDEN.model_dump_json())
    monkeypatch.setenv("NESTLAB_ROOT", str(tmp_path))
    monkeypatch.setenv("NESTLAB_KEYS", str(folder / "keys"))
    (tmp_path / "page.iso").write_bytes(iso())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(program: Callable[[], dict[str, Any] | None]) -> Recorder:
    return deploy(program, outputs=answers, project="outside")


def real(recorder: Recorder, kind: str) -> list[dict[str, Any]]:
    """What of ``kind`` is asked for, but for logical names."""
    return sorted(
        (
            {k: v for k, v in each.inputs.items() if k != "name" or "nestlab" not in each.type}
            for each in recorder.of_type(kind)
        ),
        key=json.dumps,
    )


@pytest.mark.parametrize("order", [1, -1])
def test_a_program_gets_the_plan_of_its_stack_file_in_whatever_order_it_speaks(order: int) -> None:
    guest = GUEST | {"console": {"password": False}}  # one is made up for each guest

    def program() -> None:
        lab = Lab("lab", LabArgs(media=MEDIA))
        said: list[Callable[[], object]] = [lambda: BridgedNetwork("lan", LAN, on=lab)]
        said += [lambda name=name: GuestFromIso(name, guest, on=lab) for name in GUESTS]  # type: ignore[misc]
        for each in said[::order]:
            each()

    data = {"media": MEDIA, "networks": {"lan": LAN}, "guests": dict.fromkeys(GUESTS, guest)}
    whole, pieces = fresh(data, accelerator="tcg", root=Path.cwd()), run(program)
    for kind in ("Domain", "Network", "NetworkGate", "PoolGate", "MachineGate"):
        theirs, ours = real(whole, f":{kind}"), real(pieces, f":{kind}")
        assert ours == theirs, kind


def test_a_whole_lab_and_its_pieces_are_the_same_lab() -> None:
    kvm: dict[str, Any] = {"kind": "kvm", "memory_mib": 4096, "network": "lan"}
    inner: NetworkArgs = {"subnet": "10.78.0.0/24"}
    box = {"template": "busybox", "network": "inner"}

    def pieces() -> None:
        lab = Lab("lab", LabArgs(media=MEDIA))
        BridgedNetwork("lan", LAN, on=lab)
        host = NestedHypervisorLab(
            "kvm1", KvmArgs(kind="kvm", memory_mib=4096, network="lan"), on=lab
        )
        BridgedNetwork("inner", inner, on=host)
        ContainerFromTemplate("box", box, on=host)

    def whole() -> None:
        inside = {"networks": {"inner": inner}, "containers": {"box": box}}
        Lab(
            "lab", {"media": MEDIA, "networks": {"lan": LAN}, "hypervisors": {"kvm1": kvm | inside}}
        )

    one, other = run(pieces), run(whole)
    # What libvirt finds in it, whenever it looks: told otherwise, the next `up` makes the host anew.
    assert one.named("lab-kvm1-seed").inputs["format"] == "iso"
    assert sorted(one.resources) == sorted(other.resources)
    assert {urn: each.inputs for urn, each in one.resources.items()} == {
        urn: each.inputs for urn, each in other.resources.items()
    }
    assert any(
        urn.endswith("NestedHypervisorLab$nestlab:index:ContainerFromTemplate::lab-kvm1-box")
        for urn in one.resources
    )


def test_what_is_wrong_is_told_where_it_is_made_and_as_in_the_stack_file() -> None:
    wrong = GUEST | {"iso": "pgae", "memory_mib": "64"}
    told = ""

    def program() -> None:
        nonlocal told
        lab = Lab("lab", LabArgs(media=MEDIA))
        BridgedNetwork("lan", LAN, on=lab)
        with pytest.raises(SpecError) as refused:
            GuestFromIso("web", wrong, on=lab)
        told = str(refused.value)
        GuestFromIso("web", GUEST, on=lab)  # nothing of the refused one is kept

    made = run(program)
    data = {"name": "lab", "media": MEDIA, "networks": {"lan": LAN}, "guests": {"web": wrong}}
    with pytest.raises(SpecError) as whole:
        load(data, root=Path.cwd())
    assert told == str(whole.value)
    assert "lab.guests.web.iso: 'pgae' given, but" in told
    assert "did you mean 'page'?" in told
    assert "lab.guests.web.memory_mib: '64' (text) given" in told
    assert len(made.of_type("GuestFromIso")) == 1


def test_a_network_that_never_comes_is_told_before_anything_is_made() -> None:
    seen: list[Recorder] = []

    def program() -> None:
        lab = Lab("lab", LabArgs(media=MEDIA))
        GuestFromIso("web", GUEST, on=lab)

    with pytest.raises(
        SpecError, match=r"lab\.guests\.web\.network: 'lan' given, but the outer host has no"
    ):
        seen.append(run(program))


def test_of_a_network_in_a_nested_host_too() -> None:
    def program() -> None:
        lab = Lab("lab", LabArgs(media=MEDIA))
        host = NestedHypervisorLab("kvm1", {"kind": "kvm", "network": "lan"}, on=lab)
        GuestFromIso("web", GUEST | {"network": "inner"}, on=host)
        BridgedNetwork("inner", {"subnet": "10.78.0.0/24"}, on=host)
        BridgedNetwork("lan", LAN, on=lab)
        with pytest.raises(SpecError, match=r"overlaps .*lab\.networks\.lan"):
            BridgedNetwork("wrong", LAN, on=host)

    run(program)


def test_what_comes_late_is_told_what_to_do() -> None:
    def program() -> None:
        lab = Lab("lab", LabArgs(media=MEDIA))
        net = BridgedNetwork("lan", LAN, on=lab)

        def more(_: object) -> None:
            GuestFromIso("web", GUEST, on=lab)

        net.network.apply(more)

    with pytest.raises(SpecError, match=r"lab\.guests\.web: a late component given, but"):
        run(program)


@pytest.mark.parametrize(
    ("on", "given"), [(None, "nothing"), ("lab", "a str"), ({}, "a dict"), (LabArgs(), "a dict")]
)
def test_a_component_is_made_on_what_holds_others(on: Any, given: str) -> None:
    def program() -> None:
        with pytest.raises(SpecError, match=rf"^networks\.lan\.on: {given} given, but .*a Lab"):
            BridgedNetwork("lan", LAN, on=on)

    run(program)


def test_a_network_is_no_place_and_is_named() -> None:
    def program() -> None:
        lab = Lab("lab", LabArgs(media=MEDIA))
        net: Any = BridgedNetwork("lan", LAN, on=lab)
        with pytest.raises(SpecError, match=r"guests\.web\.on: a BridgedNetwork given"):
            GuestFromIso("web", GUEST, on=net)
        with pytest.raises(SpecError, match=r"network: a BridgedNetwork given, .*: write 'lan'"):
            GuestFromIso("web", {**GUEST, "network": net}, on=lab)
        with pytest.raises(SpecError, match=r"network: a Lab given, .*: write its name"):
            GuestFromIso("web", {**GUEST, "network": lab}, on=lab)

    run(program)


def test_a_name_is_given_once() -> None:
    def program() -> None:
        lab = Lab("lab")
        BridgedNetwork("lan", LAN, on=lab)
        with pytest.raises(SpecError, match=r"lab\.networks\.lan: given twice"):
            BridgedNetwork("lan", LAN, on=lab)

    run(program)


async def _awaited(value: object) -> object:
    return value


@pytest.mark.parametrize(
    ("args", "path", "remedy"),
    [
        (lambda it: {**GUEST, "memory_mib": it(64)}, "memory_mib", "give the value itself"),
        (lambda it: {**GUEST, "network": it("lan")}, "network", "write the network's name"),
        (lambda it: {**GUEST, "network": [it("lan")]}, "network.0", "write the network's name"),
        (
            lambda it: {**GUEST, "network": [{"network": it("lan")}]},
            "network.0.network",
            "write the network's name",
        ),
        (lambda it: {**GUEST, "console": it({})}, "console", "give the value itself"),
        (lambda it: {**GUEST, "ready": {"port": it(1)}}, "ready.port", "give the value itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize(
    "as_one",
    [
        pulumi.Output.from_input,
        pulumi.Output.secret,
        lambda it: asyncio.ensure_future(_awaited(it)),
    ],
    ids=["output", "secret", "awaitable"],
)
def test_args_are_known_before_anything_exists(
    args: Callable[[Any], dict[str, Any]],
    path: str,
    remedy: str,
    as_one: Callable[[Any], Any],
) -> None:
    def program() -> None:
        lab = Lab("lab", LabArgs(media=MEDIA))
        BridgedNetwork("lan", LAN, on=lab)
        with pytest.raises(SpecError) as refused:
            GuestFromIso("web", args(as_one), on=lab)
        [wrong] = refused.value.problems
        assert (wrong.path, wrong.found) == (f"lab.guests.web.{path}", "an Output given")
        assert wrong.remedy.startswith(remedy)

    run(program)


def test_a_checkout_is_no_output_either() -> None:
    def program() -> None:
        there: Any = pulumi.Output.from_input("/somewhere")
        with pytest.raises(SpecError, match=r"checkout: an Output given, but"):
            Lab("lab", checkout=there)

    run(program)


NESTED = {
    "kind": "kvm",
    "network": "lan",
    "memory_mib": 2048,
    "networks": {"inner": {"subnet": "10.78.0.0/24"}},
}


def test_a_word_of_a_containers_command_may_be_known_later_and_secret() -> None:
    def program(secret: bool) -> None:
        word = pulumi.Output.from_input("hidden")
        word = pulumi.Output.secret(word) if secret else word
        lab = Lab("lab", {"networks": {"lan": LAN}})
        host = NestedHypervisorLab("kvm1", NESTED, on=lab)
        command: list[pulumi.Input[str]] = ["/bin/sh", "-c", word]
        ContainerFromTemplate("box", ContainerArgs(template="busybox", command=command), on=host)

    for secret in (True, False):
        made = run(lambda: program(secret))  # noqa: B023 - run at once
        box = made.named("lab-kvm1-box-container")
        assert box.inputs["wanted"]["command"] == ["/bin/sh", "-c", "hidden"]
        assert ("wanted" in box.secret_inputs) is secret


LICENCE = "ABCDE-12345-FGHIJ-67890-KLMNO"
ESXI: dict[str, Any] = {"kind": "esxi", "iso": "esxi", "network": "lan"}


@pytest.fixture
def esxi(checkout: Path) -> MediumArgs:
    """An installer of ESXi, on a host that can run one."""
    host = {"version": 1, "accelerator": "kvm", "cores": 4, "memory_mib": 32000}
    (checkout / ".nestlab" / "host.json").write_text(json.dumps(host))
    return {"path": str(standins.esxi_iso(checkout))}


@pytest.mark.parametrize("secret", [True, False])
def test_a_licence_may_be_known_later_and_secret(secret: bool, esxi: MediumArgs) -> None:
    def program(*, known: bool = True, licence: str = LICENCE) -> None:
        word = pulumi.Output.from_input(licence)
        if not known:
            beside = Lab("b", {"media": MEDIA, "networks": {"lan": {"subnet": "10.78.0.0/24"}}})
            word = GuestFromIso("web", GUEST, on=beside).console
        word = pulumi.Output.secret(word) if secret else word
        lab = Lab("lab", {"media": {"esxi": esxi}, "networks": {"lan": LAN}})
        NestedHypervisorLab("esx1", {**ESXI, "licence": word}, on=lab)

    made = run(program)
    discs = made.named("lab-esx1-discs")
    assert discs.inputs["answers"]["options"] == {"licence": LICENCE}
    assert "answers" in discs.secret_inputs
    [told] = [each for each in made.resources.values() if LICENCE in str(each.inputs)]
    assert told is discs, "it is told to nobody else"
    with pytest.raises(SpecError) as refused:
        run(lambda: program(licence="HIDDEN"))
    assert "lab.hypervisors.esx1.licence: an Output of another form given, but" in str(
        refused.value
    )
    assert "HIDDEN" not in str(refused.value)
    preview = deploy(lambda: program(known=False), preview=True, project="outside")
    assert preview.named("lab-esx1-discs").inputs["answers"] == UNKNOWN


def test_only_the_kind_whose_licence_is_a_key_may_get_it_later() -> None:
    def program() -> None:
        lab = Lab("lab", {"media": MEDIA, "networks": {"lan": LAN}})
        for kind in ("virtualbox", "esxii", pulumi.Output.from_input("esxi")):
            args = {**ESXI, "kind": kind, "licence": pulumi.Output.from_input(LICENCE)}
            with pytest.raises(SpecError, match=r"lab\.hypervisors\.x\.licence: an Output given"):
                NestedHypervisorLab("x", args, on=lab)

    run(program)


def test_two_labs_stand_in_one_stack() -> None:
    def program() -> dict[str, Any]:
        labs = [Lab(name, LabArgs(media=MEDIA)) for name in ("red", "blue")]
        for number, lab in enumerate(labs):
            BridgedNetwork("lan", {"subnet": f"10.77.{number}.0/24"}, on=lab)
            GuestFromIso("web", GUEST, on=lab)
        return {"sheets": [lab.sheet for lab in labs], "key": labs[0].key}

    made = run(program)
    assert [row["domain"] for sheet in made.stack_outputs["sheets"] for row in sheet] == [
        "red-web",
        "blue-web",
    ]
    assert {"red-identity", "blue-identity", "red-host-pool", "blue-host-pool"} <= set(made.names())
    folders = {each.inputs["private"] for each in made.of_type("Identity")}
    assert {Path(folder).name for folder in folders} == {"outside~local~red", "outside~local~blue"}


def test_secrets_stay_secret_and_what_is_not_known_stays_so() -> None:
    def program() -> dict[str, Any]:
        lab = Lab("lab", LabArgs(media=MEDIA))
        BridgedNetwork("lan", LAN, on=lab)
        web = GuestFromIso("web", GUEST, on=lab)
        return {
            "key": lab.key,
            "passwords": lab.passwords,
            "password": web.password,
            "address": web.address,
            "console": web.console,
        }

    made = run(program)
    assert made.secret_published[made.stack_urn] == {"key", "passwords", "password"}
    assert made.stack_outputs["password"] == "SECRET-of-lab-web-console"
    seen = deploy(program, preview=True, project="outside")
    assert seen.stack_outputs["address"] == made.stack_outputs["address"]
    assert seen.stack_outputs["console"] == "<unknown>"


def test_a_machine_that_is_not_set_up_is_told_which_command_to_run(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alone() -> None:
        Lab("lab")

    (checkout / ".nestlab" / "host.json").unlink()
    with pytest.raises(SpecError) as refused:
        run(alone)
    assert f"{checkout}/.nestlab/host.json: no such file" in str(refused.value)
    assert f"run `make doctor` in {checkout}" in str(refused.value)
    monkeypatch.delenv("NESTLAB_KEYS")
    with pytest.raises(SpecError, match=r"NESTLAB_KEYS: nothing given, but .*/.nestlab/env.sh`"):
        run(alone)
    monkeypatch.setenv("NESTLAB_ROOT", str(checkout / "gone"))
    with pytest.raises(SpecError, match=r"NESTLAB_ROOT: '.*gone' given, but .*make toolchain"):
        run(alone)


def test_what_nobody_can_give_to_a_pull_request_is_only_warned_of_in_a_preview() -> None:
    def program() -> None:
        lab = Lab("lab", LabArgs(media={"page": {"path": "absent.iso"}}))
        BridgedNetwork("lan", LAN, on=lab)
        GuestFromIso("web", GUEST, on=lab)

    deploy(program, preview=True, project="outside")
    with pytest.raises(SpecError, match=r"lab\.media\.page\.path"):
        run(program)


def test_the_typed_args_are_what_the_models_take() -> None:
    made = {f"{name}.py": args.formatted(text) for name, text in args.sources().items()}
    there = {each.name: each.read_text() for each in args.FOLDER.glob("*.py")}
    assert there == made, args.__doc__


def test_the_public_face_is_what_it_says() -> None:
    nestlab = import_module("nestlab")  # the command beside it has the same name, for mypy too
    assert [name for name in nestlab.__all__ if not hasattr(nestlab, name)] == []
    kinds = {args.args_of(kind.model.__name__) for kind in KINDS.values()}
    assert kinds - set(nestlab.__all__) == set()


def test_it_installs_under_its_name_with_all_that_the_components_read(tmp_path: Path) -> None:
    copy, site = tmp_path / "copy", tmp_path / "site"
    Checkout.make(copy)
    words = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--no-compile",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, "--target", str(site), str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    code = "import nestlab, components; print(components.__path__[0], sorted(nestlab.__all__)[0])"
    said = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said == [str(site / "components"), "BridgedNetwork"]
    read = {
        f.relative_to(copy)
        for f in (copy / "components").rglob("*")
        if f.is_file() and f.suffix != ".pyc"
    }
    assert {f for f in read if not (site / f).is_file()} == set()
    assert not (site / "tests").exists()
    assert not (site / "toolchain").exists()
