"""The stylesheets, run by the xsltproc that the provider runs, over the XML that it makes.

A failure here is a guest without its NIC model, a screen without its password, or a domain that
libvirt refuses: seen by a student only after minutes of `pulumi up`.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.kinds.libvirt import domain_xml
from components.kinds.libvirt.domain_xml import DiskProfile, DomainProfile
from components.kinds.libvirt.host import LIBVIRT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    shutil.which("xsltproc") is None, reason="xsltproc, which the provider runs, is not installed"
)

UUID = "1aa914a0-1e3c-5a96-a217-7583ad2d0ff0"
EVERYTHING = DomainProfile(
    uuid=UUID,
    nic_models=("e1000", "virtio", "vmxnet3"),
    disks=(
        DiskProfile("virtio"),
        DiskProfile("scsi"),
        DiskProfile("virtio", readonly=True),
        DiskProfile("sata", "cdrom"),
    ),
    no_video=False,
    console_log="/var/log/libvirt/qemu/lab-all-console.log",
    console_port=5910,
    console_password="p4ssW0rd",
)
QUIET = DomainProfile(
    uuid=UUID,
    nic_models=("rtl8139",),
    disks=(DiskProfile("ide"), DiskProfile("ide", "cdrom")),
    no_video=True,
    no_screen=True,
)

# As encoding/xml of terraform-provider-libvirt 0.8.3 writes it, indentation included.
HEAD = """\
  <domain type="kvm">
      <name>lab-all</name>
      <memory unit="MiB">512</memory>
      <vcpu>2</vcpu>
      <os>
          <type arch="x86_64" machine="pc-q35-7.2">hvm</type>
          <loader readonly="yes" secure="no" type="pflash">/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
          <nvram template="/usr/share/OVMF/OVMF_VARS_4M.fd">/nvram/lab-all_VARS.fd</nvram>
          <kernel>/images/vmlinuz</kernel>
          <initrd>/images/initrd</initrd>
          <cmdline>console=ttyS0 root=LABEL=root</cmdline>
          <boot dev="cdrom"></boot>
          <boot dev="hd"></boot>
      </os>
      <features>
          <pae></pae>
          <acpi></acpi>
          <apic></apic>
      </features>
      <cpu mode="host-passthrough"></cpu>
      <devices>
          <emulator>/usr/bin/qemu-system-x86_64</emulator>
"""
NIC = """\
          <interface type="network">
              <mac address="52:54:00:00:00:{number:02}"></mac>
              <source network="lab-nat"></source>
              <model type="virtio"></model>
          </interface>
"""
TAIL = """\
          <console>
              <target type="serial" port="0"></target>
          </console>
          <channel type="unix">
              <target type="virtio" name="org.qemu.guest_agent.0"></target>
          </channel>
          <graphics type="{screen}" autoport="{autoport}"{websocket}>
              <listen type="address" address="127.0.0.1"></listen>
          </graphics>
          <video>
              <model type="vga"></model>
          </video>
          <rng model="virtio">
              <backend model="random">/dev/urandom</backend>
          </rng>
      </devices>
  </domain>"""


def by_the_provider(profile: DomainProfile, screen: str = "vnc") -> str:
    """Return the XML that the provider makes of the inputs which go with ``profile``."""
    parts = [HEAD]
    for number, disk in enumerate(profile.disks):
        if disk.device == "cdrom":
            source, target = 'file="/pool/medium-ipxe.iso"', 'dev="hda" bus="ide"'
            wwn, kind, driver = "", 'type="file" device="cdrom"', "raw"
        else:
            source = f'pool="nestlab-lab" volume="{number}.qcow2"'
            target, wwn = f'dev="vd{domain_xml.LETTERS[number]}" bus="virtio"', ""
            if disk.bus == "scsi":
                target, wwn = 'dev="sda" bus="scsi"', "<wwn>05abcdabcdef0123</wwn>"
            kind, driver = 'type="volume" device="disk"', "qcow2"
        parts.append(
            f'          <disk {kind}>\n              <driver name="qemu" type="{driver}"></driver>\n'
            f"              <source {source}></source>\n"
            f"              <target {target}></target>\n              {wwn}\n          </disk>\n"
        )
    if any(disk.bus == "scsi" for disk in profile.disks):
        parts.append('          <controller type="scsi" model="virtio-scsi"></controller>\n')
    parts += [NIC.format(number=number) for number in range(len(profile.nic_models))]
    autoport = "yes" if profile.console_port is None else "no"
    websocket = ' websocket="-1"' if screen == "vnc" else ""
    parts.append(TAIL.format(screen=screen, autoport=autoport, websocket=websocket))
    return "".join(parts)


def transformed(stylesheet: str, xml: str, folder: Path) -> ET.Element:
    """Return what the provider hands to libvirt: it calls xsltproc with exactly these options."""
    sheet, document = folder / "sheet.xsl", folder / "domain.xml"
    # The provider trims the sheet, and writes the secret in it to a file of mode 0600.
    sheet.write_text(stylesheet.strip())
    document.write_text(xml)
    done = subprocess.run(
        ["xsltproc", "--nomkdir", "--nonet", "--nowrite", sheet, document],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"xsltproc warns, two templates for one node? {done.stderr}"
    return ET.fromstring(done.stdout)  # noqa: S314 - our own stylesheet made it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("xslt")


def rendered(profile: DomainProfile, folder: Path, screen: str = "vnc") -> ET.Element:
    xml = by_the_provider(profile, screen)
    return transformed(domain_xml.domain(profile), xml, folder)


def attributes(root: ET.Element, path: str) -> list[dict[str, str]]:
    return [dict(element.attrib) for element in root.findall(path)]


def validate(root: ET.Element, folder: Path, schema: str) -> None:
    for program, package in (
        ("virt-xml-validate", "libvirt-clients"),
        ("xmllint", "libxml2-utils"),
    ):
        if shutil.which(program) is None:
            pytest.skip(f"{program} of {package} is not installed")
    for console in root.findall("devices/console"):
        # The provider leaves it out; libvirt then takes a pty, and its schema does not.
        console.attrib.setdefault("type", "pty")
    file = folder / "result.xml"
    file.write_text(ET.tostring(root, encoding="unicode"))
    done = subprocess.run(
        ["virt-xml-validate", file, schema], capture_output=True, text=True, check=False
    )
    if "No schema" in done.stderr or "failed to load external entity" in done.stderr:
        pytest.skip("libvirt's schemas are not installed")
    assert done.returncode == 0, done.stdout + done.stderr + file.read_text()


def test_the_domain_gets_the_uuid_of_its_lab(folder: Path) -> None:
    root = rendered(EVERYTHING, folder)
    assert [each.text for each in root.findall("uuid")] == [UUID]


def test_a_usb_stick_is_a_disk_of_its_own_controller(folder: Path) -> None:
    disks = (DiskProfile("sata"), DiskProfile("sata", "cdrom"), DiskProfile("usb"))
    root = rendered(DomainProfile(uuid=UUID, disks=disks), folder)
    assert attributes(root, "devices/disk/target") == [
        {"dev": "sda", "bus": "sata"},
        {"dev": "sdb", "bus": "sata"},
        {"dev": "sdc", "bus": "usb"},
    ]
    assert [disk.get("device") for disk in root.findall("devices/disk")] == [
        "disk",
        "cdrom",
        "disk",
    ]
    made = attributes(root, "devices/controller")
    assert {(one["type"], one["index"]) for one in made} == {("usb", "0")}
    assert [one["model"][5:] for one in made] == ["ehci1", "uhci1", "uhci2", "uhci3"]
    masters = attributes(root, "devices/controller/master")
    assert [one["startport"] for one in masters] == ["0", "2", "4"]
    validate(root, folder, "domain")


def test_each_nic_gets_its_own_model_in_the_order_of_the_stack(folder: Path) -> None:
    root = rendered(EVERYTHING, folder)
    models = [each["type"] for each in attributes(root, "devices/interface/model")]
    assert models == ["e1000", "virtio", "vmxnet3"]


@pytest.mark.parametrize("model", LIBVIRT.nic_models)
def test_every_nic_model_of_the_spec_reaches_the_domain(model: str, folder: Path) -> None:
    root = rendered(DomainProfile(UUID, nic_models=(model,)), folder)
    assert attributes(root, "devices/interface/model") == [{"type": model}]


def test_disks_get_bus_device_and_a_name_that_no_other_has(folder: Path) -> None:
    root = rendered(EVERYTHING, folder)
    assert [each.attrib["device"] for each in root.findall("devices/disk")] == [
        "disk",
        "disk",
        "disk",
        "cdrom",
    ]
    assert attributes(root, "devices/disk/target") == [
        {"dev": "vda", "bus": "virtio"},
        {"dev": "sda", "bus": "scsi"},
        {"dev": "vdb", "bus": "virtio"},
        {"dev": "sdb", "bus": "sata"},
    ], "sata and scsi disks share the names sd*"


def test_only_the_disk_that_is_read_only_says_so(folder: Path) -> None:
    root = rendered(EVERYTHING, folder)
    locked = [len(disk.findall("readonly")) for disk in root.findall("devices/disk")]
    assert locked == [0, 0, 1, 0]


def test_what_the_provider_manages_is_left_as_it_is(folder: Path) -> None:
    root = rendered(EVERYTHING, folder)
    before = ET.fromstring(by_the_provider(EVERYTHING))  # noqa: S314 - written above
    for path in ("name", "memory", "vcpu", "os/*", "cpu", "devices/disk/source", "devices/rng"):
        assert attributes(root, path) == attributes(before, path), path
        assert [each.text for each in root.findall(path)] == [
            each.text for each in before.findall(path)
        ], path
    assert [each.attrib for each in root.findall("devices/interface/mac")] == [
        each.attrib for each in before.findall("devices/interface/mac")
    ]
    counted = {each.tag for each in root.iter()} - {each.tag for each in before.iter()}
    assert counted == {"uuid", "readonly", "log"}, "elements that nobody asked for"


def test_the_serial_console_is_also_written_to_a_file(folder: Path) -> None:
    root = rendered(EVERYTHING, folder)
    assert attributes(root, "devices/console/log") == [
        {"file": EVERYTHING.console_log, "append": "off"}
    ]
    assert not rendered(QUIET, folder).findall("devices/console/log")


@pytest.mark.parametrize("screen", ["vnc", "spice"])
def test_the_screen_has_its_password_and_its_port_and_still_listens(
    screen: str, folder: Path
) -> None:
    root = rendered(EVERYTHING, folder, screen)
    found = root.find("devices/graphics")
    assert found is not None
    expected = {"type": screen, "port": "5910", "autoport": "no", "passwd": "p4ssW0rd"}
    assert found.attrib == expected | ({"websocket": "-1"} if screen == "vnc" else {})
    assert attributes(root, "devices/graphics/listen") == [
        {"type": "address", "address": "127.0.0.1"}
    ]


@pytest.mark.parametrize("port", [None, 5910])
@pytest.mark.parametrize("password", ["", "p4ssW0rd"])
def test_password_and_port_of_a_screen_do_not_depend_on_each_other(
    port: int | None, password: str, folder: Path
) -> None:
    profile = DomainProfile(UUID, console_port=port, console_password=password)
    found = rendered(profile, folder).find("devices/graphics")
    assert found is not None
    assert found.get("passwd") == (password or None)
    assert found.get("port") == (str(port) if port else None)
    assert found.get("autoport") == ("no" if port else "yes")


def test_a_machine_without_a_screen_has_neither_server_nor_adapter(folder: Path) -> None:
    root = rendered(QUIET, folder)
    assert not root.findall("devices/graphics"), "a SPICE server without password would listen"
    assert attributes(root, "devices/video/model") == [{"type": "none"}], (
        "libvirt adds an adapter to a domain without one"
    )


def test_a_machine_may_keep_its_adapter_and_have_no_server(folder: Path) -> None:
    root = rendered(DomainProfile(UUID, no_screen=True), folder)
    assert not root.findall("devices/graphics")
    assert attributes(root, "devices/video/model") == [{"type": "vga"}]


DISKS = st.lists(
    st.builds(
        DiskProfile,
        bus=st.sampled_from(LIBVIRT.disk_buses),
        device=st.sampled_from(["disk", "cdrom"]),
        readonly=st.booleans(),
    ),
    max_size=4,
)
# Everything that XML can hold in an attribute, with what XSLT reads as something else in front.
TEXT = st.text(
    st.sampled_from("{}<>&\"' ")
    | st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc", "Cn"]),
    min_size=1,
    max_size=24,
)


HYPERV = DomainProfile(
    uuid=UUID,
    disks=(DiskProfile("sata"), DiskProfile("sata", "cdrom")),
    cpu_without=("hle", "rtm"),
    hyperv=True,
    hidden=True,
    localtime=True,
)


def test_a_nested_hyperv_gets_its_enlightenments_and_loses_the_features_that_break_it(
    folder: Path,
) -> None:
    root = rendered(HYPERV, folder)
    assert root.find("features/hyperv/stimer/direct[@state='on']") is not None
    assert root.find("features/acpi") is not None, "what the provider wrote is still there"
    assert attributes(root, "features/kvm/hidden") == [{"state": "on"}]
    assert attributes(root, "cpu") == [{"mode": "host-passthrough"}]
    assert attributes(root, "cpu/feature") == [
        {"policy": "disable", "name": "hle"},
        {"policy": "disable", "name": "rtm"},
    ]
    assert attributes(root, "clock") == [{"offset": "localtime"}]
    assert {"name": "hypervclock", "present": "yes"} in attributes(root, "clock/timer")
    validate(root, folder, "domain")


def test_a_machine_that_asks_for_nothing_special_gets_nothing(folder: Path) -> None:
    root = rendered(DomainProfile(UUID), folder)
    for path in ("features/hyperv", "features/kvm", "clock", "cpu/feature", "cpu/model"):
        assert root.find(path) is None, path


def test_an_emulated_cpu_can_be_a_model(folder: Path) -> None:
    profile = DomainProfile(UUID, cpu_model="Nehalem", cpu_without=("hle",))
    xml = by_the_provider(profile).replace('"host-passthrough"', '"custom"')
    root = transformed(domain_xml.domain(profile), xml, folder)
    assert attributes(root, "cpu") == [{"mode": "custom", "match": "exact", "check": "none"}]
    assert root.findtext("cpu/model") == "Nehalem"
    assert [each.tag for each in root.findall("cpu/*")] == ["model", "feature"]
    validate(root, folder, "domain")


def test_a_scsi_disk_can_sit_on_a_controller_that_old_installers_know(folder: Path) -> None:
    profile = DomainProfile(UUID, disks=(DiskProfile("scsi"),), scsi="lsilogic")
    root = rendered(profile, folder)
    assert attributes(root, "devices/controller") == [{"type": "scsi", "model": "lsilogic"}]
    validate(root, folder, "domain")


PROFILES = st.builds(
    DomainProfile,
    uuid=st.just(UUID),
    nic_models=st.lists(st.sampled_from(LIBVIRT.nic_models), max_size=4).map(tuple),
    disks=DISKS.map(tuple),
    no_video=st.booleans(),
    no_screen=st.booleans(),
    console_log=st.just("") | TEXT,
    console_port=st.none() | st.integers(5900, 65535),
    console_password=st.just("") | TEXT,
    cpu_model=st.sampled_from(["", "Nehalem"]),
    cpu_without=st.lists(st.sampled_from(["hle", "rtm"]), unique=True).map(tuple),
    hyperv=st.booleans(),
    hidden=st.booleans(),
    scsi=st.sampled_from(["virtio-scsi", "lsilogic"]),
    localtime=st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(profile=PROFILES, screen=st.sampled_from(["vnc", "spice"]))
def test_all_settings_together_never_fight_for_a_node(
    folder: Path, profile: DomainProfile, screen: str
) -> None:
    disks, log = profile.disks, profile.console_log
    port, password = profile.console_port, profile.console_password
    root = rendered(profile, folder, screen)
    assert [each["type"] for each in attributes(root, "devices/interface/model")] == list(
        profile.nic_models
    )
    targets = attributes(root, "devices/disk/target")
    assert [each["bus"] for each in targets] == [disk.bus for disk in disks]
    assert len({each["dev"] for each in targets}) == len(disks), "two disks of one name"
    assert [each.get("device") for each in root.findall("devices/disk")] == [
        disk.device for disk in disks
    ]
    assert [len(each.findall("readonly")) for each in root.findall("devices/disk")] == [
        int(disk.readonly) for disk in disks
    ]
    assert [each["file"] for each in attributes(root, "devices/console/log")] == [log][: bool(log)]
    screens = root.findall("devices/graphics")
    assert len(screens) == (not profile.no_screen)
    for found in screens:
        assert found.get("passwd") == (password or None), "a password with odd characters changed"
        assert found.get("port") == (str(port) if port else None)
    kinds = [each["type"] for each in attributes(root, "devices/video/model")]
    assert kinds == (["none"] if profile.no_video else ["vga"])


@pytest.mark.parametrize(
    "odd", ["a\"b'c", "<&>", "{path}", "{{", "a}b", " ", "  x  ", "täst", "]]>"]
)
def test_odd_characters_of_passwords_and_paths_arrive_unchanged(odd: str, folder: Path) -> None:
    profile = DomainProfile(UUID, console_log=f"/log/{odd}", console_password=odd)
    root = rendered(profile, folder)
    assert attributes(root, "devices/console/log")[0]["file"] == f"/log/{odd}"
    assert attributes(root, "devices/graphics")[0]["passwd"] == odd


@pytest.mark.parametrize("kind", ["network", "pool"])
def test_networks_and_pools_get_the_uuid_of_their_lab_and_nothing_else(
    kind: str, folder: Path
) -> None:
    before = f"<{kind}><name>lab</name><target><path>/srv</path></target></{kind}>"
    root = transformed(domain_xml.identified(kind, UUID), before, folder)
    assert [each.tag for each in root] == ["name", "target", "uuid"]
    assert root.findtext("uuid") == UUID
    assert root.findtext("target/path") == "/srv"


def test_a_volume_is_its_owners_alone(folder: Path) -> None:
    before = (
        "<volume><name>seed.iso</name><capacity unit='B'>7</capacity><target><format type='iso'/>"
        "<permissions><mode>644</mode></permissions></target></volume>"
    )
    root = transformed(domain_xml.PRIVATE_VOLUME, before, folder)
    assert root.findtext("target/permissions/mode") == "0600"
    assert [each.tag for each in root] == ["name", "capacity", "target"]
    assert [each.tag for each in root.iterfind("target/*")] == ["format", "permissions"]


def test_a_pools_folder_is_open_to_the_group_of_qemu_and_to_nobody_else(folder: Path) -> None:
    before = "<pool type='dir'><name>lab</name><target><path>/srv</path></target></pool>"
    root = transformed(domain_xml.pool(UUID, "64055"), before, folder)
    permissions = {each.tag: each.text for each in root.iterfind("target/permissions/*")}
    assert permissions == {"mode": "0710", "owner": "0", "group": "64055"}
    assert root.findtext("uuid") == UUID
    assert root.findtext("target/path") == "/srv"


@pytest.mark.parametrize("unknown", ["", None])
def test_a_pool_that_was_made_before_stays_as_it_is(unknown: str | None) -> None:
    """Another stylesheet is another pool to the provider, with all that is in it."""
    assert domain_xml.pool(UUID, unknown) == domain_xml.identified("pool", UUID)


@pytest.mark.parametrize(
    ("profile", "screen"),
    [(EVERYTHING, "vnc"), (EVERYTHING, "spice"), (QUIET, "vnc"), (DomainProfile(UUID), "vnc")],
    ids=["everything, vnc", "everything, spice", "no screen", "nothing"],
)
def test_libvirts_own_schema_takes_the_result(
    profile: DomainProfile, screen: str, folder: Path
) -> None:
    validate(rendered(profile, folder, screen), folder, "domain")


@pytest.mark.parametrize("bus", LIBVIRT.disk_buses)
@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_libvirts_schema_takes_every_disk_bus(bus: str, machine: str, folder: Path) -> None:
    iso = DiskProfile("ide" if machine == "pc" else "sata", "cdrom")
    profile = DomainProfile(UUID, disks=(DiskProfile(bus), iso))
    root = rendered(profile, folder)
    names = [each["dev"] for each in attributes(root, "devices/disk/target")]
    assert len(set(names)) == len(names), f"two disks are called alike: {names}"
    validate(root, folder, "domain")


def test_a_sheet_holds_no_template_twice_for_one_node() -> None:
    matches = [
        line.partition('match="')[2].partition('"')[0]
        for line in domain_xml.domain(EVERYTHING).splitlines()
        if "<xsl:template" in line
    ]
    clashes = [(a, b) for a, b in itertools.combinations(matches, 2) if a == b]
    assert not clashes, "XSLT takes the last of two templates and drops the other's change"
    assert quoteattr(UUID).strip('"') in domain_xml.domain(EVERYTHING)


NETWORK = (
    '<network><name>lab</name><forward mode="nat"/><bridge name="nl1"/>'
    '<ip address="10.77.0.1" family="ipv4" prefix="24"><dhcp>'
    '<range start="10.77.0.2" end="10.77.0.254"/></dhcp></ip></network>'
)
HOST = "<host mac='52:54:00:00:00:05' name='web' ip='10.77.0.5'/>"


def test_a_network_is_made_with_its_reservations(folder: Path) -> None:
    root = transformed(domain_xml.network(UUID, "10.77.0.1", [HOST]), NETWORK, folder)
    assert root.findtext("uuid") == UUID
    assert attributes(root, "ip/dhcp/host") == [
        {"mac": "52:54:00:00:00:05", "name": "web", "ip": "10.77.0.5"}
    ]
    assert attributes(root, "ip/dhcp/range"), "and keeps what the provider wrote"


def test_reservations_of_another_subnet_do_not_stop_a_network(folder: Path) -> None:
    # The engine hands over the stylesheet that a network was first made with, even when it is
    # replaced because its subnet changed; libvirt would refuse an address from outside.
    root = transformed(domain_xml.network(UUID, "10.99.0.1", [HOST]), NETWORK, folder)
    assert root.findtext("uuid") == UUID
    assert attributes(root, "ip/dhcp/host") == []
