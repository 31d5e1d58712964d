"""The root of all refusals: what was found, the rule that it breaks, and what to do."""

from __future__ import annotations


class Refused(Exception):
    """A product, a medium or the way to either does not take what was asked; the message says all there is."""

    def __init__(self, found: str = "", rule: str = "", remedy: str = "") -> None:
        self.found, self.rule, self.remedy = found, rule, remedy
        told = ", but ".join(filter(None, (found, rule)))
        super().__init__(f"{told}: {remedy}" if remedy else told)
