"""Tests on the real host: each module has a checkout of its own, and takes its lab away again.

It lies in a folder, and its user has settings, that libvirt, SSH, URLs and shells take for something
else: nothing of that may matter.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import Checkout
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Iterator


FOLDER = "a b+c&d#é%41'\"$HOME?"
IPXE = "/usr/lib/ipxe/ipxe.iso"
MEDIUM = "ipxe #1 100%41?.iso"
SSH_CONFIG = """\
Host *
  Port 1
  ProxyJump nobody@127.0.0.1:1
  HostKeyAlgorithms ssh-rsa
  UserKnownHostsFile /nowhere
  IdentityFile /nowhere/id
  User nobody
"""
SETTINGS = {
    "VIRSH_DEBUG": "0",
    "VIRSH_DEFAULT_CONNECT_URI": "test:///default",
    "LIBVIRT_DEFAULT_URI": "test:///default",
    "LIBVIRT_DEBUG": "1",
    "LIBVIRT_LOG_OUTPUTS": "1:stderr",
    "LIBVIRT_AUTH_FILE": "/nowhere",
    "SSH_AUTH_SOCK": "/nowhere",
    "LANGUAGE": "de",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A fresh checkout, its toolchain linked from the cache, its lab not up."""
    if shutil.which("virsh") is None:
        pytest.skip("needs libvirt: run `make host`")
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh" / "config").write_text(SSH_CONFIG)
    own = {"HOME": str(home), "NESTLAB_CACHE": str(paths.cache())}
    made = Checkout.make(tmp_path_factory.mktemp("checkout") / FOLDER, SETTINGS | own)
    shutil.copy2(IPXE, made.root / MEDIUM)
    made.edit(lambda lab: lab["media"]["ipxe"].update(path=MEDIUM))
    try:
        yield made
    finally:
        made.destroy()
