"""What QEMU's end and the guest's words mean; the guest itself is run by tests/host."""

from __future__ import annotations

import pytest

from tests.unit.toolchain.doctor_fakes import BOOTED, FakeSystem, qemu
from toolchain.doctor import bootproof
from toolchain.machine.system import Result

CRASH = (
    "qemu-system-x86_64: warning: no feature\n"
    "qemu-system-x86_64: error: failed to set MSR 0x10a\n"
    "qemu-system-x86_64: kvm.c:3183: Assertion failed.\n"
)


def test_the_boot_sector_is_one_that_firmware_boots() -> None:
    sector = bootproof.image()
    assert len(sector) == 512
    assert sector.endswith(b"\x55\xaa")
    assert b"nestlab: started vmx=0 svm=0\n\0nestlab: finished\n\0" in sector


def test_jumps_and_texts_point_where_they_should() -> None:
    sector = bootproof.image()
    text = sector.index(b"nestlab: started") + 0x7C00
    assert b"\xbe" + text.to_bytes(4, "little") + b"\xe8\x1f\0\0\0" in sector
    flat = sector.index(b"\x66\xb8\x10\x00") + 0x7C00
    assert b"\xea" + flat.to_bytes(2, "little") + b"\x08\x00" in sector


def test_a_guest_that_finishes_has_booted_and_tells_what_it_sees() -> None:
    system = FakeSystem({qemu("kvm"): Result(0, BOOTED.format(vmx=1, svm=0))})
    proof = bootproof.prove(system, "kvm")
    assert (proof.booted, proof.nesting, proof.why) == (True, "vmx", "")
    assert "-accel kvm -cpu host" in system.asked[0], "labs give nested hosts the host's processor"


@pytest.mark.parametrize(
    ("done", "why"),
    [
        (Result(124, ""), "did not come up within 10 s: its code was not reached"),
        (
            Result(124, "nestlab: started vmx=0 svm=0\n"),
            "did not come up within 10 s: its 32-bit code hangs or crawls",
        ),
        (Result(137, ""), "did not come up within 10 s: its code was not reached"),
        (Result(-9, ""), "did not come up within 10 s: its code was not reached"),
        (
            Result(-6, "", CRASH),
            "did not come up, QEMU ended with signal 6: failed to set MSR 0x10a",
        ),
        (Result(1, "", ""), "did not come up, QEMU ended with status 1: no message"),
        (Result(127, "", "timeout: not found"), "can't be tried: timeout: not found"),
    ],
)
def test_a_guest_that_does_not_finish_is_told_with_its_reason(done: Result, why: str) -> None:
    proof = bootproof.prove(FakeSystem({qemu("kvm"): done}), "kvm")
    assert (proof.booted, proof.why) == (False, why)


def test_a_guest_that_finished_but_could_not_switch_itself_off_has_booted() -> None:
    system = FakeSystem({qemu("kvm"): Result(124, BOOTED.format(vmx=0, svm=1))})
    assert bootproof.prove(system, "kvm").nesting == "svm"


def test_without_qemu_nothing_is_started() -> None:
    system = FakeSystem(lacking=frozenset({bootproof.QEMU}))
    assert bootproof.prove(system, "tcg").why == "can't be tried without qemu-system-x86_64"
    assert not system.asked
