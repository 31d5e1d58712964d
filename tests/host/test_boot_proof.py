"""The proof itself, on the real QEMU and libvirt: without it every verdict would be hearsay."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from toolchain.doctor import bootproof, trial
from toolchain.machine import daemons
from toolchain.machine.system import System

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(shutil.which(bootproof.QEMU) is None, reason="no QEMU"),
]


def test_the_guest_boots_emulated_and_sees_svm() -> None:
    found = bootproof.prove(System(), "tcg", deadline_s=bootproof.CONTROL_DEADLINE_S)
    assert found.booted, found.why
    assert found.nesting == "svm", "CPU max emulates AMD's extension: nested KVM relies on it"


def test_a_truncated_image_does_not_boot() -> None:
    found = bootproof.prove(System(), "tcg", deadline_s=4, sector=bootproof.image()[:300])
    assert not found.booted
    assert found.why == "did not come up within 4 s: its code was not reached"


def test_code_that_never_finishes_does_not_pass() -> None:
    hangs = bootproof.image().replace(b"\x49\x75\xfd", b"\xeb\xfe\x90")  # the loop: jump to itself
    found = bootproof.prove(System(), "tcg", deadline_s=4, sector=hangs)
    assert found.why == "did not come up within 4 s: its 32-bit code hangs or crawls"


def _domains() -> str:
    done = subprocess.run(
        ["virsh", "-c", daemons.URI, "list", "--all", "--name"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(daemons.libvirt_pid() is None, reason="libvirt does not answer")
def test_libvirt_boots_the_guest_too_and_nothing_stays_behind() -> None:
    found = trial.prove(System(), kind="qemu", deadline_s=bootproof.CONTROL_DEADLINE_S)
    assert found.booted, found.why
    assert found.nesting == "svm"
    assert trial.name() not in _domains()


@pytest.mark.skipif(daemons.libvirt_pid() is None, reason="libvirt does not answer")
def test_a_domains_life_is_timed_and_nothing_stays_behind() -> None:
    found = trial.round_trip(System(), "qemu")
    assert found.why == ""
    assert found.create_s > 0.05
    assert found.destroy_s > 0
    assert trial.name() not in _domains()
