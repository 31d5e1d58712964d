"""The component package as the real engine starts it, by this project's own language host."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from components.package.schema import TOKEN, schema
from tests.support.images import iso
from toolchain.bootstrap import paths
from toolchain.engine import environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project

pytestmark = pytest.mark.double


def test_the_engine_gets_the_schema_and_keeps_all_of_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(paths.BIN / "pulumi"), "package", "get-schema", str(paths.ROOT / "provider")],
        cwd=tmp_path,
        env=environment.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read, said = json.loads(done.stdout), schema()
    assert {name: set(each["properties"]) for name, each in read["types"].items()} == {
        name: set(each["properties"]) for name, each in said["types"].items()
    }
    lab, ours = read["resources"][TOKEN], said["resources"][TOKEN]
    assert lab["isComponent"]
    assert lab["inputProperties"].keys() == ours["inputProperties"].keys()
    secret = {name for name, each in lab["properties"].items() if each.get("secret")}
    assert secret == {"passwords", "logins", "key"}
    assert lab["inputProperties"]["host_password"]["secret"]


PIECES_PROGRAM = """
import pulumi

class Remote(pulumi.ComponentResource):
    def __init__(self, kind, name, args, *outputs):
        args = dict.fromkeys(outputs) | args
        super().__init__(f"nestlab:index:{kind}", name, args, remote=True)

web = Remote("GuestFromIso", "web", {"place": "red", "iso": "page", "network": "lan",
    "memory_mib": pulumi.Config().require_int("memory")}, "address", "console", "password")
Remote("BridgedNetwork", "red-lan", {"place": "red", "name": "lan", "subnet": "10.77.0.0/24"}, "subnet")
Remote("Lab", "red", {"media": {"page": {"path": "page.iso"}},
    "holds": {"networks": ["lan"], "guests": ["web"]}}, "addresses")
Remote("Lab", "whole", {"networks": {"lan": {"subnet": "10.79.0.0/24"}}, "hypervisors": {"kvm1": {"kind": "kvm",
    "network": "lan", "networks": {"inner": {"subnet": "10.80.0.0/24"}}, "containers": {"box": {"template": "busybox",
    "network": "inner", "command": ["sh", "-c", pulumi.Output.secret("well-hidden")]}}}}}, "addresses")
alone = Remote("BridgedNetwork", "alone", {"lab": {"name": "blue"}, "subnet": "10.78.0.0/24"}, "subnet")
pulumi.export("address", web.address)
pulumi.export("password", web.password)
pulumi.export("console", web.console)
pulumi.export("alone", alone.subnet)
"""


def test_pieces_that_the_engine_asks_for_one_by_one_are_one_lab(
    project: Project, tmp_path: Path
) -> None:
    local = tmp_path / "checkout" / ".nestlab"
    local.mkdir(parents=True)
    host = {"version": 1, "accelerator": "tcg", "cores": 2, "memory_mib": 8000}
    (local / "host.json").write_text(json.dumps(host))
    project.variables |= {"NESTLAB_ROOT": str(local.parent), "NESTLAB_KEYS": str(local / "keys")}
    (project.folder / "page.iso").write_bytes(iso())
    plugin = {"providers": [{"name": "nestlab", "path": str(paths.ROOT / "provider")}]}
    settings = {"name": "scratch", "runtime": "python", "plugins": plugin}
    (project.folder / "Pulumi.yaml").write_text(json.dumps(settings))
    project.write(PIECES_PROGRAM)
    project.pulumi("config", "set", "memory", "64")
    said = project.pulumi("preview", "--json")
    told = json.loads(said[said.index("{\n") :])
    urns = {step["urn"].partition("::scratch::")[2] for step in told["steps"]}
    assert {step["op"] for step in told["steps"]} == {"create"}
    of = "nestlab:index:GuestFromIso"
    assert f"{of}$libvirt:index/domain:Domain::web-domain" in urns, sorted(urns)
    assert "nestlab:index:BridgedNetwork$libvirt:index/network:Network::red-lan-network" in urns
    assert "nestlab:index:BridgedNetwork$libvirt:index/network:Network::alone-network" in urns

    [box] = [step for step in told["steps"] if step["urn"].endswith("::whole-kvm1-box-container")]
    # A secret leaf of a lab that is said whole.
    assert box["newState"]["inputs"]["wanted"]["command"] == "[secret]"
    assert "well-hidden" not in said

    project.pulumi("config", "set", "memory", "8")
    said = project.pulumi("preview", fails=True)
    assert "8 MiB given, but at least 16 MiB is needed" in said, said
    assert "Traceback" not in said
