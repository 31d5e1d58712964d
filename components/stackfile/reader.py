"""What reads YAML that anybody wrote: data alone, and all that is wrong with it is an error of YAML's, with its place."""

from __future__ import annotations

from typing import Any

import yaml
from typing_extensions import override


class Safe(yaml.SafeLoader):
    """Makes plain values; of a tag that does not fit its text (``!!bool x``) it says so, where PyYAML stumbles."""

    @override
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            word = node.tag.removeprefix("tag:yaml.org,2002:")
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"what stands there is no {word}, which it is said to be",
                node.start_mark,
            ) from None
