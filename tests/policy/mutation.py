"""Mutants of every stack that ships, made from what the rules read, and judged: none may survive.

`python -m tests.policy.mutation` prints the counts. A setting is a path in a resource's inputs that
some rule asked for while the sound stack was judged, so a rule that reads something new has mutants of
it without anybody's doing; values come from what the provider takes there. What breaks which rule says
`tests.policy.oracle`.
"""

from __future__ import annotations

import contextlib
import copy
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pulumi_policy import ResourceValidationPolicy, StackValidationArgs, StackValidationPolicy
from pulumi_policy.secret import Secret
from typing_extensions import override

from tests.policy import judging, sheets, shipped
from tests.policy.judging import ANYWHERE, Res, plain
from tests.policy.oracle import Oracle, clear, limits, short
from tests.policy.sheets import ADDRESSES, MODELS, URL
from tests.support.shipped import STACKS
from toolchain.bootstrap import paths

import rules  # isort: skip - the pack's folder comes with judging
from plain_secrets import PLAIN_SECRETS  # isort: skip - likewise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.policy.oracle import Styled
    from tests.policy.shipped import Shipped

Path = tuple[str | int, ...]
Reads = dict[Path, set[str]]
GIB = 1 << 30
SAMPLE = 200
"""Of so many mutants one is shown to the whole pack, not only to the rules that asked."""
KEY = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"
EVERY = "*"
"""In a path, for having looked what there is."""
CLEAR = (
    ("qemu+ssh://root:hunter22@host.example/system", True),
    ("#cloud-config\nhostname: a\npassword: hunter22\n", True),
)
HARMLESS = (
    ("#cloud-config\nhostname: a\nssh_pwauth: false\n", False),
    ("qemu+ssh://root@host.example/system?keyfile=/root/id", False),
)
GONE = object()
"""Stands for an input that is taken out."""
KINDS = [f"nestlab:kind={kind}" for kind in ("esxi", "xenserver", "workstation", "guest")]
TAGS = [["nestlab-kind-esxi"], ["nestlab-kind-guest"], ["lab"]]
MAKERS = ["iso/proxmox-ve_8.4-1.iso", "iso/VMware-VMvisor-Installer-8.0.iso", "iso/debian.iso"]
CPUS = ["custom", "host-model", "host-passthrough", "maximum", "x86-64-v2-AES", "host", "max"]
NETWORKS = ["bridge", "passthrough", "hostdev", "nat", "none", "isolated", "route"]
SCREEN = {"type": "vnc", "listenType": "address", "listenAddress": ANYWHERE}
CHOICES: tuple[tuple[str, list[Any]], ...] = (
    (r"Domain\.type", ["qemu", "kvm", "xen", GONE]),
    (r"(Domain\.cpu\.mode|VmLegacy\.cpu\.type)", [*CPUS, GONE]),
    (r"VmLegacy\.cpu\.flags", [["-vmx"], ["+svm"], ["+aes"]]),
    (r".*\.(description|metadata|annotation)", [*KINDS, "a word", GONE]),
    (r"VmLegacy\.tags", [*TAGS, GONE]),
    (r"VmLegacy\.tags\.\*", [each[0] for each in TAGS]),
    (r".*\.guestId", ["vmkernel8Guest", "windowsHyperVGuest", "debian12_64Guest"]),
    (r".*\.(file|path|fileId|volumeId|url|source|sourceFile|iso|image|archive)",
     [URL, "ftp://media.example/a", *MAKERS, GONE]),
    (r".*\.tools", [{"bundle": URL}, {"bundle": "/srv/bundle"}]),
    (r".*\.(sha256|checksum)", ["00" * 32, GONE]),
    (r".*\.graphics", [GONE, SCREEN, {**SCREEN, "listenAddress": "127.0.0.1"}]),
    (r".*\.(listenAddress|listen|sourceHost)", [*ADDRESSES, GONE]),
    (r".*\.listenType", ["network", "socket", "none", GONE]),
    (r".*\.(graphics|console)\.type", ["vnc", "spice", "none", "rdp"]),
    (r".*\.console", [GONE, *({"type": "vnc", "listen": at, "port": 5901, "password": word}
                              for at in (ANYWHERE, "127.0.0.1") for word in ("", Secret("hidden")))]),
    (r".*\.consoles", [GONE, [{"type": "tcp", "sourceHost": ANYWHERE}]]),
    (r".*\.consoles\.\*", [{"type": "tcp", "sourceHost": at} for at in (ANYWHERE, "127.0.0.1")]),
    (r".*\.(consoles\.\*)\.type", ["tcp", "pty"]),
    (r".*\.(kvmArguments|args)", ["-vnc 0.0.0.0:7", "-vnc 127.0.0.1:7", "-cpu qemu64", "-smbios x"]),
    (r".*\.config", [{"kvm": 0}, {"cpu": "kvm64"}, {"cpu": "host,hidden=1"}, {"args": "-vnc 0.0.0.0:7"}]),
    (r".*\.config\.kvm", [0, 1]),
    (r".*\.config\.cpu", ["kvm64", "host"]),
    (r".*\.(extraConfig)", [{"RemoteDisplay.vnc.enabled": "TRUE", "RemoteDisplay.vnc.ip": at}
                            for at in ("", ANYWHERE, "127.0.0.1")]),
    (r".*\.RemoteDisplay\.vnc\.\w+", ["TRUE", "127.0.0.1"]),
    (r"(Network|RemoteObject)\.(wanted\.)?mode", [*NETWORKS, GONE]),
    (r".*\.networkInterfaces", [[], GONE, [{"bridge": "br0"}], [{"networkName": "theirs"}]]),
    (r"Domain\.networkInterfaces\.\*", [{"bridge": "br0"}, {"macvtap": "eno1"}, {"vepa": "eno1"},
                                        {"private": "eno1"}, {"passthrough": "eno1"}, {}]),
    (r".*\.(networkName|networkId|network|bridge|macvtap|vepa|private|passthrough|switch)",
     ["theirs", "br0", GONE]),
    (r".*\.(adapterType|model)", [*MODELS, GONE]),
    (r".*\.(own|nestedHvEnabled|template|allow\w+)", [True, False, GONE]),
    (r".*\.(cidr|owner|pool)", [GONE, "theirs"]),
    (r".*\.(port|vcpu|cores|sockets|memory|dedicated|memory_mib|disk_gib|numCpus|size)", []),
    (r".*\.(node|nodeName)", ["pve9"]),
    (r"RemoteObject\.wanted", [GONE]),
)  # fmt: skip
"""Values by path, for whatever is read at such a path; numbers are made from what is there."""
SIZES = re.compile(r".*\.(vcpu|cores|sockets|memory|dedicated|memory_mib|disk_gib|numCpus|size)$")
OTHERS = re.compile(r".*\.(name|addresses\.\*|subnet|cidr|bridge|path)$")
"""Settings that two networks or pools must not have in common."""


@dataclass(frozen=True)
class Mutant:
    """One resource with one setting changed."""

    changed: Res
    what: str
    styled: Styled | None = None
    """What its stylesheet does now."""
    means: Mapping[str, Any] | None = None
    """Inputs that would do what its stylesheet does."""


@dataclass
class Counts:
    """What came of the mutants of a stack."""

    name: str
    settings: int = 0
    mutants: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    """Mutants that break a rule, by rule."""
    survived: list[tuple[str, set[str], set[str]]] = field(default_factory=list)
    """What was changed, the rules that it breaks, those that spoke: not the same."""
    secrets: int = 0
    """Texts that got a key, or lost the mark of a secret."""


class Bench:
    """A sound stack, ready for one resource after the other to be changed."""

    def __init__(self, given: Shipped) -> None:
        self.given = given
        said = judging.judge(*given.resources)
        if said:
            raise AssertionError(f"{given.name} is not sound: {said}")
        self.stack = judging.stack_of(given.resources)
        self.shown = {each.urn: each for each in self.stack}
        self.asked = reads(given)

    def verdict(self, changed: Res, path: Path) -> set[str]:
        """The rules that speak when ``changed``, other at ``path``, is in the stack.

        Those that asked for nothing there see what they saw, and stay silent.
        """
        said: dict[str, list[str]] = {}
        names = self._affected(changed, path)
        policies = [policy for policy in rules.POLICIES if policy.name in names]
        judging.alone(changed, said, {}, policies)
        shown = self.shown[changed.urn]
        before = shown.props
        shown.props = plain(_kept(changed, self.given) | clear(changed.props))
        judging.whole(self.stack, said, {}, policies)
        shown.props = before
        return set(said)

    def everyone(self, changed: Res) -> set[str]:
        """The same, of the whole pack."""
        resources = [changed if each.urn == changed.urn else each for each in self.given.resources]
        kept = {each.urn: _kept(each, self.given) for each in resources}
        said = judging.judge(
            *(replace(each, outputs=kept[each.urn] | clear(each.props)) for each in resources)
        )
        return set(said)

    def _affected(self, changed: Res, path: Path) -> set[str]:
        base = clear(next(each.props for each in self.given.resources if each.urn == changed.urn))
        found: set[str] = set()
        for asked, names in self.asked[changed.urn].items():
            begins = asked == path[: len(asked)] and at(base, asked) is None
            if asked[: len(path)] == path or begins or asked == (*path[:-1], EVERY):
                found |= names
        return found


def _kept(changed: Res, given: Shipped) -> dict[str, Any]:
    """Outputs of a resource that are no inputs."""
    inputs = next(each.props for each in given.resources if each.urn == changed.urn)
    return {key: each for key, each in (changed.outputs or {}).items() if key not in inputs}


class _Asked(Mapping[str, Any]):
    """Inputs that note what is read of them."""

    def __init__(self, given: Mapping[str, Any], note: Any, path: Path) -> None:
        self.given, self.note, self.path = given, note, path

    @override
    def __getitem__(self, key: str) -> Any:
        return _asked(self.given[key], self.note, (*self.path, key))

    @override
    def get(self, key: str, default: Any = None) -> Any:
        return _asked(self.given.get(key, default), self.note, (*self.path, key))

    @override
    def __iter__(self) -> Iterator[str]:
        self.note((*self.path, EVERY))
        return iter(self.given)

    @override
    def __len__(self) -> int:
        self.note((*self.path, EVERY))
        return len(self.given)


class _AskedList(Sequence[Any]):
    """The same for a list."""

    def __init__(self, given: Sequence[Any], note: Any, path: Path) -> None:
        self.given, self.note, self.path = given, note, path

    @override
    def __getitem__(self, index: Any) -> Any:
        return _asked(self.given[index], self.note, (*self.path, index))

    @override
    def __len__(self) -> int:
        self.note((*self.path, EVERY))
        return len(self.given)


def _asked(given: Any, note: Any, path: Path) -> Any:
    note(path)
    if isinstance(given, dict):
        return _Asked(given, note, path)
    return _AskedList(given, note, path) if isinstance(given, list) else given


def reads(given: Shipped) -> dict[str, Reads]:
    """What rules ask of each resource, by its URN: paths, and the rules."""
    found: dict[str, Reads] = defaultdict(lambda: defaultdict(set))
    rule = ""

    def asked(urn: str, values: Any) -> Any:
        return _Asked(clear(values), lambda path: found[urn][path].add(rule), ())

    for each in given.resources:
        for policy in rules.POLICIES:
            rule = policy.name
            # It asks for every text there is: see `leaves`.
            if policy is not PLAIN_SECRETS and isinstance(policy, ResourceValidationPolicy):
                args = judging.args_of(each, asked(each.urn, each.props), {})
                policy.validate(args, lambda *_: None)
    stack = judging.stack_of(given.resources)
    for policy in rules.POLICIES:
        rule = policy.name
        for shown, each in zip(stack, given.resources, strict=True):
            # New ones for each rule: what is asked again of the same is answered from memory.
            shown.props = asked(each.urn, each.props)
        if isinstance(policy, StackValidationPolicy):
            policy.validate(StackValidationArgs(stack, {}), lambda *_: None)
    return found


def pattern(each: Res, path: Path) -> str:
    """A path in words that `CHOICES` knows."""
    return ".".join([short(each), *("*" if isinstance(key, int) else key for key in path)])


def at(given: Any, path: Path) -> Any:
    """What is at a path; None for nothing."""
    for key in path:
        if isinstance(given, dict):
            given = given.get(key)
        elif isinstance(given, list) and isinstance(key, int) and key < len(given):
            given = given[key]
        else:
            return None
    return given


def put(each: Res, path: Path, value: Any) -> Res | None:
    """The resource with another value at a path; None where there is nothing to put it into."""
    first, *rest = path
    props = dict(each.props)
    marked = isinstance(props.get(str(first)), Secret)
    whole = {first: copy.deepcopy(clear(props.get(str(first))))}
    inner: Any = whole
    for number, key in enumerate(path[:-1]):
        if inner.get(key) is None if isinstance(inner, dict) else False:
            if not isinstance(path[number + 1], str):
                return None
            inner[key] = {}
        inner = inner[key]
        if not isinstance(inner, dict | list):
            return None
    if value is GONE and isinstance(inner, dict):
        inner.pop(path[-1], None)
    elif value is GONE:
        return None
    else:
        inner[path[-1]] = value
    if not rest and value is GONE:
        props.pop(str(first), None)
    else:
        props[str(first)] = Secret(whole[first]) if marked else whole[first]
    return replace(each, props=props)


def values(given: Shipped, each: Res, path: Path, oracle: Oracle) -> list[Any]:
    """What to put at a path that a rule reads."""
    now, name = at(clear(each.props), path), pattern(each, path)
    found: list[Any] = []
    for form, choices in CHOICES:
        if re.fullmatch(form, name):
            found += choices
    if SIZES.match(name) and not isinstance(now, dict):
        found += list(_numbers(each, path, now, oracle))
    if OTHERS.match(name):
        found += _others(given, each, path)
    if not found:
        found = [1] if isinstance(now, int | float) and not isinstance(now, bool) else ["x"]
        if isinstance(now, dict | list):
            found = [GONE]
    return [value for value in found if value is GONE or value != now]


def _is_known(each: Res, path: Path) -> bool:
    return any(re.fullmatch(form, pattern(each, path)) for form, _ in CHOICES)


def _numbers(each: Res, path: Path, now: Any, oracle: Oracle) -> Iterator[float]:
    unit = GIB if short(each) == "Volume" else 1
    base = int(now or 0) // unit or 1
    wanted = {1, base - 1, base + 1, 2 * base, 16 * base, 1000 * base}
    kind = (
        oracle.hypervisor(each) if short(each) in {"Domain", "VmLegacy", "VirtualMachine"} else None
    )
    of = {"size": 2, "memory": 1, "dedicated": 1}.get(str(path[-1]), 0)
    if kind is not None:
        wanted |= {limits(kind)[of] - 1, limits(kind)[of]}
    elif unit == GIB:
        wanted |= {
            size
            for kind in ("kvm", "esxi", "hyperv")
            for size in (limits(kind)[2] - 1, limits(kind)[2])
        }
    yield from (float(number * unit) for number in sorted(wanted) if number > 0)


def _others(given: Shipped, each: Res, path: Path) -> list[Any]:
    """What other networks or pools of the lab have at such a place."""
    same = {"addresses": "subnet", 0: "subnet", "cidr": "subnet"}
    leaf = same.get(path[-1], path[-1])
    found = []
    for other in given.resources:
        if other.urn == each.urn or short(other) not in {
            "Network",
            "RemoteObject",
            "PveNetworkGate",
            "Pool",
        }:
            continue
        props = clear(other.props)
        wanted = props.get("wanted") or {}
        theirs = {
            "subnet": wanted.get("subnet")
            or props.get("cidr")
            or (props.get("addresses") or [None])[0],
            "name": wanted.get("name") or props.get("name"),
            "bridge": wanted.get("bridge") or props.get("bridge"),
            "path": (props.get("target") or {}).get("path") if short(other) == "Pool" else None,
        }
        if short(other) != "RemoteObject" or str(props["driver"]).endswith(".network"):
            found.append(theirs.get(str(leaf)))
    return [one for one in dict.fromkeys(found) if one]


def mutants(given: Shipped, oracle: Oracle) -> Iterator[tuple[Path, Mutant]]:
    """Every setting that a rule reads, with every value; and every effect that a stylesheet can have."""
    for urn, asked in reads(given).items():
        each = next(one for one in given.resources if one.urn == urn)
        around = {path[:length] for path in asked for length in range(len(path))}
        for path in asked:
            # Of what is not there but would hold something, the parts are put in.
            empty = path in around and at(clear(each.props), path) is None
            if path[:1] == ("xml",) or EVERY in path or (empty and not _is_known(each, path)):
                continue
            for value in values(given, each, path, oracle):
                if (changed := put(each, path, value)) is not None:
                    shown = "gone" if value is GONE else repr(value)[:60]
                    yield path, Mutant(changed, f"{each.name} {pattern(each, path)} {shown}")
        if short(each) == "RemoteObject" and (told := put(each, ("wanted", "macSpoofing"), True)):
            yield ("wanted", "macSpoofing"), Mutant(told, f"{each.name} allows MAC spoofing")
        if short(each) in {"Domain", "Network"}:
            yield from ((("xml",), Mutant(*one)) for one in sheets.sheets(each, oracle))


def leaves(given: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield the texts in inputs that are not secret."""
    if isinstance(given, str):
        yield path, given
    elif isinstance(given, dict):
        for key, inner in given.items():
            if not str(key).startswith("__"):
                yield from leaves(inner, (*path, key))
    elif isinstance(given, list):
        for number, inner in enumerate(given):
            yield from leaves(inner, (*path, number))


def secrets(given: Shipped) -> Iterator[tuple[Res, str, bool]]:
    """Yield resources that got a secret in clear (true), or what only looks like one."""
    for each in given.resources:
        for key, value in each.props.items():
            if isinstance(value, Secret) and shipped.HIDDEN in repr(clear(value)):
                bare = replace(each, props={**each.props, key: value.value})
                yield bare, f"{each.name} {key} is not marked any more", True
        for number, (path, _) in enumerate(leaves(dict(each.props))):
            for text, wrong in ((KEY, True), CLEAR[number % 2], HARMLESS[number % 2]):
                if (told := put(each, path, text)) is not None:
                    named = path[-1] == "password" and "\n" not in text
                    yield told, f"{each.name} {pattern(each, path)} {text[:20]!r}", wrong or named


def tried(given: Shipped) -> Counts:
    """Judge every mutant of one stack."""
    made = Counts(f"{given.name}{' (emulated)' if given.accelerator == 'tcg' else ''}")
    bench, oracle, settings = Bench(given), Oracle(given), set[tuple[str, Path]]()
    for path, mutant in mutants(given, oracle):
        settings.add((mutant.changed.urn, path))
        made.mutants += 1
        means = mutant.changed.props if mutant.means is None else mutant.means
        wanted = oracle.broken(mutant.changed, means, mutant.styled)
        made.broken.update(wanted)
        said = bench.verdict(mutant.changed, path)
        if made.mutants % SAMPLE == 0 and not _is_sure(bench, mutant, said):
            made.survived.append((f"{mutant.what} (whole pack)", wanted, said))
        if said != wanted:
            made.survived.append((mutant.what, wanted, said))
    for changed, what, wrong in secrets(given):
        made.secrets += 1
        judging.mark(changed)
        said = {"plain-secrets"} if _speaks(changed) else set()
        made.broken.update({"plain-secrets"} if wrong else ())
        if said != ({"plain-secrets"} if wrong else set()):
            made.survived.append((what, {"plain-secrets"} if wrong else set(), said))
    made.settings = len(settings)
    return made


def _is_sure(bench: Bench, mutant: Mutant, said: set[str]) -> bool:
    return bench.everyone(mutant.changed) - {PLAIN_SECRETS.name} == said


def _speaks(changed: Res) -> bool:
    said: list[str] = []
    PLAIN_SECRETS.validate(
        judging.args_of(changed, plain(changed.props), {}), lambda text, *_: said.append(text)
    )
    return bool(said)


def run(only: Iterable[str] = ()) -> list[Counts]:
    """Judge the mutants of every stack, on all cores."""
    with contextlib.chdir(paths.ROOT), ProcessPoolExecutor() as pool:
        # What a stack may do it says in its file, which the pack reads by the project's folder.
        numbers = range(2 * len(STACKS))
        made = [found for found in pool.map(_numbered, numbers) if found is not None]
    return [each for each in made if not only or each.name.split()[0] in only]


def _numbered(number: int) -> Counts | None:
    found = shipped.at(number)
    return None if found is None else tried(found)


def table(made: list[Counts]) -> str:
    """The counts by stack, and by rule."""
    head = ("settings", "mutants", "break a rule", "texts", "judged wrong")
    rows = {
        each.name: (
            each.settings,
            each.mutants,
            each.broken.total(),
            each.secrets,
            len(each.survived),
        )
        for each in made
    }
    rows["all"] = tuple(map(sum, zip(*rows.values(), strict=True)))  # type: ignore[assignment]
    lines = [_line("stack", head), *(_line(name, numbers) for name, numbers in rows.items())]
    by_rule: Counter[str] = sum((each.broken for each in made), Counter())
    missed = Counter(
        rule for each in made for _, wanted, said in each.survived for rule in wanted - said
    )
    alarms = Counter(
        rule for each in made for _, wanted, said in each.survived for rule in said - wanted
    )
    names = [policy.name for policy in rules.POLICIES if policy.name != "secret-marks"]
    lines += ["", _line("rule", ("broken by", "survived", "false alarms"))]
    lines += [_line(name, (by_rule[name], missed[name], alarms[name])) for name in names]
    return "\n".join(lines)


def _line(name: str, cells: Iterable[object]) -> str:
    return f"{name:<22}" + "".join(f"{cell:>14}" for cell in cells)


def main() -> int:
    """Print the counts; fail if a mutant was judged wrong."""
    began = time.monotonic()
    made = run(sys.argv[1:])
    for each in made:
        for what, wanted, said in each.survived:
            print(f"{each.name}: {what}: breaks {sorted(wanted)}, said {sorted(said)}")
    print(table(made))
    print(f"\n{time.monotonic() - began:.1f} s")
    return 1 if any(each.survived for each in made) else 0


if __name__ == "__main__":
    sys.exit(main())
