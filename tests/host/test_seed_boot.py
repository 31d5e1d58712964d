"""A real cloud-init takes what a guest is told, and takes another configuration on the disk that it has.

The machine is emulated by QEMU alone, without libvirt; tests/host/test_seeds.py has both, and nested hosts.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from components.media import cloud_init, guest
from components.reach.shell import SshShell, Unreachable
from tests.support import cloud_image
from tests.support.sshd import free_port, key_pair
from toolchain.machine.system import System
from toolchain.testing import SOAK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.host,
    pytest.mark.soak,
    pytest.mark.skipif(not os.environ.get(SOAK), reason=f"some minutes of emulation: set {SOAK}"),
]
BOOT_S = 1800.0
MAC = "52:54:00:00:00:01"
MACHINE = """setpriv --pdeathsig KILL qemu-system-x86_64 -accel tcg -machine q35 -cpu max -m 512 -nodefaults
    -display none -vga std -no-reboot -device virtio-rng-pci -serial file:{folder}/console.log
    -drive if=virtio,format=qcow2,cache=unsafe,file={folder}/disk.qcow2
    -drive if=virtio,format=raw,readonly=on,file={folder}/seed.iso
    -netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22
    -device virtio-net-pci,netdev=net,romfile=,mac={mac}"""
PASSWORD = "p\u00e4ss 'word\""


@dataclass
class Machine:
    """One disk, and who may get in."""

    folder: Path
    told: guest.Configuration
    private: str

    @contextlib.contextmanager
    def running(self, told: guest.Configuration) -> Iterator[SshShell]:
        """Boot the disk with the seed of ``told``, and yield once its commands ended."""
        files = self.folder / "seed"
        files.mkdir(exist_ok=True)
        for name, text in guest.files(told).items():
            (files / name.lstrip("/")).write_text(text)
        words = ["xorriso", "-as", "mkisofs", "-quiet", "-V", cloud_init.LABEL, "-J", "-R"]
        subprocess.run(
            [*words, "-o", str(self.folder / "seed.iso"), str(files)],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        port = free_port()
        line = MACHINE.format(folder=shlex.quote(str(self.folder)), port=port, mac=MAC)
        with subprocess.Popen(shlex.split(line)) as qemu:
            try:
                at = ("127.0.0.1", port, told.user, self.private, told.host_public)
                shell = SshShell(*at, told.hostname)
                self._ended(shell, qemu, told)
                yield shell
                shell.run(["sudo", "systemctl", "poweroff", "--no-block"])
                shell.close()
                qemu.wait(BOOT_S)
            finally:
                qemu.kill()

    def _ended(
        self, shell: SshShell, qemu: subprocess.Popen[bytes], told: guest.Configuration
    ) -> None:
        until, said = time.monotonic() + BOOT_S, ""
        # Of its host key and its user too: another one would be unreachable.
        while not said.strip().endswith(f" {told.mark}"):
            log = (self.folder / "console.log").read_text(errors="replace")[-3000:]
            assert qemu.poll() is None, log
            assert time.monotonic() < until, f"{said}\n{log}"
            try:
                said = shell.run(["cat", guest.OUTCOME], timeout_s=60).out
            except Unreachable as why:
                said = str(why)
            time.sleep(1)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("seeded")
    image = cloud_image.ensure(System()) / "root.qcow2"
    made = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image)]
    subprocess.run([*made, str(folder / "disk.qcow2")], check=True, timeout=60)
    (folder / "console.log").touch()
    host_private, host_public = key_pair()
    private, public = key_pair()
    told = guest.Configuration(
        user="ana",
        hostname="front",
        keys=[public],
        nics=[guest.Nic(MAC, domain="lab.test")],
        instance="first",
        mark="first",
        host_private=host_private,
        host_public=host_public,
        password=PASSWORD,
        commands=["echo first > /srv/mark"],
    )
    return Machine(folder, told, private)


def test_it_lets_its_user_in_by_key_and_password_under_its_name(machine: Machine) -> None:
    with machine.running(machine.told) as shell:
        script = "cat $0; id -un; sudo id -un; hostname -f; cat /srv/mark; cloud-init status"
        said = shell.run(["sh", "-c", script, guest.OUTCOME], timeout_s=120).out.splitlines()
        assert said[:5] == ["done first", "ana", "root", "front.lab.test", "first"]
        assert said[5] in {"status: done", "status: running"}, "no part of it failed"
        asker = machine.folder / "asker"
        asker.write_text(f"#!/bin/sh\nprintf %s {shlex.quote(PASSWORD)}\n")
        asker.chmod(0o700)
        line = f"""ssh -F none -p {shell.port} -o PubkeyAuthentication=no -o StrictHostKeyChecking=no
            -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR ana@127.0.0.1 id -un"""
        told = os.environ | {"SSH_ASKPASS": str(asker), "SSH_ASKPASS_REQUIRE": "force"}
        words = ["setsid", *shlex.split(line)]
        done = subprocess.run(
            words, check=False, env=told, capture_output=True, text=True, timeout=300
        )
        assert done.stdout.strip() == "ana", done.stderr


def test_another_configuration_acts_on_its_disk_and_names_the_command_that_failed(
    machine: Machine,
) -> None:
    commands = ["cat /srv/mark > /srv/seen", "exit 3", "touch /srv/after"]
    other = replace(
        machine.told, hostname="shop", instance="other", mark="other", commands=commands
    )
    with machine.running(other) as shell:
        script = "cat $0; hostname; cat /srv/seen; ls /srv/after 2>/dev/null || echo none"
        said = shell.run(["sh", "-c", script, guest.OUTCOME], timeout_s=120).out.splitlines()
        assert said == ["failed at commands.1 of other", "shop", "first", "none"]
