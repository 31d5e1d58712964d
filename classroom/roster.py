"""Who is in a class: a CSV of students, or YAML with the class's settings and its students.

A roster comes from a spreadsheet or a school's system. All that is wrong in it is told at once, each
with the line and the column, and nothing is made for a roster that has something wrong in it.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import math
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

import yaml

from components.stackfile.problems import Problem, SpecError, choose, listed, shortened
from toolchain import stack_check
from toolchain.bootstrap import regular
from toolchain.engine import state

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MOST = 500
"""Students of one class: as many as machines of one lab."""
LARGEST = 1 << 20
"""Of a roster, bytes: 500 students with ten overrides each take a tenth of it."""
ID = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
CLASS = re.compile(r"[a-z][a-z0-9]{0,9}")
"""Name of a class; without a hyphen, so that no two classes and students make the same lab's name."""
LAB_CHARACTERS = 20
"""Of a lab's name (`components.stackfile.values`), which is CLASS-ID."""
NAME_CHARACTERS = 80
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""
OWN = ("id", "name", "until", "budget", "overrides")
"""What a student may have, beside overrides in columns of their own."""
SETTINGS = ("name", "template", "subnets", "until", "budget", "price", "hand_in", "students")
SUBNETS = "10.112.0.0/12"
"""The pool of subnets of a class that names none: 4096 networks of /24."""
WIDE, NARROW = 8, 24
"""Prefix lengths of a pool of subnets."""
MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": "a spreadsheet or an archive"}
"""How files begin that are no plain text."""
DELIMITERS = ",;\t"
MOST_VALUES = 50_000
"""Values in a YAML roster: 500 students with ten overrides each have a fifth of it."""


@dataclass(frozen=True)
class Student:
    """One line of a roster."""

    id: str
    name: str
    at: str
    """Where in the roster, for messages."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Values by their paths in the lab, such as ``hypervisors.kvm1.memory_mib``."""
    until: dt.date | None = None
    """Last day of the lab."""
    budget: float | None = None
    """Most that the lab may use altogether, GiB of memory times hours."""


@dataclass(frozen=True)
class Roster:
    """A class as its file says."""

    name: str
    students: tuple[Student, ...]
    template: str | None = None
    """Stack whose file is the template; None: it is said elsewhere."""
    subnets: IPv4Network = field(default_factory=lambda: IPv4Network(SUBNETS))
    """Pool that each lab's networks on the outer host are taken from."""
    price: float | None = None
    """Of one GiB of memory for an hour, in whatever the teacher counts in."""
    hand_in: str = ""
    """What students are to hand in, for their sheets."""


def read(file: Path, name: str | None = None) -> Roster:
    """Return the class that ``file`` describes; ``name``: what it is called, if not as the file.

    Raises:
        SpecError: all that is wrong in it, each with line and column.
    """
    text = _text(file)
    if file.suffix.lower() in {".yaml", ".yml"}:
        return _Yaml(file, text).roster(name)
    if file.suffix.lower() not in {".csv", ".tsv", ".txt"}:
        rule = "a roster is a CSV, or YAML"
        raise SpecError([Problem(str(file), "a file given", rule, "call it NAME.csv or NAME.yaml")])
    problems: list[Problem] = []
    called = named(name or file.stem.lower(), str(file), problems)
    students = _students(_rows(file, text, problems), called, problems)
    if problems:
        raise SpecError(problems)
    return Roster(called, students)


def named(name: str, at: str, problems: list[Problem]) -> str:
    """Return the name of a class; what is wrong with it goes to ``problems``."""
    if not CLASS.fullmatch(name):
        rule = "a class is called by at most 10 lower-case letters and digits, a letter first"
        remedy = "name the class: --name NAME, or name: in the YAML"
        problems.append(Problem(at, f"the name {name!r} given", rule, remedy))
    return name


def _text(file: Path) -> str:
    try:
        told = regular.read(file, LARGEST)
    except FileNotFoundError:
        remedy = "give the path of a CSV or YAML file"
        raise SpecError(
            [Problem(str(file), "a roster named", "there is no such file", remedy)]
        ) from None
    except (OSError, regular.Irregular) as wrong:
        why = getattr(wrong, "strerror", None) or f"it {wrong}"
        raise SpecError(
            [Problem(str(file), "a roster named", str(why), "give the path of a text file")]
        ) from None
    kind = next((what for mark, what in MARKS.items() if told.startswith(mark)), "")
    if kind:
        rule = f"it is {kind}, and a roster is plain text in UTF-8"
        raise SpecError([Problem(str(file), "a file given", rule, "save it as `CSV UTF-8`")])
    try:
        text = told.decode("utf-8-sig")
    except UnicodeDecodeError as broken:
        line = told.count(b"\n", 0, broken.start) + 1
        column = broken.start - told.rfind(b"\n", 0, broken.start)
        given = f"the byte 0x{told[broken.start]:02x} given in column {column}"
        rule = "a roster is text in UTF-8, and no letter of it has that byte"
        remedy = "save it as `CSV UTF-8`: names with accents are wrong in other encodings"
        raise SpecError([Problem(f"{file.name}:{line}", given, rule, remedy)]) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        rule = "a roster is plain text"
        raise SpecError([Problem(f"{file.name}:{line}", "a zero byte given", rule, "save it anew")])
    return text


@dataclass(frozen=True)
class _Row:
    """A student as read: what stands in which field, and where."""

    at: str
    cells: Mapping[str, Any]

    def where(self, field_: str) -> str:
        return f"{self.at}:{field_}"


def _rows(file: Path, text: str, problems: list[Problem]) -> list[_Row]:
    lines = text.splitlines()
    head = next((line for line in lines if line.strip()), "")
    delimiter = max(DELIMITERS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    rows = []
    try:
        for cells in reader:
            told = [cell.strip(" ") for cell in cells]
            at = f"{file.name}:{reader.line_num}"
            if not any(told):
                continue
            if not columns:
                columns = _columns(told, at, problems)
                continue
            if len(told) != len(columns):
                given = f"{len(told)} cells given"
                rule = f"the first line names {len(columns)} columns"
                problems.append(Problem(at, given, rule, "quote a cell that holds a comma"))
                continue
            rows.append(_Row(at, dict(zip(columns, told, strict=True))))
    except csv.Error as broken:
        at = f"{file.name}:{reader.line_num}"
        problems.append(Problem(at, str(broken), "it is no CSV from there on", "mend the quotes"))
    if not columns:
        rule = "its first line names the columns, and each further one is a student"
        problems.append(Problem(file.name, "nothing given", rule, "begin with: id,name"))
    elif not rows and not problems:
        rule = "each line after the first is a student"
        problems.append(Problem(file.name, "no student given", rule, "add a line for each"))
    return rows


def _columns(told: list[str], at: str, problems: list[Problem]) -> list[str]:
    columns = [each if "." in each else each.lower() for each in told]
    known = [each for each in OWN if each != "overrides"]
    for number, each in enumerate(columns, 1):
        where = f"{at}, column {number}"
        if each in columns[: number - 1]:
            rule = "a column is there once"
            problems.append(Problem(where, f"{each!r} given again", rule, "remove one"))
        elif "." not in each and each not in known:
            rule = (
                f"columns are {listed(known)}, and paths in the lab such as "
                "hypervisors.kvm1.memory_mib"
            )
            problems.append(Problem(where, f"{each!r} given", rule, choose(each, known)))
    if "id" not in columns:
        rule = "the first line names the columns, and one of them is `id`"
        given = f"the columns {listed(shortened(each, 20) for each in columns)} given"
        problems.append(Problem(at, given, rule, "begin with a line such as: id,name"))
    return columns


def _students(rows: Iterable[_Row], called: str, problems: list[Problem]) -> tuple[Student, ...]:
    found: dict[str, Student] = {}
    for number, row in enumerate(rows, 1):
        if number > MOST:
            rule = f"a class has at most {MOST} students"
            problems.append(
                Problem(row.at, "one more student given", rule, "make two classes of it")
            )
            break
        student = _student(row, called, problems)
        if student is None:
            continue
        if first := found.get(student.id):
            rule = f"{first.at} has it, and each student has an id of their own"
            problems.append(
                Problem(row.where("id"), f"{student.id!r} given again", rule, "correct it")
            )
            continue
        found[student.id] = student
    return tuple(found.values())


def _student(row: _Row, called: str, problems: list[Problem]) -> Student | None:
    if "id" not in row.cells:
        problems.append(Problem(row.at, "no id given", "each student has one", "add id:"))
        return None
    before = len(problems)
    _formulas(row, problems)
    id_ = _id(row, called, problems)
    name = row.cells.get("name") or id_
    if not isinstance(name, str) or len(name) > NAME_CHARACTERS or not name.isprintable():
        rule = f"a name is text of at most {NAME_CHARACTERS} characters that can be seen"
        problems.append(Problem(row.where("name"), f"{str(name)!r} given", rule, "correct it"))
    student = Student(
        id_,
        str(name),
        row.at,
        _overrides(row, problems),
        date(row.cells.get("until"), row.where("until"), problems),
        amount(row.cells.get("budget"), row.where("budget"), problems),
    )
    return student if len(problems) == before else None


def _formulas(row: _Row, problems: list[Problem]) -> None:
    for column, told in row.cells.items():
        if isinstance(told, str) and told.startswith(FORMULA):
            rule = f"a spreadsheet takes what begins with {told[0]!r} for a formula"
            problems.append(Problem(row.where(column), f"{told!r} given", rule, "write it without"))


def _id(row: _Row, called: str, problems: list[Problem]) -> str:
    told = row.cells["id"]
    # A number in YAML is one that a school has given; 007 is quoted there.
    told = str(told) if isinstance(told, int) and not isinstance(told, bool) else told
    most = LAB_CHARACTERS - len(called) - 1
    if not isinstance(told, str) or not ID.fullmatch(told) or len(told) > most:
        rule = (
            f"an id is 1 to {most} lower-case letters, digits and hyphens, neither first nor last a "
            f"hyphen: it is part of the lab's name {called}-ID"
        )
        low = str(told).strip().lower()
        fits = ID.fullmatch(low) and len(low) <= most and low != told
        remedy = f"write {low!r}" if fits else "give the student a short id"
        problems.append(Problem(row.where("id"), f"{told!r} given", rule, remedy))
    return str(told)


def _overrides(row: _Row, problems: list[Problem]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column, told in row.cells.items():
        if "." not in column or told == "":
            continue
        value = stack_check.scalar(told)
        if isinstance(value, dict | list):
            rule = "a cell holds one value: a number, a word, true or false"
            problems.append(Problem(row.where(column), f"{told!r} given", rule, "write it in YAML"))
        found[column] = value
    more = row.cells.get("overrides") or {}
    if not isinstance(more, dict) or not all(isinstance(each, str) for each in more):
        rule = "overrides are values by their paths in the lab"
        remedy = "write it like {hypervisors.kvm1.memory_mib: 6144}"
        problems.append(Problem(row.where("overrides"), "something else given", rule, remedy))
        return found
    return found | more


def date(told: Any, at: str, problems: list[Problem]) -> dt.date | None:
    """Return the day that ``told`` is; None for none."""
    if told is None or told == "":
        return None
    try:
        return dt.date.fromisoformat(str(told))
    except ValueError:
        rule = "a day is written as YEAR-MONTH-DAY"
        problems.append(Problem(at, f"{str(told)!r} given", rule, "write it like 2027-01-31"))
        return None


def amount(told: Any, at: str, problems: list[Problem]) -> float | None:
    """Return the amount that ``told`` is, above 0; None for none."""
    if told is None or told == "":
        return None
    try:
        value = math.nan if isinstance(told, bool) else float(told)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 < value < math.inf:
        rule = "an amount is a number above 0"
        problems.append(Problem(at, f"{str(told)!r} given", rule, "write it like 12.5"))
        return None
    return value


class _Yaml:
    """A roster in YAML: settings of the class, and its students."""

    def __init__(self, file: Path, text: str) -> None:
        self.file, self.problems = file, list[Problem]()
        told = stack_check.document(text.encode(), file.name)
        if _is_endless(told):
            rule = f"a class is described with at most {MOST_VALUES}"
            raise SpecError([Problem(file.name, "more values given", rule, "write no aliases")])
        if not isinstance(told, dict):
            rule = f"a class is a mapping of {listed(SETTINGS)}"
            raise SpecError([Problem(file.name, "something else given", rule, "see docs/class.md")])
        self.told: dict[str, Any] = told
        self.lines = _lines(text)

    def at(self, *path: object) -> str:
        """Return where ``path`` is, with its line."""
        line = next(
            (self.lines[p] for n in range(len(path), -1, -1) if (p := path[:n]) in self.lines), 1
        )
        return f"{self.file.name}:{line}" + (f":{'.'.join(map(str, path))}" if path else "")

    def roster(self, name: str | None) -> Roster:
        for key in self.told:
            if key not in SETTINGS:
                rule = f"a class has {listed(SETTINGS)}"
                self._wrong(key, f"{str(key)!r} given", rule, choose(str(key), SETTINGS))
        called = named(
            str(name or self.told.get("name") or self.file.stem.lower()),
            self.at("name"),
            self.problems,
        )
        students = _students(self._rows(), called, self.problems)
        until = date(self.told.get("until"), self.at("until"), self.problems)
        budget = amount(self.told.get("budget"), self.at("budget"), self.problems)
        found = Roster(
            called,
            tuple(
                Student(s.id, s.name, s.at, s.overrides, s.until or until, s.budget or budget)
                for s in students
            ),
            self._template(),
            self._subnets(),
            amount(self.told.get("price"), self.at("price"), self.problems),
            self._hand_in(),
        )
        if self.problems:
            raise SpecError(self.problems)
        return found

    def _wrong(self, key: object, found: str, rule: str, remedy: str) -> None:
        self.problems.append(Problem(self.at(key), found, rule, remedy))

    def _template(self) -> str | None:
        told = self.told.get("template")
        if told is not None and not (isinstance(told, str) and state.NAME.fullmatch(told)):
            self._wrong("template", f"{told!r} given", "it is the name of a stack", "see stacks/")
            return None
        return told

    def _subnets(self) -> IPv4Network:
        told = self.told.get("subnets", SUBNETS)
        try:
            pool = IPv4Network(told if isinstance(told, str) else "")
        except ValueError:
            pool = IPv4Network("0.0.0.0/0")
        if not WIDE <= pool.prefixlen <= NARROW:
            rule = f"a pool is an IPv4 subnet of /{WIDE} to /{NARROW}, its bits beyond the prefix 0"
            self._wrong("subnets", f"{told!r} given", rule, f"write it like {SUBNETS}")
        return pool

    def _hand_in(self) -> str:
        told = self.told.get("hand_in") or ""
        if not isinstance(told, str):
            self._wrong(
                "hand_in", "something else given", "it is a text", "write it below hand_in: |"
            )
        return str(told)

    def _rows(self) -> list[_Row]:
        told = self.told.get("students")
        if isinstance(told, str) and told.isprintable():
            other = self.file.parent / told
            try:
                return _rows(other, _text(other), self.problems)
            except SpecError as wrong:
                self.problems += wrong.problems
                return []
        if not isinstance(told, list) or not told:
            rule = "students are a list, or the path of a CSV"
            self._wrong("students", "nothing of that kind given", rule, "add students: [{id: ana}]")
            return []
        rows = []
        for number, each in enumerate(told):
            cells = each if isinstance(each, dict) else {"id": each}
            for key in cells:
                if key not in OWN:
                    rule = f"a student has {listed(OWN)}"
                    given, remedy = f"{str(key)!r} given", choose(str(key), OWN)
                    self.problems.append(
                        Problem(self.at("students", number, key), given, rule, remedy)
                    )
            rows.append(_Row(self.at("students", number), cells))
        return rows


def _is_endless(told: object) -> bool:
    """Whether there is more in ``told`` than is looked at; aliases make much of few letters."""
    waiting, seen = [told], 0
    while waiting and seen <= MOST_VALUES:
        value = waiting.pop()
        seen += 1
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return seen > MOST_VALUES


def _lines(text: str) -> dict[tuple[object, ...], int]:
    """Return the line of each value of a YAML text, by its path."""
    found: dict[tuple[object, ...], int] = {}
    waiting: list[tuple[tuple[object, ...], yaml.Node | None]] = [
        ((), yaml.compose(text, yaml.SafeLoader))
    ]
    while waiting:
        path, node = waiting.pop()
        if node is None or len(found) > MOST_VALUES:
            continue
        found[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            waiting += [((*path, str(key.value)), value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [((*path, number), each) for number, each in enumerate(node.value)]
    return found
