"""The recording engine itself: a test that it lets pass must mean something."""

from __future__ import annotations

import pulumi
import pytest

from tests.support.engine import UNKNOWN, Recorder, Registered, deploy


class Thing(pulumi.CustomResource):
    secret: pulumi.Output[str]
    made: pulumi.Output[str]

    def __init__(
        self, name: str, opts: pulumi.ResourceOptions | None = None, **props: object
    ) -> None:
        super().__init__("test:index:Thing", name, {"made": None, **props}, opts)


class Box(pulumi.ComponentResource):
    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("test:index:Box", name, {}, opts)


def test_two_resources_of_one_urn_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    def program() -> None:
        Thing("a")
        Thing("a")

    with pytest.raises(AssertionError, match="two resources named urn:pulumi:local::nestlab::test"):
        deploy(program)
    assert not capfd.readouterr().err, "what was left behind complains"


def test_one_name_below_two_kinds_of_parents_is_two_urns() -> None:
    def program() -> None:
        Thing("a")
        Thing("a", pulumi.ResourceOptions(parent=Box("b")))

    urns = sorted(deploy(program).resources)
    assert urns == [
        "urn:pulumi:local::nestlab::test:index:Box$test:index:Thing::a",
        "urn:pulumi:local::nestlab::test:index:Box::b",
        "urn:pulumi:local::nestlab::test:index:Thing::a",
    ]


def test_options_are_recorded_by_urn() -> None:
    def program() -> None:
        first, second = Thing("a"), Thing("b")
        Thing(
            "c",
            pulumi.ResourceOptions(
                depends_on=[first],
                deleted_with=second,
                replace_with=[first],
                delete_before_replace=True,
                replace_on_changes=["x"],
                ignore_changes=["y"],
                protect=True,
                retain_on_delete=True,
            ),
        )

    engine = deploy(program)
    one = engine.named("c")
    assert one.depends_on == {engine.named("a").urn}
    assert one.deleted_with == engine.named("b").urn
    assert one.replace_with == (engine.named("a").urn,)
    assert (one.delete_before_replace, one.protect, one.retain_on_delete) == (True, True, True)
    assert (one.replace_on_changes, one.ignore_changes) == (("x",), ("y",))


def answer(resource: Registered) -> dict[str, str]:
    return {"made": f"made-{resource.name}"}


def chained() -> dict[str, pulumi.Output[str]]:
    hidden = Thing("a", pulumi.ResourceOptions(additional_secret_outputs=["made"]))
    other = Thing("b", given=hidden.made)
    return {"made": other.made, "hidden": hidden.made}


def test_secrets_stay_secret_on_their_way_through_resources() -> None:
    engine = deploy(chained, outputs=answer)
    assert engine.named("b").inputs["given"] == "made-a"
    assert engine.named("b").secret_inputs == {"given"}
    assert engine.stack_outputs == {"made": "made-b", "hidden": "made-a"}
    assert engine.secret_published[engine.stack_urn] == {"hidden"}


def test_in_a_preview_nothing_that_is_made_is_known() -> None:
    engine = deploy(chained, outputs=answer, preview=True)
    assert engine.named("b").inputs["given"] == UNKNOWN
    assert engine.stack_outputs["made"] == UNKNOWN


def test_a_failure_inside_apply_is_a_failure() -> None:
    def program() -> None:
        def fails(_: str) -> None:
            raise ValueError("inside apply")

        Thing("a").made.apply(fails)

    with pytest.raises(ValueError, match="inside apply"):
        deploy(program, outputs=answer)


def test_a_call_that_no_test_expects_fails() -> None:
    def program() -> None:
        _ = pulumi.runtime.invoke("test:index:getThing", {})

    with pytest.raises(AssertionError, match="no test expects a call of test:index:getThing"):
        deploy(program)


def test_outputs_are_registered_once() -> None:
    def program() -> None:
        box = Box("b")
        box.register_outputs({"x": 1})
        box.register_outputs({"x": 2})

    with pytest.raises(AssertionError, match="published its outputs twice"):
        deploy(program)


def test_one_deployment_knows_nothing_of_the_one_before() -> None:
    engines: list[Recorder] = [deploy(chained, stack=stack) for stack in ("one", "two")]
    assert all(len(engine.resources) == 2 for engine in engines)
    assert all(":two::" in urn for urn in engines[1].resources)
