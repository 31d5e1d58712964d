"""A run that is killed at any moment costs the user nothing, and the next command puts it right.

In every folder that nestlab is told of or makes lie files of the user's: where disks go, where media
come from, in the checkout and what is made in it, in the home. Moments and signals come from seeded
random numbers over the length of the command. A few are tried in every test run; `python3 -m toolchain
test host --soak` tries all hundred.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.checkout import URI, Checkout, virsh
from tests.support.lossy import SOCKET, Lossy
from toolchain.bootstrap import paths
from toolchain.machine import daemons
from toolchain.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

pytestmark = pytest.mark.host

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
COMMANDS = {
    "up": ("pulumi", "up", "--yes", "--skip-preview"),
    "down": ("make", "-s", "down"),
    "recover": ("pulumi", "up", "--yes", "--skip-preview"),
    "clean": ("make", "-s", "clean"),
    "clean all": ("make", "-s", "clean", "CACHE=1"),
}
LASTS_S = {"up": 4.0, "down": 6.0, "recover": 2.0, "clean": 4.0, "clean all": 6.0}
"""About how long each takes with this lab under emulation, seconds: a later moment kills nothing."""
ALWAYS = {0, 1, 2, 7}
SEEDS = range(100)
ENDS_S = 120.0
NAMES = ("thesis.txt", "my-vm.qcow2", "win 10.img", "{}-one.qcow2", "-x", "a\u2028b", "{}.iso")
"""What the user's files are called, some nearly as the lab calls its own."""
IN_CACHE = ("", "/programs", "/venvs", "/images", "/locks")
IN_NESTLAB = ("", "/bin", "/home", "/state", "/config", "/media", "/locks", "/deployed")
IN_KEYS = ("/keys", "/keys/local")
ODD = "my web"
"""What a stranger's domain, network and pool are called, after the lab's name."""
STRANGER = {
    "domain": (
        "",
        "<domain type='qemu'><name>{}</name><memory>1024</memory><os><type>hvm</type></os></domain>",
    ),
    "network": ("net-", "<network><name>{}</name></network>"),
    "pool": ("pool-", "<pool type='dir'><name>{}</name><target><path>{}</path></target></pool>"),
}


@dataclass
class User:
    """Somebody with files, who has a lab."""

    base: Path
    checkout: Checkout = field(init=False)
    mine: list[Path] = field(default_factory=list)
    """The files among those of nestlab; elsewhere all are the user's."""

    def __post_init__(self) -> None:
        for folder in ("disks/sub", "home/isos", "home/.ssh", "checkout"):
            (self.base / folder).mkdir(parents=True)
        # As most people's are, whatever the umask here: QEMU has to get through.
        for each in (self.base, *self.base.rglob("*")):
            each.chmod(0o755)
        shutil.copy("/usr/lib/ipxe/ipxe.iso", self.base / "home/isos/mine.iso")
        given = {"HOME": str(self.base / "home"), "NESTLAB_CACHE": str(self.base / "cache")}
        self.fill()
        self.checkout = Checkout.make(self.base / "checkout", given)
        self.checkout.edit(self._small)
        for folder in ("disks", "disks/sub", "home", "home/isos", "checkout", "checkout/stacks"):
            self._files(folder)
        for folder in IN_CACHE:
            self.mine += self._files(f"cache{folder}")
        (self.base / "home/.ssh/id_ed25519").write_text("mine")

    def fill(self) -> None:
        """Have in the cache what is built, by hard links: no byte of it is written twice."""
        for folder in ("programs", "venvs"):
            (self.base / "cache" / folder).mkdir(parents=True, exist_ok=True)
            for entry in (paths.cache() / folder).iterdir():
                to = self.base / "cache" / folder / entry.name
                if entry.is_dir() and not entry.name.startswith(".") and not to.exists():
                    subprocess.run(["cp", "-al", str(entry), str(to)], check=True)

    def _small(self, lab: dict[str, Any]) -> None:
        lab["host"] = {"pool_path": str(self.base / "disks")}
        lab["media"] = {"mine": {"path": str(self.base / "home/isos/mine.iso")}}
        del lab["hypervisors"]
        guest = {"iso": "mine", "memory_mib": 16, "network": "lab", "ready": {"probe": "none"}}
        lab["guests"] = {"one": {**guest, "disk_gib": 1}, "two": guest}

    def _files(self, folder: str) -> list[Path]:
        """Put files there."""
        made = []
        (self.base / folder).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(NAMES):
            file = self.base / folder / name.format(self.checkout.lab)
            file.write_text(f"{folder} {name}")
            os.chown(file, 1000 + number, 2000)
            file.chmod(0o600 + number)
            os.utime(file, ns=(1, 10**18 + number))
            made.append(file)
        return made

    def grow(self) -> None:
        """Put more into what nestlab has made."""
        for folder in (*IN_NESTLAB, *IN_KEYS):
            self.mine += self._files(f"checkout/.nestlab{folder}")

    def tree(self) -> dict[str, tuple[object, ...]]:
        """Everything of the user's: content, owner, mode, time of change; folders without their time."""
        every = [
            path
            for top in ("disks", "home", "checkout/stacks")
            for path in [self.base / top, *(self.base / top).rglob("*")]
            if not self._made_by_nestlab(path.relative_to(self.base))
        ]
        every += (path for path in (self.base / "checkout").iterdir() if path.is_file())
        found: dict[str, tuple[object, ...]] = {}
        for path in [*every, *(path for path in self.mine if path.exists())]:
            at = path.relative_to(self.base)
            if at.name.startswith(".output-"):
                continue
            seen = path.lstat()
            what = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            when = seen.st_mtime_ns if path.is_file() else 0
            mode = stat.filemode(seen.st_mode)
            found[str(at)] = (mode, seen.st_uid, seen.st_gid, when, what)
        return found

    def _made_by_nestlab(self, at: Path) -> bool:
        own = (
            at.parts[0] == "disks"
            and len(at.parts) > 1
            and at.parts[1].startswith(f"{self.checkout.lab}-")
        )
        return (own and "." not in at.parts[1]) or at.parts[:2] in {
            ("home", ".cache"),
            ("home", ".config"),
        }

    def left(self) -> list[str]:
        """What of the lab is still there."""
        made = [
            each
            for each in (self.base / "disks").iterdir()
            if self._made_by_nestlab(each.relative_to(self.base))
        ]
        others = {f"{kind} {self.checkout.lab} {ODD}" for kind in STRANGER}
        others |= {f"file {path}" for path in self.mine}
        return [str(each) for each in made] + [
            each for each in self.checkout.left() if each not in others
        ]


def shared() -> dict[str, tuple[int, ...]]:
    """The cache that the user's is linked from: no lab of a checkout may change what is in there."""
    found: dict[str, tuple[int, ...]] = {}
    for folder in ("programs", "venvs"):
        for path in (paths.cache() / folder).glob("*/**/*"):
            # The hosts' scripts are each checkout's own version.
            if path.is_file() and "python" not in path.name and "__pycache__" not in path.parts:
                seen = path.lstat()
                found[str(path)] = (seen.st_mode, seen.st_uid, seen.st_size, seen.st_mtime_ns)
    return found


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """One with a small lab that was up once, and with objects of odd names in the same libvirt."""
    # Not in pytest's folder: QEMU goes through all above it, and each run of pytest closes that one.
    base = Path(tempfile.mkdtemp(prefix="nestlab-user-"))
    built = shared()
    made = User(base)
    try:
        done = made.checkout.make_target("up")
        assert done.code == 0, done.said
        made.grow()
        for kind, (prefix, xml) in STRANGER.items():
            file = base / f"{kind}.xml"
            file.write_text(xml.format(f"{made.checkout.lab} {ODD}", base / "home/isos"))
            subprocess.run(["virsh", "-q", "-c", URI, f"{prefix}define", str(file)], check=True)
        made.checkout.down()
        yield made
        assert built.items() <= shared().items()
    finally:
        # A libvirtd that starts takes a pool whose folder is there for active.
        virsh("pool-destroy", f"{made.checkout.lab} {ODD}")
        for prefix, _ in STRANGER.values():
            virsh(f"{prefix}undefine", f"{made.checkout.lab} {ODD}")
        made.checkout.destroy()
        shutil.rmtree(base)


def of(seed: int) -> str:
    """The command that a seed kills; one in ten is a costly one."""
    if seed % 10 == 7:
        return "clean all" if seed % 20 == 17 else "clean"
    return ("up", "down", "recover")[seed % 3]


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[] if seed in ALWAYS else [pytest.mark.soak]) for seed in SEEDS],
)
def test_a_killed_run_costs_nothing_and_is_put_right(seed: int, user: User, tmp_path: Path) -> None:
    chance = random.Random(seed)  # noqa: S311 - a moment, not a secret
    at, command, sent = user.checkout, of(seed), chance.choice(SIGNALS)
    before = user.tree()
    assert len(before) > len(user.mine), "something of the user's is gone"
    if not command.startswith("clean"):
        at.pulumi("stack", "init", "local")
    if command == "down":
        at.up()
    if command == "recover":
        _killed(at, "up", chance.uniform(0.5, LASTS_S["up"]), signal.SIGKILL, tmp_path)
    moment = chance.uniform(0.1, LASTS_S[command])
    told = _killed(at, command, moment, sent, tmp_path)
    case = f"{command}, {sent.name} after {moment:.2f} s:\n{told}"
    assert user.tree() == before, case
    if command.startswith("clean"):
        done = at.run(*COMMANDS[command])
        assert done.code == 0, f"{case}\n{done.said}"
        assert user.tree() == before, case
        user.fill()
        done = at.make_target("up")
        assert done.code == 0, f"{case}\n{done.said}"
    elif chance.random() < 0.5:
        at.pulumi("stack", "init", "local")
        at.up()
        running = virsh("list", "--name").split("\n")
        assert {f"{at.lab}-one", f"{at.lab}-two"} <= set(running), case
        assert user.tree() == before, case
    at.down()
    assert user.left() == [], case
    assert user.tree() == before, case


def _killed(at: Checkout, command: str, moment: float, sent: signal.Signals, tmp_path: Path) -> str:
    """Run a command and end it after ``moment`` seconds; return what it said."""
    words = " ".join(COMMANDS[command])
    environment = ". .nestlab/env.sh && " if words.startswith("pulumi") else ""
    run = at.start(["bash", "-c", f"{environment}exec {words}"], tmp_path / command)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(moment)
    if run.poll() is None:
        assert not _ignores(run.pid, sent), f"{sent.name} would prove nothing: it is ignored"
        os.kill(run.pid, sent)
    began = time.monotonic()
    run.wait(ENDS_S)
    # Children of a killed `make` may go on for a moment, as they would in a terminal that was closed.
    while _at_work(at) and time.monotonic() - began < ENDS_S:
        os.kill(run.pid, 0) if run.poll() is None else None
    return (tmp_path / command).read_text(errors="replace")[-2000:]


def _ignores(pid: int, sent: signal.Signals) -> bool:
    """Whether a process was born deaf to a signal, as all are that a shell starts in the background."""
    with contextlib.suppress(FileNotFoundError):
        told = Path(f"/proc/{pid}/status").read_text()
        [mask] = [line.split()[1] for line in told.splitlines() if line.startswith("SigIgn:")]
        return bool(int(mask, 16) >> (sent - 1) & 1)
    return False


def _at_work(at: Checkout) -> bool:
    done = subprocess.run(
        [
            "pgrep",
            "-f",
            "toolchain (down|clean)|toolchain.engine.recover|pulumi (up|destroy)",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    mine = [pid for pid in done.stdout.split() if _folder(pid) == at.root]
    return bool(mine)


def _folder(pid: str) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.soak] if seed else []) for seed in range(6)]
)
def test_libvirt_restarted_in_the_middle_of_up_costs_nothing(
    seed: int, user: User, tmp_path: Path
) -> None:
    if os.geteuid() or not daemons.read_record().libvirtd:
        pytest.skip("libvirt is somebody else's to restart")
    at, moment = user.checkout, random.Random(seed).uniform(0.3, LASTS_S["up"])  # noqa: S311
    at.pulumi("stack", "init", "local")
    before = user.tree()
    at.up()
    pid = _guest(f"{at.lab}-two")
    settings = at.settings.stat()
    text = at.settings.read_text()
    at.edit(lambda lab: lab["guests"].update(three=dict(lab["guests"]["one"])))
    at.edit(lambda lab: lab["guests"].update(four=dict(lab["guests"]["two"])))
    run = at.start(
        ["bash", "-c", f". .nestlab/env.sh && exec {' '.join(COMMANDS['up'])}"], tmp_path / "up"
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(moment)
    libvirtd = daemons.read_record().libvirtd
    assert libvirtd
    assert libvirtd.stop(timeout_s=daemons.STOP_TIMEOUT_S)
    daemons.start(System())
    run.wait(ENDS_S)
    case = f"after {moment:.2f} s:\n{(tmp_path / 'up').read_text(errors='replace')[-2000:]}"
    assert not {"Traceback", "panic:"} & set(case.split()), case
    at.up()
    running = set(virsh("list", "--name").split("\n"))
    assert {f"{at.lab}-{name}" for name in ("one", "two", "three", "four")} <= running, case
    assert _guest(f"{at.lab}-two") == pid, f"a running guest was touched, {case}"
    at.down()
    assert user.left() == [], case
    at.settings.write_text(text)
    os.utime(at.settings, ns=(settings.st_atime_ns, settings.st_mtime_ns))
    assert user.tree() == before, case


MAKING = (
    *("pool define", "pool build", "pool start", "volume create", "volume upload"),
    *("network define", "network start", "domain define", "domain start"),
)
REMOVING = (
    *("domain undefine", "network undefine", "volume delete"),
    *("pool delete", "pool undefine"),
)


def some(calls: Iterable[str]) -> list[Any]:
    """Return all ``calls``, those of domains that run and of pools always, the rest in the soak."""
    always = {"domain start", "pool define", "network start", "domain undefine"}
    return [
        pytest.param(call, marks=[] if call in always else [pytest.mark.soak]) for call in calls
    ]


@pytest.mark.parametrize("call", some(MAKING))
def test_what_was_made_without_an_answer_is_no_hindrance(
    call: str, user: User, tmp_path: Path
) -> None:
    at, before = user.checkout, user.tree()
    at.pulumi("stack", "init", "local")
    case = _unanswered(at, call, COMMANDS["up"], tmp_path)
    at.up()
    running = set(virsh("list", "--name").split("\n"))
    assert {f"{at.lab}-one", f"{at.lab}-two"} <= running, case
    assert "unchanged" in at.preview()
    at.down()
    assert user.left() == [], case
    assert user.tree() == before, case


@pytest.mark.parametrize("call", some(REMOVING))
def test_what_was_removed_without_an_answer_is_no_hindrance(
    call: str, user: User, tmp_path: Path
) -> None:
    at, before = user.checkout, user.tree()
    at.pulumi("stack", "init", "local")
    at.up()
    case = _unanswered(at, call, COMMANDS["down"], tmp_path)
    at.down()
    assert user.left() == [], case
    assert user.tree() == before, case


@pytest.mark.parametrize("call", some(("domain undefine", "domain define", "domain start")))
def test_a_machine_that_was_made_anew_without_an_answer_keeps_its_disk(
    call: str, user: User, tmp_path: Path
) -> None:
    at, settings = user.checkout, user.checkout.settings.read_text()
    at.pulumi("stack", "init", "local")
    at.up()
    [disk] = (user.base / "disks").glob(f"{at.lab}-*/{at.lab}-one.qcow2")
    inode, other = disk.stat().st_ino, _guest(f"{at.lab}-two")
    at.edit(lambda lab: lab["guests"]["one"].update(memory_mib=20))
    case = _unanswered(at, call, COMMANDS["up"], tmp_path)
    at.up()
    assert disk.stat().st_ino == inode, case
    assert _guest(f"{at.lab}-two") == other, case
    assert "20480 KiB" in virsh("dominfo", f"{at.lab}-one"), case
    at.down()
    assert user.left() == [], case
    at.settings.write_text(settings)


def test_another_medium_is_in_the_drive_of_the_guest_that_runs(user: User) -> None:
    at, settings = user.checkout, user.checkout.settings.read_text()
    other = user.base / "home/isos/other.iso"
    other.write_bytes(Path("/usr/lib/ipxe/ipxe.iso").read_bytes() + bytes(2048))
    at.pulumi("stack", "init", "local")
    try:
        at.edit(lambda lab: lab["media"].update(other={"path": str(other)}))
        at.up()
        [disk] = (user.base / "disks").glob(f"{at.lab}-*/{at.lab}-one.qcow2")
        inode, still = disk.stat().st_ino, _guest(f"{at.lab}-two")
        assert "medium-mine" in virsh("dumpxml", f"{at.lab}-one")
        at.edit(lambda lab: lab["guests"]["one"].update(iso="other"))
        at.up()
        assert "medium-other" in virsh("dumpxml", f"{at.lab}-one")
        assert disk.stat().st_ino == inode, "its disk stays"
        assert _guest(f"{at.lab}-two") == still, "another guest was touched"
        assert "unchanged" in at.preview()
        at.down()
        assert user.left() == []
    finally:
        other.unlink()
        at.settings.write_text(settings)


def _unanswered(at: Checkout, call: str, words: Sequence[str], tmp_path: Path) -> str:
    """Run a command for which the answer to ``call`` of libvirt's is lost; return what it said."""
    if os.geteuid() or not daemons.read_record().libvirtd:
        pytest.skip("libvirt is somebody else's")
    inside = "mount --bind {} {} && . .nestlab/env.sh && exec {}"
    with Lossy(tmp_path / "lossy", call) as libvirt:
        script = inside.format(libvirt.path, SOCKET, " ".join(words))
        done = at.run("unshare", "-m", "bash", "-c", script)
        assert libvirt.lost.is_set(), done.said
    assert done.code != 0, done.said
    assert not {"Traceback", "panic:"} & set(done.said.split()), done.said
    return f"{call} without an answer:\n{done.said[-2000:]}"


def _guest(domain: str) -> str:
    """The pid of a running domain's QEMU."""
    told = subprocess.run(
        ["pgrep", "-f", f"guest={domain},"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip()


def test_a_stopped_pool_and_a_missing_one_are_seen_and_mended(user: User) -> None:
    at, pool = user.checkout, f"nestlab-{user.checkout.lab}"
    at.pulumi("stack", "init", "local")
    before = user.tree()
    at.up()
    virsh("pool-destroy", pool)
    assert f"pool {pool} is stopped" in at.preview()
    at.edit(lambda lab: lab["guests"].update(three=dict(lab["guests"]["two"], disk_gib=1)))
    at.up()
    assert f"{at.lab}-three" in virsh("list", "--name").split("\n")
    virsh("pool-destroy", pool)
    virsh("pool-undefine", pool)
    assert f"pool {pool} is not defined any more" in at.preview()
    at.up()
    assert pool in virsh("pool-list", "--name")
    at.edit(lambda lab: lab["guests"].pop("three"))
    kept = next(
        each
        for each in (user.base / "disks").iterdir()
        if each.name.startswith(f"{at.lab}-") and each.is_dir()
    )
    (kept / "mine.txt").write_text("mine")
    assert f"{kept} at this machine stays" in at.down()
    assert [each.name for each in kept.iterdir()] == ["mine.txt"]
    shutil.rmtree(kept)
    assert user.left() == []
    assert {k: v for k, v in user.tree().items() if "Pulumi.local" not in k} == {
        k: v for k, v in before.items() if "Pulumi.local" not in k
    }


def test_a_second_lab_of_the_same_name_is_told_what_to_do_and_harms_nothing(
    user: User, tmp_path: Path
) -> None:
    at = user.checkout
    at.pulumi("stack", "init", "local")
    at.up()
    twin = Checkout.make(tmp_path, at.given)
    twin.lab = at.lab
    shutil.copy(at.settings, twin.settings)
    done = twin.make_target("up")
    assert done.code != 0
    assert f"has a pool nestlab-{at.lab} already, which is not this lab's" in done.said
    assert "lab.name in its stack file" in done.said
    assert twin.make_target("down").code == 0
    assert "unchanged" in at.preview()
    at.down()
    assert user.left() == []
