"""Facts of the machine: a missing or broken file names the command that makes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.findings import GoldenImage, HostFacts, resolve_accelerator
from components.stackfile import LabSpec, SpecError, load

HOST: dict[str, Any] = {
    "version": 1,
    "accelerator": "tcg",
    "why": "/dev/kvm boots no BIOS",
    "cores": 2,
    "memory_mib": 16000,
    "namespace": "nestlab",
    "seen": "a field of a later doctor",
}
GOLDEN: dict[str, Any] = {
    "version": 1,
    "hash": "abc",
    "pool": "nestlab-images",
    "volume": "kvm-abc.qcow2",
    "kernel": "/var/lib/images/vmlinuz",
    "initrd": "/var/lib/images/initrd",
    "files": {"disk": "/c/disk", "kernel": "/c/vmlinuz", "initrd": "/c/initrd"},
    "root_gib": 2,
    "cmdline": [{"key": "root", "value": "LABEL=root"}, {"key": "quiet", "value": ""}],
}


def written(root: Path, name: str, content: Any) -> Path:
    (root / ".nestlab").mkdir(exist_ok=True)
    (root / ".nestlab" / name).write_text(
        content if isinstance(content, str) else json.dumps(content)
    )
    return root


def lab(**host: str) -> LabSpec:
    return load({"name": "lab", "host": host}, root=Path("/srv"))


def facts() -> HostFacts:
    return HostFacts.model_validate(HOST)


def test_the_doctors_verdict_is_read(tmp_path: Path) -> None:
    found = HostFacts.read(written(tmp_path, "host.json", HOST))
    assert (found.accelerator, found.cores, found.memory_mib) == ("tcg", 2, 16000)
    assert (found.namespace, found.why) == ("nestlab", "/dev/kvm boots no BIOS")


def test_the_golden_image_is_read(tmp_path: Path) -> None:
    found = GoldenImage.read(written(tmp_path, "golden.json", GOLDEN))
    assert (found.pool, found.volume, found.root_gib) == ("nestlab-images", "kvm-abc.qcow2", 2)
    assert found.files.kernel == "/c/vmlinuz"
    assert [(word.key, word.value) for word in found.cmdline] == [
        ("root", "LABEL=root"),
        ("quiet", ""),
    ]


def test_an_image_that_boots_by_itself_has_no_kernel_and_a_file_of_its_own(tmp_path: Path) -> None:
    alone = {key: value for key, value in GOLDEN.items() if key not in {"kernel", "initrd"}}
    alone |= {"volume": "xen.qcow2", "files": {"disk": "/c/xen"}, "cmdline": []}
    written(tmp_path, "golden.json", GOLDEN)
    found = GoldenImage.read(written(tmp_path, "golden-xen.json", alone), "xen")
    assert (found.volume, found.kernel, found.initrd) == ("xen.qcow2", "", "")
    assert (found.files.disk, found.files.kernel, found.cmdline) == ("/c/xen", "", ())
    assert GoldenImage.read(tmp_path).volume == "kvm-abc.qcow2"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, ".nestlab/host.json: no such file, but `make doctor` has not written it yet: run"),
        ("{", ".nestlab/host.json: a broken file, but it can't be read"),
        ("[" * 100_000, ".nestlab/host.json: a broken file, but it can't be read"),
        ("[]", ".nestlab/host.json: a list given, but a mapping of fields is needed: run"),
        ({**HOST, "version": 2}, ".nestlab/host.json.version: 2 given, but allowed are 1: run"),
        ({"version": 1}, ".nestlab/host.json.cores: nothing given, but cores is needed"),
    ],
    ids=["missing", "no JSON", "too deep", "no mapping", "another version", "fields missing"],
)
def test_a_verdict_that_cannot_be_used_names_the_doctor(
    tmp_path: Path, content: Any, said: str
) -> None:
    if content is not None:
        written(tmp_path, "host.json", content)
    with pytest.raises(SpecError) as refused:
        HostFacts.read(tmp_path)
    assert said in str(refused.value)
    assert all(line.endswith(": run `make doctor`") for line in str(refused.value).splitlines())


def test_an_image_that_was_never_made_names_its_command(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"\.nestlab/golden\.json: no such file.* run `make image`"):
        GoldenImage.read(tmp_path)
    written(tmp_path, "golden.json", GOLDEN)
    with pytest.raises(SpecError, match=r"golden-xen\.json: no such file.* toolchain image xen`"):
        GoldenImage.read(tmp_path, "xen")


def test_auto_is_the_doctors_verdict_and_a_choice_is_kept() -> None:
    assert resolve_accelerator(lab(), facts()) == "tcg"
    assert resolve_accelerator(lab(accelerator="kvm"), facts()) == "kvm"
    assert resolve_accelerator(lab(accelerator="tcg"), None) == "tcg"


def test_auto_without_a_verdict_is_refused() -> None:
    with pytest.raises(SpecError, match="run `make doctor`, or say kvm or tcg"):
        resolve_accelerator(lab(), None)


def test_auto_is_refused_for_a_host_the_doctor_never_saw() -> None:
    with pytest.raises(SpecError, match="the doctor knows this machine"):
        resolve_accelerator(lab(uri="qemu+ssh://me@server/system"), facts())
