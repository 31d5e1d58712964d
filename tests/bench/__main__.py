"""`make bench`: what a lab costs beside the same two guests booted by plain virsh, in the same run.

Rounds of both take turns, so that what else the machine does hits both; medians are printed. It also
times a no-op `pulumi up` beside an empty program's, preview with and without the policy pack, and
`make down`. Nothing is asserted here: figures go into the notes of a change, not into a test.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.checkout import URI, Checkout, virsh

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3
POLL_S = 0.25
SETTLED_S = 40.0
"""A nested host puts off what nobody waits for until 20 s after its boot; then it is a quiet one."""
GIVEN_UP_S = 300.0


@dataclass
class Figures:
    """Seconds by what was measured."""

    taken: dict[str, list[float]] = field(default_factory=dict)

    def add(self, what: str, seconds: float) -> None:
        self.taken.setdefault(what, []).append(seconds)

    def time(self, what: str, act: Callable[[], object]) -> None:
        began = time.monotonic()
        act()
        self.add(what, time.monotonic() - began)

    def median(self, what: str) -> float:
        return statistics.median(self.taken[what])

    def table(self) -> str:
        width = max(map(len, self.taken))
        lines = [f"{'':<{width}}  median     min     max  n"]
        for what, taken in self.taken.items():
            low, high = min(taken), max(taken)
            lines.append(
                f"{what:<{width}}  {statistics.median(taken):6.2f}  {low:6.2f}  {high:6.2f}  {len(taken)}"
            )
        return "\n".join(lines)


@dataclass
class Plain:
    """The same two guests by virsh, ssh and qemu-img: from the definitions that a lab left."""

    folder: Path
    address: str
    lease: str
    xml: dict[str, str]

    @classmethod
    def of(cls, checkout: Checkout, folder: Path) -> Plain:
        """Take the definitions and the seed of the lab that is up."""
        lab = checkout.lab
        sheet = checkout.sheet()
        inside = {
            "guest": checkout.inside(
                "virsh", "dumpxml", "--inactive", "--security-info", "ipxe"
            ).said,
            "net": checkout.inside("virsh", "net-dumpxml", "--inactive", "inner").said,
        }
        outside = {
            "host": virsh("dumpxml", "--inactive", "--security-info", f"{lab}-kvm1"),
            "lab": virsh("net-dumpxml", "--inactive", f"{lab}-lab"),
            "pool": virsh("pool-dumpxml", f"nestlab-{lab}"),
        }
        place = Path(f"/var/lib/libvirt/nestlab/{lab}")
        shutil.copy(place / f"{lab}-kvm1-seed.iso", folder / "seed.iso")
        keys = checkout.root / ".nestlab" / "keys" / "local" / "kvm1"
        for name in ("id_ed25519", "known_hosts"):
            shutil.copy(keys / name, folder / name)
        for name, text in {**inside, **outside}.items():
            (folder / f"{name}.xml").write_text(text)
        golden = json.loads((checkout.root / ".nestlab" / "golden.json").read_text())
        made = cls(folder, sheet["kvm1"]["address"], sheet["ipxe"]["address"], {})
        made.xml = {"lab": lab, "base": golden["kernel"].removesuffix(".vmlinuz") + ".qcow2"}
        return made

    @property
    def options(self) -> list[str]:
        """Of ssh and scp: the user's own settings must not change what is measured."""
        known = f"UserKnownHostsFile={self.folder}/known_hosts"
        return ["-F", "none", "-i", f"{self.folder}/id_ed25519", "-o", known, "-o", "BatchMode=yes"]

    def ssh(self, *command: str, stdin: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command on the nested host with the plain ssh client."""
        argv = ["ssh", *self.options, "-o", "ConnectTimeout=2", f"root@{self.address}", *command]
        with (stdin or Path("/dev/null")).open() as handle:
            return subprocess.run(argv, stdin=handle, capture_output=True, text=True, check=False)

    def until(self, look: Callable[[], bool]) -> None:
        """Poll until ``look`` is satisfied."""
        began = time.monotonic()
        while not look():
            if time.monotonic() - began > GIVEN_UP_S:
                sys.exit("plain virsh: gave up waiting")
            time.sleep(POLL_S)

    def up(self, figures: Figures) -> None:
        """Boot both guests; time each phase."""
        lab, place = self.xml["lab"], Path(f"/var/lib/libvirt/nestlab/{self.xml['lab']}")
        began = time.monotonic()
        place.mkdir(parents=True)
        disk = place / f"{lab}-kvm1.qcow2"
        make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", self.xml["base"]]
        subprocess.run([*make, str(disk), "8G"], check=True)
        shutil.copy(self.folder / "seed.iso", place / f"{lab}-kvm1-seed.iso")
        for words in (
            ("pool-define", "pool.xml"),
            ("net-define", "lab.xml"),
            ("define", "host.xml"),
        ):
            virsh(words[0], str(self.folder / words[1]))
        virsh("pool-start", f"nestlab-{lab}")
        virsh("net-start", f"{lab}-lab")
        virsh("start", f"{lab}-kvm1")
        self.until(lambda: self.ssh("virsh", "-c", URI, "version").returncode == 0)
        figures.add("plain virsh: nested host answers", time.monotonic() - began)
        self.ssh("mkdir -p /var/lib/libvirt/nestlab")
        iso = Path("/usr/lib/ipxe/ipxe.iso")
        self.copy(iso, "/var/lib/libvirt/nestlab/medium-ipxe.iso")
        for name in ("net", "guest"):
            self.copy(self.folder / f"{name}.xml", f"/root/{name}.xml")
        self.ssh(
            "virsh net-define /root/net.xml && virsh net-start inner && "
            "virsh define /root/guest.xml && virsh start ipxe"
        )
        self.until(lambda: self.lease in self.ssh("virsh", "net-dhcp-leases", "inner").stdout)
        figures.add("plain virsh: inner guest has its lease", time.monotonic() - began)

    def copy(self, source: Path, target: str) -> None:
        """Copy a file into the nested host."""
        self.ssh(f"cat > {target}", stdin=source) if source.suffix == ".xml" else subprocess.run(
            [
                *("scp", "-q", *self.options),
                *(str(source), f"root@{self.address}:{target}"),
            ],
            check=True,
        )

    def down(self) -> None:
        """Take it all away."""
        lab = self.xml["lab"]
        for words in (
            ("destroy", f"{lab}-kvm1"),
            ("undefine", f"{lab}-kvm1"),
            ("net-destroy", f"{lab}-lab"),
            ("net-undefine", f"{lab}-lab"),
            ("pool-destroy", f"nestlab-{lab}"),
            ("pool-undefine", f"nestlab-{lab}"),
        ):
            virsh(*words)
        shutil.rmtree(f"/var/lib/libvirt/nestlab/{lab}", ignore_errors=True)


def lab_up(checkout: Checkout, figures: Figures) -> None:
    """Run `make up` in full; time it and its phases."""
    file = checkout.root / "timings.json"
    began = time.monotonic()
    command = ("python3", "-m", "toolchain", "up", "--timings", str(file))
    done = checkout.run(*command, timeout_s=GIVEN_UP_S)
    if done.code:
        sys.exit(done.said)
    figures.add("make up", time.monotonic() - began)
    for phase, seconds in json.loads(file.read_text()).items():
        figures.add(f"  of that {phase}", seconds)


def empty_up(checkout: Checkout, folder: Path, figures: Figures) -> None:
    """Time `pulumi up` of an empty program, through the same wrapper."""
    if not (folder / "Pulumi.yaml").exists():
        folder.mkdir(exist_ok=True)
        (folder / "Pulumi.yaml").write_text("name: empty\nruntime: {name: python}\n")
        (folder / "__main__.py").write_text("")
        script = f"cd {folder} && . {checkout.root}/.nestlab/env.sh && pulumi stack init empty"
        checkout.run("bash", "-c", script)
    script = f"cd {folder} && . {checkout.root}/.nestlab/env.sh && pulumi up -s empty --yes --skip-preview"
    figures.time("empty program: pulumi up", lambda: checkout.run("bash", "-c", script))


def main() -> int:
    """Measure, print, leave nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    figures = Figures()
    scratch = Path(tempfile.mkdtemp(prefix="bench-"))
    checkout = Checkout.make(scratch / "checkout")
    plain: Plain | None = None
    try:
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            lab_up(checkout, figures)
            figures.time("no-op pulumi up, the nested host still settling", checkout.up)
            time.sleep(SETTLED_S)
            for _ in range(4):
                empty_up(checkout, scratch / "empty", figures)
                figures.time("no-op pulumi up", checkout.up)
                figures.time("no-op pulumi preview", checkout.preview)
                figures.time(
                    "no-op pulumi preview with the policy pack",
                    lambda: checkout.pulumi("preview", "--policy-pack", "policies"),
                )
            if plain is None:
                (scratch / "plain").mkdir()
                plain = Plain.of(checkout, scratch / "plain")
            figures.time("make down", checkout.down)
            plain.up(figures)
            figures.time("plain virsh: away", plain.down)
    finally:
        checkout.destroy()
        if plain:
            plain.down()
        shutil.rmtree(scratch)
    print(figures.table())
    ours, theirs = (
        figures.median("make up"),
        figures.median("plain virsh: inner guest has its lease"),
    )
    print(f"\nmake up / plain virsh: {ours / theirs:.2f}")
    over = figures.median("no-op pulumi up") - figures.median("empty program: pulumi up")
    print(f"no-op up above an empty program's: {over:.2f} s")
    pack = figures.median("no-op pulumi preview with the policy pack")
    print(f"preview with the pack / without: {pack / figures.median('no-op pulumi preview'):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
