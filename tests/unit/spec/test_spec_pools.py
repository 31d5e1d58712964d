"""In which folders a lab's own may be made: not in the system's, not in another lab's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from components.stackfile import SpecError, load, plan

if TYPE_CHECKING:
    from pathlib import Path


def lab(pool_path: str | None, root: Path, **more: Any) -> Any:
    host = {"pool_path": pool_path, **more.pop("host", {})}
    return load({"name": "flat", "host": host, **more}, root=root, exists=lambda _: True)


def refusal(pool_path: str, root: Path, **more: Any) -> str:
    with pytest.raises(SpecError) as refused:
        lab(pool_path, root, **more)
    return str(refused.value)


@pytest.mark.parametrize(
    "folder",
    [
        *(
            "/etc",
            "//etc",
            "/etc/",
            "/srv/../etc",
            "/etc/nestlab",
            "/usr/share/labs",
            "/proc",
        ),
        *(
            "/home",
            "/root",
            "/var",
            "/var/lib",
            "/boot",
            "/run/nestlab",
            "/sys",
            "/opt",
            "/mnt",
        ),
        *("/var/lib/libvirt", "/var/lib/libvirt/images", "/var/lib/libvirt/images/mine"),
        *("/var/lib/libvirt/nestlab", "/var/lib/libvirt/nestlab/images"),
        *("/var/lib/libvirt/nestlab/other", "/var/lib/libvirt/nestlab/flat/x"),
        "/var/lib/libvirt/nestlab/flat/../images",
    ],
)
def test_folders_that_are_somebody_s_are_refused(folder: str, tmp_path: Path) -> None:
    told = refusal(folder, tmp_path)
    assert told.startswith(
        f"lab.host.pool_path: '{os.path.normpath('/' + folder.lstrip('/'))}' given"
    )
    assert "give a folder for labs' disks, such as /srv/labs" in told or "leave it out" in told


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disks").symlink_to("/etc")
    told = refusal(f"{tmp_path}/disks/labs", tmp_path)
    assert f"'{tmp_path}/disks/labs' given, which leads to '/etc/labs'" in told
    far = {"uri": "qemu+ssh://root@far.example/system", "accelerator": "kvm"}
    assert lab(f"{tmp_path}/disks/labs", tmp_path, host=far), "another machine's links are not ours"


@pytest.mark.parametrize("folder", ["", "pools", "~/pools", "/", "//"])
def test_what_is_no_full_path_is_refused(folder: str, tmp_path: Path) -> None:
    assert "given by its full path" in refusal(folder, tmp_path)


def test_the_lab_s_folder_and_its_disks_still_have_names_below_it(tmp_path: Path) -> None:
    longest = "/x" * (3583 // 2) + "x"
    assert lab(longest, tmp_path)
    told = refusal(f"{longest}x", tmp_path)
    assert "no path has more than 4095, and disks have names below it: 3583 are left" in told
    assert len(told) < 300


@pytest.mark.parametrize(
    ("given", "begins"),
    [
        (None, "/var/lib/libvirt/nestlab/flat"),
        ("/var/lib/libvirt/nestlab/flat", "/var/lib/libvirt/nestlab/flat/flat"),
        ("/srv/labs", "/srv/labs/flat"),
        ("/data", "/data/flat"),
        ("/home/ann/my labs", "/home/ann/my labs/flat"),
    ],
)
def test_the_lab_s_own_folder_lies_below_the_one_that_is_given(
    given: str | None, begins: str, tmp_path: Path
) -> None:
    assert plan(lab(given, tmp_path)).pool_path == begins


def test_a_lab_is_not_called_like_the_golden_images_pool(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"lab.name: 'images' given, but golden images lie in the pool"
    ):
        load({"name": "images"}, root=tmp_path, exists=lambda _: True)
