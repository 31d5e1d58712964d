"""Whatever stands in a stack file, the answer is a lab or a message, never a traceback."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.stackfile import LabSpec, Problem, SpecError, load, plan
from components.stackfile.problems import MOST_CHARACTERS, MOST_LINES

CASES = Path(__file__).parents[2] / "cases"
LABS = [yaml.safe_load(file.read_text()) for file in sorted((CASES / "accepted").glob("*.yaml"))]
FIELDS = sorted({*LabSpec.model_fields, "kind", "network", "address", "subnet", "mode", "bridge"})
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["kvm", "10.77.0.0/24", "10.77.0.5", "lab", "-1", "~", "<kvm>", "[key]"])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def _places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    found = []
    for key, value in items:
        found.append((*at, key))
        if isinstance(value, dict | list):
            found += _places(value, (*at, key))
    return found


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """Return an accepted lab in which one to three things are something else."""
    lab = copy.deepcopy(draw(st.sampled_from(LABS)))
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(_places(lab)))
        node = lab
        for key in path:
            node = node[key]
        if draw(st.booleans()) and isinstance(node, dict):
            node[draw(st.sampled_from(FIELDS) | st.text(max_size=4))] = draw(ANYTHING)
        else:
            node[last] = draw(ANYTHING)
    return lab


def answered(data: Any) -> None:
    problems: tuple[Problem, ...] = ()
    said = ""
    try:
        plan(load(data, root=CASES, exists=lambda _: True))
    except SpecError as refused:
        problems, said = refused.problems, str(refused)
    assert len(said.splitlines()) <= min(len(problems), MOST_LINES + 1), "one line per problem"
    assert len(said) < MOST_CHARACTERS + 100


@settings(deadline=None, max_examples=80, database=None)
@given(data=ANYTHING)
@example(data={1: 2})
@example(data={"name": "lab", "hypervisors": {"a": {"kind": ["kvm"]}}})
@example(data={"name": "lab", "hypervisors": {"a": {"kind": {"b": 1}, "network": "x"}}})
@example(data={"name": "lab", "host": {"uri": "qemu+ssh://[::1/system"}})
@example(data={"name": "lab", "media": {"a": {"path": "x\0y"}}})
@example(data={"name": "lab", "media": {"a": {"path": "~nobody/x"}}})
@example(data={"name": "lab\n", "a\nb": 1})
def test_any_input_is_answered(data: Any) -> None:
    answered(data)


@settings(deadline=None, max_examples=80, database=None)
@given(data=damaged())
def test_a_lab_with_something_wrong_in_it_is_answered(data: Any) -> None:
    answered(data)
