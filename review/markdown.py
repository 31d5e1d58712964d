"""A report as one Markdown comment, in which whatever came from a branch is text and nothing else.

No mention, no link, no picture, no HTML and no end of a comment comes through `text`; in a diagram
names are numbers, and labels are letters, digits and what is written as an entity.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from review.report import Bill, Change, Finding, Node, Report, Stack, Version

MARKER = "<!-- nestlab review -->"
"""First line of a comment of ours; GitHub shows it to nobody."""
LARGEST = 65_536
"""Of a comment's body, characters (GitHub's own bound; an error message of its API says so)."""
PLAIN = re.compile(r"[A-Za-z0-9 ,;?/%'\"=+.]")
"""Letters that mean nothing to Markdown, HTML or GitHub where they stand by themselves."""
ROWS, SHOWN_NODES, LETTERS, LABEL, LINES = 60, 60, 300, 60, 40
"""The most that is shown of a table's rows, a picture's boxes, the letters of a text and of a box, a refusal's lines."""
WORDS = {"create": "added", "update": "changed", "replace": "replaced", "delete": "deleted"}
HASH = re.compile(r"[0-9A-Fa-f]{7,}")
JOINED = "\u2060"
"""WORD JOINER: breaks what GitHub makes links of, and is not seen."""


def comment(report: Report) -> str:
    """Return the comment: the marker, a heading, a part for each stack; what did not fit is said."""
    head = f"{MARKER}\n## What this pull request does to labs\n\n"
    head += f"{text(report.head)} compared with {text(report.base)}, by the code of {text(report.base)}.\n"
    if not report.stacks:
        return f"{head}\nNo stack changes.\n"
    head += f"\n{_overview(report.stacks)}\n"
    whole = [_stack(each) for each in report.stacks]
    short = [_stack(each, pictures=False) for each in report.stacks]
    tiny = [_title(each) for each in report.stacks]
    left = f"\n{report.left_out} more stacks are not shown.\n" if report.left_out else ""
    for number in range(len(whole) + 1):
        # Those that come last are shortened first.
        keep = len(whole) - number
        body = head + "".join(whole[:keep] + short[keep:]) + left
        if number:
            body += f"\nTo fit into a comment, the pictures of {number} stacks were left out.\n"
        if len(body) <= LARGEST:
            return body
    for number in range(1, len(short) + 1):
        keep = len(short) - number
        body = head + "".join(short[:keep] + tiny[keep:]) + left
        body += f"\nTo fit into a comment, all pictures and the details of {number} stacks were left out.\n"
        if len(body) <= LARGEST:
            return body
    said = "\nTo fit into a comment, the rest was left out: the report of the first job has it.\n"
    return head[: LARGEST - len(said)].rpartition("\n")[0] + said


def text(given: str, most: int = LETTERS) -> str:
    """Return ``given`` as it reads, with nothing that Markdown, HTML or GitHub acts upon."""
    shown = given if len(given) <= most else f"{given[:most]}… ({len(given) - most} letters more)"
    # GitHub makes a link of what may be a commit's hash, too.
    words = HASH.sub(
        lambda found: re.sub("(.{6})", rf"\1{JOINED}", found[0]), "".join(_spelled(shown))
    )
    return "".join(map(_letter, words))


def _letter(letter: str) -> str:
    # A full stop makes links of www.example.org, which an invisible joiner ends.
    if letter == ".":
        return f".{JOINED}"
    if PLAIN.fullmatch(letter) or letter.isalnum() or letter in f"…{JOINED}":
        return letter
    # A number reference is no markup, whatever it stands for; GitHub finds @names and links after that.
    return f"&#{ord(letter)};{JOINED}" if letter in "@:#-_" else f"&#{ord(letter)};"


def _spelled(given: str) -> list[str]:
    """Return ``given`` in one line, with what is not seen, or turns the direction, written out."""
    said = []
    for letter in given:
        if letter in "\n\r\t":
            said.append(" ")
        elif unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
            said.append(f"<U+{ord(letter):04X}>")
        else:
            said.append(letter)
    return said


def label(given: str) -> str:
    """Return ``given`` as a label of Mermaid's: what is no letter, digit or blank as an entity of its own."""
    shown = "".join(_spelled(given if len(given) <= LABEL else f"{given[:LABEL]}…"))
    return "".join(
        each if each.isascii() and (each.isalnum() or each in " .") else f"#{ord(each)};"
        for each in shown
    )


def _overview(stacks: Iterable[Stack]) -> str:
    lines = [
        "| stack | | added | changed | replaced | deleted | memory | cores | disk | addresses |"
    ]
    lines.append("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for each in stacks:
        counts = dict.fromkeys(WORDS, 0)
        for change in each.changes:
            counts[change.operation] += 1
        numbers = " | ".join(str(counts[word]) for word in WORDS)
        lines.append(
            f"| {text(each.name)} | {_fate(each)} | {numbers} | {' | '.join(_sums(each))} |"
        )
    return "\n".join(lines)


def _fate(each: Stack) -> str:
    return f"renamed from {text(each.was)}" if each.was else each.fate


def _sums(each: Stack) -> list[str]:
    before, after = (one.bill if one else None for one in (each.before, each.after))
    return [
        _sum(before, after, name, unit)
        for name, unit in (
            ("memory_mib", " MiB"), ("cores", ""), ("disk_gib", " GiB"), ("addresses", ""),
        )
    ]  # fmt: skip


def _sum(before: Bill | None, after: Bill | None, name: str, unit: str) -> str:
    if before is None and after is None:
        return "not known"
    old, new = (int(getattr(each, name)) if each else 0 for each in (before, after))
    return f"{new}{unit}" if old == new else f"{new}{unit} ({new - old:+d})"


def _title(each: Stack) -> str:
    return f"\n### {text(each.name)}: {_fate(each)}\n"


def _stack(each: Stack, *, pictures: bool = True) -> str:
    parts = [_title(each)]
    if each.refused:
        lines = each.refused.splitlines()
        parts.append(
            "It would be refused:\n\n" + "\n".join(f"- {text(line, 600)}" for line in lines[:LINES])
        )
        parts += [f"\n{len(lines) - LINES} more lines are not shown."] if len(lines) > LINES else []
    if each.losses:
        parts.append("**What is lost:**\n\n" + _list(each.losses))
    if each.findings:
        parts.append("**What the policy pack says:**\n\n" + _findings(each))
    if each.changes:
        parts.append(_changes(each.changes))
    elif not each.refused:
        parts.append("No resource changes.")
    if pictures and each.before:
        parts.append(_picture("Before", each.before))
    if pictures and each.after:
        parts.append(_picture("After", each.after))
    return "\n".join(f"{part}\n" for part in parts)


def _list(lines: list[str]) -> str:
    shown = [f"- {text(each)}" for each in lines[:ROWS]]
    return "\n".join(shown + ([f"- and {len(lines) - ROWS} more"] if len(lines) > ROWS else []))


def _findings(stack: Stack) -> str:
    shown = [_finding(each, stack.name) for each in stack.findings[:ROWS]]
    more = len(stack.findings) - ROWS
    return "\n".join(shown + ([f"- and {more} more"] if more > 0 else []))


def _finding(each: Finding, stack: str) -> str:
    line = f":{each.line}" if each.line else ""
    at = text(f"stacks/Pulumi.{stack}.yaml{line}")
    return f"- {at}: {each.level}, {text(each.rule)}: {text(each.text, 600)}"


def _changes(changes: list[Change]) -> str:
    """Return a table of what changes, in which what loses most comes first."""
    order = ["replace", "delete", "update", "create"]
    lines = ["| | resource | type | why |", "|---|---|---|---|"]
    ranked = sorted(changes, key=lambda each: order.index(each.operation))
    for each in ranked[:ROWS]:
        kind = each.kind.rpartition(":")[2]
        why = text(", ".join(each.why))
        lines.append(f"| {WORDS[each.operation]} | {text(each.name)} | {text(kind)} | {why} |")
    more = f"\n\n{len(changes) - ROWS} more resources are not shown." if len(changes) > ROWS else ""
    return "\n".join(lines) + more


def _picture(title: str, version: Version) -> str:
    lines = ["```mermaid", "flowchart TB", '  host(["outer host"])']
    nodes = version.nodes[:SHOWN_NODES]
    numbers = {tuple(each.path): f"n{number}" for number, each in enumerate(nodes)}
    for each in nodes:
        lines += _box(each, numbers)
    lines.append("```")
    more = len(version.nodes) - SHOWN_NODES
    rest = f"\n\n{more} more are not drawn.\n" if more > 0 else "\n"
    return f"<details><summary>{title}</summary>\n\n" + "\n".join(lines) + f"{rest}\n</details>"


def _box(node: Node, numbers: dict[tuple[str, ...], str]) -> list[str]:
    path = tuple(node.path)
    me, place = numbers[path], numbers.get(path[:-1], "host")
    said = label(f"{node.path[-1] if node.path else ''} {node.what} {node.text}".strip())
    is_network = node.what == "network"
    lines = [f'  {me}{{{{"{said}"}}}}' if is_network else f'  {me}["{said}"]']
    ways = [numbers.get((*path[:-1], each)) for each in node.networks]
    if is_network or not any(ways):
        lines.append(f"  {place} --- {me}")
    return lines + [f"  {way} --- {me}" for way in ways if way]
