"""media: a failure here boots a class from whatever a server sends that day."""

from __future__ import annotations

import pytest

from tests.policy.judging import (
    CONTAINER,
    NET,
    PROVIDER,
    STORE,
    UNKNOWN,
    VOLUME,
    Res,
    attribute,
    judge,
    lab,
    machine,
    sheet,
)

DOWNLOAD = "proxmoxve:download/file:File"
UPLOAD = "proxmoxve:index/fileLegacy:FileLegacy"
OCI = "proxmoxve:oci/image:Image"
DISCS = "pulumi-python:dynamic/nestlab:InstallMedium"
FILE = "vsphere:index/file:File"
ITEM = "vsphere:index/contentLibraryItem:ContentLibraryItem"
URL = "https://media.example/pve.iso"
SUM = {"checksum": "00" * 32, "checksumAlgorithm": "sha256"}
NETWORK_DISK = (
    '<xsl:template match="/domain/devices/disk/source">'
    '<source protocol="https" name="/a.iso"><host name="media.example"/></source></xsl:template>'
)


def volume(source: str) -> tuple[Res, ...]:
    props = {"name": "v", "pool": "lab", "source": source}
    return (PROVIDER, NET, STORE, Res(VOLUME, "v", props, provider=PROVIDER))


def upload(**source: str) -> tuple[Res, ...]:
    return (Res(UPLOAD, "u", {"sourceFile": source}),)


def disk(**given: str) -> tuple[Res, ...]:
    return lab(machine(disks=[given]))


@pytest.mark.parametrize(
    "stack",
    [
        volume(URL),
        volume("http://media.example/a.qcow2"),
        volume("ftp://media.example/a.qcow2"),
        disk(url=URL),
        disk(url="http://media.example/a.iso"),
        lab(machine(xml=sheet(NETWORK_DISK))),
        (Res(DOWNLOAD, "d", {"url": URL}),),
        (Res(DOWNLOAD, "d", {"url": URL, "checksum": "00"}),),
        upload(path=URL),
        (Res(OCI, "o", {"reference": "registry.example/debian:12"}),),
        (Res(CONTAINER, "c", {"wanted": {"archive": URL, "sha256": ""}}),),
        (Res(CONTAINER, "m", {"driver": "esxi.medium", "wanted": {"path": URL, "sha256": ""}}),),
        (Res(CONTAINER, "g", {"driver": "xen.guest", "wanted": {"image": URL}}),),
        (Res(DISCS, "d", {"iso": URL, "tools": {}}),),
        (Res(DISCS, "d", {"iso": "", "tools": {"bundle": "ftp://media.example/b"}}),),
        (Res(FILE, "f", {"sourceFile": URL}),),
        (Res(ITEM, "i", {"fileUrl": URL}),),
    ],
)
def test_what_comes_without_a_checksum_is_refused(stack: tuple[Res, ...]) -> None:
    assert set(judge(*stack)) == {"media"}


@pytest.mark.parametrize(
    "stack",
    [
        volume("/srv/iso/pve.iso"),
        volume("iso/pve.iso"),
        volume(UNKNOWN),
        disk(file="/srv/iso/debian.iso"),
        disk(url=UNKNOWN),
        lab(machine(xml=sheet(attribute("/domain/devices/disk/@type", "type", "block")))),
        (Res(DOWNLOAD, "d", {"url": URL, **SUM}),),
        (Res(DOWNLOAD, "d", {"url": URL, **SUM, "checksum": UNKNOWN}),),
        upload(path="/srv/iso/pve.iso"),
        upload(path=URL, checksum="00"),
        (Res(OCI, "o", {"reference": "registry.example/debian@sha256:00"}),),
        (Res(CONTAINER, "c", {"wanted": {"archive": "/srv/root.tar", "sha256": ""}}),),
        (Res(CONTAINER, "m", {"driver": "esxi.medium", "wanted": {"path": "/srv/a.iso"}}),),
        (Res(CONTAINER, "m", {"wanted": {"path": URL, "sha256": "00"}}),),
        (Res(CONTAINER, "g", {"driver": "xen.guest", "wanted": {"iso": "C:/nestlab/a.iso"}}),),
        (Res(DISCS, "d", {"iso": "/srv/pve.iso", "tools": {"bundle": "/srv/b"}}),),
        (Res(FILE, "f", {"sourceFile": "/srv/pve.iso"}),),
        (Res("other:index/thing:Thing", "t", {"url": URL, "source": URL}),),
    ],
)
def test_what_is_local_or_checked_passes(stack: tuple[Res, ...]) -> None:
    assert judge(*stack) == {}


def test_where_sources_are_named_nothing_comes_from_elsewhere() -> None:
    stack = (Res(DOWNLOAD, "d", {"url": URL, **SUM}),)
    here, there = ({"media": {"sources": [at]}} for at in ("https://media.example/", "https://x/"))
    assert judge(*stack, config=here) == {}
    assert set(judge(*stack, config=there)) == {"media"}


def test_a_message_shows_no_credentials_of_an_address() -> None:
    said = judge(Res(DOWNLOAD, "d", {"url": "https://me:hidden@media.example/a?key=hidden"}))
    assert "hidden" not in str(said["media"])
