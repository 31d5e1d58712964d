"""JSON schema of a stack file, for editors and for whoever checks files before anything runs.

``python -m components.stackfile.schema`` prints it; it is committed as ``stacks/schema.json``, and a
test fails where the two differ. It says what the models say; rules across the lab are `load`'s.
"""

from __future__ import annotations

import json
from typing import Any

from components.stackfile.lab import LabSpec

KEY = "nestlab:lab"
"""The one key of the stack's configuration that holds the lab."""


def schema() -> dict[str, Any]:
    """Return the JSON schema of ``stacks/Pulumi.<stack>.yaml``."""
    lab = LabSpec.model_json_schema(ref_template="#/$defs/{model}")
    definitions = lab.pop("$defs")
    definitions["LabSpec"] = lab
    for definition in definitions.values():
        polish(definition)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A nestlab stack",
        "type": "object",
        "required": ["config"],
        "properties": {
            "config": {
                "type": "object",
                "description": "Configuration of the stack; the lab is under nestlab:lab",
                "required": [KEY],
                "properties": {KEY: {"$ref": "#/$defs/LabSpec"}},
            }
        },
        "$defs": definitions,
    }


def polish(node: Any) -> None:
    """Drop titles that repeat names, close mappings: keys that are no names are refused too."""
    if isinstance(node, list):
        for item in node:
            polish(item)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("title"), str):
        del node["title"]
    if "patternProperties" in node:
        node["additionalProperties"] = False
    for value in node.values():
        polish(value)


def main() -> None:
    """Print the schema."""
    print(json.dumps(schema(), indent=2))


if __name__ == "__main__":
    main()
