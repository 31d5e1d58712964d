"""Values through the real engine: program, plugin, state file and back.

A failure here is a netmask of 28.0 in somebody's answer file: a value that its provider is given as
something else than the program gave.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from components.media.iso import Iso
from tests.support import border
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project

pytestmark = [pytest.mark.double, pytest.mark.spread]

VALUES = 150
PROGRAM = """
import pickle, pathlib, sys
sys.path.insert(0, {repository!r})
import pulumi
from providers import Arrived
from tests.support.border import ArrivalResource
values = pickle.loads(pathlib.Path("values").read_bytes())
for number, value in enumerate(values):
    # In part as secrets and outputs, some of which are known only when another is there.
    if number % 3 == 1:
        value = pulumi.Output.secret(value)
    if number % 3 == 2:
        value = {{**value, "whole": pulumi.Output.secret(value["whole"]), "map": first.urn.apply(
            lambda _, map=value["map"]: map)}}
    made = ArrivalResource(Arrived(), str(number), value, {notes!r})
    first = made if number == 0 else first
"""


PROVIDERS = """
import sys
sys.path.insert(0, {repository!r})
from tests.support.border import ArrivalProvider
class Arrived(ArrivalProvider):
    # Of the program's own: providers of any other place are not run.
    pass
"""


def examples(count: int) -> list[Any]:
    """The same values in every run."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(border.VALUES)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


def test_values_arrive_as_what_they_were_on_every_way(project: Project, tmp_path: Path) -> None:
    import pickle  # noqa: PLC0415 - values of this test itself

    values, notes = examples(VALUES), tmp_path / "notes"
    (project.folder / "values").write_bytes(pickle.dumps(values))
    program = PROGRAM.format(repository=str(paths.ROOT), notes=str(notes))
    project.write(program, PROVIDERS.format(repository=str(paths.ROOT)))

    def arrived() -> dict[tuple[str, str], Any]:
        lines = [json.loads(line) for line in notes.read_text().splitlines()]
        notes.write_text("")
        return {(name, what): value for name, what, value in lines}

    def sent(*whats: str) -> dict[tuple[str, str], Any]:
        told = [json.loads(json.dumps(border.typed(value))) for value in values]
        return {(str(number), what): told[number] for number in range(len(told)) for what in whats}

    project.up(program)
    assert arrived() == sent("made")
    # The state file has been written and read: nothing differs, and the old values are looked at.
    assert f"{len(values) + 1} unchanged" in project.up(program)
    assert arrived() == sent("looked", "kept")
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert arrived() == sent("gone")


DISCS = """
import sys
sys.path.insert(0, {repository!r})
import pulumi
from components.gates.codec import later
from components.gates.medium import Discs, InstallMedium
from components.gates.secrets import SshKey
from components.media.answers import Told
key = SshKey("key", algorithm={algorithm!r})
def told(keys):
    return Told(
        name="host1", fqdn="host1.nestlab.internal", mac="52:54:00:00:00:01",
        password="A pass word 1", authorized_key=keys[1], host_private=keys[0],
        host_public=keys[1], address="10.77.0.5", prefix=28, gateway="10.77.0.1",
        nameserver="10.77.0.1", disk="sda", options={options!r})
medium = InstallMedium("discs", Discs(kind={kind!r}, recipe={recipe!r}, iso="",
    answers=later(pulumi.Output.all(key.private, key.public).apply(told)), media={folder!r}, private={folder!r}))
pulumi.export("disc", medium.disc)
"""


@pytest.mark.parametrize(
    ("kind", "recipe", "options"),
    [
        ("proxmox", "proxmox", {"filesystem": "ext4"}),
        ("esxi", "esxi", {}),
        ("xenserver", "xenserver", {"sr_type": "ext"}),
        ("hyperv", "hyperv", {"image": "SERVERSTANDARD", "locale": "en-US"}),
        ("virtualbox", "virtualbox", {"package": "", "extension_pack": "", "licence": ""}),
        ("workstation", "workstation", {}),
    ],
)
def test_answers_with_a_planned_address_come_to_be_a_disc(
    kind: str, recipe: str, options: dict[str, str], project: Project, tmp_path: Path
) -> None:
    program = DISCS.format(
        repository=str(paths.ROOT),
        kind=kind,
        recipe=recipe,
        options=options,
        # Its SSH takes no other.
        algorithm="ecdsa" if kind == "esxi" else "ed25519",
        folder=str(tmp_path / "discs"),
    )
    project.up(program)
    assert "3 unchanged" in project.up(program)
    [disc] = (tmp_path / "discs").glob("answers-*.iso")
    assert Iso(disc)
    text = disc.read_bytes()
    assert b"10.77.0.5" in text
    assert b"28.0" not in text
