"""Rosters come from spreadsheets: what is wrong in one is told with line and column, all at once."""

from __future__ import annotations

import datetime as dt
import os
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest

from classroom import roster
from components.stackfile import SpecError
from toolchain.bootstrap import ui

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "id,name,until,budget,hypervisors.kvm1.memory_mib\nana,Ana Puig,2027-01-31,12.5,6144\nb0b,Bob,,,\n"


def written(folder: Path, text: str | bytes, name: str = "net1.csv") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_a_csv_is_read(tmp_path: Path) -> None:
    found = roster.read(written(tmp_path, GOOD))
    ana, bob = found.students
    assert (found.name, found.template, found.subnets) == (
        "net1",
        None,
        IPv4Network("10.112.0.0/12"),
    )
    assert (ana.id, ana.name, ana.at) == ("ana", "Ana Puig", "net1.csv:2")
    assert (ana.until, ana.budget) == (dt.date(2027, 1, 31), 12.5)
    assert ana.overrides == {"hypervisors.kvm1.memory_mib": 6144}
    assert (bob.id, bob.until, bob.budget, dict(bob.overrides)) == ("b0b", None, None, {})


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfid,name\nana,Ana\n",
        "id;name\r\nana;Ana\r\n",
        "ID\tName\nana\tAna\n",
        '"id","name"\n\n"ana","Ana"\n\n',
        " id , name \n ana , Ana \n",
    ],
    ids=[
        "a mark of UTF-8",
        "as Excel elsewhere",
        "tabs, capitals",
        "quotes, empty lines",
        "blanks",
    ],
)
def test_what_spreadsheets_write_is_read(text: str | bytes, tmp_path: Path) -> None:
    (ana,) = roster.read(written(tmp_path, text)).students
    assert (ana.id, ana.name) == ("ana", "Ana")


def test_yaml_has_settings_and_students(tmp_path: Path) -> None:
    text = """\
name: virt
template: course
subnets: 10.200.0.0/16
until: 2027-02-01
budget: 100
price: 0.02
hand_in: The output of virsh list.
students:
  - ana
  - id: bob
    name: Bob
    overrides: {hypervisors.kvm1.memory_mib: 6144}
    budget: 50
"""
    found = roster.read(written(tmp_path, text, "net1.yaml"))
    ana, bob = found.students
    assert (found.name, found.template, found.price) == ("virt", "course", 0.02)
    assert found.subnets == IPv4Network("10.200.0.0/16")
    assert found.hand_in == "The output of virsh list."
    assert (ana.id, ana.name, ana.until, ana.budget) == ("ana", "ana", dt.date(2027, 2, 1), 100)
    assert (bob.name, bob.budget, bob.overrides["hypervisors.kvm1.memory_mib"]) == ("Bob", 50, 6144)


def test_yaml_may_name_a_csv(tmp_path: Path) -> None:
    written(tmp_path, "id\nana\n", "students.csv")
    found = roster.read(written(tmp_path, "students: students.csv\n", "net1.yaml"))
    assert [each.id for each in found.students] == ["ana"]


WRONG: dict[str, tuple[str | bytes, str, str]] = {
    "no such column": ("name\nAna\n", "net1.csv:1", "one of them is `id`"),
    "a column nobody knows": ("id,nmae\nana,Ana\n", "net1.csv:1, column 2", "did you mean 'name'?"),
    "a column twice": ("id,name,id\nana,A,b\n", "net1.csv:1, column 3", "'id' given again"),
    "an id twice": ("id\nana\nbob\nana\n", "net1.csv:4:id", "net1.csv:2 has it"),
    "an id in capitals": ("id\nAna\n", "net1.csv:2:id", "write 'ana'"),
    "an odd id": ("id\n../etc\n", "net1.csv:2:id", "'../etc' given"),
    "no id": ("id,name\n,Ana\n", "net1.csv:2:id", "'' given"),
    "too long an id": ("id\n0123456789abcdef\n", "net1.csv:2:id", "1 to 15"),
    "a formula": ("id,name\nana,=HYPERLINK(1)\n", "net1.csv:2:name", "for a formula"),
    "a formula by a sign": ("id,name\nana,@SUM\n", "net1.csv:2:name", "for a formula"),
    "a name that can't be seen": ("id,name\nana,A\u202eb\n", "net1.csv:2:name", "can be seen"),
    "too few cells": ("id,name\nana\n", "net1.csv:2", "1 cells given"),
    "too many cells": ("id,name\nana,Puig, Ana\n", "net1.csv:2", "quote a cell"),
    "a quote left open": ('id,name\nana,"Ana\n', "net1.csv:2", "mend the quotes"),
    "no day": ("id,until\nana,31/01/2027\n", "net1.csv:2:until", "write it like 2027-01-31"),
    "no amount": ("id,budget\nana,-3\n", "net1.csv:2:budget", "for a formula"),
    "nothing of a budget": ("id,budget\nana,0\n", "net1.csv:2:budget", "above 0"),
    "an endless budget": ("id,budget\nana,inf\n", "net1.csv:2:budget", "above 0"),
    "empty": ("", "net1.csv", "nothing given"),
    "nobody": ("id,name\n", "net1.csv", "no student given"),
    "another encoding": ("id,name\nana,Núria\n".encode("latin-1"), "net1.csv:2", "0xfa"),
    "two bytes a letter": ("id\nana\n".encode("utf-16"), "net1.csv", "it is UTF-16"),
    "a spreadsheet": (b"PK\x03\x04", "net1.csv", "a spreadsheet"),
    "a zero byte": ("id\na\0na\n", "net1.csv:2", "zero byte"),
    "several values in a cell": ("id,boot.x\nana,[1]\n", "net1.csv:2:boot.x", "one value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_its_place(name: str, tmp_path: Path) -> None:
    text, place, words = WRONG[name]
    with pytest.raises(SpecError) as told:
        roster.read(written(tmp_path, text))
    lines = str(told.value).splitlines()
    assert any(f"{place}: " in line and words in line for line in lines), lines


def test_all_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as told:
        roster.read(written(tmp_path, "id,until\nAna,x\nbob,y\nbob,2027-01-01\n"))
    assert len(told.value.problems) == 3  # of the second line two, of the third one


def test_there_is_an_end_to_a_class(tmp_path: Path) -> None:
    text = "id\n" + "".join(f"s{number}\n" for number in range(roster.MOST + 5))
    with pytest.raises(SpecError, match="at most 500 students: make two"):
        roster.read(written(tmp_path, text))
    with pytest.raises(SpecError, match="more than 1 MiB"):
        roster.read(written(tmp_path, b"x" * (roster.LARGEST + 1)))


@pytest.mark.parametrize("name", ["Net-1.csv", "1a.csv", "averylongname.csv", "a.b.csv"])
def test_a_class_has_a_name_that_labs_can_begin_with(name: str, tmp_path: Path) -> None:
    file = written(tmp_path, "id\nana\n", name)
    with pytest.raises(SpecError, match="--name NAME"):
        roster.read(file)
    assert roster.read(file, "net1").name == "net1"


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net1.csv")
    with pytest.raises(SpecError, match="no regular file"):
        roster.read(tmp_path / "net1.csv")
    with pytest.raises(SpecError, match="there is no such file"):
        roster.read(tmp_path / "net2.csv")
    with pytest.raises(SpecError, match="call it NAME"):
        roster.read(written(tmp_path, "", "net1.xlsx"))


YAML = {
    "a setting nobody knows": ("subnet: 10.0.0.0/8\nstudents: [ana]\n", ":1:subnet", "'subnets'?"),
    "no pool": ("subnets: 10.0.0.1/8\nstudents: [ana]\n", ":1:subnets", "bits beyond"),
    "a pool of one network": ("subnets: 10.0.0.0/28\nstudents: [ana]\n", ":1:subnets", "/24"),
    "nobody": ("template: course\n", ":1", "add students"),
    "a field nobody knows": ("students:\n- id: ana\n  nam: A\n", ":3:students.0.nam", "'name'?"),
    "an id twice": ("students:\n- ana\n- ana\n", ":3:students.1:id", "given again"),
    "no id": ("students:\n- {name: Ana}\n", ":2:students.0", "no id given"),
    "no stack": ("template: ../x\nstudents: [ana]\n", ":1:template", "name of a stack"),
    "overrides that are none": ("students:\n- {id: ana, overrides: 3}\n", "overrides", "by their"),
    "a list": ("- ana\n", "net1.yaml", "is a mapping"),
    "more than a number holds": (f"price: {'9' * 400}\nstudents: [a]\n", ":1:price", "above 0"),
    "more than can be said": (f"price: 0x{'f' * 6000}\nstudents: [a]\n", ":1:price", "above 0"),
    "a path that is none": ('students: "x\\0y"\n', ":1:students", "the path of a CSV"),
    "another that is none": ('students: "\\ud800"\n', ":1:students", "the path of a CSV"),
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    text, place, words = YAML[name]
    with pytest.raises(SpecError) as told:
        roster.read(written(tmp_path, text, "net1.yaml"))
    assert any(place in line and words in line for line in str(told.value).splitlines()), str(
        told.value
    )


@pytest.mark.parametrize("word", ["!!bool x", "!!timestamp x", "!!float ''"])
def test_a_tag_that_does_not_fit_is_told(word: str, tmp_path: Path) -> None:
    with pytest.raises(ui.Problem, match="which it is said to be"):
        roster.read(written(tmp_path, f"price: {word}\nstudents: [ana]\n", "net1.yaml"))
    # A cell is a text where it means nothing else.
    read = roster.read(written(tmp_path, f"id,host.uri\nana,{word}\n"))
    assert read.students[0].overrides == {"host.uri": word}


def test_yaml_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ui.Problem, match="can't be read"):
        roster.read(written(tmp_path, "students: [", "net1.yaml"))


def test_aliases_end(tmp_path: Path) -> None:
    """Few letters that stand for a billion values are refused in no time."""
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(24)
    )
    with pytest.raises(ui.Problem, match="no aliases of aliases"):
        roster.read(written(tmp_path, bomb + "students: *y\n", "net1.yaml"))
