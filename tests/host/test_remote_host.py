"""A lab whose outer host is another machine's libvirt: this one's own, behind a real sshd.

What a command of the lab sees of this machine's libvirt is empty folders, so that all that happens went by SSH.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from tests.host.test_lab import changes
from tests.support.checkout import Checkout, virsh
from tests.support.sshd import serving
from toolchain.bootstrap import paths
from toolchain.lab import in_namespace

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.sshd import Server

pytestmark = [pytest.mark.host, pytest.mark.soak]
STACK = "remote-kvm"
HIDE = (
    "for each in /run/libvirt /var/lib/libvirt /var/log/libvirt; do"
    ' mount -t tmpfs none "$each" || exit; done; exec "$@"'
)


@dataclass
class Away(Checkout):
    """A checkout on a machine that has no libvirt of its own, once it is ``prepared``."""

    prepared: bool = False

    @override
    def start(self, argv: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
        hidden = ["unshare", "-m", "sh", "-c", HIDE, "sh"] if self.prepared else []
        return super().start([*hidden, *argv], output)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("virsh") is None or not (paths.LOCAL / "host.json").is_file():
        pytest.skip("needs libvirt and what `make host doctor` found")
    with serving(tmp_path_factory.mktemp("far") / "sshd", inside=in_namespace()) as server:
        yield server


@pytest.fixture(scope="module")
def lab(far: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    """The stack that ships with its guest alone: what is inside a nested host goes another way."""
    own = {"NESTLAB_CACHE": str(paths.cache())}
    made = Away.make(tmp_path_factory.mktemp("checkout") / "it", own, STACK)
    assert isinstance(made, Away)
    accelerator = json.loads(paths.HOST_JSON.read_text())["accelerator"]

    def there(lab: dict[str, object]) -> None:
        lab["host"] = {"uri": far.uri(), "accelerator": accelerator}
        lab["networks"] = {"lab": {"mode": "nat", "subnet": made.subnets[0]}}
        del lab["hypervisors"]

    made.edit(there)
    made.prepare("toolchain", "host")
    made.prepared = True
    try:
        yield made
    finally:
        made.prepared = False
        made.destroy()


def test_a_lab_on_another_machine_lives_through_all_there_is(lab: Away, far: Server) -> None:
    domain = f"{lab.lab}-ipxe"
    assert lab.pulumi("stack", "init", STACK).code == 0
    assert set(changes(lab.preview())) == {"to create"}
    lab.up()
    assert "running" in virsh("domstate", domain)
    said = lab.up()
    assert set(changes(said)) == {"unchanged"}, said

    shown = lab.run("./nestlab", "show", "--stack", STACK, "--json")
    assert shown.code == 0, shown.said
    assert [row["state"] for row in json.loads(shown.said)["sheet"]] == ["up"], shown.said
    # virsh's console asks for a terminal; what is typed is its way out.
    typed = "sleep 4; printf '\\035'"
    enter = f"({typed}) | script -qec './nestlab enter --stack {STACK} ipxe' /dev/null"
    console = lab.run("bash", "-c", enter)
    assert f"Connected to domain '{domain}'" in console.said, console.said

    lab.edit(lambda told: told["guests"]["ipxe"].update(memory_mib=300))
    lab.up()
    assert f"{300 * 1024} KiB" in virsh("dominfo", domain)

    virsh("destroy", domain)
    virsh("net-destroy", f"{lab.lab}-lab")
    shown = lab.run("./nestlab", "show", "--stack", STACK, "--json")
    assert [row["state"] for row in json.loads(shown.said)["sheet"]] == ["off"], shown.said
    seen = lab.preview()
    assert "`pulumi up` mends it" in seen, seen
    lab.up()
    assert "running" in virsh("domstate", domain)
    assert "yes" in virsh("net-info", f"{lab.lab}-lab")

    far.stop()
    silent = lab.pulumi("preview")
    assert silent.code != 0
    assert "lab.host.uri: '127.0.0.1' given, but nobody answers there" in silent.said, silent.said
    assert "Traceback" not in silent.said
    far.start()

    done = lab.pulumi("destroy", "--yes", "--skip-preview")
    assert done.code == 0, done.said
    assert lab.left() == []
