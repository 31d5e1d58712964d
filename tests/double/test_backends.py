"""A class whose states are in files, in a real PostgreSQL, or on an S3 server: found there, and gone from there.

No machine is made: what is tried is where states are. PostgreSQL and the S3 server only where they are installed,
among the long tests. The S3 server is moto's, which takes any key: rights, and what a vendor's store does
otherwise, it does not show.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from tests.double.conftest import eventually
from tests.support.checkout import Checkout
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

S3 = shutil.which("moto_server")
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
USER = "postgres"
pytestmark = [pytest.mark.double, pytest.mark.soak]


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """An instance of its own on a loopback port; yields the URL of a database in it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder.mkdir(mode=0o700)
    shutil.chown(folder, USER)
    # Its user has to come through the folders above.
    for above in list(folder.parents)[:3]:
        above.chmod(above.stat().st_mode | 0o011)

    def run(program: str, *words: str) -> None:
        file = PROGRAMS[-1].with_name(program)
        argv = ["runuser", "-u", USER, "--", str(file), *words]
        subprocess.run(argv, check=True, cwd="/", stdout=subprocess.DEVNULL)

    data, listens = str(folder / "data"), f"-c listen_addresses=127.0.0.1 -p {port} -k {folder}"
    run("initdb", "-D", data, "-A", "trust")
    run("pg_ctl", "-D", data, "-o", listens, "-l", str(folder / "log"), "-w", "start")
    try:
        run("createdb", "-h", "127.0.0.1", "-p", str(port), "labs")
        yield f"postgres://{USER}@127.0.0.1:{port}/labs?sslmode=disable"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")


@dataclass(frozen=True)
class Place:
    """Where states are."""

    url: str
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of the user's shell: what the engine's driver logs in with."""


BUCKET = "labs"


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[int]:
    """An S3 server with an empty bucket on a loopback port, which is yielded."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv, log = [str(S3), "-H", "127.0.0.1", "-p", str(port)], folder / "s3.log"
    with (
        log.open("wb") as handle,
        subprocess.Popen(argv, stdout=handle, stderr=handle) as server,
    ):
        try:
            assert eventually(lambda: _listens(port), 60), log.read_text()
            made = requests.put(f"http://127.0.0.1:{port}/{BUCKET}", timeout=30)
            assert made.ok, made.text
            yield port
        finally:
            server.terminate()


def _login() -> dict[str, str]:
    """Return a key that nobody else has, as the engine's driver takes it."""
    return {
        "AWS_ACCESS_KEY_ID": "lab",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        "AWS_REGION": "us-east-1",
    }


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


FORMS = {
    "s3": "s3://{bucket}?endpoint=http://127.0.0.1:{port}&s3ForcePathStyle=true",
    "s3-folder": "s3://{bucket}/a/class?endpoint=127.0.0.1:{port}&disableSSL=true&s3ForcePathStyle=true",
}
"""How Pulumi's page on self-managed backends writes the URL of a server other than Amazon's."""


@pytest.fixture(params=["file", "postgresql", *FORMS])
def backend(request: pytest.FixtureRequest) -> Iterator[Place]:
    folder = Path("/tmp") / f"nestlab-states-{os.getpid()}"  # noqa: S108 - another user goes in
    folder.mkdir(mode=0o711)
    try:
        if request.param == "file":
            yield Place(f"file://{folder}")
            return
        if request.param in FORMS:
            if S3 is None:
                pytest.skip(
                    "needs moto_server in PATH: pip install 'moto[s3]' flask flask-cors, in a venv of its own"
                )
            with s3(folder) as port:
                yield Place(FORMS[request.param].format(bucket=BUCKET, port=port), _login())
            return
        if not PROGRAMS or os.geteuid() != 0:
            pytest.skip("needs Debian's package postgresql, and root to run it as its own user")
        with postgresql(folder / "postgresql") as url:
            yield Place(url)
    finally:
        shutil.rmtree(folder)


def test_a_class_finds_its_stacks_where_states_are(backend: Place, tmp_path: Path) -> None:
    checkout, does = _class(backend, tmp_path)
    for stack in ("pgc.ana", "stranger"):
        done = checkout.pulumi("stack", "init", stack)
        assert done.code == 0, done.said
    ana, bob = (
        next(line for line in does("status").splitlines() if line.startswith(name))
        for name in ("ana ", "bob ")
    )
    assert "1: 1 of 1 not made" in ana, "its stack was found"
    assert "1 of 1" not in bob, "it has none"
    assert "1 of 1 lab" in does("down")
    left = checkout.pulumi("stack", "ls").said
    assert "stranger" in left
    assert "pgc.ana" not in left
    _no_secret(backend, checkout)


@pytest.mark.parametrize("backend", ["file", "s3"], indirect=True)
def test_an_engine_that_was_killed_holds_its_lab_no_longer_than_it_is_let(
    backend: Place, tmp_path: Path
) -> None:
    """Of files we know whose lock it is; elsewhere nobody but its user can tell that its holder is gone."""
    checkout, does = _class(backend, tmp_path)
    done = checkout.pulumi("stack", "init", "pgc.ana")
    assert done.code == 0, done.said
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "Pulumi.yaml").write_text("name: nestlab\nruntime: python\n")
    (slow / "__main__.py").write_text("import time\ntime.sleep(600)\n")
    said = tmp_path / "said"
    words = "pulumi up --yes --skip-preview --non-interactive --stack pgc.ana"
    line = f". {checkout.root}/.nestlab/env.sh && cd {slow} && exec {words}"
    engine = checkout.start(["bash", "-c", line], said)
    try:
        assert eventually(lambda: "@ updating" in said.read_text(), 60), said.read_text()
    finally:
        os.killpg(engine.pid, signal.SIGKILL)
        engine.wait()
    if backend.url.startswith("file:"):
        assert "1 of 1 lab" in does("down")
        return
    told = does("down", fails=True)
    assert "down: 0 of 1 lab" in told
    assert "the stack is currently locked by 1 lock(s)" in told
    log = (checkout.root / ".nestlab/classes/pgc/logs/ana.log").read_text()
    assert "pulumi cancel" in log
    assert f"(pid {engine.pid})" in log, "and who it was"
    done = checkout.pulumi("cancel", "--yes", "--stack", "pgc.ana")
    assert done.code == 0, done.said
    assert "1 of 1 lab" in does("down")
    _no_secret(backend, checkout)


def _class(backend: Place, tmp_path: Path) -> tuple[Checkout, Callable[..., str]]:
    """Return a checkout whose states are in ``backend``, with a planned class, and what runs its commands."""
    own = {"PULUMI_BACKEND_URL": backend.url, "NESTLAB_CACHE": str(paths.cache())}
    checkout = Checkout.make(tmp_path / "checkout", own | dict(backend.variables))
    assert checkout.make_target("toolchain").code == 0
    roster = checkout.root / "pgc.csv"
    roster.write_text("id,name\nana,Ana\nbob,Bob\n")

    def does(verb: str, *words: str, fails: bool = False) -> str:
        done = checkout.run("./nestlab", "class", verb, str(roster), *words)
        assert (done.code != 0) is fails, done.said
        return done.said

    assert "altogether" in does("plan", "-s", "local", "--anyway")
    return checkout, does


def _no_secret(backend: Place, checkout: Checkout) -> None:
    """What logs in is in no file of the checkout, a log or other."""
    secret = backend.variables.get("AWS_SECRET_ACCESS_KEY", "")
    found = [
        file
        for file in checkout.root.rglob("*")
        if secret and file.is_file() and secret.encode() in file.read_bytes()
    ]
    assert not found
