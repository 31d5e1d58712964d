"""The shared cache: what is not as it was made is noticed and made again, and nobody else writes there."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typing_extensions import override

from toolchain.bootstrap import cache, entries, paths, pins, python_env, run, ui
from toolchain.engine import golang
from toolchain.image import image
from toolchain.machine.system import Result, System


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache, in a folder that nobody else may write in; it is not made yet."""
    tmp_path.chmod(0o755)
    monkeypatch.setenv("NESTLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def entry(root: Path) -> Path:
    with cache.into_place(root / "programs" / "some-1-0123456789ab") as making:
        (making / "some").write_bytes(b"program" * 100)
        (making / "lib").mkdir()
        (making / "lib" / "one.py").write_text("one")
        (making / "lib" / "link").symlink_to("one.py")
        (making / "folder").symlink_to("lib")
    return root / "programs" / "some-1-0123456789ab"


def cut(entry: Path) -> None:
    os.truncate(entry / "some", 20)


def same_size(entry: Path) -> None:
    (entry / "some").write_bytes(b"PROGRAM" * 100)


def removed(entry: Path) -> None:
    (entry / "lib" / "one.py").unlink()


def folder_removed(entry: Path) -> None:
    shutil.rmtree(entry / "lib")


def led_elsewhere(entry: Path) -> None:
    (entry / "lib" / "link").unlink()
    (entry / "lib" / "link").symlink_to("/etc/passwd")


def replaced_by_a_link(entry: Path) -> None:
    (entry / "some").rename(entry / "else")
    (entry / "some").symlink_to("else")


def manifest_gone(entry: Path) -> None:
    (entry / entries.MANIFEST).unlink()


def manifest_cut(entry: Path) -> None:
    os.truncate(entry / entries.MANIFEST, 30)


def manifest_foreign(entry: Path) -> None:
    (entry / entries.MANIFEST).write_text('{"version": 1, "files": {"some": 3}}')


def open_to_all(entry: Path) -> None:
    (entry / "some").chmod(0o777)


def open_folder(entry: Path) -> None:
    entry.chmod(0o777)


def open_beside(entry: Path) -> None:
    (entry / "pulumi-language-python").touch()
    (entry / "pulumi-language-python").chmod(0o666)


def open_to_a_group(entry: Path) -> None:
    (entry / "some").chmod(0o775)
    os.chown(entry / "some", -1, 4711)


def open_folder_inside(entry: Path) -> None:
    (entry / "lib").chmod(0o777)


def given_away(entry: Path) -> None:
    os.chown(entry / "lib" / "one.py", 4711, -1)


def folder_given_away(entry: Path) -> None:
    os.chown(entry / "lib", 4711, -1)


def link_given_away(entry: Path) -> None:
    os.chown(entry / "folder", 4711, -1, follow_symlinks=False)


def beside_given_away(entry: Path) -> None:
    (entry / "pulumi-language-python").touch()
    os.chown(entry / "pulumi-language-python", 4711, -1)


HARMS = [
    cut, same_size, removed, folder_removed, led_elsewhere, replaced_by_a_link, manifest_gone, manifest_cut,
    manifest_foreign, open_to_all, open_folder, open_folder_inside, open_beside, shutil.rmtree,
]  # fmt: skip
GIVEN_AWAY = [open_to_a_group, given_away, folder_given_away, link_given_away, beside_given_away]


@pytest.mark.parametrize("harm", HARMS)
def test_damage_is_noticed(harm: object, entry: Path) -> None:
    assert entries.damage(entry) == ""
    assert entries.damage(entry, full=True) == ""
    harm(entry)  # type: ignore[operator]
    assert str(entry) in entries.damage(entry)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
@pytest.mark.parametrize("harm", GIVEN_AWAY)
def test_what_another_user_can_change_is_damage(
    harm: object, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harm(entry)  # type: ignore[operator]
    said = entries.damage(entry)
    assert said.startswith((f"{entry}/", "others may write")), said
    assert "another user's" in said or harm is open_to_a_group
    if harm is not open_to_a_group:
        monkeypatch.setenv("SUDO_UID", "4711")
        assert entries.damage(entry) == "", "who became root by sudo is the same person"


def test_what_changed_behind_its_time_is_found_by_reading(entry: Path) -> None:
    before = (entry / "some").stat()
    same_size(entry)
    os.utime(entry / "some", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert entries.damage(entry) == "", "the cheap look does not read"
    assert entries.damage(entry, full=True) == f"{entry}/some is not what was made there"


def test_what_lies_beside_is_no_damage_and_stays(entry: Path) -> None:
    (entry / "thesis.txt").write_text("mine")
    (entry / "lib" / "__pycache__").mkdir()
    (entry / "lib" / "__pycache__" / "one.cpython-311.pyc").touch()
    assert entries.damage(entry, full=True) == ""
    assert not entries.remove(entry)
    assert [each.name for each in entry.rglob("*")] == ["thesis.txt"]


def test_a_damaged_entry_is_replaced_and_what_is_somebodys_moves_aside(
    entry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(entry)
    (entry / "thesis.txt").write_text("mine")
    with cache.into_place(entry) as making:
        (making / "some").write_text("made again")
    assert entries.damage(entry, full=True) == ""
    aside = entry.with_name(f"{entry.name}.yours-1")
    assert [each.name for each in aside.rglob("*")] == ["thesis.txt"]
    assert str(aside) in capsys.readouterr().err


def test_a_making_that_fails_leaves_what_was_there(entry: Path) -> None:
    cut(entry)
    with pytest.raises(OSError, match="No space"), cache.into_place(entry):
        raise OSError(28, "No space left on device")
    assert (entry / "some").stat().st_size == 20
    assert [each.name for each in entry.parent.iterdir()] == [entry.name]


# Whose it is ------------------------------------------------------------------------------------


def test_a_new_cache_is_its_owners_alone_whatever_the_umask(root: Path) -> None:
    before = os.umask(0)
    try:
        with cache.locked("build"), cache.into_place(root / "images" / "x"):
            pass
    finally:
        os.umask(before)
    for place in (root, root / "locks", root / "images"):
        assert place.stat().st_mode & 0o777 == 0o700, place


@pytest.mark.parametrize("place", ["", "programs", "venvs", "images", "locks", ".."])
def test_a_cache_that_others_may_write_is_refused(place: str, root: Path) -> None:
    open_to_all = root / place
    open_to_all.mkdir(parents=True, exist_ok=True)
    open_to_all.chmod(0o777)
    with pytest.raises(ui.Problem, match=r"others may write in .*\(mode 0777\)"):
        cache.checked()
    assert open_to_all.stat().st_mode & 0o777 == 0o777, "a folder of the user's keeps its mode"
    open_to_all.chmod(0o1777)
    if place == "..":
        assert cache.checked() == root, "as /tmp is"
        return
    with pytest.raises(ui.Problem, match="others may write in"):
        cache.checked()


def test_a_group_that_has_others_in_it_is_others(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.mkdir()
    root.chmod(0o770)
    assert cache.checked() == root, "Debian makes a group for each user"
    monkeypatch.setattr(grp, "getgrgid", lambda _: grp.struct_group(("root", "x", 0, ["eve"])))
    with pytest.raises(ui.Problem, match="others may write"):
        cache.checked()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
@pytest.mark.parametrize("place", ["", "programs", ".."])
def test_a_cache_of_another_user_is_refused(
    place: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = root / place
    theirs.mkdir(parents=True, exist_ok=True)
    os.chown(theirs, 4711, 4711)
    with pytest.raises(ui.Problem, match="is another user's"):
        cache.checked()
    monkeypatch.setenv("SUDO_UID", "4711")
    assert cache.checked() == root, "who became root by sudo is the same person"


def test_what_a_user_names_for_a_file_and_is_none_is_written_into_and_stays(tmp_path: Path) -> None:
    pipe, log = tmp_path / "pipe", tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    cache.hand_out(pipe, b"report")
    assert os.read(reader, 100) == b"report"
    os.close(reader)
    assert pipe.is_fifo(), "/dev/null would be a file for everybody now"
    log.write_bytes(b"before ")
    with log.open("ab") as stream:
        cache.hand_out(Path(f"/proc/self/fd/{stream.fileno()}"), b"report")
    assert log.read_bytes() == b"before report"
    cache.hand_out(tmp_path / "new", b"report", 0o600)
    assert (tmp_path / "new").read_bytes() == b"report"


def test_a_full_disk_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "plan").write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as told:
        cache.write_bytes(tmp_path / "plan", b"report")
    assert str(tmp_path / "plan") in ui.in_words(told.value)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"before"]


def test_a_link_in_the_cache_is_judged_by_where_it_leads(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (root / "programs").symlink_to(tmp_path / "open")
    with pytest.raises(ui.Problem, match="others may write"):
        cache.checked()


# Who uses it ------------------------------------------------------------------------------------

PROGRAM = pins.Program("small", "1.2.3", ".", (), 1)


@pytest.fixture
def small(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program whose "building" copies /bin/true."""
    monkeypatch.setattr(pins, "SOURCES", tmp_path / "go")
    (tmp_path / "go" / "small").mkdir(parents=True)
    (tmp_path / "go" / "small" / "main.go").write_text("package main\n")
    (tmp_path / "made").touch()

    def build(command: list[str | Path], *_: object) -> None:
        shutil.copy("/bin/true", command[command.index("-o") + 1])
        with (tmp_path / "made").open("a") as handle:
            handle.write("x")

    monkeypatch.setattr(golang, "_go", lambda: Path("go"))
    monkeypatch.setattr(golang, "_check_room", lambda _: None)
    monkeypatch.setattr(golang, "_follow", build)
    golang.build([PROGRAM])
    assert golang.built([PROGRAM])
    assert root.is_dir()
    return golang.place(PROGRAM)


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "made before there were lists"])
def test_a_cut_program_is_built_again(listed: bool, small: Path) -> None:
    if not listed:
        (small.parent / entries.MANIFEST).unlink()
        assert golang.built([PROGRAM]), "a whole one is taken over"
        assert (small.parent / entries.MANIFEST).exists()
        (small.parent / entries.MANIFEST).unlink()
    os.truncate(small, small.stat().st_size // 3)
    assert not golang.built([PROGRAM])
    golang.build([PROGRAM])
    assert subprocess.run([small], check=False).returncode == 0
    assert golang.built([PROGRAM], full=True)


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF\x02", b"\x7fELF\x02" + b"\xff" * 80]
)
def test_what_is_no_program_counts_as_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    assert not golang.is_whole(tmp_path / "x")
    assert not golang.is_whole(tmp_path / "nothing")
    assert golang.is_whole(Path("/bin/true"))


def test_a_missing_package_is_installed_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "VENV", root.parent / ".venv")
    environment = python_env.place()
    made: list[Path] = []

    def make(where: Path) -> None:
        python_env._begin(where)
        for name in ("bin/python3", "lib/pulumi/__init__.py", python_env.COMPLETE):
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).touch()
        entries.seal(where)
        made.append(where)

    monkeypatch.setattr(python_env, "_make", make)
    python_env.ensure()
    python_env.ensure(full=True)
    assert made == [environment]
    shutil.rmtree(environment / "lib")
    python_env._seen.clear()  # another process
    python_env.ensure()
    assert made == [environment] * 2
    assert (environment / "lib/pulumi/__init__.py").exists()


class Qemu(System):
    """qemu-img, which finds nothing wrong."""

    @override
    def run(self, *_: object, **__: object) -> Result:
        return Result(0)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("lost", ["root.qcow2", "vmlinuz", "initrd"])
def test_a_lost_file_of_an_image_is_made_again(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[Path] = []

    def make(_: System, making: Path, *__: str) -> None:
        times.append(making)
        for name in ("root.qcow2", "vmlinuz", "initrd"):
            (making / name).write_text("x")

    monkeypatch.setattr(image, "make", make)
    monkeypatch.setattr(image, "check", lambda _: None)
    monkeypatch.setattr(image, "suite", lambda: "bookworm")
    folder = image.ensure(Qemu(), "kvm")
    (folder / entries.MANIFEST).unlink()  # one that was made before there were lists
    assert image.ensure(Qemu(), "kvm") == folder
    assert len(times) == 1
    (folder / lost).unlink()
    assert image.ensure(Qemu(), "kvm") == folder
    assert len(times) == 2
    assert (folder / lost).exists()


# The environment of who sets it up --------------------------------------------------------------


def test_a_shell_that_reads_env_sh_makes_environments_with_the_python_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """F17: the environment's own Python comes first there, and lacked pip."""
    assert python_env._pythons()[0] == getattr(sys, "_base_executable", sys.executable)
    asked: list[str] = []

    def call(command: list[str], **_: object) -> str:
        asked.append(command[0])
        if command[0] == "/env/python3":
            raise ui.Problem("No module named pip")
        return ""

    monkeypatch.setattr(run, "run", call)
    monkeypatch.setattr(python_env, "_pythons", lambda: ["/env/python3", "/usr/bin/python3"])
    assert python_env._with_pip() == "/usr/bin/python3"
    monkeypatch.setattr(python_env, "_pythons", lambda: ["/env/python3"])
    with pytest.raises(ui.Problem, match="has no pip"):
        python_env._with_pip()


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"NESTLAB_CACHE": "/x"}, "/x"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/nestlab"),
        ({"XDG_CACHE_HOME": "x"}, "/home/me/.cache/nestlab"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/nestlab"),
        ({"NESTLAB_CACHE": "~/x"}, "/home/me/x"),
    ],
)
def test_the_cache_is_where_the_user_says(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NESTLAB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert paths.cache() == Path(folder)


def test_who_has_no_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NESTLAB_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(ui.Problem, match="you have no home folder"):
        paths.cache()


@pytest.mark.parametrize("home", ["/dev/null", "/proc/self", "/proc/self/fd"])
def test_a_home_that_can_not_be_written_is_told_in_words(home: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "toolchain", "toolchain"],
        cwd=paths.ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {home}/.cache")
    assert "Traceback" not in done.stderr


def test_go_keeps_its_caches_in_ours_where_there_is_no_home_for_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOCACHE", "GOMODCACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(root.parent))
    assert "GOCACHE" not in golang._environment()
    monkeypatch.setenv("HOME", "/dev/null/none")
    assert golang._environment()["GOCACHE"] == f"{root}/programs/.go-build"
    monkeypatch.setenv("GOCACHE", "/mine")
    assert golang._environment()["GOCACHE"] == "/mine"
