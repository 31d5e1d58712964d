"""Commands over SSH, against OpenSSH's own server on loopback.

A failure here means that what a gate asks of a nested host arrives as something else, or that one
host which hangs holds up a whole deployment.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from components.remote import shell as shells
from components.remote.shell import (
    LocalShell,
    Shell,
    SshShell,
    Target,
    Unreachable,
    fresh_shell,
    shell_of,
)
from tests.double.conftest import eventually
from toolchain import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.double

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
USER = os.environ.get("USER") or "root"
ECHO = "import sys, json; print(json.dumps(sys.argv[1:]))"


def key_pair() -> tuple[str, str]:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, f"{public} test"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """An sshd of the user who runs the tests; in the foreground, ended by its pid."""

    folder: Path
    port: int = field(default_factory=free_port)
    running: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.private, public = key_pair()
        host, self.host_key = key_pair()
        (self.folder / "authorized").write_text(public + "\n")
        (self.folder / "host").touch(0o600)
        (self.folder / "host").write_text(host)
        settings = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": self.folder / "host",
            "AuthorizedKeysFile": self.folder / "authorized",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "MaxSessions": 64,
        }
        lines = [f"{key} {value}\n" for key, value in settings.items()]
        (self.folder / "config").write_text("".join(lines))

    def start(self) -> None:
        assert SSHD
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # noqa: PTH103 - sshd insists on it
        with (self.folder / "log").open("ab") as log:
            self.running = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", self.folder / "config"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                process_group=0,
            )
        up = eventually(lambda: LocalShell().connects("127.0.0.1", self.port), 10)
        assert up, (self.folder / "log").read_text()

    def stop(self) -> None:
        """End the server and, unlike its own end would, the sessions it serves."""
        assert self.running
        sessions = self.sessions()
        self.running.kill()
        self.running.wait(10)
        for session in sessions:
            with suppress(ProcessLookupError):
                os.kill(session, signal.SIGKILL)

    def sessions(self) -> list[int]:
        """Pids of the processes that serve connections: the server's children and theirs."""
        assert self.running
        found: list[int] = []
        fresh = [self.running.pid]
        while fresh:
            words = [["pgrep", "-P", str(pid)] for pid in fresh]
            said = [subprocess.run(each, capture_output=True, check=False).stdout for each in words]
            names = {int(pid): _name(int(pid)) for pid in b" ".join(said).split()}
            fresh = [pid for pid, name in names.items() if name.startswith("sshd")]
            found += fresh
        return found

    def shell(self, **other: Any) -> SshShell:
        known = {"host_key": self.host_key, "private_key": self.private, "name": "kvm1"} | other
        return SshShell(host="127.0.0.1", port=self.port, user=USER, **known)


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as handle:  # noqa: PTH123
            return handle.read().strip()
    except OSError:
        return ""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    if SSHD is None:
        pytest.skip("sshd of openssh-server is not installed")
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        if server.running and server.running.poll() is None:
            server.stop()


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
    assert took(began) < 10


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
    assert took(began) < 5


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


def test_eight_threads_use_it_at_once(ssh: SshShell) -> None:
    began = time.monotonic()
    with futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ssh.run, ["sh", "-c", f"sleep 1; echo {n}"]) for n in range(8)]
        assert [each.result().out for each in asked] == [f"{n}\n" for n in range(8)]
    assert took(began) < 5, "the commands waited for each other"


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
    assert took(began) < 5, "a gate would wait out its command's time for a host that is off"


def test_after_a_restart_of_the_server_the_next_command_connects_anew(own: Server) -> None:
    shell = own.shell()
    assert shell.run(["true"]).ok
    own.stop()
    with pytest.raises(Unreachable, match=r"connection (refused|was cut|reset)"):
        shell.run(["true"], timeout_s=5)
    own.start()
    assert shell.run(["echo", "again"]).out == "again\n"


def test_a_connection_that_broke_does_not_take_its_successor_along(own: Server) -> None:
    shell = own.shell()
    old = shell._transport(5)
    shell.close()
    new = shell._transport(5)
    shell._broken(old, EOFError())
    assert shell._transport(5) is new
    assert new.is_active()


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """Stop every process of the server, as a machine that hangs does: connections stay open."""
    stopped = [*server.sessions(), *([server.running.pid] if server.running else [])]
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
        assert took(began) < 5
        with pytest.raises(Unreachable, match=r"does not answer|banner"):
            shell.run(["true"], timeout_s=1)
        assert took(began) < 10
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
    assert took(began) < 6


def test_a_machine_with_another_host_key_gets_no_command(server: Server, tmp_path: Path) -> None:
    bait = tmp_path / "bait"
    impostor = server.shell(host_key=key_pair()[1])
    with pytest.raises(Unreachable, match="its host key is not the one planned for it"):
        impostor.run(["touch", str(bait)])
    assert not bait.exists()


def test_a_key_that_nobody_knows_is_turned_away_in_words(server: Server) -> None:
    with pytest.raises(Unreachable, match=r"kvm1 .*authentication failed"):
        server.shell(private_key=key_pair()[0]).run(["true"])


def test_nobody_listening_is_told_in_words() -> None:
    nobody = SshShell("127.0.0.1", free_port(), USER, *key_pair(), "kvm1")
    with pytest.raises(Unreachable, match=r"kvm1 \(127\.0\.0\.1:\d+\): connection refused"):
        nobody.run(["true"])


def _greet(port: socket.socket, greeting: bytes) -> None:
    link, _ = port.accept()
    with link:
        link.sendall(greeting)


KNOCK = """
import sys
from components.remote.shell import SshShell, Unreachable
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
    monkeypatch.setattr(shells, "CONNECT_S", 1.0)
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
        assert took(began) < 4
        for each in waiting:
            each.close()
    assert shell.run(["sh", "-c", "echo $SSH_CONNECTION"]).out == before


def test_a_place_that_is_off_is_unreachable_when_asked_for_a_port(own: Server) -> None:
    shell = own.shell()
    own.stop()
    with pytest.raises(Unreachable):
        shell.connects("127.0.0.1", own.port)


def target(server: Server) -> Target:
    return Target(
        kind="ssh",
        name="kvm1",
        host="127.0.0.1",
        port=server.port,
        user=USER,
        private_key=server.private,
        host_key=server.host_key,
    )


def test_a_target_has_one_shell_and_its_port_may_have_been_a_float(server: Server) -> None:
    first = shell_of(target(server))
    through_the_engine = {**target(server), "port": float(server.port)}
    assert shell_of(through_the_engine) is first  # type: ignore[arg-type]
    assert first.run(["echo", "hello"]).out == "hello\n"
    peer = first.run(["sh", "-c", "echo $SSH_CONNECTION"]).out
    assert fresh_shell(target(server)).run(["sh", "-c", "echo $SSH_CONNECTION"]).out != peer
    assert isinstance(shell_of({"kind": "local"}), LocalShell)


def test_a_host_made_anew_behind_the_same_address_gets_a_shell_of_its_own(server: Server) -> None:
    renewed = target(server) | {"host_key": key_pair()[1]}
    assert shell_of(renewed) is not shell_of(target(server))


def test_no_secret_shows_when_a_shell_is_printed(server: Server) -> None:
    shown = repr(server.shell())
    lines = [line for line in server.private.splitlines() if "KEY" not in line]
    assert not any(line in shown for line in itertools.islice(lines, 5))
