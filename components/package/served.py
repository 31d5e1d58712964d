"""What serves the component package: each component that the engine asks for is one of `components`.

The engine asks for components one by one, in whatever order their programs make them, and a plan takes
the whole lab. So a place says what it `holds`, and is made once all of that is there.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi.errors import InputPropertiesError
from pulumi.provider import ConstructResult, Provider, main
from typing_extensions import override

from components.contents import RefusedLab, known_now
from components.lab import Lab
from components.nested_hypervisor_lab import NestedHypervisorLab
from components.package.schema import (
    ANSWERS,
    CALLED,
    CHECKOUT,
    GROUPS,
    HOLDS,
    LAB,
    NAME,
    OUTPUTS,
    PASSWORD,
    PIECES,
    PLACE,
    TOKEN,
    VERSION,
    schema,
)
from components.stackfile import later
from components.stackfile.problems import Problem, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pulumi import Inputs, ResourceOptions

    from components.contents import Holder
    from components.piece import Piece

WAIT_S = 60.0
"""How long after the last piece a lab waits for the next one that it holds, seconds."""


def whole(value: Any) -> Any:
    """Return ``value`` with whole numbers as such: on the wire all numbers are floats."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [whole(each) for each in value]
    return value


def reason(problem: Problem) -> str:
    """Return ``problem`` without its path, which the engine tells by itself."""
    return f"{problem.found}, but {problem.rule}: {problem.remedy}"


@dataclass
class Site:
    """A lab whose pieces come one by one."""

    lab: Lab
    missing: set[str] = field(default_factory=set)
    """Paths of what is to come."""
    timer: asyncio.TimerHandle | None = None

    def came(self, path: str, holds: Sequence[str] = ()) -> None:
        """Take note of the piece ``path``, which ``holds`` more; make the lab if that was all."""
        self.missing.discard(path)
        self.missing |= set(holds)
        if self.timer:
            self.timer.cancel()
        if self.missing:
            self.timer = asyncio.get_running_loop().call_later(WAIT_S, self._give_up)
        else:
            self.lab.make()

    def _give_up(self) -> None:
        rule = f"its place holds it, and waited {WAIT_S:g} s for it"
        remedy = "make it without the output of another piece, or take it out of `holds`"
        self.lab.holds.draft.fail(
            RefusedLab(Problem(path, "nothing given", rule, remedy) for path in self.missing)
        )


class Components(Provider):
    """Serves the package's components."""

    def __init__(self) -> None:
        super().__init__(VERSION, json.dumps(schema()))
        self._places: dict[tuple[bool, str], asyncio.Future[Lab | NestedHypervisorLab]] = {}
        """Of a preview and of what comes after it, by name."""
        self._sites: dict[int, Site] = {}
        """By what the lab is drafted in."""

    @override
    def construct(
        self,
        name: str,
        resource_type: str,
        inputs: Inputs,
        options: ResourceOptions | None = None,
    ) -> ConstructResult:
        args: dict[str, Any] = dict(inputs) if isinstance(inputs, dict) else {}
        if resource_type == TOKEN:
            try:
                lab = self._lab(name, args, options)
            except RefusedLab as wrong:
                raise refusal(wrong, "lab.") from None
            return ConstructResult(
                lab.urn, {each: pulumi.Output.from_input(_of(lab, each)) for each in OUTPUTS}
            )
        kind = PIECES.get(resource_type)
        if kind is None:
            known = listed([TOKEN, *PIECES])
            raise pulumi.RunError(
                f"{resource_type} given, but {NAME} has {known}: take one of them"
            )
        made = asyncio.ensure_future(self._piece(name, kind, args, options))

        async def told(output: str) -> Any:
            return await _of(await asyncio.shield(made), output)

        async def urn() -> Any:
            return (await asyncio.shield(made)).urn

        state = {each: pulumi.Output.from_input(told(each)) for each in ANSWERS[resource_type]}
        return ConstructResult(pulumi.Output.from_input(urn()), state)

    def _lab(self, name: str, args: dict[str, Any], options: ResourceOptions | None) -> Lab:
        """Return the lab ``name``, made if it holds no more than its args say."""
        holds = held(args.pop(HOLDS, None), "lab")
        lab = _begun(name, args, options)
        if holds:
            lab.holds.draft.held = True
            self._sites[id(lab.holds.draft)] = site = Site(lab)
            site.came("lab", holds)
        else:
            lab.make()
        self._stands(name, lab)
        return lab

    async def _piece(
        self,
        name: str,
        kind: type[Piece[Any]],
        args: dict[str, Any],
        options: ResourceOptions | None,
    ) -> Piece[Any]:
        on, called = args.pop(PLACE, None), args.pop(CALLED, None) or name
        entry = {each: args.pop(each, None) for each in (PASSWORD, CHECKOUT)}
        around = args.pop(LAB, None)
        at = f"lab.{kind.group}.{called}."
        try:
            for field, value in args.items():
                if isinstance(value, pulumi.Output) and is_list(f"{at}{field}", args.get("kind")):
                    args[field] = await words_of(value, f"{at}{field}")
            # What is in the lab around it is refused with its own path, where it may not stand.
            _refuse_shapes({PLACE: on, CALLED: called, CHECKOUT: entry[CHECKOUT]}, {LAB: around})
            around_it = around if isinstance(around, pulumi.Output) else None
            _refuse_outputs({PLACE: on, CALLED: called, LAB: around_it})
            if on is None:
                beside = copy.copy(options)
                if beside is not None:
                    beside.aliases = []  # they are the piece's
                lab = _begun(name, {**(around or {}), **entry}, beside)
                lab.holds.draft.held = True
                self._sites[id(lab.holds.draft)] = Site(lab, {at[:-1]})
                return self._said(lab, kind, (name, called), args, options)
            place = await self._place(on)
            at = f"{place.holds.at}.{kind.group}.{called}."
            return self._said(place, kind, (name, called), args, options)
        except RefusedLab as refused:
            raise refusal(refused, at) from None

    def _said(
        self,
        on: Holder,
        kind: type[Piece[Any]],
        names: tuple[str, str],
        args: dict[str, Any],
        options: ResourceOptions | None,
    ) -> Piece[Any]:
        """Return the piece that is ``names[0]`` in the state and ``names[1]`` in the lab."""
        (name, called), draft = names, on.holds.draft
        at = f"{on.holds.at}.{kind.group}.{called}"
        site = self._sites.get(id(draft))
        if site is None or at not in site.missing:
            rule = "a place is planned with all that is on it, and this one does not say that it holds it"
            remedy = f"add {called} to its `{HOLDS}.{kind.group}`"
            raise RefusedLab([Problem(at, "a piece given", rule, remedy)])
        more = held(args.pop(HOLDS, None), at)
        on.holds.names[called] = name
        try:
            made = kind(called, whole(args), options, on=on)
            site.came(at, more)
        except RefusedLab as refused:
            draft.fail(refused)
            raise
        if isinstance(made, NestedHypervisorLab):
            self._stands(name, made)
        return made

    def _stands(self, name: str, place: Lab | NestedHypervisorLab) -> None:
        expected = self._expected(name)
        if expected.done():
            rule = "it is found by its name, which another Lab or NestedHypervisorLab has"
            raise RefusedLab([Problem(place.holds.at, f"{name!r} given", rule, "rename one")])
        expected.set_result(place)

    def _expected(self, name: str) -> asyncio.Future[Lab | NestedHypervisorLab]:
        known = (pulumi.runtime.is_dry_run(), name)
        return self._places.setdefault(known, asyncio.get_running_loop().create_future())

    async def _place(self, name: str) -> Lab | NestedHypervisorLab:
        """Wait for the place ``name``.

        Raises:
            RefusedLab: nobody made one.
        """
        try:
            return await asyncio.wait_for(asyncio.shield(self._expected(name)), WAIT_S)
        except TimeoutError:
            rule = f"a Lab or NestedHypervisorLab of the program is called so, and none came in {WAIT_S:g} s"
            raise RefusedLab(
                [Problem(PLACE, f"{name!r} given", rule, "name one that the program makes")]
            ) from None


def _begun(name: str, args: dict[str, Any], options: ResourceOptions | None) -> Lab:
    password, checkout = args.pop(PASSWORD, None), args.pop(CHECKOUT, None)
    _refuse_shapes({CHECKOUT: checkout}, {})
    return Lab(name, whole(args), options, checkout=checkout, password=password)


def held(given: Any, at: str) -> list[str]:
    """Return the paths of what the place ``at`` is said to hold."""
    _refuse_outputs({f"{at}.{HOLDS}": given})
    if given is not None and not (isinstance(given, dict) and all(map(_is_named, given.items()))):
        rule = f"a place says what it holds by names, in lists called {listed(GROUPS)}"
        remedy = "write it like {guests: [web]}"
        raise RefusedLab([Problem(f"{at}.{HOLDS}", "something else given", rule, remedy)])
    return [f"{at}.{group}.{name}" for group in GROUPS for name in (given or {}).get(group) or ()]


def _is_named(entry: tuple[Any, Any]) -> bool:
    """Whether an ``entry`` of `HOLDS` is a group of it with names."""
    group, names = entry
    if group not in GROUPS or not isinstance(names, list | type(None)):
        return False
    return all(isinstance(each, str) for each in names or ())


def _refuse_shapes(texts: Mapping[str, Any], mapping: Mapping[str, Any]) -> None:
    """See to it that what is given of ``texts`` are such, and of ``mapping`` are mappings: not each language does.

    Raises:
        RefusedLab: something is not.
    """
    for given, kind, word in ((texts, str, "a text"), (mapping, dict, "a mapping of fields")):
        for at, value in given.items():
            if value is not None and not isinstance(value, kind | pulumi.Output):
                rule, remedy = f"{word} is needed", "see docs/components.md"
                raise RefusedLab([Problem(at, "something else given", rule, remedy)])


async def words_of(given: pulumi.Output[Any], at: str) -> list[pulumi.Output[str]]:
    """Return the words of a list that came as a whole, each as secret as that is.

    Raises:
        RefusedLab: how many they are is not known yet.
    """
    known = await given.future()
    if known is None:
        rule = "it is planned with as many words as it has, and those are not known yet"
        remedy = "give a list, of which any word may be an output"
        raise RefusedLab([Problem(at, "an Output given", rule, remedy)])

    def word(number: int) -> pulumi.Output[str]:
        return given.apply(lambda words: str(words[number]))

    return [word(number) for number in range(len(known))]


def is_list(path: str, kind: object) -> bool:
    """Whether the field at ``path`` is a list of texts of which each may be known later."""
    return later.marked_at(f"{path}.0", kind) is not None


def _refuse_outputs(given: Mapping[str, Any]) -> None:
    """See to it that nothing in ``given`` is an output: it is asked for before any of it exists."""
    for at, value in given.items():
        known_now(value, at, {})


async def _of(made: Lab | Piece[Any], output: str) -> Any:
    """Return the ``output`` of ``made`` once its lab is made."""
    draft = made.holds.draft if isinstance(made, Lab) else made.draft
    try:
        await asyncio.shield(draft.whole)
    except RefusedLab as wrong:
        raise refusal(wrong, "lab.") from None
    return getattr(made, output)


def refusal(wrong: RefusedLab, at: str) -> InputPropertiesError:
    """Return ``wrong`` as the engine tells it, with paths as inputs of what is ``at`` that path."""
    told: list[Any] = [
        {"property_path": each.path.removeprefix(at).removeprefix("lab."), "reason": reason(each)}
        for each in wrong.problems
    ]
    return InputPropertiesError("the lab is refused", told)


def serve() -> None:
    """Serve the engine, whose address the command line ends with."""
    main(Components(), sys.argv[1:])
