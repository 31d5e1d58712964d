"""Marks of the engine's in what it carries: what is not known yet, what is secret.

Nothing is imported here: `toolchain.engine.changes` reads previews before the Python environment is there.
"""

from __future__ import annotations

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""How the engine writes a value that is not known yet (pulumi.runtime.rpc.UNKNOWN)."""
SIGNATURE = "4dabf18193072939515e22adb298388d"
"""The key that marks a map as something else (pulumi.runtime.rpc)."""
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the mark of one
"""What stands there for a secret, whose "value" is beside it."""
ASSET = "c44067f5952c0a294b673a41bacd8c17"
"""What stands there for an asset, whose text is beside it (pulumi.runtime.rpc._special_asset_sig)."""
