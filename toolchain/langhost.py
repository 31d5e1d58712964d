"""Where the script in the shared cache, which each checkout's engine starts, finds the language host.

It stays here whatever is moved: checkouts of other ages share that script (`toolchain.engine.wrapper`).
"""

from toolchain.engine.langhost import main

__all__ = ["main"]
