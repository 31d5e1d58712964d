"""The policy pack with the real engine: the same verdicts as in `tests/policy`, from preview and state.

A failure here means that a lab that can't work, or should not run, is brought up all the same. Plain
programs ask no libvirt: the address of their provider is not known, as that of a nested host is in
preview. The project's own stack is previewed where this machine is set up for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from pulumi_policy.secret import Secret

from tests.policy import (
    test_console_exposure,
    test_esxi_nic,
    test_isolation,
    test_media,
    test_nested_cpu,
    test_sizes,
)
from tests.policy.judging import ANYWHERE, DOMAIN, NETWORK, UNKNOWN, VOLUME, Res, judge
from tests.support.checkout import STACK, Checkout
from toolchain import environment, paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.double.conftest import Project

pytestmark = pytest.mark.double

PACK = ("--policy-pack", str(paths.ROOT / "policies"))
STACK_RULES = {"capacity", "overlaps", "shared-objects", "spoofing-need"}
LOOSE = (DOMAIN, NETWORK, VOLUME)
SECRET_KEY = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"
SAID = re.compile(
    r"- \[(\w+)\] +\[severity: \w+\] +([a-z-]+) +\([\w:/]+: ([\w-]+)\)\n((?: {10,}.*\n)*)"
)

LATER = """
import json, pathlib, pulumi
from pulumi import dynamic

class Later(dynamic.ResourceProvider):
    def create(self, props):
        return dynamic.CreateResult("later", {**props, "value": "qemu:///system"})

class Value(dynamic.Resource):
    value: pulumi.Output[str]
    def __init__(self, name):
        super().__init__(Later(), name, {"value": None})

later = Value("later").value
"""

GENERATED = (
    LATER
    + """
provider = pulumi.ProviderResource("libvirt", "host", {"uri": later}, pulumi.ResourceOptions(version="0.5.4"))

def told(value):
    if isinstance(value, dict):
        if "secret" in value and len(value) == 1:
            return pulumi.Output.secret(value["secret"])
        return {key: told(each) for key, each in value.items()}
    if isinstance(value, list):
        return [told(each) for each in value]
    return later if value == "UNKNOWN" else value

options = pulumi.ResourceOptions(provider=provider)
for kind, name, props in json.loads(pathlib.Path("cases.json").read_text()):
    pulumi.CustomResource(kind, name, told(props), options)
"""
)


def verdicts(said: str) -> dict[str, set[str]]:
    """What the pack said in a preview, by resource: the rules that spoke."""
    found: dict[str, set[str]] = {}
    for _, rule, name, _ in SAID.findall(said):
        found.setdefault(name, set()).add(rule)
    return found


def cases() -> Iterator[Res]:
    """Every libvirt resource of the unit cases that stands alone, whatever its verdict there."""
    modules = (
        test_nested_cpu,
        test_esxi_nic,
        test_sizes,
        test_console_exposure,
        test_isolation,
        test_media,
    )
    seen = set[str]()
    for module in modules:
        for name, test in vars(module).items():
            for mark in getattr(test, "pytestmark", ()) if name.startswith("test_") else ():
                if mark.args[0] != "stack":
                    continue
                for stack in mark.args[1]:
                    for each in stack:
                        key = f"{each.type} {each.props!r}"
                        if each.type in LOOSE and not each.under and key not in seen:
                            seen.add(key)
                            yield each


def told(value: Any, unknown: Any, secret: Callable[[Any], Any]) -> Any:
    """A case's inputs in words of another: its unknown values and its secrets replaced."""
    if isinstance(value, Secret):
        return secret(value.value)
    if isinstance(value, dict):
        return {key: told(each, unknown, secret) for key, each in value.items()}
    if isinstance(value, list):
        return [told(each, unknown, secret) for each in value]
    return unknown if value == UNKNOWN else value


def numbered() -> list[Res]:
    return [Res(each.type, f"case-{number}", each.props) for number, each in enumerate(cases())]


def expected(each: Res) -> set[str]:
    return set(judge(each)) - STACK_RULES


def test_the_engine_shows_rules_what_the_unit_tests_show_them(project: Project) -> None:
    every = numbered()
    given = [
        (each.type, each.name, told(each.props, "UNKNOWN", lambda value: {"secret": value}))
        for each in every
    ]
    (project.folder / "cases.json").write_text(json.dumps(given))
    project.write(GENERATED)
    found = verdicts(project.pulumi("preview", *PACK, fails=True))
    wrong = {
        each.name: (each.props, wanted, got)
        for each in every
        if (wanted := expected(each)) != (got := found.get(each.name, set()) - STACK_RULES)
    }
    assert wrong == {}
    assert len(every) > 60
    assert len(set().union(*found.values()) - STACK_RULES) >= 5


def test_a_state_is_judged_as_its_preview_was(project: Project) -> None:
    every = [each for each in numbered() if UNKNOWN not in repr(each.props)]
    urn = "urn:pulumi:dev::scratch::{}::{}".format
    root = urn("pulumi:pulumi:Stack", "scratch-dev")
    host = urn("pulumi:providers:libvirt", "host")

    def sealed(value: Any) -> Any:
        return {SECRET_KEY: SECRET_SIGNATURE, "plaintext": json.dumps(value)}

    resources: list[dict[str, Any]] = [
        {"urn": root, "custom": False, "type": "pulumi:pulumi:Stack"},
        {
            "urn": host,
            "custom": True,
            "id": "1",
            "type": "pulumi:providers:libvirt",
            "inputs": {"uri": "qemu:///system", "version": "0.5.4"},
            "parent": root,
        },
    ]
    for each in every:
        props = told(each.props, None, sealed)
        resources.append(
            {
                "urn": urn(each.type, each.name),
                "custom": True,
                "id": each.name,
                "type": each.type,
                "inputs": props,
                "outputs": props,
                "parent": root,
                "provider": f"{host}::1",
            }
        )
    time = "2026-01-01T00:00:00Z"
    manifest = {"time": time, "magic": "", "version": ""}
    state = {"version": 3, "deployment": {"manifest": manifest, "resources": resources}}
    (project.folder / "state.json").write_text(json.dumps(state))
    said = project.pulumi("policy", "analyze", "--file", "state.json", *PACK, fails=True)
    found = verdicts(said)
    wrong = {
        each.name: (each.props, wanted, got)
        for each in every
        if (wanted := expected(each)) != (got := found.get(each.name, set()) - STACK_RULES)
    }
    assert wrong == {}


PLAIN = (
    LATER
    + '''
import pulumi_libvirt as libvirt

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
)
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
]


@pytest.mark.parametrize(("line", "rule"), CASES)
def test_a_plain_program_is_judged_right(project: Project, line: str, rule: str) -> None:
    project.write(PLAIN + line + "\n")
    said = project.pulumi("preview", *PACK, fails=bool(rule))
    assert verdicts(said).get("it", set()) == ({rule} if rule else set()), said
    assert set(verdicts(said)) <= {"it"}
    assert "hunter22" not in said
    assert "can't run policy" not in said


def test_levels_and_settings_are_the_users(project: Project, tmp_path: Path) -> None:
    project.write(PLAIN + "domain('it', 'proxmox', mode='custom', listen='0.0.0.0')\n")
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
    project.write(PLAIN + "libvirt.Network('it', mode='bridge', bridge='br0', opts=on_host)\n")
    project.pulumi("preview", *PACK, fails=True)
    project.pulumi("config", "set", "--path", "nestlab:bridges[0]", "br0")
    assert verdicts(project.pulumi("preview", *PACK)) == {}


TRANSFORM = """
import json, os, pulumi

mutant = json.loads(os.environ["MUTANT"])

def mutate(args):
    if args.name != mutant["name"]:
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
"""Changes one input of one resource on its way to the engine, past all that the spec refuses."""
KVM1, IPXE = "kvm1-domain", "kvm1-ipxe-domain"
OUTER, INNER = "the outer subnet", "the inner subnet"
"""Stand for the subnets of the checkout, which has its own."""
MUTANTS: list[tuple[str, list[str | int], Any, str]] = [
    (KVM1, ["cpu", "mode"], "custom", "nested-cpu"),
    (KVM1, ["cpu", "mode"], "host-model", "nested-cpu"),
    (KVM1, ["cpu"], None, "nested-cpu"),
    (KVM1, ["memory"], 1024, "sizes"),
    (KVM1, ["memory"], 2047, "sizes"),
    (KVM1, ["vcpu"], 1, "sizes"),
    (KVM1, ["networkInterfaces", 0], {"bridge": "eno1"}, "isolation"),
    (KVM1, ["consoles", 0], {"type": "tcp", "sourceHost": ANYWHERE}, "console-exposure"),
    ("kvm1-disk", ["size"], 7 << 30, "capacity"),
    (IPXE, ["memory"], 3585, "capacity"),
    (IPXE, ["vcpu"], 3, "capacity"),
    ("kvm1-box-container", ["wanted", "memory_mib"], 3400, "capacity"),
    ("lab-network", ["addresses"], INNER, "overlaps"),
    ("kvm1-inner-network", ["addresses"], OUTER, "overlaps"),
    ("kvm1-medium-ipxe", ["source"], "http://media.example/ipxe.iso", "media"),
    ("kvm1-seed", ["userData"], "#cloud-config\npassword: hunter22\n", "plain-secrets"),
]


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
    # The passphrase of this machine's own state is none of a test's business.
    lines = made.settings.read_text().splitlines(keepends=True)
    made.settings.write_text("".join(one for one in lines if not one.startswith("encryptionsalt:")))
    return made


def preview(checkout: Checkout, *words: str, mutant: dict[str, Any] | None = None) -> Any:
    own = {
        "PULUMI_BACKEND_URL": f"file://{checkout.root}/.nestlab/state",
        "PULUMI_CONFIG_PASSPHRASE": "scratch",
    }
    variables = environment.environment(os.environ | own) | {"MUTANT": json.dumps(mutant)}
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

    if not (checkout.root / ".nestlab/state/.pulumi/stacks").exists():
        made = pulumi("stack", "init", STACK)
        assert made.returncode == 0, made.stderr
    return pulumi("preview", "--stack", STACK, *PACK, *words)


def test_the_projects_own_stack_passes(checkout: Checkout) -> None:
    done = preview(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts(done.stdout) == {}
    assert "can't run policy" not in done.stdout


@pytest.mark.parametrize(("name", "path", "value", "rule"), MUTANTS)
def test_no_mutant_of_the_projects_own_stack_survives(
    checkout: Checkout, name: str, path: list[str | int], value: Any, rule: str
) -> None:
    program = checkout.root / "__main__.py"
    original = (paths.ROOT / "__main__.py").read_text()
    program.write_text(original.replace("root = Path", TRANSFORM + "\nroot = Path"))
    subnets = {OUTER: checkout.subnets[:1], INNER: checkout.subnets[1:]}
    given = subnets.get(value, value) if isinstance(value, str) else value
    done = preview(checkout, mutant={"name": name, "path": path, "value": given})
    assert done.returncode != 0, done.stdout
    found = set().union(*verdicts(done.stdout).values())
    assert found == {rule}, done.stdout + done.stderr
