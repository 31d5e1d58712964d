"""What stands for ``pulumi``: a wrong turn here and no guest is reached, or a signal gets lost."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolchain.test_environment import place
from toolchain.bootstrap import entries, paths, pins
from toolchain.engine import before, environment, plugins, wrapper

if TYPE_CHECKING:
    from collections.abc import Callable

STACK = b"""\
# My lab.

config:
  nestlab:lab: {name: x}   # two blanks before\r
"""
ENGINE = """#!/bin/sh
case "$*" in *--show-name) echo made; exit ;; esac
echo "engine $$ $*"
[ -z "$READ" ] || cat "$PULUMI_OPTION_CONFIG_FILE"
"""
RECOVER = f"""#!/bin/sh
case "$*" in *toolchain.engine.before* | *toolchain.engine.child*) exec {sys.executable} "$@" ;; esac
echo "recover $NESTLAB_RECOVERING $*"; exit "${{RECOVERED:-0}}"
"""
STUBS = {
    "ip": '#!/bin/sh\necho "ip $*"\n',
    "id": '#!/bin/sh\necho "${AS:-0}"\n',
    "sudo": '#!/bin/sh\n[ "$*" = "-n true" ] && exit "${PASSWORD:-0}"\necho "sudo $*"\n',
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a wrapper around an engine that tells how it was called."""
    root = tmp_path / "a lab"
    place(root, monkeypatch)
    monkeypatch.setattr(wrapper, "NAMESPACES", tmp_path / "netns")
    for folder in (paths.BIN, paths.VENV / "bin", root / "folder", tmp_path / "stubs"):
        folder.mkdir(parents=True)
    (root / "Pulumi.yaml").touch()
    (root / "stacks").mkdir()
    (root / "stacks" / "Pulumi.local.yaml").write_bytes(STACK)
    source = Path(wrapper.__file__).parents[1]
    shutil.copytree(source, root / "toolchain", ignore=lambda *_: ["go", "image", "__pycache__"])
    (root / "components" / "gates").mkdir(parents=True)
    for name in ("__init__.py", "refused.py", "gates/__init__.py", "gates/marks.py"):
        shutil.copy(source.parent / "components" / name, root / "components" / name)
    (tmp_path / "netns").mkdir()
    scripts = {tmp_path / "stubs" / name: text for name, text in STUBS.items()}
    scripts[tmp_path / "engine"] = ENGINE
    scripts[paths.VENV / "bin" / "python3"] = RECOVER
    scripts[paths.BIN / "pulumi"] = wrapper.pulumi(tmp_path / "engine")
    for file, text in scripts.items():
        file.write_text(text)
        file.chmod(0o755)
    paths.ENV_SH.write_text(environment.env_sh(built_here=False))
    return root


def pulumi(checkout: Path, *words: str, **given: str) -> subprocess.CompletedProcess[str]:
    search = f"{checkout.parent / 'stubs'}:{os.environ['PATH']}"
    return subprocess.run(
        [paths.BIN / "pulumi", *words],
        cwd=checkout,
        env={"PATH": search, "PULUMI_STACK": "local", **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_becomes_the_engine_so_that_signals_reach_it(checkout: Path) -> None:
    with subprocess.Popen(
        [paths.BIN / "pulumi", "version", "a b"], stdout=subprocess.PIPE, text=True
    ) as running:
        said, _ = running.communicate(timeout=10)
    assert said == f"engine {running.pid} version a b\n", checkout


def test_an_empty_namespace_is_the_machines_own_network(checkout: Path) -> None:
    paths.NETNS.write_text("")
    assert pulumi(checkout, "version").stdout.startswith("engine")


def test_root_enters_the_namespace_of_libvirt(checkout: Path) -> None:
    paths.NETNS.write_text("labs")
    (wrapper.NAMESPACES / "labs").touch()
    done = pulumi(checkout, "up", "--yes")
    assert done.stdout == f"ip netns exec labs {paths.BIN}/pulumi up --yes\n"


def test_an_engine_whose_providers_listen_here_stays_here(checkout: Path) -> None:
    paths.NETNS.write_text("labs")
    (wrapper.NAMESPACES / "labs").touch()
    done = pulumi(checkout, "config", **{wrapper.HERE: "yes"})
    assert done.stdout.startswith("engine"), done.stderr


def test_who_is_inside_already_goes_on(checkout: Path) -> None:
    paths.NETNS.write_text("labs")
    (wrapper.NAMESPACES / "labs").symlink_to("/proc/self/ns/net")
    assert pulumi(checkout, "up").stdout.startswith("engine")


def test_others_enter_by_sudo_and_stay_who_they_are(checkout: Path) -> None:
    paths.NETNS.write_text("labs\n")
    (wrapper.NAMESPACES / "labs").touch()
    words = pulumi(checkout, "up", AS="1000").stdout
    assert words.startswith("sudo -n --preserve-env ip netns exec labs setpriv --reuid 1000 ")
    assert words.endswith(f"-- {paths.BIN}/pulumi up\n")


def test_who_may_not_enter_is_told_what_to_do(checkout: Path) -> None:
    paths.NETNS.write_text("labs")
    (wrapper.NAMESPACES / "labs").touch()
    done = pulumi(checkout, "up", AS="1000", PASSWORD="1")
    assert done.returncode == 1
    assert "sudo -v" in done.stderr
    assert not done.stdout


def test_a_namespace_that_is_gone_is_named_with_its_remedy(checkout: Path) -> None:
    paths.NETNS.write_text("labs")
    done = pulumi(checkout, "up")
    assert done.returncode == 1
    assert "labs" in done.stderr
    assert "make host" in done.stderr


def killed(checkout: Path, *, left: str = "lock") -> None:
    """Leave what an engine leaves when it is killed."""
    del checkout
    state = paths.STATE / ".pulumi"
    file = {
        "lock": state / "locks" / "organization" / "nestlab" / "local" / "0f.json",
        "pending": state / "stacks" / "nestlab" / "local.json",
        "packed": state / "stacks" / "nestlab" / "local.json.gz",
    }[left]
    file.parent.mkdir(parents=True, exist_ok=True)
    pending = b'{"pending_operations": []}'
    content = {"lock": b"{}", "pending": pending, "packed": gzip.compress(pending)}
    file.write_bytes(content[left])


def asks(checkout: Path, *words: str, **given: str) -> bool:
    """Return whether ``toolchain.engine.recover`` was run before the engine."""
    killed(checkout)
    lines = pulumi(checkout, *words, **given).stdout.splitlines()
    assert lines[-1].startswith("engine")
    if len(lines) > 1:
        assert lines[0] == f"recover yes -P -m toolchain.engine.recover -- {' '.join(words)}"
    return len(lines) > 1


@pytest.mark.parametrize(
    "words",
    [
        ("up",), ("update", "--yes"), ("preview",), ("pre",), ("destroy", "-y"), ("down",), ("dn",),
        ("refresh",), ("import", "a", "b"), ("-C", "folder", "up"), ("--color", "never", "up"),
        ("-v", "9", "--logtostderr", "up", "--stack", "local"), ("--cwd=folder", "up"),
        ("--stack", "local", "up"), ("-e", "-s", "local", "up"), ("--unheard", "stack", "up"),
    ],
)  # fmt: skip
def test_what_changes_a_stack_first_puts_a_killed_run_right(
    checkout: Path, words: tuple[str, ...]
) -> None:
    assert asks(checkout, *words)


@pytest.mark.parametrize(
    "words",
    [
        (), ("version",), ("stack", "output"), ("config", "set", "up", "1"), ("-C", "up", "stack"),
        ("up", "--help"), ("cancel",), ("stack", "ls"), ("plugin", "ls"),
    ],
)  # fmt: skip
def test_what_only_looks_starts_no_python(checkout: Path, words: tuple[str, ...]) -> None:
    assert not asks(checkout, *words)


def test_recovering_does_not_recover(checkout: Path) -> None:
    assert not asks(checkout, "refresh", NESTLAB_RECOVERING="yes")


@pytest.mark.parametrize("left", ["pending", "packed"])
def test_an_operation_that_never_ended_is_put_right_too(left: str, checkout: Path) -> None:
    killed(checkout, left=left)
    assert pulumi(checkout, "up").stdout.startswith("recover yes")
    assert pulumi(checkout, "up", PULUMI_STACK="other").stdout.startswith("engine")


@pytest.mark.parametrize("where", ["/", ".."])
def test_a_command_about_another_project_is_that_projects(where: str, checkout: Path) -> None:
    killed(checkout)
    done = pulumi(checkout, "-C", where, "up")
    assert done.stdout.startswith("engine"), done.stderr
    assert not paths.LOCAL.joinpath("config").exists()


# What the engine reads --------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["up", "preview", "refresh", "destroy", "import", "watch"])
def test_the_engine_reads_a_copy_of_the_stack_file(word: str, checkout: Path) -> None:
    done = pulumi(checkout, word, READ="1")
    copied = done.stdout.partition("\n")[2]
    assert copied.startswith(STACK.decode().replace("\r", "")), done
    assert "stacks/Pulumi.local.yaml" in copied, "it says whose copy it is"
    file = paths.LOCAL / "config" / "Pulumi.local.yaml"
    assert file.read_bytes().startswith(STACK)
    assert file.stat().st_mode & 0o777 == 0o600
    (checkout / "stacks" / "Pulumi.local.yaml").write_text("config: {}\n")
    assert pulumi(checkout, word, READ="1").stdout.splitlines()[1] == "config: {}"


@pytest.mark.parametrize("word", ["config", "version", "stack"])
def test_what_is_meant_to_write_the_stack_file_gets_it(word: str, checkout: Path) -> None:
    assert pulumi(checkout, word, "set", "a", "b", READ="1").stdout.splitlines()[1:] == []


def test_a_file_that_the_user_names_is_read(checkout: Path) -> None:
    done = pulumi(checkout, "up", "--config-file", "mine.yaml", READ="1")
    assert done.stdout.splitlines()[1:] == []
    (checkout / "mine.yaml").write_text("mine")
    done = pulumi(checkout, "up", PULUMI_OPTION_CONFIG_FILE="mine.yaml", READ="1")
    assert done.stdout.splitlines()[1:] == ["mine"]


SALT = b"encryptionsalt: v1:abc=:v1:def:ghi=\n"


def test_a_salt_of_another_state_is_left_out_unless_a_secret_needs_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    file = checkout / "stacks" / "Pulumi.local.yaml"
    file.write_bytes(SALT + STACK)
    assert before.copy("local").read_bytes().startswith(STACK)
    secret = SALT + STACK + b"  nestlab:hostPassword:\n    secure: v1:def\n"
    file.write_bytes(secret)
    assert before.copy("local").read_bytes().startswith(secret)
    assert file.read_bytes() == secret
    file.unlink()
    assert not before.copy("local").exists(), "the one of before would be read"


def test_a_new_stack_is_made_where_the_engine_may_write(checkout: Path) -> None:
    done = pulumi(checkout, "stack", "init", "made")
    lines = [line.split(maxsplit=2)[2] for line in done.stdout.splitlines()]
    folder = paths.LOCAL / "project"
    assert lines == [f"-C {folder} stack init made", "stack select made"]
    assert (folder / "Pulumi.yaml").is_file()
    assert (paths.LOCAL / "config" / "Pulumi.local.yaml").is_file()
    assert len(pulumi(checkout, "stack", "init", "made", "--no-select").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [("--copy-config-from", "dev"), ("--copy-config-from=dev",), ("--cwd", "folder"), ("--help",)],
)
def test_a_new_stack_that_takes_from_others_is_the_engines(
    words: tuple[str, ...], checkout: Path
) -> None:
    done = pulumi(checkout, "stack", "init", "x", *words)
    assert done.stdout.split(maxsplit=2)[2] == f"stack init x {' '.join(words)}\n"


# What can't be looked at ------------------------------------------------------------------------


def test_a_network_that_can_not_be_known_is_not_this_machines(checkout: Path) -> None:
    paths.NETNS.mkdir()  # which not even root reads
    done = pulumi(checkout, "up")
    assert done.returncode == 1
    assert "netns can't be read" in done.stderr
    assert not done.stdout


def test_what_can_not_be_read_or_written_is_told_in_words(checkout: Path) -> None:
    (checkout / "stacks" / "Pulumi.local.yaml").unlink()
    (checkout / "stacks" / "Pulumi.local.yaml").mkdir()
    done = pulumi(checkout, "up")
    assert done.returncode == 1
    assert "Pulumi.local.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    done = pulumi(checkout, "up", "--stack", "..")
    assert done.returncode == 1
    assert "'..' is no stack's name" in done.stderr
    assert not done.stdout


def test_a_recovery_that_fails_stops_the_command(checkout: Path) -> None:
    killed(checkout)
    done = pulumi(checkout, "up", RECOVERED="7")
    assert done.returncode == 7
    assert "\nengine" not in done.stdout


def test_where_nothing_was_killed_the_engine_runs_at_once(checkout: Path) -> None:
    assert pulumi(checkout, "up").stdout.startswith("engine")


def test_what_the_engine_writes_is_its_users_alone(checkout: Path) -> None:
    (checkout.parent / "engine").write_text("#!/bin/sh\numask\n")
    before = os.umask(0)
    try:
        assert pulumi(checkout, "up").stdout == "0077\n"
    finally:
        os.umask(before)


def test_a_run_that_was_killed_is_seen_in_a_checkout_of_any_name(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a#b%41?"
    checkout.rename(odd)
    place(odd, monkeypatch)
    paths.ENV_SH.write_text(environment.env_sh(built_here=False))
    (paths.BIN / "pulumi").write_text(wrapper.pulumi(tmp_path / "engine"))
    killed(odd)
    assert pulumi(odd, "up").stdout.startswith("recover yes ")


def test_the_environment_is_not_made_anew_by_pulumi_install(checkout: Path) -> None:
    engine = checkout.parent / "engine"
    engine.write_text('#!/bin/sh\necho "${PULUMI_OPTION_NO_DEPENDENCIES:-all}"\n')
    assert pulumi(checkout, "install").stdout == "true\n"
    assert pulumi(checkout, "plugin", "install").stdout == "all\n"
    elsewhere = subprocess.run(
        [paths.BIN / "pulumi", "install"],
        cwd=checkout.parent,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert elsewhere.stdout == "all\n", "another project's packages are its own"


LEADS = {
    "out of the checkout": "/etc/hostname", "to a device": "/dev/zero", "to the kernel": "/proc/kmsg",
    "to itself": "Pulumi.local.yaml",
}  # fmt: skip


@pytest.mark.parametrize("where", LEADS)
def test_a_stack_file_that_leads_elsewhere_is_not_followed(where: str, checkout: Path) -> None:
    file = checkout / "stacks" / "Pulumi.local.yaml"
    file.unlink()
    file.symlink_to(LEADS[where])
    done = pulumi(checkout, "preview")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not list(paths.LOCAL.glob("config/*"))


@pytest.mark.parametrize("built_here", [True, False])
def test_a_stack_file_that_waits_or_never_ends_is_refused(built_here: bool, checkout: Path) -> None:
    """Also where it is looked through for the plugins that it asks for, before all else."""
    paths.ENV_SH.write_text(environment.env_sh(built_here=built_here))
    link = plugins.place(pins.PLUGINS[0])
    link.parent.mkdir(parents=True)
    link.write_text("#!/bin/sh\n")
    link.chmod(0o755)
    file = checkout / "stacks" / "Pulumi.local.yaml"
    file.unlink()
    os.mkfifo(file)
    assert "is no regular file" in pulumi(checkout, "preview").stderr
    file.unlink()
    with file.open("wb") as handle:
        handle.truncate(1 << 40)
    assert "more than 1 MiB" in pulumi(checkout, "preview").stderr
    file.unlink()
    (checkout / "stacks" / "mine.yaml").write_bytes(STACK)
    file.symlink_to("mine.yaml")
    assert pulumi(checkout, "preview").returncode == 0


@pytest.mark.parametrize(
    ("words", "copied"),
    [
        (("-m", "--config-file"), True),
        (("--message", "--config-file=mine.yaml"), True),
        (("-ym--config-file",), True),
        (("--target", "--config-file"), True),
        (("--", "--config-file"), True),
        (("--config-file", "mine.yaml"), False),
        (("--config-file=mine.yaml",), False),
        (("-ym", "text", "--config-file", "mine.yaml"), False),
    ],
)
def test_what_belongs_to_another_option_is_none(
    words: tuple[str, ...], copied: bool, checkout: Path
) -> None:
    """As the engine reads them (pflag): else a message would leave the stack's file to be written to."""
    assert pulumi(checkout, "up", *words).returncode == 0
    assert (paths.LOCAL / "config/Pulumi.local.yaml").exists() is copied


@pytest.mark.parametrize("words", [("-yC", "/"), ("--copy-config-from", "x"), ("-C=/",)])
def test_a_stack_that_is_made_elsewhere_is_made_there(
    words: tuple[str, ...], checkout: Path
) -> None:
    assert " -C " not in pulumi(checkout, "stack", "init", "made", *words).stdout


def test_a_file_beside_with_no_stacks_name_is_in_nobodys_way(checkout: Path) -> None:
    (checkout / "stacks" / "Pulumi.my lab.yaml").touch()
    assert pulumi(checkout, "stack", "init", "made").returncode == 0


ENGINE_OF_OPTIONS = """#!/bin/sh
echo "engine $$ $*${PULUMI_OPTION_REMOVE:+ removing}${PULUMI_OPTION_PRESERVE_CONFIG:+ preserving}"
"""


@pytest.mark.parametrize(
    ("flags", "given"),
    [
        (["--remove"], {}),
        (["--remove=true"], {}),
        (["--remove=1"], {}),
        (["--remove=T"], {}),
        (["--remove=false", "--remove"], {}),
        ([], {"PULUMI_OPTION_REMOVE": "True"}),
        ([], {"PULUMI_OPTION_REMOVE": "1"}),
        (["--remove"], {"PULUMI_OPTION_CONFIG_FILE": "mine.yaml"}),
    ],
)
def test_a_lab_that_goes_for_good_leaves_its_file(
    flags: list[str], given: dict[str, str], checkout: Path
) -> None:
    (checkout.parent / "engine").write_text(ENGINE_OF_OPTIONS)
    done = pulumi(checkout, "destroy", "--yes", *flags, "-t", "a b", **given)
    lines = [line.split(maxsplit=2)[2] for line in done.stdout.splitlines()]
    removed = f"-C {checkout} stack rm --yes --preserve-config --stack local"
    assert lines == ["destroy --yes -t a b", removed]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_lab_that_goes_for_good_does_not_go_on_unattended(
    number: signal.Signals, checkout: Path, tmp_path: Path
) -> None:
    ended = tmp_path / "ended"
    (checkout.parent / "engine").write_text(
        f"#!/bin/sh\ntrap 'echo $NESTLAB_ATTENDED >{ended}; exit 7' INT\ntouch {ended}.began\n"
        "for i in $(seq 100); do sleep 0.1; done\n"
    )
    words = [str(paths.BIN / "pulumi"), "destroy", "--yes", "--remove"]
    given = {"PATH": os.environ["PATH"], "PULUMI_STACK": "local"}
    # A job in the background is born deaf to it, and so would be all of these.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(words, cwd=checkout, env=given, process_group=0) as run:
        signal.signal(signal.SIGINT, heard)
        while not Path(f"{ended}.began").exists():
            assert run.poll() is None
            time.sleep(0.02)
        if number == signal.SIGINT:  # as a terminal gives it to all of them
            os.killpg(run.pid, number)
        else:
            run.send_signal(number)
        assert run.wait(20) == 7
    assert ended.read_text() == "yes\n"


def test_a_lab_that_stays_is_no_state_to_remove(checkout: Path) -> None:
    done = pulumi(checkout, "destroy", "--remove", "--remove=false", PULUMI_OPTION_REMOVE="1")
    assert done.stdout.endswith(" destroy --remove --remove=false\n")


@pytest.mark.parametrize(
    "words",
    [
        ("stack", "rm", "made"),
        ("stack", "--stack", "made", "rm", "--yes"),
        ("-s", "made", "stack", "rm"),
        ("stack", "-s", "made", "delete"),
    ],
)
def test_a_state_that_is_removed_leaves_the_file(words: tuple[str, ...], checkout: Path) -> None:
    (checkout.parent / "engine").write_text(ENGINE_OF_OPTIONS)
    assert pulumi(checkout, *words).stdout.endswith(f" {' '.join(words)} preserving\n")


@pytest.mark.parametrize("gone", ["engine", "python"])
def test_a_cache_that_was_cleaned_is_named_with_its_remedy(gone: str, checkout: Path) -> None:
    (checkout.parent / "engine" if gone == "engine" else paths.VENV / "bin" / "python3").unlink()
    done = pulumi(checkout, "version")
    assert done.returncode == 1
    assert "make toolchain" in done.stderr


def test_a_cut_plugin_is_named_before_it_ends_with_a_signal(checkout: Path) -> None:
    entry = checkout.parent / "cache" / "programs" / "plugin-1"
    entry.mkdir(parents=True)
    (entry / "pulumi-resource-libvirt").write_bytes(b"x" * 100)
    entries.seal(entry)
    link = plugins.place(pins.PLUGINS[0])
    link.parent.mkdir(parents=True)
    link.symlink_to(entry / "pulumi-resource-libvirt")
    assert pulumi(checkout, "up").returncode == 0
    os.truncate(entry / "pulumi-resource-libvirt", 20)
    done = pulumi(checkout, "up")
    assert done.returncode == 1
    assert "is not what was made there" in done.stderr
    assert "Run `make toolchain`, which" in done.stderr


def test_a_cut_plugin_of_another_stack_hinders_nobody_and_its_own_is_told_what_mends_it(
    checkout: Path,
) -> None:
    """`make toolchain` makes the plugins of one stack: that of another would be refused for ever."""
    [plugin] = [each for each in pins.PLUGINS if each.plugin == "proxmoxve"]
    entry = checkout.parent / "cache" / "programs" / "plugin-1"
    entry.mkdir(parents=True)
    (entry / plugin.name).write_bytes(b"x" * 100)
    entries.seal(entry)
    link = plugins.place(plugin)
    link.parent.mkdir(parents=True)
    link.symlink_to(entry / plugin.name)
    os.truncate(entry / plugin.name, 20)
    (checkout / "stacks" / "Pulumi.pve.yaml").write_text("kind: proxmox\n")
    assert pulumi(checkout, "up").returncode == 0
    done = pulumi(checkout, "up", "--stack", "pve")
    assert done.returncode == 1
    assert "Run `make toolchain STACK=pve`, which" in done.stderr


def test_a_stack_that_was_never_made_is_told_with_what_makes_it(checkout: Path) -> None:
    done = pulumi(checkout, "preview")
    assert "`pulumi stack init local` makes it" in done.stderr
    assert "stack init" not in pulumi(checkout, "preview", "--stack", "gone").stderr
    at = paths.STATE / ".pulumi" / "stacks" / "nestlab" / "local.json"
    at.parent.mkdir(parents=True)
    at.write_text("{}")
    assert "stack init" not in pulumi(checkout, "preview").stderr


def gone(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_text("impo")


@pytest.mark.parametrize("harm", [gone, cut])
def test_a_package_that_is_gone_or_cut_is_told_with_what_to_do(
    checkout: Path, harm: Callable[[Path], None]
) -> None:
    """Else the engine's host ends with a trace of whatever imports it."""
    entry = checkout.parent / "cache" / "venvs" / "0123456789ab"
    entry.parent.mkdir(parents=True)
    paths.VENV.rename(entry)
    paths.VENV.symlink_to(entry)
    file = entry / "lib" / "some.py"
    file.parent.mkdir()
    file.write_text("import this")
    entries.seal(entry)
    assert pulumi(checkout, "preview").returncode == 0
    harm(file)
    done = pulumi(checkout, "preview")
    assert (done.returncode, done.stdout) == (1, "")
    assert str(file) in done.stderr
    assert "make toolchain" in done.stderr
    assert "Traceback" not in done.stderr


PIPES = {
    "env.sh": "env.sh is a pipe",
    "netns": "netns can't be read",
    "passphrase": "passphrase is a pipe",
    "home/credentials.json": "credentials.json is a pipe",
    "home/workspaces/x.json": "x.json is a pipe",
    "state/.pulumi/meta.yaml": "meta.yaml is a pipe",
    "state/.pulumi/stacks/nestlab/local.json": "local.json is a pipe",
    "state/.pulumi/locks/organization/nestlab/local/x.json": "x.json is a pipe",
    "mine": "",
    "state/.pulumi/mine": "",
    "config/mine": "",
    "keys/mine": "",
}


@pytest.mark.parametrize("at", PIPES)
def test_a_pipe_hangs_no_command(at: str, checkout: Path) -> None:
    file = paths.LOCAL / at
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    done = pulumi(checkout, "up")
    assert PIPES[at] in done.stderr
    assert (done.returncode == 0) is (not PIPES[at]), done.stderr
    assert "Traceback" not in done.stderr
