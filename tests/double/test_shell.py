"""Commands over SSH, against OpenSSH's own server on loopback.

A failure here means that what a gate asks of a nested host arrives as something else, or that one
host which hangs holds up a whole deployment.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import paramiko
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from components.gates.codec import read, write
from components.reach import interrupt, stream, upload, waiting
from components.reach import shell as shells
from components.reach.shell import (
    LOCAL,
    LocalShell,
    Shell,
    SshShell,
    Target,
    Unreachable,
    fresh_shell,
    shell_of,
)
from components.reach.upload import PutError
from components.reach.waiting import NotReady
from tests.double.conftest import eventually
from tests.support.sshd import USER, Server, free_port, key_pair, serving
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

pytestmark = pytest.mark.double

ECHO = "import sys, json; print(json.dumps(sys.argv[1:]))"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may break."""
    with serving(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def ssh(server: Server) -> Iterator[SshShell]:
    shell = server.shell()
    yield shell
    shell.close()


@pytest.fixture(params=["local", "ssh"])
def either(request: pytest.FixtureRequest, ssh: SshShell) -> Shell:
    """The two shells behave alike, so that gates need not know which one they have."""
    return ssh if request.param == "ssh" else LocalShell()


SOON_S = 14.0
"""Well before what would happen otherwise, and after what a busy machine takes, seconds."""


def took(began: float) -> float:
    return time.monotonic() - began


# What a process can be given as an argument: all but NUL and halves of characters.
WORDS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    max_size=4,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(WORDS)
@example(
    ["", " ", "a b", "'", '"', "'\"'", ";reboot", "$(id)", "`id`", "$HOME", "\n", "a\nb\t", "\\"]
)
@example(["*", "~", "!!", "-n", "--", "&", "|", ">x", "#", "\r\n", "äöü", "日本", "😀", "\u202e"])
def test_arguments_arrive_as_they_were_given(ssh: SshShell, words: list[str]) -> None:
    import json  # noqa: PLC0415 - used by this test alone

    done = ssh.run([sys.executable, "-c", ECHO, *words])
    assert done.ok, done.err
    assert json.loads(done.out) == words


def test_a_command_with_nothing_but_odd_words_runs_no_other_command(
    ssh: SshShell, tmp_path: Path
) -> None:
    bait = tmp_path / "bait"
    ssh.run(
        ["echo", f"$(touch {bait})", f"; touch {bait};", f"`touch {bait}`", f"\ntouch {bait}\n"]
    )
    assert not bait.exists(), "an argument was run as a command"


def test_exit_code_and_both_outputs_come_back_apart(either: Shell) -> None:
    done = either.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.code, done.out, done.err, done.ok) == (7, "out\n", "err\n", False)
    assert done.said == "err", "error output is what says why"


@pytest.mark.parametrize("code", [0, 1, 126, 127, 255])
def test_every_exit_code_is_told(either: Shell, code: int) -> None:
    assert either.run(["sh", "-c", f"exit {code}"]).code == code


def test_a_program_that_is_not_there_is_exit_code_127(either: Shell) -> None:
    done = either.run(["/nonexistent/program"])
    assert done.code == 127
    assert "/nonexistent/program" in done.said


def test_large_input_arrives_whole(either: Shell) -> None:
    data = os.urandom(5_000_000)
    done = either.run(["sha256sum"], stdin=data)
    assert done.out.split()[0] == hashlib.sha256(data).hexdigest()


def test_a_command_may_end_without_reading_its_input(either: Shell) -> None:
    began = time.monotonic()
    assert either.run(["true"], stdin=bytes(5_000_000)).ok
    assert took(began) < SOON_S


def test_a_command_without_input_sees_its_end_at_once(either: Shell) -> None:
    assert either.run(["cat"], timeout_s=10).out == ""


def test_both_outputs_may_be_large_at_once(either: Shell) -> None:
    script = (
        "import sys\nfor _ in range(60):\n sys.stdout.write('o'*50000); sys.stderr.write('e'*50000)"
    )
    done = either.run([sys.executable, "-c", script], stdin=bytes(2_000_000), timeout_s=60)
    assert done.ok
    assert done.out == "o" * 3_000_000
    assert done.err == "e" * 3_000_000


def test_output_that_is_no_text_does_not_stop_anything(either: Shell) -> None:
    assert either.run(["printf", r"a\377b"]).out == "a\ufffdb"


def test_a_command_that_is_killed_counts_as_failed(either: Shell) -> None:
    done = either.run(["sh", "-c", "echo half; kill -9 $$"], timeout_s=10)
    assert not done.ok
    assert done.code < 0
    assert done.out == "half\n"


def test_a_command_that_does_not_end_is_given_up_in_time(either: Shell) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"sleep did not end (in time|within 1 s)"):
        either.run(["sleep", "30"], timeout_s=1)
    assert took(began) < SOON_S


def test_one_slow_command_does_not_cut_off_the_others(server: Server) -> None:
    shell = server.shell()
    with futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(shell.run, ["sleep", "30"], timeout_s=1)
        other = pool.submit(shell.run, ["sh", "-c", "sleep 2; echo done"], timeout_s=20)
        with pytest.raises(Unreachable):
            slow.result(10)
        assert other.result(20).out == "done\n"


def test_commands_share_one_connection(own: Server) -> None:
    shell = own.shell()
    peers = {shell.run(["sh", "-c", "echo $SSH_CONNECTION"]).out for _ in range(4)}
    assert len(peers) == 1, "a login takes an emulated machine most of a second"
    shell.close()
    assert shell.run(["sh", "-c", "echo $SSH_CONNECTION"]).out not in peers


def test_eight_threads_use_it_at_once(ssh: SshShell, tmp_path: Path) -> None:
    # None ends before all have begun.
    wait = 'touch "$0/$1"; until [ "$(ls "$0" | wc -l)" = 8 ]; do sleep 0.1; done; echo "$1"'
    with futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ssh.run, ["sh", "-c", wait, str(tmp_path), str(n)]) for n in range(8)]
        assert [each.result().out for each in asked] == [f"{n}\n" for n in range(8)]


def test_eight_threads_open_one_connection(own: Server) -> None:
    shell = own.shell()
    with futures.ThreadPoolExecutor(8) as pool:
        said = pool.map(lambda _: shell.run(["sh", "-c", "echo $SSH_CONNECTION"]).out, range(8))
    assert len(set(said)) == 1


def test_a_server_that_dies_during_a_command_is_noticed_at_once(own: Server) -> None:
    shell = own.shell()
    shell.run(["true"])
    threading.Timer(0.5, own.stop).start()
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"kvm1 \(127\.0\.0\.1:\d+\): the connection was cut"):
        shell.run(["sleep", "30"], timeout_s=25)
    assert took(began) < SOON_S, "a gate would wait out its command's time for a host that is off"


def test_after_a_restart_of_the_server_the_next_command_connects_anew(own: Server) -> None:
    shell = own.shell()
    assert shell.run(["true"]).ok
    own.stop()
    with pytest.raises(Unreachable, match=r"connection (refused|was cut|reset)"):
        shell.run(["true"], timeout_s=5)
    own.start()
    assert shell.run(["echo", "again"]).out == "again\n"


def test_a_connection_given_up_ends_when_the_commands_on_it_have(own: Server) -> None:
    shell = own.shell()
    with futures.ThreadPoolExecutor() as pool:
        old = taken(shell)
        slow = pool.submit(shell.run, ["sh", "-c", "sleep 1; echo done"])
        while shell._connections._users[old] < 2:
            time.sleep(0.01)
        shell.close()
        assert shell.run(["echo", "new"]).out == "new\n"
        assert slow.result(20).out == "done\n", "a gate that looks cut another one's command"
    assert old.is_active()
    shell._connections.leave(old)
    assert not old.is_active()


def test_a_kept_connection_that_is_gone_already_costs_no_command(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = own.shell()
    assert shell.run(["true"]).ok
    (held,) = shell._connections._held

    def gone(**_: object) -> None:
        held.close()
        raise paramiko.SSHException("Unable to open channel.")  # as paramiko says it

    monkeypatch.setattr(held, "open_session", gone)
    assert shell.run(["echo", "again"]).out == "again\n"


def test_a_connection_that_broke_does_not_take_its_successor_along(own: Server) -> None:
    shell = own.shell()
    old = taken(shell)
    shell.close()
    new = taken(shell)
    shell._broken(old, EOFError())
    assert taken(shell) is new
    assert new.is_active()


def taken(shell: SshShell) -> paramiko.Transport:
    return shell._connections.take(5, lambda: (shell._connect(5), None))[0]


@pytest.mark.parametrize(("each", "threads"), [(10, 24), (3, 8), (1, 4)])
def test_more_threads_than_a_server_takes_sessions_are_all_served(
    each: int, threads: int, tmp_path: Path
) -> None:
    with serving(tmp_path, sessions_each=each) as server:
        shell = server.shell()
        together = threading.Barrier(threads)

        def work(number: int) -> str:
            together.wait(30)
            if number % 4 == 3:
                shell.put(f"{number}".encode(), f"{tmp_path}/put-{number}", timeout_s=60)
                return (tmp_path / f"put-{number}").read_text()
            return shell.run(["sh", "-c", f"sleep 1; echo {number}"], timeout_s=60).out.strip()

        with futures.ThreadPoolExecutor(threads) as pool:
            assert list(pool.map(work, range(threads))) == [
                str(number) for number in range(threads)
            ]
        assert not shell._connections._users
        assert len(shell._connections._held) <= 1


def test_the_end_of_a_commands_input_never_comes_after_its_goodbye(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSH's server hangs up on that, and with it end all other commands on the connection."""
    send: Callable[..., None] = vars(paramiko.Transport)["_send_user_message"]

    def slowly(self: paramiko.Transport, message: paramiko.Message) -> None:
        if message.asbytes()[:1] == bytes([96]):  # SSH_MSG_CHANNEL_EOF (RFC 4254, 9)
            time.sleep(0.5)
        send(self, message)

    shell = own.shell()
    assert shell.run(["true"]).ok
    with futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(shell.run, ["sh", "-c", "sleep 4; echo done"])
        assert eventually(lambda: shell._connections._users, 10)
        time.sleep(0.2)
        monkeypatch.setattr(paramiko.Transport, "_send_user_message", slowly)
        assert [shell.run(["echo", "it"], stdin=b"x").out for _ in range(3)] == ["it\n"] * 3
        assert slow.result(30).out == "done\n"
    assert "nonexistent channel" not in (own.folder / "log").read_text()


def test_who_waits_for_another_ones_connection_has_a_time_of_its_own_and_holds_up_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, futures.ThreadPoolExecutor() as pool:
        private, public = key_pair()
        shell = SshShell("127.0.0.1", mute.getsockname()[1], USER, private, public, "kvm1")
        first = pool.submit(shell.run, ["true"], timeout_s=20)
        assert eventually(shell._connections._opening.locked, 5)
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no answer"):
            shell.run(["true"], timeout_s=1)
        shell.close()
        assert took(began) < 15, "it waited for the first one's time"
        mute.close()
        assert first.exception(30)


def test_a_server_that_starts_no_command_at_all_is_told_in_words(tmp_path: Path) -> None:
    with (
        serving(tmp_path, sessions_each=0) as server,
        pytest.raises(Unreachable, match=r"lets in and starts no command .*MaxSessions"),
    ):
        server.shell().run(["true"])


def test_a_session_that_fails_ends_no_other_ones_command(tmp_path: Path) -> None:
    with serving(tmp_path, sftp="/bin/false") as server, futures.ThreadPoolExecutor() as pool:
        shell = server.shell()
        slow = pool.submit(shell.run, ["sh", "-c", "echo begun; sleep 3; echo done"])
        assert eventually(lambda: shell._connections._users, 10)
        with pytest.raises(PutError, match="takes no files: its SFTP server ends at once"):
            shell.put(b"x", f"{tmp_path}/x", timeout_s=5)
        with pytest.raises(Unreachable, match="did not end in time"):
            shell.run(["sleep", "30"], timeout_s=0.2)
        assert slow.result(20).out == "begun\ndone\n"


@contextmanager
def frozen(server: Server, but: Collection[int] = ()) -> Iterator[None]:
    """Stop every process of the server, as a machine that hangs does: connections stay open."""
    stopped = {*server.sessions(), *([server.running.pid] if server.running and not but else [])}
    stopped -= set(but)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_a_machine_that_hangs_is_given_up_in_time(own: Server) -> None:
    shell = own.shell()
    shell.run(["true"])
    with frozen(own):
        began = time.monotonic()
        with pytest.raises(Unreachable):
            shell.run(["true"], timeout_s=1)
        assert took(began) < SOON_S
        with pytest.raises(Unreachable, match=r"does not answer|banner"):
            shell.run(["true"], timeout_s=1)
        assert took(began) < 2 * SOON_S
    assert shell.run(["echo", "back"]).out == "back\n"


def test_a_machine_that_hangs_between_two_messages_is_given_up_too(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import paramiko  # noqa: PLC0415

    monkeypatch.setattr(shells, "GRACE_S", 0.5)
    shell = own.shell()
    ask = paramiko.Channel.exec_command
    began = time.monotonic()

    def hangs(channel: paramiko.Channel, command: str | bytes) -> None:
        # paramiko waits for the answer to this request without any limit.
        with frozen(own):
            ask(channel, command)

    monkeypatch.setattr(paramiko.Channel, "exec_command", hangs)
    with pytest.raises(Unreachable):
        shell.run(["true"], timeout_s=1)
    assert took(began) < SOON_S


@pytest.mark.parametrize("keys", [("ecdsa", "ecdsa"), ("ecdsa", "ed25519"), ("ed25519", "ecdsa")])
def test_keys_of_either_kind_open_and_are_insisted_on(
    keys: tuple[str, str], tmp_path: Path
) -> None:
    with serving(tmp_path, keys=keys) as server:
        with closing(server.shell()) as shell:
            assert shell.run(["echo", "in"]).out == "in\n"
        _, other = key_pair(keys[0])
        planned = pytest.raises(Unreachable, match="its host key is not the one planned for it")
        with closing(server.shell(host_key=other)) as shell, planned:
            shell.run(["true"])


def test_a_machine_with_another_host_key_gets_no_command(server: Server, tmp_path: Path) -> None:
    bait = tmp_path / "bait"
    impostor = server.shell(host_key=key_pair()[1])
    with pytest.raises(Unreachable, match="its host key is not the one planned for it"):
        impostor.run(["touch", str(bait)])
    assert not bait.exists()


def test_a_key_that_nobody_knows_is_turned_away_in_words(server: Server) -> None:
    with pytest.raises(Unreachable, match=r"kvm1 .*authentication failed"):
        server.shell(private_key=key_pair()[0]).run(["true"])


def _in_and_silent(server: Server) -> socket.socket:
    """Return a connection that is let in, and does not log in: whoever asked whether it listens goes first."""
    while True:
        other = socket.create_connection(("127.0.0.1", server.port))
        if other.recv(3) == b"SSH":
            return other
        other.close()


def test_who_is_turned_away_as_others_log_in_at_the_same_time_comes_again(tmp_path: Path) -> None:
    with serving(tmp_path, startups="1:100:1") as server:
        other = _in_and_silent(server)
        with socket.create_connection(("127.0.0.1", server.port)) as away:
            assert not away.recv(100).startswith(b"SSH"), "nobody else is"
        threading.Timer(1.0, other.close).start()
        with closing(server.shell()) as shell:
            assert shell.run(["echo", "in"]).out == "in\n"


def test_nobody_listening_is_told_in_words() -> None:
    nobody = SshShell("127.0.0.1", free_port(), USER, *key_pair(), "kvm1")
    with pytest.raises(Unreachable, match=r"kvm1 \(127\.0\.0\.1:\d+\): connection refused"):
        nobody.run(["true"])


def _greet(port: socket.socket, greeting: bytes) -> None:
    with suppress(OSError):  # the test has ended
        while True:
            link, _ = port.accept()
            with link:
                link.sendall(greeting)


KNOCK = """
import sys
from components.reach.shell import SshShell, Unreachable
try:
    SshShell("127.0.0.1", int(sys.argv[1]), "root", sys.argv[2], sys.argv[3], "kvm1").run(["true"])
except Unreachable as silent:
    print(silent)
"""


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n"])
def test_what_is_no_ssh_server_is_unreachable_and_makes_no_noise(greeting: bytes) -> None:
    private, public = key_pair()
    with socket.create_server(("127.0.0.1", 0)) as port:
        threading.Thread(target=_greet, args=(port, greeting), daemon=True).start()
        # In a process of its own: pytest takes the log's messages before they reach the screen.
        done = subprocess.run(
            [sys.executable, "-c", KNOCK, str(port.getsockname()[1]), private, public],
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert done.stdout.startswith("kvm1 (127.0.0.1:")
    assert not done.stderr, "a machine that boots would fill the user's screen"


def test_a_port_is_asked_from_the_place_itself(ssh: SshShell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as open_port:
        assert ssh.connects("127.0.0.1", open_port.getsockname()[1])
        assert LocalShell().connects("127.0.0.1", open_port.getsockname()[1])
    closed = free_port()
    assert not ssh.connects("127.0.0.1", closed)
    assert not LocalShell().connects("127.0.0.1", closed)


def test_a_port_that_swallows_everything_is_no_reason_to_hang_up(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "CONNECT_S", 1.0)
    shell = own.shell()
    before = shell.run(["sh", "-c", "echo $SSH_CONNECTION"]).out
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        # What does not fit into the queue is dropped without a word, as firewalls do.
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        began = time.monotonic()
        assert not shell.connects(*address)
        assert took(began) < SOON_S
        for each in waiting:
            each.close()
    assert shell.run(["sh", "-c", "echo $SSH_CONNECTION"]).out == before


def test_a_place_that_is_off_is_unreachable_when_asked_for_a_port(own: Server) -> None:
    shell = own.shell()
    own.stop()
    with pytest.raises(Unreachable):
        shell.connects("127.0.0.1", own.port)


# Files ----------------------------------------------------------------------------------------


def test_a_file_arrives_whole_and_with_its_mode(either: Shell, tmp_path: Path) -> None:
    data = os.urandom(2 * upload.BLOCK + 4321)
    source, to = tmp_path / "source", tmp_path / "a 'file'; $(id) ü"
    source.write_bytes(data)
    either.put(source, str(to), mode=0o640, timeout_s=20)
    assert to.read_bytes() == data
    assert to.stat().st_mode & 0o777 == 0o640
    either.put(b"short", str(to), timeout_s=20)
    assert to.read_bytes() == b"short", "what was there is gone"
    assert to.stat().st_mode & 0o777 == 0o644
    either.put(b"", str(to), timeout_s=20)
    assert to.read_bytes() == b""
    assert {file.name for file in tmp_path.iterdir()} == {"source", to.name}, "nothing beside it"


def test_nobody_else_can_read_a_secret_file_while_it_grows(
    either: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    blocks = upload._blocks
    (tmp_path / f"key{upload.PART}").touch(0o644)  # what a cut connection left

    def look(source: Path | bytes, to: str, where: str) -> Iterator[bytes]:
        for block in blocks(source, to, where):
            seen.add((tmp_path / f"key{upload.PART}").stat().st_mode & 0o777)
            yield block

    monkeypatch.setattr(upload, "_blocks", look)
    either.put(b"secret", str(tmp_path / "key"), mode=0o600, timeout_s=20)
    assert seen == {0o600}


def test_a_large_file_is_never_held_in_memory(server: Server, tmp_path: Path) -> None:
    import tracemalloc  # noqa: PLC0415 - used by this test alone

    source = tmp_path / "medium"
    with source.open("wb") as handle:
        handle.truncate(48 << 20)
    shell = server.shell()
    shell.run(["true"])
    tracemalloc.start()
    try:
        shell.put(source, str(tmp_path / "to"), timeout_s=20)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert (tmp_path / "to").stat().st_size == 48 << 20


def test_keys_may_change_while_a_file_is_sent(
    own: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import paramiko.packet  # noqa: PLC0415

    # As both sides do after half a gigabyte.
    monkeypatch.setattr(paramiko.packet.Packetizer, "REKEY_BYTES", 1 << 20)
    data = os.urandom(5 << 20)
    own.shell().put(data, str(tmp_path / "to"), timeout_s=20)
    assert (tmp_path / "to").read_bytes() == data


def test_a_file_whose_folder_is_missing_is_refused_in_words(either: Shell, tmp_path: Path) -> None:
    with pytest.raises(PutError, match=r"none/x can't be written: its folder is not there$"):
        either.put(b"x", str(tmp_path / "none" / "x"), timeout_s=20)
    assert either.run(["true"]).ok, "the connection is kept"


def test_a_file_that_is_not_here_is_told_apart(either: Shell, tmp_path: Path) -> None:
    with pytest.raises(PutError, match=r"none can't be read: No such file"):
        either.put(tmp_path / "none", str(tmp_path / "to"), timeout_s=20)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_replaced_by_a_file(either: Shell, tmp_path: Path) -> None:
    (tmp_path / "to" / "child").mkdir(parents=True)
    with pytest.raises(PutError, match=r"to can't be written"):
        either.put(b"x", str(tmp_path / "to"), timeout_s=20)
    assert [file.name for file in tmp_path.iterdir()] == ["to"], "what was sent is cleared away"


@pytest.mark.skipif(os.geteuid() != 0, reason="the modes of devices are root's to set")
def test_a_full_disk_is_told_in_words(either: Shell, tmp_path: Path) -> None:
    (tmp_path / f"to{upload.PART}").symlink_to("/dev/full")
    with pytest.raises(PutError, match=r"to can't be written: (no space left|.*its disk is full)"):
        either.put(bytes(3 << 20), str(tmp_path / "to"), mode=0o666, timeout_s=20)
    assert not [file.name for file in tmp_path.iterdir()], "what was sent is cleared away"
    assert either.run(["true"]).ok, "the connection is kept"


def test_windows_knows_no_renaming_onto_a_file_and_no_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import paramiko.sftp  # noqa: PLC0415

    def unknown(sftp: paramiko.SFTPClient, old: str, new: str) -> None:
        sftp._request(paramiko.sftp.CMD_EXTENDED, "nobody-knows@nestlab", old, new)  # type: ignore[attr-defined]

    def chmod(*_: object) -> None:
        raise OSError("Operation unsupported")

    monkeypatch.setattr(paramiko.SFTPClient, "posix_rename", unknown)
    monkeypatch.setattr(paramiko.SFTPFile, "chmod", chmod)
    drive = tmp_path / "drive"
    drive.mkdir()
    with (
        serving(tmp_path / "sshd", mounts={"/C:": drive}) as server,
        closing(server.shell()) as shell,
    ):
        shell.put(b"one", "/C:/to", timeout_s=20)
        assert (drive / "to").read_bytes() == b"one"
        shell.put(b"two", "/C:/to", timeout_s=20)
        assert (drive / "to").read_bytes() == b"two"
        assert [file.name for file in drive.iterdir()] == ["to"]
        with pytest.raises(PutError, match="x can't be written: operation unsupported"):
            shell.put(b"x", str(tmp_path / "x"), timeout_s=20)


def test_two_threads_may_send_one_file(ssh: SshShell, tmp_path: Path) -> None:
    data = [bytes([n]) * (3 << 20) for n in range(4)]
    with futures.ThreadPoolExecutor(4) as pool:
        for done in [
            pool.submit(ssh.put, each, str(tmp_path / "to"), timeout_s=20) for each in data
        ]:
            done.result(30)
    assert (tmp_path / "to").read_bytes() in data


@pytest.fixture
def midway(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something done after the first block of a file is sent."""
    blocks = upload._blocks

    def arrange(happens: Callable[[], object]) -> None:
        def interrupted(source: Path | bytes, to: str, where: str) -> Iterator[bytes]:
            for n, block in enumerate(blocks(source, to, where)):
                if n == 1:
                    happens()
                yield block

        monkeypatch.setattr(upload, "_blocks", interrupted)

    return arrange


def test_a_file_cut_off_half_way_leaves_the_old_one_and_can_be_sent_again(
    own: Server, tmp_path: Path, midway: Callable[[Callable[[], object]], None]
) -> None:
    shell, to = own.shell(), tmp_path / "to"
    to.write_text("old")
    midway(own.stop)
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"kvm1 .*the connection was cut while .*/to was sent"):
        shell.put(bytes(4 << 20), str(to), timeout_s=20)
    assert took(began) < SOON_S
    assert to.read_text() == "old"
    own.start()
    midway(lambda: None)
    shell.put(bytes(4 << 20), str(to), timeout_s=20)
    assert to.read_bytes() == bytes(4 << 20)
    assert not (tmp_path / f"to{upload.PART}").exists()


def test_a_machine_that_hangs_while_it_is_sent_a_file_is_given_up_in_time(
    own: Server,
    tmp_path: Path,
    midway: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shells, "GRACE_S", 0.5)
    shell = own.shell()
    with ExitStack() as hangs:
        midway(lambda: hangs.enter_context(frozen(own)))
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"nothing of .*/to was taken for 1 s|was cut while"):
            shell.put(bytes(40 << 20), str(tmp_path / "to"), timeout_s=1)
        assert took(began) < SOON_S
    assert not (tmp_path / "to").exists()


def test_a_file_that_is_stuck_does_not_cut_off_the_others(
    own: Server, tmp_path: Path, midway: Callable[[Callable[[], object]], None]
) -> None:
    shell = own.shell()
    with futures.ThreadPoolExecutor() as pool, ExitStack() as hangs:
        other = pool.submit(shell.run, ["sh", "-c", "sleep 2; echo done"], timeout_s=20)
        assert eventually(lambda: shell._connections._held and own.sessions(), 5)
        before = set(own.sessions())
        midway(lambda: hangs.enter_context(frozen(own, but=before)))
        with pytest.raises(Unreachable, match=r"nothing of .*/to was taken for 1 s"):
            shell.put(bytes(40 << 20), str(tmp_path / "to"), timeout_s=1)
        assert other.result(20).out == "done\n"


def test_a_machine_that_hangs_before_it_takes_a_file_is_given_up_too(
    own: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import paramiko  # noqa: PLC0415

    monkeypatch.setattr(shells, "GRACE_S", 0.5)
    ask = paramiko.Channel.invoke_subsystem
    began = time.monotonic()

    def hangs(channel: paramiko.Channel, subsystem: str) -> None:
        # paramiko waits for the answer to this request without any limit.
        with frozen(own):
            ask(channel, subsystem)

    monkeypatch.setattr(paramiko.Channel, "invoke_subsystem", hangs)
    with pytest.raises(Unreachable):
        own.shell().put(b"x", str(tmp_path / "to"), timeout_s=1)
    assert took(began) < SOON_S


def test_a_file_that_came_out_short_is_not_given_its_name(
    ssh: SshShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = upload._blocks

    def shortened(source: Path | bytes, to: str, where: str) -> Iterator[bytes]:
        yield from blocks(source, to, where)
        os.truncate(f"{to}{upload.PART}", 3)

    monkeypatch.setattr(upload, "_blocks", shortened)
    with pytest.raises(PutError, match="to can't be written: 3 of 6 bytes arrived"):
        ssh.put(b"medium", str(tmp_path / "to"), timeout_s=20)
    assert not list(tmp_path.iterdir())


def test_a_slow_machine_has_all_the_time_it_needs(
    ssh: SshShell, tmp_path: Path, midway: Callable[[Callable[[], object]], None]
) -> None:
    midway(lambda: time.sleep(1.5))
    ssh.put(bytes(3 << 20), str(tmp_path / "to"), timeout_s=1)
    assert (tmp_path / "to").stat().st_size == 3 << 20


def test_a_long_way_is_told_in_numbers(
    either: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    either.put(bytes(2 << 20), str(tmp_path / "to"), timeout_s=20)
    assert capfd.readouterr().err == "", "what is quick is not worth a word"
    monkeypatch.setattr(waiting, "PROGRESS_S", 0.0)
    either.put(bytes(2 << 20), str(tmp_path / "to"), timeout_s=20)
    assert f"sending {tmp_path}/to, 1 of 2 MiB\n" in capfd.readouterr().err


def test_a_deployment_that_is_being_stopped_sends_no_more(
    either: Shell, tmp_path: Path, midway: Callable[[Callable[[], object]], None]
) -> None:
    midway(interrupt.CANCELLED.set)
    try:
        with pytest.raises(NotReady, match=r"stopped while sending .*/to, 2 of 4 MiB"):
            either.put(bytes(4 << 20), str(tmp_path / "to"), timeout_s=20)
    finally:
        interrupt.CANCELLED.clear()
    assert not list(tmp_path.iterdir())
    assert either.run(["true"]).ok


def test_a_server_without_sftp_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, sftp="") as server, closing(server.shell()) as shell:
        with pytest.raises(
            PutError, match=r"kvm1 .* takes no files: its SSH server offers no SFTP"
        ):
            shell.put(b"x", str(tmp_path / "to"), timeout_s=20)
        assert shell.run(["true"]).ok


def test_a_target_has_one_shell_and_its_port_may_have_been_a_float(server: Server) -> None:
    first = shell_of(server.target("kvm1"))
    through_the_engine = {**write(Target, server.target("kvm1")), "port": float(server.port)}
    assert shell_of(read(Target, through_the_engine)) is first
    assert first.run(["echo", "hello"]).out == "hello\n"
    peer = first.run(["sh", "-c", "echo $SSH_CONNECTION"]).out
    assert fresh_shell(server.target("kvm1")).run(["sh", "-c", "echo $SSH_CONNECTION"]).out != peer
    assert isinstance(shell_of(LOCAL), LocalShell)


def test_a_host_made_anew_behind_the_same_address_gets_a_shell_of_its_own(server: Server) -> None:
    renewed = replace(server.target("kvm1"), host_key=key_pair()[1])
    assert shell_of(renewed) is not shell_of(server.target("kvm1"))


def test_no_secret_shows_when_a_shell_is_printed(server: Server) -> None:
    shown = repr(server.shell())
    lines = [line for line in server.private.splitlines() if "KEY" not in line]
    assert not any(line in shown for line in itertools.islice(lines, 5))


def test_no_message_waits_for_word_of_the_one_before(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []
    connect = socket.create_connection

    def kept(where: tuple[str, int], within_s: float) -> socket.socket:
        made.append(connect(where, within_s))
        return made[-1]

    monkeypatch.setattr(socket, "create_connection", kept)
    shell = own.shell()
    assert shell.run(["true"]).ok
    # By Nagle's algorithm (RFC 896) each command takes 40 ms more: of 12 commands half a second.
    assert [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in made] == [1]
    shell.close()
