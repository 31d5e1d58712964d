"""Every stack that ships is previewed whole, with the policy pack, before any of it exists.

A failure here means that a pull request which touches a stack shows nothing of what it would do, or
that a stack of the project breaks a rule of the project. Vendors' ISOs are not there; nor need they be.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import socket
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from components.stackfile import load, plan
from tests.double.conftest import Project
from tests.support import images
from tests.support.checkout import Checkout
from tests.support.netns import namespace, reason
from tests.support.shipped import STACKS
from tests.support.sshd import serving
from toolchain.bootstrap import paths
from toolchain.engine import environment

if TYPE_CHECKING:
    from tests.support.netns import Namespace

pytestmark = pytest.mark.double

PACK = ("--policy-pack", str(paths.ROOT / "policies"))
GOLDEN = {
    "version": 1,
    "hash": "0",
    "pool": "nestlab-images",
    "volume": "0.qcow2",
    "kernel": "/images/vmlinuz",
    "initrd": "/images/initrd",
    "files": {"disk": "/cache/disk", "kernel": "/cache/vmlinuz", "initrd": "/cache/initrd"},
    "root_gib": 4,
}
"""A golden image as `make image` tells of one; a preview takes nothing of it."""
COMPONENTS = {
    "guests": "nestlab:index:GuestFromIso",
    "containers": "nestlab:index:ContainerFromTemplate",
    "hypervisors": "nestlab:index:NestedHypervisorLab",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as git would commit it, with this machine's facts and a made-up golden image."""
    if not paths.HOST_JSON.is_file():
        pytest.skip("needs the machine's facts: run `make host doctor`")
    made = Checkout.make(tmp_path_factory.mktemp("checkout")).root
    for file in STACKS:
        shutil.copy2(file, made / "stacks")
    local = made / ".nestlab"
    (local / "state").mkdir(parents=True)
    (made / ".venv").symlink_to(paths.VENV)
    shutil.copy2(paths.HOST_JSON, local)
    for name in ("golden.json", "golden-xen.json"):
        (local / name).write_text(json.dumps(GOLDEN))
    return made


def name_of(stack: Path) -> str:
    return stack.name.removeprefix("Pulumi.").removesuffix(".yaml")


ENGINE = """\
#!/bin/sh
# The engine goes into the namespace that libvirt lives in: to it that is this one.
exec @NSENTER@ unshare -m sh -ec 'for known in /run/netns/*; do
  [ ! -e "$known" ] || mount --bind /proc/self/ns/net "$known"; done; exec @ENGINE@ "$@"' engine "$@"
"""


def _in(host: Namespace, project: Project, folder: Path) -> Project:
    """Return ``project`` with an engine that runs on ``host``."""
    engine = shutil.which("pulumi", path=project.variables["PATH"])
    script = ENGINE.replace("@NSENTER@", shlex.join(host.inside)).replace("@ENGINE@", str(engine))
    (folder / "pulumi").write_text(script)
    (folder / "pulumi").chmod(0o755)
    path = {"PATH": f"{folder}:{project.variables['PATH']}"}
    return replace(project, variables=project.variables | path)


def _remote(
    data: dict[str, Any], project: Project, preview: tuple[str, ...], settings: Path, folder: Path
) -> str:
    """Preview a lab on another machine's libvirt: without that machine, and with one whose libvirt is this one's."""
    whole = settings.read_text()
    uri = data["host"]["uri"]
    nowhere = "qemu+ssh://lab@127.0.0.1:9/system"
    settings.write_text(whole.replace(uri, nowhere))
    told = project.pulumi(*preview, fails=True)
    assert "lab.host.uri: '127.0.0.1' given, but nobody answers there" in told, told
    assert "Traceback" not in told
    assert "libvirt:index" not in told, "told before anything else is asked"
    if reason():
        pytest.skip(reason())
    with namespace("host") as host:
        bridges = {net["bridge"] for net in data["networks"].values() if "bridge" in net}
        host.must(*(f"ip link add {bridge} up type bridge" for bridge in bridges))
        with serving(folder / "far", inside=host.inside) as far:
            settings.write_text(whole.replace(uri, far.uri()))
            return _in(host, project, folder).pulumi(*preview)


@pytest.mark.parametrize("stack", STACKS, ids=name_of)
def test_a_stack_is_previewed_whole_and_keeps_the_rules(
    checkout: Path, stack: Path, tmp_path: Path
) -> None:
    own = {
        "PULUMI_BACKEND_URL": f"file://{checkout}/.nestlab/state",
        "PULUMI_CONFIG_PASSPHRASE": "scratch",
        "NESTLAB_ALLOW": os.environ["NESTLAB_ALLOW"],
        "PATH": os.environ["PATH"],  # by which a host's NICs are looked at
    }
    project = Project(checkout, environment.environment(own))
    settings = checkout / "stacks" / stack.name
    # A salt of this machine's own state is none of a test's business.
    lines = settings.read_text().splitlines(keepends=True)
    settings.write_text("".join(line for line in lines if not line.startswith("encryptionsalt:")))
    project.pulumi("stack", "init", name_of(stack))
    project.pulumi(
        *("config", "set", "--secret", "nestlab:hostPassword", "not-asked-for"),
        *("--stack", name_of(stack)),
    )
    data: dict[str, Any] = yaml.safe_load(stack.read_text())["config"]["nestlab:lab"]
    uplinks = [net for net in data["networks"].values() if "uplink" in net]
    nics = [net["uplink"]["nic"] for net in uplinks]
    preview = ("preview", "--json", *PACK, "--stack", name_of(stack))
    uri = str(data.get("host", {}).get("uri", ""))
    if uri.startswith("qemu+ssh"):
        told = _remote(data, project, preview, settings, tmp_path)
    elif nics:
        told = project.pulumi(*preview, fails=True)
        assert f"there is no NIC {nics[0]}" in told, "told before anything is made"
        assert "Traceback" not in told
        if reason():
            pytest.skip(reason())
        with namespace("host") as host:
            host.must(*(f"ip link add {nic} type veth peer name outer{nic}" for nic in nics))
            host.must(*(f"ip link set {nic} up" for nic in nics))
            for net in uplinks:
                if "subnet" in net:  # a part of the NIC's own network
                    around = IPv4Network(net["subnet"]).supernet(new_prefix=24)
                    host.must(f"ip addr add {around[5]}/24 dev {net['uplink']['nic']}")
            told = _in(host, project, tmp_path).pulumi(*preview)
    else:
        told = project.pulumi(*preview)
    steps = json.loads(told[told.index("{\n") :])["steps"]
    urns = {step["urn"] for step in steps}
    assert {step["op"] for step in steps} == {"create"}
    lab = plan(load(data, root=checkout, exists=lambda _: True))
    for machine in lab.machines():
        logical = "-".join(machine.path)
        kind = COMPONENTS[machine.group]
        assert any(urn.endswith(f"{kind}::{logical}") for urn in urns), f"{logical} is not shown"
    for name, each in data.get("hypervisors", {}).items():
        said = f"lab.hypervisors.{name}: nested is false, so what is in it is emulated: "
        assert (said in told) is (each.get("nested") is False), (
            "what follows for its guests is told"
        )
    for place in lab.places:
        for network in place.networks:
            logical = "-".join((*place.path, network))
            assert any(urn.endswith(f"BridgedNetwork::{logical}") for urn in urns), logical


def test_a_strangers_stack_file_reaches_nothing(checkout: Path, tmp_path: Path) -> None:
    """Without an allow.yaml, as somebody who looks at a branch for the first time."""
    (tmp_path / "home").mkdir()
    (checkout / "overlay.qcow2").write_bytes(images.qcow2(backing=b"/etc/shadow"))
    (checkout / "link.iso").symlink_to("/etc/passwd")
    os.mkfifo(checkout / "pipe.iso")
    word = "a-passphrase-of-somebody"
    own = {
        "HOME": str(tmp_path / "home"),
        "PATH": os.environ["PATH"],
        "PULUMI_BACKEND_URL": f"file://{checkout}/.nestlab/state",
        "PULUMI_CONFIG_PASSPHRASE": word,
    }
    project = Project(checkout, environment.environment(own))
    files = ("/etc/shadow", "/proc/kmsg", "/dev/zero", "overlay.qcow2", "link.iso", "pipe.iso")
    lab: dict[str, Any] = {
        "name": "lab",
        "networks": {"net": {"subnet": "10.77.0.0/24"}},
        "media": {f"m{n}": {"path": path, "sha256": "0" * 64} for n, path in enumerate(files)},
        "guests": {f"g{n}": {"image": f"m{n}"} for n in range(len(files))},
    }
    settings = checkout / "stacks" / "Pulumi.stranger.yaml"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        at = f"qemu+ssh://x@127.0.0.1:{port}/system"
        for uri, said in (
            (f"{at}?knownhosts=$PULUMI_CONFIG_PASSPHRASE", "a URI with $"),
            (at, "allow"),
        ):
            lab["host"] = {"uri": uri, "accelerator": "kvm"}
            settings.write_text(yaml.safe_dump({"config": {"nestlab:lab": lab}}))
            if not (checkout / ".nestlab/state/.pulumi/stacks/nestlab/stranger.json").exists():
                project.pulumi("stack", "init", "stranger")
            told = project.pulumi("preview", "--stack", "stranger", fails=True)
            assert "lab.host.uri: " in told, told
            assert said in told
            assert word not in told
            assert "Traceback" not in told
            refused = {
                line.split(":")[0].strip() for line in told.splitlines() if ".path: " in line
            }
            assert refused == {f"lab.media.m{n}.path" for n in range(len(files))}, told
            digest = hashlib.sha256(Path("/etc/passwd").read_bytes()).hexdigest()
            assert digest not in told
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept()
