"""What a step that failed made and the state does not know: it goes when it is surely that, and only then.

A failure here means that after a restart of libvirtd no `up` succeeds any more, or that a machine with
somebody's work in it is taken for a left-over.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from components.gates.uuids import uuid_of
from components.kinds.libvirt.virsh import Virsh
from tests.unit.toolchain.checkpoints import (
    HOST_PROVIDER,
    IDENTITY,
    INNER_PROVIDER,
    OUTER,
    OUTER_URI,
    Engine,
    keys,
    resource,
)
from toolchain.bootstrap import paths
from toolchain.engine import before, plugins, recover, state, strays

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.libvirtd import FakeLibvirt

POOL = "nestlab-lab"
POOL_UUID = uuid_of(IDENTITY, "pool", POOL)
WEB = uuid_of(IDENTITY, "domain", "lab-web")
NET = uuid_of(IDENTITY, "network", "lab-net")


def gate(uuid: str = POOL_UUID, **listed: Any) -> dict[str, Any]:
    """The gate of a pool, as it was told what there is to be."""
    inputs = {"name": "host-pool-gate", "pool": POOL, "uuid": uuid}
    inputs |= {"domains": {}, "networks": {}, "volumes": []} | listed
    return {"urn": f"{OUTER}${strays.POOL_GATE}::gate", "type": strays.POOL_GATE, "inputs": inputs}


def failed(engine: Engine, result: str = "failed", when: int = 1764200000000000000) -> Path:
    """Have the last deployment end so."""
    folder = engine.backend / "history/nestlab/local"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"local-{when}.history.json"
    file.write_text(json.dumps({"kind": "update", "result": result}))
    return file


def run(command: str, *more: str) -> None:
    assert recover.main(["--", command, "--stack", "local", *more]) == 0
    assert recover.main(["--", command, "--stack", "local", *more]) == 0, (
        "a second one finds nothing"
    )


def listed(engine: Engine, **more: Any) -> None:
    """Have a list for the outer host, and no other host."""
    engine.resources = [one for one in engine.resources if one["urn"] != INNER_PROVIDER]
    engine.resources[0]["inputs"] = {"pool": POOL, "uri": OUTER_URI}
    engine.resources.append(
        gate(**({"domains": {"lab-web": WEB}, "networks": {"lab-net": NET}} | more))
    )
    engine.save()


# On the outer host ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["running", "shut off"])
def test_a_domain_and_a_network_that_the_list_has_and_the_state_has_not_go(
    how: str, engine: Engine, outer: FakeLibvirt
) -> None:
    listed(engine)
    outer.domain("lab-web", how, WEB)
    outer.network("lab-net", uuid=NET)
    outer.domain("lab-other", uuid=uuid_of(IDENTITY, "domain", "lab-other"))
    run("up")
    assert list(outer.domains) == ["lab-other"], "only what the list has"
    assert not outer.networks
    assert not engine.touched
    assert not state.locks("local", engine.backend)


@pytest.mark.parametrize(
    "command", ["preview", "refresh", "destroy", "import", "up --preview-only"]
)
def test_they_go_before_a_command_that_makes_something_alone(
    command: str, engine: Engine, outer: FakeLibvirt
) -> None:
    listed(engine)
    outer.domain("lab-web", "running", WEB)
    run(*command.split())
    assert "lab-web" in outer.domains


def test_what_the_state_knows_stays(engine: Engine, outer: FakeLibvirt) -> None:
    listed(engine)
    engine.resources.append(resource("domain", "web-domain", name="lab-web"))
    engine.resources.append(resource("network", "net-network", name="lab-net"))
    engine.save()
    outer.domain("lab-web", "running", WEB)
    outer.network("lab-net", uuid=NET)
    run("up")
    assert not outer.said, "nobody even looked"


def test_one_that_is_being_replaced_is_no_more_what_the_state_knows(
    engine: Engine, outer: FakeLibvirt
) -> None:
    """The engine keeps the old one until the new one is made, and marks it."""
    listed(engine)
    old = resource("domain", "web-domain", name="lab-web")
    engine.resources.append({**old, "pendingReplacement": True})
    engine.save()
    outer.domain("lab-web", "running", WEB)
    run("up")
    assert not outer.domains


def test_a_replacement_that_was_killed_half_way_goes(engine: Engine, outer: FakeLibvirt) -> None:
    old = resource("domain", "web-domain", name="lab-web")
    engine.resources.append({**old, "pendingReplacement": True})
    outer.domain("lab-web", "running", WEB)
    engine.recovered(("creating", old))
    assert not outer.domains


def test_a_domain_that_was_up_once_is_somebodys_work_and_stays(
    engine: Engine, outer: FakeLibvirt, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after `pulumi state delete`, or with a state of yesterday."""
    listed(engine)
    outer.domain("lab-web", "running", WEB)
    Virsh(outer, OUTER_URI).note_stood("lab-web")
    run("up")
    assert outer.domains["lab-web"].state == "running"
    said = capsys.readouterr().err
    assert "the domain lab-web at this machine is this lab's and was up once, but its state" in said
    assert "pulumi stack import" in said
    assert f"undefine --nvram {WEB}" in said


@pytest.mark.parametrize("uuid", ["their own", "the list says it"])
def test_a_strangers_of_the_same_name_stays_whatever_a_list_says(
    uuid: str, engine: Engine, outer: FakeLibvirt
) -> None:
    theirs = str(uuid4())
    if uuid == "their own":
        listed(engine)
    else:
        listed(engine, domains={"lab-web": theirs, "my-vm": theirs}, networks={"lab-net": theirs})
    outer.domain("lab-web", "running", theirs)
    outer.domain("my-vm", "running", theirs)
    outer.network("lab-net", uuid=theirs)
    run("up")
    assert set(outer.domains) == {"lab-web", "my-vm"}
    assert set(outer.networks) == {"lab-net"}


@pytest.mark.parametrize("ours", [True, False])
def test_a_pool_without_an_answer_goes_with_its_files_kept(
    ours: bool, engine: Engine, outer: FakeLibvirt
) -> None:
    listed(engine)
    engine.resources = engine.resources[:-2]
    engine.save()
    outer.pools[POOL] = POOL_UUID if ours else str(uuid4())
    outer.volumes[POOL] = ["thesis.txt"]
    run("up")
    assert (POOL in outer.pools) is not ours
    assert outer.volumes[POOL] == ["thesis.txt"]


def test_of_volumes_a_seed_goes_and_a_disk_is_taken_over_by_the_provider(
    engine: Engine, outer: FakeLibvirt
) -> None:
    volumes = ["lab-web.qcow2", "lab-web-seed.iso", "medium-ipxe-0123.iso"]
    listed(engine, domains={}, networks={}, volumes=[*volumes, "lab-db-seed.iso"])
    engine.resources.append(resource("seed", "db-seed", name="lab-db-seed.iso", pool=POOL))
    engine.save()
    outer.pools[POOL] = POOL_UUID
    there = [*volumes, "lab-db-seed.iso", "my-seed.iso"]
    outer.volumes[POOL] = list(there)
    run("up")
    assert outer.volumes[POOL] == [each for each in there if each != "lab-web-seed.iso"]


def test_nothing_of_a_strangers_pool_goes(engine: Engine, outer: FakeLibvirt) -> None:
    listed(engine, volumes=["lab-web-seed.iso"])
    outer.pools[POOL] = str(uuid4())
    outer.volumes[POOL] = ["lab-web-seed.iso"]
    run("up")
    assert outer.volumes[POOL] == ["lab-web-seed.iso"]


# Inside a nested host ---------------------------------------------------------------------------


@pytest.fixture
def nested(engine: Engine) -> Engine:
    keys(paths.KEYS)
    pool = uuid_of(IDENTITY, "pool", "one-pool")
    web = uuid_of(IDENTITY, "domain", "one-web-domain")
    engine.resources[0]["inputs"] = {"pool": POOL, "uri": OUTER_URI}
    engine.resources += [
        {**resource("pool", "one-pool", INNER_PROVIDER, name="nestlab"), "id": pool},
        gate(pool, pool="nestlab", domains={"web": web}, networks={}),
    ]
    engine.save()
    return engine


@pytest.mark.parametrize("key", ["one-web-domain", "web"])
def test_inside_a_nested_host_it_is_told_by_its_uuid_too(
    key: str, nested: Engine, outer: FakeLibvirt, inner: FakeLibvirt
) -> None:
    del nested
    inner.domain("web", "running", uuid_of(IDENTITY, "domain", key))
    run("up")
    assert ("web" in inner.domains) is (key == "web")
    assert not outer.said


def test_a_pool_inside_a_nested_host_goes(
    nested: Engine, outer: FakeLibvirt, inner: FakeLibvirt
) -> None:
    nested.resources = nested.resources[:-2]
    nested.save()
    inner.pools["nestlab"] = uuid_of(IDENTITY, "pool", "one-pool")
    run("up")
    assert not inner.pools
    assert not outer.said


def test_a_nested_host_that_is_off_hinders_nothing(
    nested: Engine, outer: FakeLibvirt, inner: FakeLibvirt, capsys: pytest.CaptureFixture[str]
) -> None:
    nested.resources.append(gate(domains={"lab-web": WEB}))
    failed(nested)
    nested.save()
    inner.down = True
    outer.domain("lab-web", "running", WEB)
    run("up")
    assert not outer.domains
    assert "libvirt at one: " in capsys.readouterr().err


# What the state knows and is gone ---------------------------------------------------------------


@pytest.fixture
def gone(engine: Engine) -> Engine:
    """One that knows a domain and a network; nothing but the network is there."""
    domain = resource("domain", "web-domain", name="lab-web")
    network = resource("network", "net-network", name="lab-net")
    above = {**resource("gate", "web-gate", name="web-gate"), "dependencies": [domain["urn"]]}
    engine.resources += [network, domain, above]
    engine.save()
    return engine


def known(engine: Engine) -> set[str]:
    resources = state.read(engine.file).latest["resources"]
    return {one["urn"].rpartition("::")[2] for one in resources}


@pytest.mark.parametrize("command", ["up", "destroy", "down"])
def test_after_a_failure_what_is_gone_is_forgotten(
    command: str, gone: Engine, outer: FakeLibvirt
) -> None:
    failed(gone, "succeeded", 1764200000000000000)
    failed(gone, "failed", 1764200000000000001)
    outer.network("lab-net", uuid=NET)
    run(command)
    assert "web-domain" not in known(gone)
    assert {"net-network", "web-gate", "host-pool"} <= known(gone)
    assert "web-domain" not in json.dumps(state.read(gone.file).latest)


@pytest.mark.parametrize("last", ["succeeded", "none"])
def test_without_a_failure_a_domain_that_somebody_removed_is_its_gates_to_define_again(
    last: str, gone: Engine, outer: FakeLibvirt
) -> None:
    if last != "none":
        failed(gone, "failed", 1764200000000000000)
        failed(gone, last, 1764200000000000001)
    run("up")
    assert not gone.touched
    assert not outer.said


@pytest.mark.parametrize("why", ["down", "refuses"])
def test_what_nobody_can_see_is_not_taken_for_gone(
    why: str, gone: Engine, outer: FakeLibvirt
) -> None:
    failed(gone)
    outer.down = why == "down"
    if why == "refuses":
        # As virsh says it of a connection that breaks: the first line is that of one that is not there.
        outer.before = lambda place, words: setattr(place, "down", "list" in words[4])
    assert recover.main(["--", "up", "--stack", "local"]) == 0
    assert not gone.touched


@pytest.mark.parametrize("content", [b"{", b'{"result": ', b"[]", b"\x1f\x8bcut", b"null"])
def test_a_history_that_can_not_be_read_is_a_reason_to_look(content: bytes, gone: Engine) -> None:
    failed(gone).write_bytes(content)
    assert strays.has_failed("local", gone.backend)


def test_what_the_engines_store_writes_beside_a_history_is_none(engine: Engine) -> None:
    # Whichever of the two the folder names first: a second look each time costs half a second.
    for when in range(1000, 1040):
        file = failed(engine, "succeeded", when)
        file.with_name(f"{file.name}.attrs").write_text('{"user.content_type": ""}')
        assert not strays.has_failed("local", engine.backend)


def test_the_last_one_counts_and_may_be_compressed(engine: Engine) -> None:
    assert not strays.has_failed("local", engine.backend)
    failed(engine, "failed", 999)
    last = failed(engine, "succeeded", 1000)
    assert not strays.has_failed("local", engine.backend)
    packed = last.with_name("local-1001.history.json.gz")
    packed.write_bytes(gzip.compress(b'{"result": "failed"}'))
    last.with_name("local-1001.checkpoint.json.gz").write_bytes(b"")
    assert strays.has_failed("local", engine.backend)


# What the wrapper asks first --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "asked"), [("up", True), ("destroy", True), ("preview", False), ("refresh", False)]
)
def test_the_wrapper_has_it_put_right_before_what_changes_something(
    command: str, asked: bool, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(before, "_refuse_damage", lambda _: None)
    monkeypatch.setattr(plugins, "lacking", lambda _: [])
    listed(engine)
    status = before.PUT_RIGHT if asked else 0
    assert before.main(["--", command, "--stack", "local"]) == status
    engine.resources += [
        resource("domain", "web-domain", HOST_PROVIDER, name="lab-web"),
        resource("network", "net-network", HOST_PROVIDER, name="lab-net"),
    ]
    engine.save()
    assert before.main(["--", command, "--stack", "local"]) == 0
    failed(engine)
    assert before.main(["--", command, "--stack", "local"]) == status
