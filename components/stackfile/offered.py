"""Words that are the kinds' own, such as models of NICs: what a stack may say is what some place offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import core_schema

from components.stackfile.registry import HOSTS, KINDS

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler


class Offered:
    """For pydantic: one of the words that places have as ``field`` of their `Offers`.

    Read when a model is first used, as kinds are made of the models that ask for this.
    """

    def __init__(self, field: str) -> None:
        self.field = field

    def words(self) -> list[str]:
        """Return them, each once: outer hosts' first, then the kinds' own, in the order in which they have them."""
        offers = [
            *(host.offers for host in HOSTS.values()),
            *(kind.offers for kind in KINDS.values()),
        ]
        return list(dict.fromkeys(word for each in offers for word in getattr(each, self.field)))

    def __get_pydantic_core_schema__(
        self, _source: Any, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Return what refuses other words; see pydantic, "Custom types"."""
        return core_schema.literal_schema(self.words())
