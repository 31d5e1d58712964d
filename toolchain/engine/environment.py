"""The environment the engine needs, said once: for ``env.sh`` and for our own commands and tests.

A backend or passphrase that the user has set stays in force; nothing else of theirs is replaced.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING
from urllib.parse import quote

from toolchain.bootstrap import paths
from toolchain.engine import stack_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BACKEND = "PULUMI_BACKEND_URL"
OWN_BACKEND = "NESTLAB_BACKEND"
"""The checkout's own backend, by which the next checkout's file knows that the user chose none."""
PHRASE = "PULUMI_CONFIG_PASSPHRASE"
PHRASE_FILE = "PULUMI_CONFIG_PASSPHRASE_FILE"
OFFLINE = "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"
OPTION = "PULUMI_OPTION_"
"""What the variables begin with that the engine takes its options from."""
EVENTS = "PULUMI_ENABLE_STREAMING_JSON_PREVIEW"
"""With it a preview in JSON is a line for each of the engine's events, and no answer."""
EXPERIMENTAL = "PULUMI_EXPERIMENTAL"
"""With it the engine knows `up --plan`."""
OUTPUT = frozenset({EVENTS})
"""Variables that change what a command prints."""
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
"""Set in small or capital letters, one of these leads traffic to a proxy."""
DIRECT = {"no_proxy": "NO_PROXY", "NO_PROXY": "no_proxy"}
"""Name of a list of what goes without proxy -> the one that holds where it is not set."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SUBNET = r"[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}"
"""A network of a lab, in its stack file."""


def ours(*, built_here: bool) -> dict[str, str]:
    """Return the variables set whatever the user has set; ``built_here``: plugins are never fetched."""
    variables = {
        "NESTLAB_ROOT": str(paths.ROOT),
        "NESTLAB_KEYS": str(paths.KEYS),
        OWN_BACKEND: backend(),
        "PULUMI_HOME": str(paths.HOME),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        # Of the plugins of all installed SDKs, which Pulumi's own language host names, most stacks
        # use one: each is downloaded when it is first used.
        "PULUMI_OPTION_SKIP_PLUGIN_PRE_INSTALL": "true",
        # What the engine reads of a stack holds no salt (`toolchain.engine.before`); the state has it.
        "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
        # It keeps 500 MB of them otherwise.
        "PULUMI_LOG_ROTATION_MAX_TOTAL_MB": "20",
    }
    return variables | ({OFFLINE: "true"} if built_here else {})


def backend() -> str:
    """Return the URL of the file backend in this checkout."""
    # What a URL takes for something else, and no more: the engine remembers stacks by the URL's letters.
    return "file://" + re.sub("[%?#]", lambda found: quote(found[0]), str(paths.STATE))


INTERPRETER = ("PYTHONHOME", "PYTHONINSPECT", "PYTHONDONTWRITEBYTECODE")
"""With them ours looks for its library elsewhere, asks for orders instead of ending, or compiles the project's
own modules anew in each process, which is a sixth of a command with nothing to do."""


def search_paths() -> dict[str, tuple[str, ...]]:
    """Return what comes first in each search path.

    Dynamic providers are pickled by reference to ``components``, so every process of the engine
    must be able to import it.
    """
    return {
        "PATH": (str(paths.BIN), str(paths.VENV / "bin")),
        "PYTHONPATH": (str(paths.ROOT),),
    }


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return ``base`` (the process's own environment when not given) made fit for the engine.

    Without what changes the options of plain `pulumi` commands, or what they print: ours mean what they
    say, and are read.
    """
    told = os.environ if base is None else base
    dropped = {*OUTPUT, *INTERPRETER}
    given = {n: v for n, v in told.items() if not n.startswith(OPTION) and n not in dropped}
    _drop_another_checkouts(given)
    for name, firsts in search_paths().items():
        rest = [part for part in given.get(name, "").split(os.pathsep) if part]
        given[name] = os.pathsep.join([*firsts, *(part for part in rest if part not in firsts)])
    given |= ours(built_here=built_here())
    _keep_from_proxies(given)
    given[BACKEND] = given.get(BACKEND) or backend()
    if PHRASE not in given and not given.get(PHRASE_FILE):
        given[PHRASE_FILE] = str(paths.PASSPHRASE)
    return given


def _drop_another_checkouts(given: dict[str, str]) -> None:
    local = f"{given.get('NESTLAB_ROOT', '')}/{paths.LOCAL.name}"
    if BACKEND in given and given[BACKEND] == given.get(OWN_BACKEND):
        del given[BACKEND]
    if given.get(PHRASE_FILE) == f"{local}/{paths.PASSPHRASE.name}":
        del given[PHRASE_FILE]


def _keep_from_proxies(given: dict[str, str]) -> None:
    """Let what is on this machine or in a lab be reached directly where the user has a proxy.

    Engine and hosts talk on loopback, and gRPC, as most, sends also that to a proxy; a lab's own
    addresses mean nothing to one. Downloads and other people's APIs go where the user says.
    """
    if not any(given.get(name) or given.get(name.upper()) for name in PROXIES):
        return
    lists = {name: given.get(name) or given.get(other) or "" for name, other in DIRECT.items()}
    if given.get("no_grpc_proxy"):
        lists["no_grpc_proxy"] = given["no_grpc_proxy"]
    for name, told in lists.items():
        for direct in (*LOOPBACK, *_subnets()):
            if told != "*" and f",{direct}," not in f",{told},":
                told = f"{told},{direct}" if told else direct  # noqa: PLW2901 - the list grows
        given[name] = told


def _subnets() -> list[str]:
    texts = [stack_file.words(file) for file in _stack_files()]
    return sorted({found[0] for text in texts for found in re.finditer(SUBNET, text)})


def _stack_files() -> list[Path]:
    return [file for file in (paths.ROOT / "stacks").glob("Pulumi.*.yaml") if file.is_file()]


def _proxy_lines() -> list[str]:
    """Return the lines of ``env.sh`` that do what `_keep_from_proxies` does."""
    named = "".join(f"${{{name}:-}}${{{name.upper()}:-}}" for name in PROXIES)
    stacks = shlex.quote(str(paths.ROOT / "stacks"))
    found = (
        f"grep -rhoE --include='Pulumi.*.yaml' '{SUBNET}' {stacks} 2>/dev/null | LC_ALL=C sort -u"
    )
    lines = [
        f'if [ -n "{named}" ]; then',
        "  nestlab_small=${no_proxy:-${NO_PROXY:-}} nestlab_large=${NO_PROXY:-${no_proxy:-}}",
        "  nestlab_grpc=${no_grpc_proxy:-}",
        f"  for nestlab_direct in {' '.join(LOOPBACK)} $({found}); do",
    ]
    for name, empty in {"small": "", "large": "", "grpc": '",,"|'}.items():
        value = f"nestlab_{name}"
        lines += [
            f'    case ",${value}," in {empty}",*,"|*,"$nestlab_direct",*) ;;',
            f'      *) {value}="${{{value}:+${value},}}$nestlab_direct" ;;',
            "    esac",
        ]
    return [
        *lines,
        "  done",
        "  export no_proxy=$nestlab_small NO_PROXY=$nestlab_large",
        '  [ -z "$nestlab_grpc" ] || export no_grpc_proxy=$nestlab_grpc',
        "  unset nestlab_small nestlab_large nestlab_grpc nestlab_direct",
        "fi",
    ]


def built_here() -> bool:
    """Return whether this checkout's engine and plugins are the ones built from Go modules."""
    return (paths.BIN / "pulumi-language-python").is_symlink()


def env_sh(*, built_here: bool) -> str:
    """Return the text of ``env.sh``: the same as `environment`, for sh, bash and zsh."""
    local = f"${{NESTLAB_ROOT:-}}/{paths.LOCAL.name}"
    lines = [
        "# Written by `make toolchain`. Source it in sh, bash or zsh, from any folder.",
        "# What another checkout's file set is replaced; what you set yourself is not.",
        f"unset {' '.join(INTERPRETER)}",
        f'[ "${{{BACKEND}:-}}" != "${{{OWN_BACKEND}:-}}" ] || unset {BACKEND}',
        f'[ "${{{PHRASE_FILE}:-}}" != "{local}/{paths.PASSPHRASE.name}" ] || unset {PHRASE_FILE}',
    ]
    for name, firsts in search_paths().items():
        first = shlex.quote(os.pathsep.join(firsts))
        lines += [
            f'case ":${{{name}:-}}:" in',
            f"  *:{first}:*) ;;",
            f'  *) {name}={first}"${{{name}:+:${name}}}" ;;',
            "esac",
            f"export {name}",
        ]
    lines += [f"export {n}={shlex.quote(v)}" for n, v in ours(built_here=built_here).items()]
    lines += [
        f'[ -n "${{{BACKEND}:-}}" ] || {BACKEND}={shlex.quote(backend())}',
        f"export {BACKEND}",
        f'if [ -z "${{{PHRASE}+set}}" ] && [ -z "${{{PHRASE_FILE}:-}}" ]; then',
        f"  export {PHRASE_FILE}={shlex.quote(str(paths.PASSPHRASE))}",
        "fi",
    ]
    lines += _proxy_lines()
    return "\n".join(lines) + "\n"
