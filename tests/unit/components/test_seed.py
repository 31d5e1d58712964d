"""The seed: a shell script that is right as it stands, and that nothing from a stack can change."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.gates.keys import keys_away
from components.gates.secrets import SshKeyProvider
from components.gates.seed import SeedDiscProvider
from components.kinds.libvirt import seed
from components.media.iso import Iso
from components.stackfile import SpecError, load

HOST = SshKeyProvider().create({"comment": "kvm1-hostkey"}).outs or {}
LOGIN = SshKeyProvider().create({"comment": "key"}).outs or {}


def script(name: str = "kvm1") -> str:
    return seed.user_data(
        name=name,
        authorized=LOGIN["public"],
        host_private=HOST["private"],
        host_public=HOST["public"],
    )


def files(text: str) -> dict[str, str]:
    """What the script's here-documents write, by path."""
    found = re.findall(r"^cat > (\S+) <<'NESTLAB'\n(.*?)\nNESTLAB$", text, re.DOTALL | re.MULTILINE)
    return dict(found)


def test_the_script_is_one_that_sh_takes() -> None:
    done = subprocess.run(["sh", "-n"], input=script(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert script().startswith("#!/bin/sh\n"), "the image runs nothing else"


def test_the_script_stops_at_the_first_failure_and_writes_for_root_alone() -> None:
    lines = script().splitlines()
    assert lines.index("set -eu") < lines.index("umask 077") < lines.index("mkdir -p /root/.ssh")


def test_what_it_wrote_is_on_the_disk_before_anybody_is_let_in() -> None:
    """It runs before the network is up; a host that is switched off hard after it has its files whole."""
    assert script().splitlines()[-1] == "sync"


def test_the_keys_are_written_whole() -> None:
    assert files(script()) == {
        "/root/.ssh/authorized_keys": LOGIN["public"].strip(),
        "/etc/ssh/ssh_host_ed25519_key": HOST["private"].strip(),
        "/etc/ssh/ssh_host_ed25519_key.pub": HOST["public"].strip(),
    }


def test_the_key_that_opens_every_host_is_not_on_any() -> None:
    # The first line and the last say which kind of key it is, the second begins alike in all.
    secret = LOGIN["private"].splitlines()[2:-1]
    assert secret
    assert not any(line in script() for line in secret)


def test_the_private_host_key_stays_private() -> None:
    chmods = [shlex.split(line) for line in script().splitlines() if line.startswith("chmod")]
    opened = {path for words in chmods for path in words[2:]}
    assert "/etc/ssh/ssh_host_ed25519_key" not in opened
    assert "/root/.ssh/authorized_keys" not in opened


def test_the_script_run_with_its_paths_elsewhere_does_what_it_says_twice(tmp_path: Path) -> None:
    text = script()
    for folder in ("/etc", "/root"):
        text = text.replace(f" {folder}/", f" {tmp_path}{folder}/")
    text = text.replace("\nhostname kvm1\n", f"\necho kvm1 > {tmp_path}/running\n")
    (tmp_path / "etc" / "ssh").mkdir(parents=True)
    for _ in range(2):
        done = subprocess.run(["sh"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "etc" / "hostname").read_text() == "kvm1\n"
    assert (tmp_path / "running").read_text() == "kvm1\n"
    key = tmp_path / "etc" / "ssh" / "ssh_host_ed25519_key"
    assert key.read_text() == HOST["private"].strip() + "\n", "sshd wants the line break at its end"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (key.with_suffix(".pub")).stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "root" / ".ssh").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "name",
    ["a b", "a;b", "$(id)", "`id`", "a'b", 'a"b', "a\nb", "NESTLAB\n", "-x", "Ä", "a{b}", ""],
)
def test_a_name_that_a_shell_would_read_otherwise_never_gets_so_far(
    name: str, tmp_path: Path
) -> None:
    lab = {
        "name": "lab",
        "networks": {"net": {"subnet": "10.77.0.0/24"}},
        "hypervisors": {name: {"kind": "kvm", "network": "net"}},
    }
    with pytest.raises(SpecError):
        load(lab, root=tmp_path)


@given(st.from_regex(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?", fullmatch=True))
def test_every_name_that_the_spec_takes_is_one_word_to_a_shell(name: str) -> None:
    assert shlex.quote(name) == name
    assert f"\nhostname {name}\n" in script(name)


def test_a_host_whose_network_joins_its_nic_has_a_bridge_there_with_its_mac() -> None:
    mac = "52:54:00:00:00:07"
    known = {"authorized": LOGIN["public"], "host_private": "a", "host_public": "b"}
    plain = seed.files(name="kvm1", instance="i", **known)["/user-data"]
    uplink = seed.Uplink("nluplink", mac)
    bridged = seed.files(name="kvm1", instance="i", uplink=uplink, **known)["/user-data"]
    assert bridged.startswith(plain), "who logs in is settled first"
    done = subprocess.run(["sh", "-n"], input=bridged, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    made = files(bridged)
    device = made["/run/systemd/network/05-uplink.netdev"]
    assert "Name=nluplink" in device
    assert f"MACAddress={mac}" in device, "what is reserved for the NIC is the bridge's"
    port = made["/run/systemd/network/05-uplink-port.network"]
    assert f"MACAddress={mac}" in port
    assert "Bridge=nluplink" in port
    assert "/run/systemd" not in plain


def test_meta_data_changes_with_the_lab_so_that_cloud_init_runs_its_seed_again() -> None:
    read = yaml.safe_load(seed.meta_data(name="kvm1", instance="0123-kvm1"))
    assert read == {"instance-id": "0123-kvm1", "local-hostname": "kvm1"}


# The disc ------------------------------------------------------------------------------------------


def told(folder: Path, text: str = "") -> dict[str, Any]:
    files = seed.files(
        name="kvm1",
        instance="0123-kvm1",
        authorized=LOGIN["public"],
        host_private=HOST["private"],
        host_public=HOST["public"],
    )
    return {
        "name": "kvm1-seed-disc",
        "label": seed.LABEL,
        "files": files | {"/user-data": files["/user-data"] + text},
        "private": str(folder / "keys" / "kvm1"),
        "disc": None,
    }


def test_the_disc_has_the_script_and_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        outs = SeedDiscProvider().create(told(tmp_path)).outs or {}
    finally:
        os.umask(before)
    disc = Path(outs["disc"])
    assert disc.stat().st_mode & 0o777 == 0o600
    assert disc.parent.stat().st_mode & 0o777 == 0o700
    found = Iso(disc)
    assert found.volume_id == "cidata"
    assert found.read("/user-data").decode() == script()
    assert found.read("/meta-data") == b"instance-id: 0123-kvm1\nlocal-hostname: kvm1\n"


def test_the_disc_is_made_again_when_it_is_gone_and_anew_when_it_says_something_else(
    tmp_path: Path,
) -> None:
    provider, news = SeedDiscProvider(), told(tmp_path)
    outs = dict(provider.create(news).outs or {})
    assert provider.diff("", outs, news).changes is False
    Path(outs["disc"]).unlink()
    assert provider.diff("", outs, news).changes is True
    assert dict(provider.update("", outs, news).outs or {}) == outs
    other = dict(provider.update("", outs, told(tmp_path, "true\n")).outs or {})
    assert other["disc"] != outs["disc"], "who has a copy takes the new one"
    assert [str(file) for file in (tmp_path / "keys" / "kvm1").iterdir()] == [other["disc"]]
    provider.delete("", other)
    assert not list((tmp_path / "keys" / "kvm1").iterdir())


def test_its_name_is_one_that_goes_with_the_labs_keys(tmp_path: Path) -> None:
    """Nobody asks its gate when the host around it is gone."""
    outs = SeedDiscProvider().create(told(tmp_path)).outs or {}
    keys_away(str(tmp_path / "keys"))
    assert not Path(outs["disc"]).exists()
