"""A class whose states are in files, or in a real PostgreSQL: its stacks are found there and go from there.

No machine is made: what is tried is where states are. PostgreSQL only where it is installed, among the long tests.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import Checkout
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture(params=["file", "postgresql"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    folder = Path("/tmp") / f"nestlab-states-{os.getpid()}"  # noqa: S108 - another user goes in
    folder.mkdir(mode=0o711)
    try:
        if request.param == "file":
            yield f"file://{folder}"
            return
        if not PROGRAMS or os.geteuid() != 0:
            pytest.skip("needs Debian's package postgresql, and root to run it as its own user")
        with postgresql(folder / "postgresql") as url:
            yield url
    finally:
        shutil.rmtree(folder)


def test_a_class_finds_its_stacks_where_states_are(backend: str, tmp_path: Path) -> None:
    own = {"PULUMI_BACKEND_URL": backend, "NESTLAB_CACHE": str(paths.cache())}
    checkout = Checkout.make(tmp_path / "checkout", own)
    assert checkout.make_target("toolchain").code == 0
    roster = checkout.root / "pgc.csv"
    roster.write_text("id,name\nana,Ana\nbob,Bob\n")

    def does(*words: str) -> str:
        done = checkout.run("./nestlab", "class", *words)
        assert done.code == 0, done.said
        return done.said

    assert "altogether" in does("plan", str(roster), "-s", "local")
    for stack in ("pgc.ana", "stranger"):
        done = checkout.pulumi("stack", "init", stack)
        assert done.code == 0, done.said
    ana, bob = (
        next(line for line in does("status", str(roster)).splitlines() if line.startswith(name))
        for name in ("ana ", "bob ")
    )
    assert "1: 1 of 1 not made" in ana, "its stack was found"
    assert "1 of 1" not in bob, "it has none"
    assert "1 of 1 lab" in does("down", str(roster))
    left = checkout.pulumi("stack", "ls").said
    assert "stranger" in left
    assert "pgc.ana" not in left
