"""`make bench`: what a lab costs beside the same two guests booted by plain virsh, in the same run.

Rounds of both take turns, so that what else the machine does hits both; medians are printed. It also
times a no-op `pulumi up` beside an empty program's, preview with and without the policy pack, `make
down`, a snapshot and the way back to it, a lab of one and one of ten guests, and a preview of three
hundred. Guests without a system spin: what has nothing to do is measured once more while theirs are held, so that its own cost can be told from
that of two busy cores. Nothing is asserted here: figures go into the notes of a change, not into a test.
What fails in a round is told and counted, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench import previews
from tests.bench.processes import Memory, held
from tests.support.checkout import URI, Checkout, virsh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 3
POLL_S = 0.25
SETTLED_S = 40.0
"""A nested host puts off what nobody waits for until 20 s after its boot; then it is a quiet one."""
GIVEN_UP_S = 300.0
TEN = 10
"""Guests of the wide lab, as many as others' figures are known for."""
OTHERS = "kcli, for reference (two cores, no KVM): create 1 0.46 s, create 10 5.7 to 6.1 s, no-op of 10 1.1 s"
"""Measured beside 1.82, 5.6 and 3.1 s of this project's; on another machine of the same size than yours."""
MANY = 300
"""Guests of the lab that is only previewed: more than a class has."""
CLASSES = (25, 50, 100, 200)
"""Students of the classes that are only planned."""
LOOKS = 5
"""How often what has nothing to do is measured."""
TROUBLE = (
    *(AssertionError, OSError, LookupError, ValueError, ET.ParseError),
    *(subprocess.SubprocessError,),
)
"""What a command that fails, hangs or prints something else raises here, beside `Failed`."""


class Failed(Exception):
    """Something that was to be measured did not work; the message says what was seen."""


@dataclass
class Figures:
    """Seconds by what was measured, and what could not be."""

    taken: dict[str, list[float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    memory: dict[str, str] = field(default_factory=dict)
    """What the commands' processes took at most, in words."""

    @contextmanager
    def counted(self, what: str) -> Iterator[None]:
        """Let ``what`` fail without ending the rest."""
        try:
            yield
        except (Failed, *TROUBLE) as why:
            self.failed.append(what)
            print(f"{what} failed: {str(why).strip()[-600:]}", file=sys.stderr, flush=True)

    def add(self, what: str, seconds: float) -> None:
        self.taken.setdefault(what, []).append(seconds)

    def time(self, what: str, act: Callable[[], object]) -> None:
        began = time.monotonic()
        act()
        self.add(what, time.monotonic() - began)

    def weigh(self, what: str, act: Callable[[], object]) -> None:
        """Like `time`, and note the memory of the processes that ``act`` started."""
        with Memory() as taken:
            self.time(what, act)
        self.memory[what] = taken.said

    def median(self, what: str) -> float:
        return statistics.median(self.taken[what])

    def compare(self, words: str, what: str, other: str, *, minus: bool = False) -> None:
        """Print how ``what`` compares with ``other``, where both were measured."""
        if what in self.taken and other in self.taken:
            one, two = self.median(what), self.median(other)
            print(f"{words}: {f'{one - two:.2f} s' if minus else f'{one / two:.2f}'}")

    def table(self) -> str:
        if not self.taken:
            return "nothing could be measured"
        width = max(map(len, self.taken))
        lines = [f"{'':<{width}}  median     min     max  n"]
        for what, taken in self.taken.items():
            low, high = min(taken), max(taken)
            lines.append(
                f"{what:<{width}}  {statistics.median(taken):6.2f}  {low:6.2f}  {high:6.2f}  {len(taken)}"
            )
        said = [f"memory, {what}: {said}" for what, said in self.memory.items()]
        return "\n".join([*lines, *said])


def sources(definition: str, volume: Callable[[str, str], str]) -> dict[str, Path]:
    """Return the files of a domain's disks, by device: ``disk``, ``cdrom``; ``seed``: a disk that is only read.

    ``volume`` says where a volume lies, by its pool and name.
    """
    files: dict[str, Path] = {}
    for disk in ET.fromstring(definition).iterfind("devices/disk"):  # noqa: S314 - libvirt's own output
        source = disk.find("source")
        if source is not None:
            named = source.get("file") or volume(source.get("pool", ""), source.get("volume", ""))
            device = disk.get("device", "disk")
            seed = device == "disk" and disk.find("readonly") is not None
            files["seed" if seed else device] = Path(named.strip())
    return files


def must(*words: str) -> str:
    """Run a command of this machine that has to succeed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=GIVEN_UP_S)
    if done.returncode:
        raise Failed(f"{' '.join(words[:6])}: {done.stderr.strip()}")
    return done.stdout


@dataclass
class Plain:
    """The same two guests by virsh, ssh and qemu-img: from the definitions that a lab left."""

    folder: Path
    lab: str
    address: str
    lease: str
    base: str
    """The golden image under the host's disk."""
    size: int
    """Of that disk, bytes."""
    files: dict[str, Path]
    """Of the nested host, by device."""
    medium: Path
    """Of the guest inside, there."""

    @classmethod
    def of(cls, checkout: Checkout, folder: Path) -> Plain:
        """Take the definitions and the seed of the lab that is up."""
        lab, sheet = checkout.lab, checkout.sheet()
        dump = ("dumpxml", "--inactive", "--security-info")
        guest = checkout.inside("virsh", *dump, "ipxe").said
        texts = {
            "guest": guest,
            "net": checkout.inside("virsh", "net-dumpxml", "--inactive", "inner").said,
            "host": must("virsh", "-c", URI, *dump, f"{lab}-kvm1"),
            "lab": must("virsh", "-c", URI, "net-dumpxml", "--inactive", f"{lab}-lab"),
            "pool": must("virsh", "-c", URI, "pool-dumpxml", f"nestlab-{lab}"),
        }
        path = ("vol-path", "--pool")
        files = sources(texts["host"], lambda at, vol: must("virsh", "-c", URI, *path, at, vol))
        inner = sources(guest, lambda at, vol: checkout.inside("virsh", *path, at, vol).said)
        info = must("qemu-img", "info", "-U", "--output=json", str(files["disk"]))
        disk = json.loads(info)
        shutil.copy(files["seed"], folder / "seed.iso")
        keys = checkout.root / ".nestlab" / "keys" / "local" / "kvm1"
        for name in ("id_ed25519", "known_hosts"):
            shutil.copy(keys / name, folder / name)
        for name, text in texts.items():
            (folder / f"{name}.xml").write_text(text)
        return cls(
            folder,
            lab,
            sheet["kvm1"]["address"],
            sheet["ipxe"]["address"],
            disk["full-backing-filename"],
            disk["virtual-size"],
            files,
            inner["cdrom"],
        )

    def ssh(self, *command: str, stdin: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command on the nested host with the plain ssh client."""
        options = ["-i", f"{self.folder}/id_ed25519"]
        options += ["-o", f"UserKnownHostsFile={self.folder}/known_hosts"]
        options += ["-o", "BatchMode=yes", "-o", "ConnectTimeout=2"]
        argv = ["ssh", *options, f"root@{self.address}", *command]
        with (stdin or Path("/dev/null")).open() as handle:
            return subprocess.run(argv, stdin=handle, capture_output=True, text=True, check=False)

    def inside(self, command: str, stdin: Path | None = None) -> None:
        """Run a command on the nested host that has to succeed."""
        done = self.ssh(command, stdin=stdin)
        if done.returncode:
            raise Failed(f"on the nested host, {command[:60]}: {done.stderr.strip()}")

    def until(self, what: str, look: Callable[[], subprocess.CompletedProcess[str] | None]) -> None:
        """Poll until ``look`` returns None; it returns what was seen instead."""
        began = time.monotonic()
        while (seen := look()) is not None:
            if time.monotonic() - began > GIVEN_UP_S:
                last = (seen.stderr.strip() or seen.stdout.strip() or "nothing")[-300:]
                raise Failed(f"{what} did not come in {GIVEN_UP_S:.0f} s; seen last: {last}")
            time.sleep(POLL_S)

    def _answers(self) -> subprocess.CompletedProcess[str] | None:
        done = self.ssh("virsh", "-c", URI, "version")
        return done if done.returncode else None

    def _leased(self) -> subprocess.CompletedProcess[str] | None:
        done = self.ssh("virsh", "net-dhcp-leases", "inner")
        return None if self.lease in done.stdout else done

    def up(self, figures: Figures) -> None:
        """Boot both guests; time each phase."""
        began = time.monotonic()
        disk, seed = self.files["disk"], self.files["seed"]
        disk.parent.mkdir(parents=True, exist_ok=True)
        make = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", self.base)
        must(*make, str(disk), str(self.size))
        shutil.copy(self.folder / "seed.iso", seed)
        for words in (
            ("pool-define", f"{self.folder}/pool.xml"),
            ("net-define", f"{self.folder}/lab.xml"),
            ("define", f"{self.folder}/host.xml"),
            ("pool-start", f"nestlab-{self.lab}"),
            ("net-start", f"{self.lab}-lab"),
            ("start", f"{self.lab}-kvm1"),
        ):
            must("virsh", "-q", "-c", URI, *words)
        self.until("the nested host", self._answers)
        figures.add("plain virsh: nested host answers", time.monotonic() - began)
        self.inside(f"mkdir -p {self.medium.parent}")
        copied = subprocess.run(
            [
                *("scp", "-q", "-i", f"{self.folder}/id_ed25519", "-o", "BatchMode=yes"),
                *("-o", f"UserKnownHostsFile={self.folder}/known_hosts"),
                *("/usr/lib/ipxe/ipxe.iso", f"root@{self.address}:{self.medium}"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if copied.returncode:
            raise Failed(f"the medium was not copied: {copied.stderr.strip()}")
        for name in ("net", "guest"):
            self.inside(f"cat > /root/{name}.xml", stdin=self.folder / f"{name}.xml")
        self.inside("virsh net-define /root/net.xml && virsh net-start inner")
        self.inside("virsh define /root/guest.xml && virsh start ipxe")
        self.until("the inner guest's lease", self._leased)
        figures.add("plain virsh: inner guest has its lease", time.monotonic() - began)

    def down(self) -> None:
        """Take it all away."""
        for words in (
            ("destroy", f"{self.lab}-kvm1"),
            ("undefine", f"{self.lab}-kvm1"),
            ("net-destroy", f"{self.lab}-lab"),
            ("net-undefine", f"{self.lab}-lab"),
            ("pool-destroy", f"nestlab-{self.lab}"),
            ("pool-undefine", f"nestlab-{self.lab}"),
        ):
            virsh(*words)
        for file in self.files.values():
            file.unlink(missing_ok=True)
        if self.files["disk"].parent.is_dir() and not any(self.files["disk"].parent.iterdir()):
            self.files["disk"].parent.rmdir()


def lab_up(checkout: Checkout, figures: Figures) -> None:
    """Run `make up` in full; time it and its phases."""
    file = checkout.root / "timings.json"
    began = time.monotonic()
    command = ("./nestlab", "up", "--timings", str(file))
    done = checkout.run(*command, timeout_s=GIVEN_UP_S)
    if done.code:
        raise Failed(f"make up: {done.said}")
    figures.add("make up", time.monotonic() - began)
    for phase, seconds in json.loads(file.read_text()).items():
        figures.add(f"  of that {phase}", seconds)


def run(checkout: Checkout, *words: str) -> str:
    """Run a command in the checkout that has to succeed."""
    done = checkout.run(*words, timeout_s=GIVEN_UP_S)
    if done.code:
        raise Failed(f"{' '.join(words)}: {done.said}")
    return done.said


def script(checkout: Checkout, text: str) -> None:
    """Run a line of shell that has to succeed, with the environment file read."""
    run(checkout, "bash", "-c", f". {checkout.root}/.nestlab/env.sh && {text}")


def empty_up(checkout: Checkout, folder: Path, figures: Figures) -> None:
    """Time `pulumi up` of an empty program, through the same wrapper."""
    if not (folder / "Pulumi.yaml").exists():
        folder.mkdir(exist_ok=True)
        (folder / "Pulumi.yaml").write_text("name: empty\nruntime: {name: python}\n")
        (folder / "__main__.py").write_text("")
        script(checkout, f"cd {folder} && pulumi stack init empty")
    up = f"cd {folder} && pulumi up -s empty --yes --skip-preview"
    figures.time("empty program: pulumi up", lambda: script(checkout, up))


def guests(lab: dict[str, Any], count: int) -> None:
    """Make of the lab one of ``count`` guests on this machine, as others are measured: up is running."""
    lab["networks"] = {"lab": lab["networks"]["lab"]}
    lab.pop("hypervisors", None)
    guest = {"iso": "ipxe", "memory_mib": 64, "network": "lab", "ready": {"probe": "none"}}
    lab["guests"] = {f"g{number}": dict(guest) for number in range(1, count + 1)}


def idle(checkout: Checkout, empty: Path, figures: Figures, how: str) -> None:
    """Measure what has nothing to do in a lab of ten that is up; ``how`` its guests are."""
    checkout.make_target("up")  # the first one after a plain `pulumi up` deploys
    for _ in range(LOOKS):
        empty_up(checkout, empty, figures)
        figures.weigh(f"no-op up of {TEN}, {how}", checkout.up)
        figures.time(f"no-op preview of {TEN}, {how}", checkout.preview)
        figures.time(f"no-op make up of {TEN}, {how}", lambda: run(checkout, "make", "-s", "up"))


def wide(checkout: Checkout, empty: Path, figures: Figures) -> None:
    """Measure labs of one and of ten guests; the checkout's lab is down before and after."""
    before = checkout.settings.read_text()
    try:
        for count in (1, TEN):
            checkout.edit(lambda lab, count=count: guests(lab, count))
            script(checkout, "pulumi stack init local")
            figures.time(f"create {count}", checkout.up)
            if count == TEN:
                idle(checkout, empty, figures, "guests running")
                with held(checkout.lab):
                    idle(checkout, empty, figures, "guests held")
            figures.time(f"remove {count}", checkout.down)
    finally:
        checkout.destroy()
        checkout.settings.write_text(before)


def many(checkout: Checkout, figures: Figures) -> None:
    """Measure the preview of a lab of three hundred, of which nothing exists."""
    before = checkout.settings.read_text()
    try:
        checkout.edit(lambda lab: guests(lab, MANY))
        checkout.edit(_roomy)
        script(checkout, "pulumi stack init local")
        for _ in range(2):
            figures.weigh(f"preview of {MANY} new guests", checkout.preview)
    finally:
        checkout.destroy()
        checkout.settings.write_text(before)


def classes(checkout: Checkout, figures: Figures) -> None:
    """Measure the plans of classes: of nobody in them anything is made."""
    for count in CLASSES:
        roster = checkout.root / f"c{count}.csv"
        roster.write_text("id\n" + "".join(f"s{number}\n" for number in range(count)))
        words = ("./nestlab", "class", "plan", str(roster), "-s", checkout.stack, "--anyway")
        figures.weigh(f"plan of a class of {count}", partial(run, checkout, *words))


def _roomy(lab: dict[str, Any]) -> None:
    """Give the lab's network addresses for all of its guests."""
    network = lab["networks"]["lab"]
    network["subnet"] = str(IPv4Network(network["subnet"]).supernet(new_prefix=20))


def nested(checkout: Checkout, scratch: Path, figures: Figures) -> Plain:
    """Measure the nested lab once, and return what plain virsh needs for the same."""
    lab_up(checkout, figures)
    figures.time("no-op pulumi up, the nested host still settling", checkout.up)
    time.sleep(SETTLED_S)
    for _ in range(4):
        empty_up(checkout, scratch / "empty", figures)
        figures.time("no-op pulumi up", checkout.up)
        figures.time("no-op pulumi preview", checkout.preview)
        figures.time(
            "no-op pulumi preview with the policy pack",
            lambda: script(checkout, "pulumi preview --policy-pack policies --non-interactive"),
        )
    figures.time("nestlab snapshot take", lambda: run(checkout, "./nestlab", "snapshot", "take"))
    figures.time("nestlab reset, warm", lambda: run(checkout, "./nestlab", "reset", "--lose"))
    folder = scratch / "plain"
    folder.mkdir(exist_ok=True)
    plain = Plain.of(checkout, folder)
    figures.time("make down", checkout.down)
    return plain


def main() -> int:
    """Measure, print, leave nothing; 1 where a round failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    signal.signal(signal.SIGTERM, _stopped)
    figures = Figures()
    scratch = Path(tempfile.mkdtemp(prefix="bench-"))
    checkout = Checkout.make(scratch / "checkout", new=True)
    plain: Plain | None = None
    try:
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
            with figures.counted(f"round {number}, the lab"):
                plain = nested(checkout, scratch, figures)
            with figures.counted(f"round {number}, the lab away"):
                checkout.destroy()
            if plain:
                with figures.counted(f"round {number}, plain virsh"):
                    plain.up(figures)
                with figures.counted(f"round {number}, plain virsh away"):
                    figures.time("plain virsh: away", plain.down)
        with figures.counted(f"the lab of {TEN}"):
            wide(checkout, scratch / "empty", figures)
        with figures.counted("the plans of classes"):
            classes(checkout, figures)
        with figures.counted("the previews of classes"):
            previews.classes(previews.CLASSES)
        with figures.counted(f"the preview of {MANY}"):
            many(checkout, figures)
    finally:
        with figures.counted("taking it away"):
            checkout.destroy()
            if plain:
                plain.down()
            shutil.rmtree(scratch)
        told(figures)
    return 1 if figures.failed else 0


def _stopped(*_: object) -> None:
    """End as after Ctrl-C: what was measured so far is told, and the lab goes."""
    raise SystemExit(128 + signal.SIGTERM)


def told(figures: Figures) -> None:
    """Print what was measured, how it compares, and what failed."""
    print(figures.table())
    print()
    figures.compare("make up / plain virsh", "make up", "plain virsh: inner guest has its lease")
    empty, pack = "empty program: pulumi up", "no-op pulumi preview with the policy pack"
    figures.compare("no-op up above an empty program's", "no-op pulumi up", empty, minus=True)
    for how in ("running", "held"):
        what = f"no-op up of {TEN}, guests {how}"
        figures.compare(f"{what}, above an empty program's", what, empty, minus=True)
    figures.compare("preview with the pack / without", pack, "no-op pulumi preview")
    print(OTHERS)
    print("failed: " + ("; ".join(figures.failed) or "nothing"))


if __name__ == "__main__":
    sys.exit(main())
