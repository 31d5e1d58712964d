"""The policy pack with the real engine: the same verdicts as in `tests/policy`, from preview and state.

A failure here means that a lab that can't work, or should not run, is brought up all the same. Plain
programs ask nothing of any host: the addresses of their providers are not known, as that of a nested
host is in preview. The project's own stacks are previewed where this machine is set up for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.double import policy_cases
from tests.policy.judging import ANYWHERE
from tests.support.checkout import STACK, Checkout
from toolchain.bootstrap import paths
from toolchain.engine import environment

import rules  # isort: skip - the pack's folder comes with judging

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project
    from tests.double.policy_cases import Case

pytestmark = pytest.mark.double

PACK = ("--policy-pack", str(paths.ROOT / "policies"))
RULES = {policy.name for policy in rules.POLICIES} - {"secret-marks"}
LEAST = 3
"""Stacks that break a rule alone, and near misses that pass: at least so many for each."""
SAID = re.compile(
    r"- \[(\w+)\] +\[severity: \w+\] +([a-z-]+) +\([\w:./-]+: ([\w-]+)\)\n((?: {10,}.*\n)*)"
)


def verdicts(said: str) -> dict[str, set[str]]:
    """What the pack said in a run, by resource: the rules that spoke."""
    found: dict[str, set[str]] = {}
    for _, rule, name, _ in SAID.findall(said):
        found.setdefault(name, set()).add(rule)
    return found


def by_case(said: str) -> dict[str, set[str]]:
    """The same by the stack that a resource is of."""
    found: dict[str, set[str]] = {}
    for name, spoke in verdicts(said).items():
        found.setdefault(name.partition("-")[0], set()).update(spoke)
    return found


@pytest.fixture(scope="module")
def every() -> list[Case]:
    return list(policy_cases.cases())


def config(project: Project, every: list[Case]) -> tuple[str, ...]:
    (project.folder / "levels.json").write_text(policy_cases.settings(every))
    return (*PACK, "--policy-pack-config", "levels.json")


def previewed(project: Project, every: list[Case], *, fails: bool) -> dict[str, set[str]]:
    (project.folder / "cases.json").write_text(policy_cases.program(every))
    project.write(policy_cases.PROGRAM, policy_cases.LATER)
    said = project.pulumi("preview", *config(project, every), fails=fails)
    assert "can't run policy" not in said
    return by_case(said)


def wrong(every: list[Case], found: dict[str, set[str]]) -> list[Any]:
    return [
        (each.prefix, each.rules, found.get(each.prefix, set()), each.resources)
        for each in every
        if each.rules != found.get(each.prefix, set())
    ]


def test_every_stack_that_breaks_a_rule_is_stopped_by_that_rule(
    project: Project, every: list[Case]
) -> None:
    broken = [each for each in every if each.rules and not each.addressed]
    assert wrong(broken, previewed(project, broken, fails=True)) == []
    alone = Counter(rule for each in broken if len(each.rules) == 1 for rule in each.rules)
    assert {rule: alone[rule] for rule in RULES if alone[rule] < LEAST} == {}


def test_every_near_miss_passes(project: Project, every: list[Case]) -> None:
    sound = [each for each in every if not each.rules and not each.addressed]
    assert previewed(project, sound, fails=False) == {}
    about = Counter(rule for each in sound for rule in each.about)
    assert {rule: about[rule] for rule in RULES if about[rule] < LEAST} == {}


def test_a_state_is_judged_as_its_preview_was(project: Project, every: list[Case]) -> None:
    known = [each.settled() for each in every]
    (project.folder / "state.json").write_text(policy_cases.state(known))
    words = config(project, known)
    said = project.pulumi("policy", "analyze", "--file", "state.json", *words, fails=True)
    assert wrong(known, by_case(said)) == []
    assert set().union(*by_case(said).values()) == RULES


def test_a_state_with_encrypted_secrets_is_judged_as_well(
    project: Project, every: list[Case]
) -> None:
    known = [each.settled() for each in every]
    settings = yaml.safe_load((project.folder / "Pulumi.dev.yaml").read_text())
    state = policy_cases.state(known, salt=settings["encryptionsalt"])
    (project.folder / "state.json").write_text(state)
    project.pulumi("stack", "import", "--file", "state.json")
    words = config(project, known)
    said = project.pulumi("policy", "analyze", *words, fails=True)
    assert wrong(known, by_case(said)) == [], "of a stack, with its passphrase, all is seen"

    project.pulumi("stack", "export", "--file", "exported.json")
    exported = (project.folder / "exported.json").read_text()
    assert '"ciphertext"' in exported
    assert "abcd2345" not in exported, "what a case marks as secret is encrypted"
    project.variables.pop("PULUMI_CONFIG_PASSPHRASE")
    said = project.pulumi("policy", "analyze", "--file", "exported.json", *words, fails=True)
    assert "abcd2345" not in said
    different = wrong(known, by_case(said))
    assert [each for each in different if each[2] - each[1]] == [], "nothing more is refused"
    hidden = {each.prefix for each in known if "Secret" in repr(each.resources)}
    missed = {each[0] for each in different}
    assert missed, "such as a CPU that is taken away in a stylesheet with a password"
    assert missed <= hidden, "only what is in a secret can be missed"


LATER = """
class Later(dynamic.ResourceProvider):
    def create(self, props):
        return dynamic.CreateResult("later", {"uri": "qemu:///system"})
"""
PLAIN = '''
import pulumi
from pulumi import dynamic
import pulumi_libvirt as libvirt

from providers import Later

class Address(dynamic.Resource):
    uri: pulumi.Output[str]

later = Address(Later(), "later", {"uri": None}).uri
host = libvirt.Provider("host", uri=later)
on_host = pulumi.ResourceOptions(provider=host)
store = libvirt.Pool("store", name="lab", type="dir", target={"path": "/srv/lab"}, opts=on_host)
net = libvirt.Network("a-net", name="lab", mode="nat", addresses=["10.9.0.0/24"], opts=on_host)
small = libvirt.Volume("small", pool=store.name, size=4 << 30, opts=on_host)
large = libvirt.Volume("large", pool=store.name, size=64 << 30, opts=on_host)
HEAD = """<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
<xsl:template match="@*|node()"><xsl:copy><xsl:apply-templates select="@*|node()"/></xsl:copy></xsl:template>
"""
NIC = """<xsl:template match="interface/model/@type"><xsl:attribute name="type">vmxnet3</xsl:attribute></xsl:template>"""
PLAINER = """<xsl:template match="cpu"><cpu mode="custom"/></xsl:template>"""

def domain(name, kind="", disk=large, listen="127.0.0.1", mode="host-passthrough", sheet="", **more):
    given = dict(memory=8192, vcpu=4) | more
    return libvirt.Domain(
        name,
        description=f"nestlab:kind={kind}" if kind else "a guest",
        cpu=libvirt.DomainCpuArgs(mode=mode),
        disks=[libvirt.DomainDiskArgs(volume_id=disk.id)],
        network_interfaces=[libvirt.DomainNetworkInterfaceArgs(network_name=net.name)],
        graphics=libvirt.DomainGraphicsArgs(type="vnc", listen_type="address", listen_address=listen),
        xml=libvirt.DomainXmlArgs(xslt=HEAD + sheet + "</xsl:stylesheet>") if sheet else None,
        opts=on_host,
        **given,
    )

'''
"""A program without our components, as anybody writes it; further lines make one thing more."""
OTHERS = """
import pulumi_proxmoxve as px
import pulumi_vsphere as vs

hidden = pulumi.Output.secret("hidden12")
pve = px.Provider("pve", endpoint=later, username="root@pam", password=hidden, insecure=True)
vcenter = vs.Provider("vcenter", vsphere_server=later, user="lab", password=hidden)
on_pve, on_vcenter = pulumi.ResourceOptions(provider=pve), pulumi.ResourceOptions(provider=vcenter)
bridge = px.network.linux.BridgeLegacy("a-bridge", node_name="pve1", name="vmbr9", ports=[], opts=on_pve)
group = vs.HostPortGroup("a-group", name="Lab", host_system_id="host-1", virtual_switch_name="lab", opts=on_vcenter)

def vm(name, kind="", cpu="host", model="virtio", memory=8192, cores=4, disk=64, on=bridge.name, **more):
    return px.VmLegacy(
        name,
        node_name="pve1",
        tags=[f"nestlab-kind-{kind}"] if kind else ["lab"],
        cpu=px.VmLegacyCpuArgs(type=cpu, cores=cores),
        memory=px.VmLegacyMemoryArgs(dedicated=memory),
        disks=[px.VmLegacyDiskArgs(interface="scsi0", size=disk)],
        network_devices=[px.VmLegacyNetworkDeviceArgs(bridge=on, model=model)],
        opts=on_pve,
        **more,
    )

def esx(name, guest="vmkernel8Guest", nested=True, adapter="vmxnet3", memory=8192, cores=4, disk=64, on=group, **more):
    return vs.VirtualMachine(
        name,
        resource_pool_id="resgroup-1",
        guest_id=guest,
        num_cpus=cores,
        memory=memory,
        nested_hv_enabled=nested,
        disks=[vs.VirtualMachineDiskArgs(label="disk0", size=disk)],
        network_interfaces=[vs.VirtualMachineNetworkInterfaceArgs(
            network_id=on if isinstance(on, str) else on.id, adapter_type=adapter)],
        opts=on_vcenter,
        **more,
    )

def account(password):
    user = px.VmLegacyInitializationUserAccountArgs(username="a", password=password)
    return px.VmLegacyInitializationArgs(user_account=user)

def switch(name, nics):
    vs.HostVirtualSwitch(name, name="lab", host_system_id="host-1", network_adapters=nics,
                         active_nics=nics, standby_nics=[], opts=on_vcenter)

def port_group(logical, **more):
    return vs.HostPortGroup(logical, host_system_id="host-1", virtual_switch_name="lab", opts=on_vcenter, **more)

def file(name, **source):
    return px.FileLegacy(name, node_name="pve1", datastore_id="local", content_type="iso",
                         source_file=px.FileLegacySourceFileArgs(**source), opts=on_pve)

def inside(name, memory):
    host = vm(f"{name}-host", "proxmox", memory=4096)
    nested = px.Provider(f"{name}-way", endpoint=host.id.apply(str), username="root@pam", insecure=True)
    px.ContainerLegacy(name, node_name="n", memory=px.ContainerLegacyMemoryArgs(dedicated=memory),
                       opts=pulumi.ResourceOptions(provider=nested))

"""
"""The same for the providers of the other two outer hosts."""
LINUX = "guest='debian12_64Guest', nested=False"
VNC = "RemoteDisplay.vnc"
CASES = [
    ("domain('it', 'proxmox')", ""),
    ("domain('it', memory=512, vcpu=1, mode='custom', disk=small)", ""),
    ("domain('it', 'esxi', sheet=NIC)", ""),
    ("domain('it', 'proxmox', mode='host-model')", "nested-cpu"),
    ("domain('it', 'proxmox', sheet=PLAINER)", "nested-cpu"),
    ("domain('it', 'esxi')", "esxi-nic"),
    ("domain('it', 'xenserver', memory=1024)", "sizes"),
    ("domain('it', 'hyperv', disk=small)", "capacity"),
    ("domain('it', listen='0.0.0.0')", "console-exposure"),
    ("libvirt.Network('it', mode='bridge', bridge='br0', opts=on_host)", "isolation"),
    ("libvirt.Network('it', addresses=['10.9.0.0/16'], opts=on_host)", "overlaps"),
    (
        "libvirt.CloudInitDisk('it', pool=store.name, user_data='password: hunter22\\n', opts=on_host)",
        "plain-secrets",
    ),
    (
        "libvirt.CloudInitDisk('it', pool=store.name, user_data=pulumi.Output.secret('password: hunter22'), opts=on_host)",
        "",
    ),
    (
        "libvirt.Volume('it', pool=store.name, source='https://media.example/a', opts=on_host)",
        "media",
    ),
    ("vm('it', 'proxmox')", ""),
    ("vm('it', cpu='x86-64-v2-AES', memory=256, cores=1, disk=1)", ""),
    ("vm('it', 'esxi', model='vmxnet3')", ""),
    ("vm('it', 'proxmox', cpu='x86-64-v2-AES')", "nested-cpu"),
    ("vm('it', 'hyperv', kvm_arguments='-cpu qemu64')", "nested-cpu"),
    ("vm('it', 'esxi')", "esxi-nic"),
    ("vm('it', 'esxi', model='e1000')", "esxi-nic"),
    ("vm('it', 'xenserver', memory=2048)", "sizes"),
    ("vm('it', 'xenserver', disk=40)", "sizes"),
    ("inside('it', 3000)", ""),
    ("inside('it', 3073)", "capacity"),
    ("vm('it', kvm_arguments='-vnc 0.0.0.0:9')", "console-exposure"),
    ("vm('it', kvm_arguments='-vnc 127.0.0.1:9')", ""),
    ("vm('it', on='vmbr0')", "shared-objects"),
    ("vm('it', initialization=account('hunter22'))", "plain-secrets"),
    ("vm('it', initialization=account(hidden))", ""),
    ("px.network.linux.BridgeLegacy('it', node_name='pve1', name='vmbr8', ports=['eno2'], opts=on_pve)",
     "isolation"),
    ("px.network.linux.BridgeLegacy('it', node_name='pve1', name='vmbr8', opts=on_pve)", ""),
    ("file('it', path='https://media.example/a.iso')", "media"),
    ("file('it', path='https://media.example/a.iso', checksum='00')", ""),
    ("file('it', path='/srv/a.iso')", ""),
    ("esx('it')", ""),
    (f"esx('it', {LINUX}, adapter='e1000', memory=512, cores=1, disk=1)", ""),
    ("esx('it', nested=False)", "nested-cpu"),
    ("esx('it', guest='windowsHyperVGuest', nested=None)", "nested-cpu"),
    ("esx('it', adapter='e1000')", "esxi-nic"),
    ("esx('it', cores=1)", "sizes"),
    ("esx('it', disk=30)", "sizes"),
    (f"esx('it', {LINUX}, extra_config={{'{VNC}.enabled': 'TRUE'}})", "console-exposure"),
    (f"esx('it', {LINUX}, extra_config={{'{VNC}.enabled': 'TRUE', '{VNC}.ip': '127.0.0.1'}})", ""),
    (f"esx('it', {LINUX}, extra_config={{'{VNC}.enabled': 'TRUE', '{VNC}.password': hidden}})", ""),
    ("switch('it', ['vmnic1'])", "isolation"),
    ("switch('it', [])", ""),
    ("port_group('it', name='stated', allow_promiscuous=True)", "spoofing-need"),
    ("esx('it-esx', on=port_group('it', name='stated', allow_promiscuous=True))", ""),
    ("esx('it-esx', on=port_group('it', name='unsaid', allow_forged_transmits=True))",
     "teaching-safety"),
    (f"esx('it-vm', {LINUX}, on=port_group('it', name='stated', allow_mac_changes=True))",
     "spoofing-need"),
    ("port_group('it', name='unsaid', allow_promiscuous=False)", ""),
    (f"esx('it', {LINUX}, on='network-7')", "shared-objects"),
    ("vs.File('it', source_file='https://media.example/a', destination_file='a', datastore='d', opts=on_vcenter)",
     "media"),
]  # fmt: skip
"""What is made, and the rule that it breaks; port groups called "stated" are stated."""


def test_plain_programs_are_judged_right(project: Project) -> None:
    levels = {"teaching-safety": {"spoofing": ["stated"]}, "shared-objects": "mandatory"}
    (project.folder / "levels.json").write_text(json.dumps(levels))
    found: dict[str, set[str]] = {}
    for breaks in (True, False):
        project.write(PLAIN + OTHERS + "".join(
            case.replace("'it", f"'c{number:02}-it") + "\n"
            for number, (case, rule) in enumerate(CASES)
            if bool(rule) is breaks
        ), LATER)  # fmt: skip
        words = (*PACK, "--policy-pack-config", "levels.json")
        said = project.pulumi("preview", *words, fails=breaks)
        assert "hunter22" not in said
        assert "can't run policy" not in said
        assert bool(by_case(said)) is breaks
        found |= by_case(said)
    wanted = {f"c{number:02}": {rule} for number, (_, rule) in enumerate(CASES) if rule}
    assert found == wanted


def test_levels_and_settings_are_the_users(project: Project, tmp_path: Path) -> None:
    project.write(PLAIN + "domain('it', 'proxmox', mode='custom', listen='0.0.0.0')\n", LATER)
    own = tmp_path / "levels.json"

    def levels(**given: Any) -> tuple[str, ...]:
        own.write_text(json.dumps({key.replace("_", "-"): each for key, each in given.items()}))
        return (*PACK, "--policy-pack-config", str(own))

    said = project.pulumi("preview", *PACK, fails=True)
    assert verdicts(said) == {"it": {"nested-cpu", "console-exposure"}}
    said = project.pulumi("preview", *levels(nested_cpu="advisory", console_exposure="disabled"))
    assert verdicts(said) == {"it": {"nested-cpu"}}
    budget = {"memory_mib": 4096, "enforcementLevel": "mandatory"}
    quiet = {"nested_cpu": "disabled", "console_exposure": "disabled"}
    said = project.pulumi("preview", *levels(capacity=budget, **quiet), fails=True)
    assert "its budget is 4096" in said


def test_the_stack_itself_can_say_what_it_may(project: Project) -> None:
    project.write(
        PLAIN + "libvirt.Network('it', mode='bridge', bridge='br0', opts=on_host)\n", LATER
    )
    project.pulumi("preview", *PACK, fails=True)
    project.pulumi("config", "set", "--path", "nestlab:bridges[0]", "br0")
    assert verdicts(project.pulumi("preview", *PACK)) == {}


TRANSFORM = """
import json, os, pulumi

mutants = {each["name"]: each for each in json.loads(os.environ["MUTANTS"])}

def mutate(args):
    mutant = mutants.get(args.name)
    if mutant is None:
        return None
    inner, props = args.props, args.props
    *path, last = mutant["path"]
    for key in path:
        if not isinstance(inner[key], dict | list):
            return None
        inner = inner[key]
    inner[last] = mutant["value"]
    return pulumi.ResourceTransformResult(props, args.opts)

pulumi.runtime.register_resource_transform(mutate)
"""
"""Changes inputs of resources on their way to the engine, past all that the spec refuses."""
KVM1, IPXE, BOX = "kvm1-domain", "kvm1-ipxe-domain", "kvm1-box-container"
NESTED, DEEP, CLONE, ALONE = "nested1-vm", "nested1-deep-vm", "clone1-vm", "alone-vm"
TEMPLATE = "host-template-debian-scsi-vm"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"
ESXI1, INSIDE = "esxi1-domain", "esxi1-inside-guest"
OUTER, INNER = "the outer subnet", "the inner subnet"
"""Stand for the subnets of the checkout, which has its own."""
Mutant = tuple[str, list[str | int], Any, str, str]
HTTP = "http://media.example/a.iso"
MUTANTS: dict[str, list[Mutant]] = {
    "local": [
        (KVM1, ["cpu", "mode"], "custom", "nested-cpu", KVM1),
        (KVM1, ["cpu", "mode"], "host-model", "nested-cpu", KVM1),
        (KVM1, ["cpu"], None, "nested-cpu", KVM1),
        (KVM1, ["memory"], 2047, "sizes", KVM1),
        (KVM1, ["vcpu"], 1, "sizes", KVM1),
        (IPXE, ["networkInterfaces", 0], {"bridge": "eno1"}, "isolation", IPXE),
        (IPXE, ["consoles", 0], {"type": "tcp", "sourceHost": ANYWHERE}, "console-exposure", IPXE),
        ("kvm1-disk", ["size"], 7 << 30, "capacity", KVM1),
        (IPXE, ["memory"], 3585, "capacity", KVM1),
        (IPXE, ["vcpu"], 3, "capacity", KVM1),
        (BOX, ["wanted", "memory_mib"], 3400, "capacity", KVM1),
        ("lab-network", ["addresses"], INNER, "overlaps", "kvm1-inner-network"),
        ("kvm1-inner-network", ["addresses"], OUTER, "overlaps", "kvm1-inner-network"),
        ("kvm1-medium-ipxe", ["source"], HTTP, "media", "kvm1-medium-ipxe"),
        ("kvm1-seed-disc", ["files"], {"/user-data": "password: hunter22\\n"}, "plain-secrets",
         "kvm1-seed-disc"),
    ],
    "proxmox-cluster": [
        (NESTED, ["cpu", "type"], "x86-64-v2-AES", "nested-cpu", NESTED),
        (NESTED, ["memory", "dedicated"], 2047, "sizes", NESTED),
        (NESTED, ["disks", 0, "size"], 19, "sizes", NESTED),
        (NESTED, ["tags"], ["nestlab-kind-esxi"], "esxi-nic", NESTED),
        (DEEP, ["memory", "dedicated"], 7169, "capacity", NESTED),
        (CLONE, ["kvmArguments"], "-vnc 0.0.0.0:7", "console-exposure", CLONE),
        ("own-gate", ["owner"], "", "isolation", "own-gate"),
        ("nested1-medium-ipxe", ["sourceFile", "path"], HTTP, "media", "nested1-medium-ipxe"),
        (TEMPLATE, ["description"], KEY, "plain-secrets", TEMPLATE),
    ],
    "vsphere": [
        (NESTED, ["nestedHvEnabled"], False, "nested-cpu", NESTED),
        (NESTED, ["memory"], 2044, "sizes", NESTED),
        (ALONE, ["extraConfig"], {"RemoteDisplay.vnc.enabled": "TRUE"}, "console-exposure", ALONE),
        ("out-gate", ["switch"], "vSwitch7", "isolation", "out-gate"),
        # Of which kind it is, is not known in a first preview: the least of all reserves is asked for.
        (DEEP, ["memory", "dedicated"], 7681, "capacity", NESTED),
        ("host-medium-ipxe", ["sourceFile"], HTTP, "media", "host-medium-ipxe"),
    ],
    "esxi": [
        (ESXI1, ["memory"], 4095, "sizes", ESXI1),
        (ESXI1, ["cpu", "mode"], "host-model", "nested-cpu", ESXI1),
        ("esxi1-disk", ["size"], 35 << 30, "capacity", ESXI1),
        (INSIDE, ["wanted", "memory_mib"], 9217, "capacity", ESXI1),
        (INSIDE, ["wanted", "console"], {"type": "vnc", "listen": "::", "port": 5901, "password": ""},
         "console-exposure", INSIDE),
        ("esxi1-inner-network", ["wanted", "mode"], "bridge", "isolation", "esxi1-inner-network"),
        ("esxi1-live-medium", ["wanted", "path"], HTTP, "media", "esxi1-live-medium"),
        ("esxi1-discs", ["iso"], HTTP, "media", "esxi1-discs"),
    ],
}  # fmt: skip
"""By stack: resource, setting, value, the rule that it breaks, and of which resource that is said."""
NEAR: dict[str, list[Mutant]] = {
    "local": [
        (KVM1, ["memory"], 4097, "", ""),
        (IPXE, ["memory"], 3500, "", ""),
        ("kvm1-disk", ["size"], 9 << 30, "", ""),
        ("kvm1-medium-ipxe", ["source"], "iso/a.iso", "", ""),
    ],
    "proxmox-cluster": [
        (NESTED, ["cpu", "type"], "max", "", ""),
        (DEEP, ["memory", "dedicated"], 7168, "", ""),
        (CLONE, ["kvmArguments"], "-vnc 127.0.0.1:7", "", ""),
        ("nested1-medium-ipxe", ["sourceFile"], {"path": HTTP, "checksum": "00"}, "", ""),
    ],
}


def waves(every: list[Mutant]) -> list[list[Mutant]]:
    """As few runs as it takes: in one, no resource is changed twice, nor said the same of."""
    found: list[list[Mutant]] = []
    for mutant in every:
        for wave in found:
            if all(mutant[0] != other[0] and mutant[3:] != other[3:] for other in wave):
                wave.append(mutant)
                break
        else:
            found.append([mutant])
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The project as it is, with this machine's facts and a state of its own."""
    facts = [paths.HOST_JSON, paths.LOCAL / "golden.json"]
    if not all(each.is_file() for each in facts):
        pytest.skip("needs the machine's facts: run `make host image doctor`")
    made = Checkout.make(tmp_path_factory.mktemp("checkout"))
    (made.root / ".nestlab" / "state").mkdir(parents=True)
    (made.root / ".venv").symlink_to(paths.VENV)
    for each in facts:
        shutil.copy2(each, made.root / ".nestlab")
    for file in (paths.ROOT / "stacks").glob("Pulumi.*.yaml"):
        if file.name != f"Pulumi.{STACK}.yaml":
            shutil.copy2(file, made.root / "stacks")
    for file in (made.root / "stacks").glob("Pulumi.*.yaml"):
        # The passphrase of this machine's own state is none of a test's business.
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(one for one in lines if not one.startswith("encryptionsalt:")))
    program = made.root / "__main__.py"
    program.write_text(program.read_text().replace("root = Path", TRANSFORM + "\nroot = Path"))
    return made


def preview(checkout: Checkout, stack: str, mutants: list[Mutant], *words: str) -> Any:
    own = {
        "PULUMI_BACKEND_URL": f"file://{checkout.root}/.nestlab/state",
        "PULUMI_CONFIG_PASSPHRASE": "scratch",
    }
    subnets = {OUTER: checkout.subnets[:1], INNER: checkout.subnets[1:]}
    given = [
        {
            "name": name,
            "path": path,
            "value": subnets.get(value, value) if isinstance(value, str) else value,
        }
        for name, path, value, *_ in mutants
    ]
    variables = environment.environment(os.environ | own) | {"MUTANTS": json.dumps(given)}
    variables["PYTHONPATH"] = str(checkout.root)
    variables.pop("NESTLAB_ROOT", None)

    def pulumi(*words: str) -> Any:
        return subprocess.run(
            ["pulumi", *words, "--non-interactive", "--color", "never"],
            cwd=checkout.root,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    if not list((checkout.root / ".nestlab/state/.pulumi/stacks").glob(f"*/{stack}.json")):
        made = pulumi("stack", "init", stack)
        assert made.returncode == 0, made.stderr
    return pulumi("preview", "--stack", stack, *PACK, *words)


@pytest.mark.parametrize("stack", list(MUTANTS))
def test_the_projects_own_stacks_pass_and_so_do_near_misses(checkout: Checkout, stack: str) -> None:
    done = preview(checkout, stack, NEAR.get(stack, []))
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts(done.stdout) == {}
    assert "can't run policy" not in done.stdout


@pytest.mark.parametrize(
    ("stack", "wave"),
    [(stack, wave) for stack, every in MUTANTS.items() for wave in waves(every)],
    ids=lambda value: value if isinstance(value, str) else "+".join(each[3] for each in value),
)
def test_no_mutant_of_the_projects_own_stacks_survives(
    checkout: Checkout, stack: str, wave: list[Mutant]
) -> None:
    done = preview(checkout, stack, wave)
    assert done.returncode != 0, done.stdout
    wanted: dict[str, set[str]] = {}
    for *_, rule, who in wave:
        wanted.setdefault(who, set()).add(rule)
    assert verdicts(done.stdout) == wanted, done.stdout + done.stderr
