"""The stub machine itself, in process and behind OpenSSH's server.

A failure here means that the tests of every hypervisor driven by its own commands prove nothing: a
failure that was ordered does not happen, or what a driver says arrives as something else.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from components.reach.driver import DriverError
from components.reach.shell import Shell, Unreachable, shell_of
from components.reach.upload import PutError
from tests.support.commands import HOWS, How, Machine, every_failure
from tests.support.stubs.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.double.conftest import Serve
    from tests.support.sshd import Server

pytestmark = pytest.mark.double

MEDIUM = "/box/media/one.iso"
NASTY = [
    "", " ", "a b", "'", '"', "'\"'", ";reboot", "$(id)", "`id`", "$HOME", "\n", "a\nb\t", "\\", "*",
    "~", "!!", "-n", "--", "&|>x<#", "\r\n", "äöü", "日本", "😀", "\u202e", "/box/../x", "{a,b}", "=x",
]  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Server]]:
    machine = Machine(tmp_path_factory.mktemp("box"), Box)
    with machine.serve() as server:
        yield machine, server


@pytest.fixture(params=["direct", "sshd"])
def reached(
    request: pytest.FixtureRequest, served: tuple[Machine, Server]
) -> tuple[Machine, Shell]:
    """One machine, in both of the ways in which tests reach it, each time as new."""
    machine, server = served
    machine.reset()
    return machine, machine.shell() if request.param == "direct" else shell_of(server.target("box"))


def make(shell: Shell, name: str = "one") -> None:
    """What a driver does: it may be repeated at any point."""
    must(shell, ["mkdir", "-p", "/box/media"])
    shell.put(b"a medium", MEDIUM, timeout_s=10)
    if name not in must(shell, ["box", "list"]).splitlines():
        must(shell, ["box", "make", name, MEDIUM])


def must(shell: Shell, argv: list[str]) -> str:
    done = shell.run(argv)
    if not done.ok:
        raise DriverError(done.said)
    return done.out


def one_box(machine: Machine) -> None:
    assert machine.state == {"boxes": {"one": hashlib.sha256(b"a medium").hexdigest()}}
    assert [file.name for file in machine.path("/box/media").iterdir()] == ["one.iso"]


def test_commands_share_what_the_machine_knows(reached: tuple[Machine, Shell]) -> None:
    machine, shell = reached
    make(shell)
    assert shell.run(["box", "list"]).out == "one\n"
    one_box(machine)
    with machine.changing() as state:
        state["boxes"].clear()
    assert shell.run(["box", "list"]).out == ""


def test_commands_at_once_lose_nothing(reached: tuple[Machine, Shell]) -> None:
    machine, shell = reached
    make(shell)
    with futures.ThreadPoolExecutor(4) as pool:
        done = pool.map(lambda n: shell.run(["box", "make", f"n{n}", MEDIUM]).code, range(8))
    assert list(done) == [0] * 8
    assert len(machine.state["boxes"]) == 9


def test_what_is_refused_leaves_no_trace_and_says_why(reached: tuple[Machine, Shell]) -> None:
    machine, shell = reached
    done = shell.run(["box", "make", "one", "/box/none"])
    assert (done.code, done.out, done.err) == (3, "", "Error: no medium /box/none\n")
    assert machine.state == {"boxes": {}}
    make(shell)
    assert shell.run(["box", "clear"]).err == "Error: lost power\n"
    assert machine.state == {"boxes": {}}, "unless the real one would go half the way"


def test_a_warning_is_no_failure(reached: tuple[Machine, Shell]) -> None:
    _, shell = reached
    make(shell)
    done = shell.run(["box", "make", "two", MEDIUM])
    assert (done.code, done.out, done.err) == (0, "made two\n", "Warning: it is getting full\n")


LONG = f"70000 bytes, sha256 {hashlib.sha256(bytes(70_000)).hexdigest()}"


def test_every_command_is_noted(reached: tuple[Machine, Shell]) -> None:
    machine, shell = reached
    shell.run(["box", "echo", "a b", "'"])
    shell.run(["box-script", "-"], stdin=b"some words")
    shell.run(["box-script", "-"], stdin=bytes(70_000))
    shell.run(["box", "remove", "none"])
    shell.run(["tee", "/box/notes"], stdin=b"text")
    assert [(call.words, call.stdin, call.exit, call.out, call.err) for call in machine.calls] == [
        (["box", "echo", "a b", "'"], "", 0, '["a b", "\'"]', ""),
        (["box-script", "-"], "some words", 0, "['-'] 10\n", ""),
        (["box-script", "-"], LONG, 0, "['-'] 70000\n", ""),
        (["box", "remove", "none"], "", 1, "", "Error: no box none\n"),
        (["tee", "/box/notes"], "text", 0, "text", ""),
    ]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_nasty_words_arrive_as_they_were_given(reached: tuple[Machine, Shell]) -> None:
    machine, shell = reached
    assert json.loads(must(shell, ["box", "echo", *NASTY])) == NASTY
    assert machine.calls[-1].argv == ["echo", *NASTY]
    quoted = shlex.join(["box", "echo", *NASTY])
    assert json.loads(must(shell, ["sh", "-c", quoted])) == NASTY, "within a script"


def test_a_file_that_was_put_is_there_for_stubs_programs_and_scripts(
    reached: tuple[Machine, Shell],
) -> None:
    machine, shell = reached
    folder, data = "/var/opt/box/a b", b"data\n"
    must(shell, ["mkdir", "-p", folder])
    shell.put(data, f"{folder}/x", mode=0o600, timeout_s=10)
    assert machine.path(f"{folder}/x").read_bytes() == data
    assert machine.path(f"{folder}/x").stat().st_mode & 0o777 == 0o600
    assert must(shell, ["sha256sum", f"{folder}/x"]) == f"{sha256(data)}  {folder}/x\n"
    assert shell.run(["test", "-e", f"{folder}/x"]).ok
    must(shell, ["mv", f"{folder}/x", "/box/y"])
    assert shell.run(["test", "-e", f"{folder}/x"]).code == 1
    assert must(shell, ["sh", "-c", "cat /box/y; cat > '/box/z'; ls /box", "_"]) == "data\ny\nz\n"
    must(shell, ["box", "make", "one", "/box/y"])
    assert machine.state["boxes"]["one"] == sha256(data)
    done = shell.run(["cat", "/box/none"])
    assert (done.code, done.err) == (1, "cat: /box/none: No such file or directory\n")
    assert not Path("/box").exists(), "nothing of it is on this machine"
    assert not Path("/var/opt/box").exists()


def test_a_folder_that_is_not_there_takes_no_file(reached: tuple[Machine, Shell]) -> None:
    _, shell = reached
    with pytest.raises(PutError, match=r"/box/none/x can't be written: its folder is not there"):
        shell.put(b"", "/box/none/x", timeout_s=10)


def test_a_command_that_is_not_there_is_exit_code_127(reached: tuple[Machine, Shell]) -> None:
    assert reached[1].run(["nosuch"]).code == 127


@pytest.mark.parametrize("script", [False, True], ids=["plain", "in a script"])
@pytest.mark.parametrize("how", HOWS)
def test_the_command_that_is_to_fail_fails_once(
    reached: tuple[Machine, Shell], how: How, script: bool
) -> None:
    machine, shell = reached
    must(shell, ["mkdir", "-p", "/box/media"])
    must(shell, ["tee", MEDIUM])
    argv = ["box", "make", "one", MEDIUM]
    if script:
        argv = ["sh", "-c", f"{shlex.join(argv)}; code=$?; touch /box/went-on; exit $code"]
    machine.fail(2, how)
    assert shell.run(["box", "list"]).ok
    if how == "cut":
        with pytest.raises(Unreachable, match=r"the connection was cut while (box|sh) ran"):
            shell.run(argv)
    else:
        done = shell.run(argv)
        assert (done.code, done.out, done.err) == (1, "", "injected failure\n")
    assert list(machine.state["boxes"]) == ([] if how == "exit" else ["one"])
    went_on = machine.path("/box/went-on").exists()
    assert went_on is (script and how != "cut"), "nothing goes on without its connection"
    assert [call.fault for call in machine.calls if call.command == "box"] == ["", how]
    assert machine.failures_left == 0
    assert shell.run(["box", "list"]).ok, "the next one works"
    assert shell.run(argv).ok


@pytest.mark.parametrize("how", HOWS)
def test_sending_a_file_can_fail_too(tmp_path: Path, how: How) -> None:
    machine = Machine(tmp_path, Box)
    machine.fail(1, how)
    with pytest.raises(Unreachable if how == "cut" else PutError):
        machine.shell().put(b"x", "/box/x", timeout_s=1)
    assert machine.path("/box/x").exists() is (how != "exit")
    machine.shell().put(b"x", "/box/x", timeout_s=1)


def test_both_ways_to_reach_a_machine_are_one(served: tuple[Machine, Server]) -> None:
    machine, server = served
    seen = []
    for shell in (machine.reset().shell(), shell_of(server.target("box"))):
        machine.reset()
        make(shell)
        said = [
            shell.run(argv, stdin=b"in")
            for argv in (
                ["box", "make", "two", MEDIUM],
                ["box", "remove", "none"],
                ["box", "echo", "ä", "/box/x"],
                [
                    "sh",
                    "-c",
                    "box list | tee /box/list; test -s /box/list && box-script < /box/list",
                ],
                ["ls", "/box", "/box/none"],
            )
        ]
        noted = [call for call in machine.calls if call.command != "put"]
        seen.append((said, noted, machine.state))
    assert seen[0] == seen[1]


def test_a_driver_that_may_be_repeated_passes_every_failure(
    reached: tuple[Machine, Shell],
) -> None:
    machine, shell = reached
    commands = 3 + (not hasattr(shell, "host_key"))  # put is noted in process only
    assert every_failure(machine.reset, lambda _: make(shell), one_box) == commands * 3


def test_a_driver_that_makes_things_twice_is_found_out(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Box)

    def twice(machine: Machine) -> None:
        shell = machine.shell()
        must(shell, ["tee", "/box/x"])
        must(shell, ["box", "make", f"n{len(machine.state['boxes'])}", "/box/x"])

    def one(machine: Machine) -> None:
        assert len(machine.state["boxes"]) == 1

    with pytest.raises(AssertionError) as found:
        every_failure(machine.reset, twice, one)
    assert found.value.__notes__ == ["when command 2 fails (after): ['box make n0 /box/x']"]


def test_a_path_outside_of_the_roots_fails_the_test(tmp_path: Path, sshd: Serve) -> None:
    machine = Machine(tmp_path / "box", Box)
    with pytest.raises(AssertionError, match="/etc/motd is outside of the stub machine's roots"):
        machine.shell().run(["cat", "/etc/motd"])
    with pytest.raises(AssertionError, match="the stub is broken"):
        machine.shell().run(["sh", "-c", "cat /etc/motd"])
    machine.reset()
    assert shell_of(sshd(machine).target("box")).run(["cat", "/etc/motd"]).code == 70
    with pytest.raises(AssertionError, match="the stub is broken"):
        _ = machine.calls
    machine.reset()


def test_a_command_costs_little(served: tuple[Machine, Server]) -> None:
    machine, server = served
    machine.reset()
    for shell, limit_s in ((machine.shell(), 0.02), (shell_of(server.target("box")), 0.25)):
        times = []
        for _ in range(7):
            began = time.perf_counter()
            shell.run(["box", "list"])
            times.append(time.perf_counter() - began)
        assert min(times) < limit_s, "tests of whole labs give thousands of commands"
