"""The command ``toolchain``: an engine, its plugins and a Python environment, ready in ``.nestlab``.

An official engine on PATH is used where it is new enough and brings its Python hosts. Elsewhere it
is built from its Go modules, once for each machine. Plugins are taken from where they are already:
this checkout, the user's own ``PULUMI_HOME``, the cache; then an official engine is asked to
download them; what is left is built. Only those are made ready that the stack asks for.

What it leaves out: libvirt and the machine itself (``host``), images (``image``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import time
from pathlib import Path

from toolchain.bootstrap import cache, paths, pins, python_env, run, ui
from toolchain.engine import environment, golang, plugins, state, wrapper

HOSTS = {"pulumi-language-python": "langhost", "pulumi-resource-pulumi-python": "dynhost"}
"""Executable the engine looks for -> module that serves it, where the engine is built here."""
DOWNLOAD_S = 120.0
"""For one plugin, seconds. A machine that reaches the download site needs a few."""
SERVERS = {"proxmoxve": "github://api.github.com/muhlba91/pulumi-proxmoxve"}
"""Where a plugin is published when the engine's own makers don't publish it; its SDK says so."""
OFFICIAL = paths.LOCAL / "official.json"
"""The verdict on the official engine found on PATH, with what identifies that file."""
LOGS = "logs"
"""In PULUMI_HOME: the engine's folder for a log of each command."""
NO_LOGS = """\
Here would be a log of each command, which takes the engine a fifth of one with nothing to do. `make toolchain`
has put this file here instead; without it the engine makes the folder again. What a command did:
pulumi -v=9 --logtostderr COMMAND
"""
STACK = "local"


def main(argv: list[str]) -> int:
    """Make everything that is missing; nothing is printed when nothing had to be done."""
    parser = argparse.ArgumentParser(
        prog="python3 -m toolchain toolchain", description=main.__doc__
    )
    parser.add_argument("--stack", default=STACK, help=f"whose plugins (default: {STACK})")
    parser.add_argument("--all", action="store_true", help="every stack's plugins, and the tests'")
    parser.add_argument(
        "--yaml", action="store_true", help="what runs programs in YAML, for the component package"
    )
    parser.add_argument(
        "--verify", action="store_true", help="read all that was made, make again what is damaged"
    )
    wanted = parser.parse_args(argv)
    full = wanted.verify
    cache.checked()
    began, fresh = time.monotonic(), not paths.ENV_SH.is_file()
    asked = pins.PLUGINS if wanted.all else plugins.of(state.named(wanted.stack))
    python_env.ensure(full=full)
    _private_folders()
    official = _official()
    if official is None:
        golang.build((pins.ENGINE, *asked, *([pins.VCSIM] if wanted.all else [])), full=full)
    elif wanted.all:
        golang.build([pins.VCSIM], full=full)
    for plugin in asked:
        _make_ready(plugin, official)
    _fill(official or golang.place(pins.ENGINE), built=official is None)
    if wanted.yaml and official is None:
        golang.build([pins.YAML], full=full)
        cache.link(paths.BIN / pins.YAML.name, golang.place(pins.YAML))
    if fresh:
        ui.say(
            f"engine, plugins and Python environment are ready ({time.monotonic() - began:.0f} s);"
            f" for plain pulumi commands: . {paths.LOCAL.name}/{paths.ENV_SH.name}"
        )
    return 0


def _private_folders() -> None:
    for folder in (paths.LOCAL, paths.HOME, paths.STATE):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if paths.LOCAL.stat().st_mode & 0o077:
        # State and passphrase are in there.
        paths.LOCAL.chmod(0o700)
    if not paths.PASSPHRASE.is_file():
        cache.write(paths.PASSPHRASE, secrets.token_urlsafe(32) + "\n", 0o600)


def _logless(*, built: bool) -> None:
    """Keep the engine that we built from writing a log of each command, which it does unasked.

    Where it can't have the folder, it does without and says so nowhere (pkg/v3/cmd/pulumi, "automatic logging
    unavailable"). That is known of the pinned version: others find no file of ours. A folder that is there stays.
    """
    logs = paths.HOME / LOGS
    if built and not os.path.lexists(logs):
        cache.write(logs, NO_LOGS)
    elif not built and logs.is_file():
        cache.remove(logs)


def _fill(engine: Path, *, built: bool) -> None:
    """Put into ``.nestlab`` what leads to ``engine``; what is there already is left alone."""
    _logless(built=built)
    for name, module in HOSTS.items():
        if built:
            cache.write(engine.parent / name, wrapper.host(module), 0o755)
            cache.link(paths.BIN / name, engine.parent / name)
        else:
            cache.remove(paths.BIN / name)
    cache.write(paths.ENV_SH, environment.env_sh(built_here=built))
    cache.link(paths.BIN / "nestlab", paths.ROOT / "nestlab")
    # Last: with the wrapper there, everything it needs is there.
    cache.write(paths.BIN / "pulumi", wrapper.pulumi(engine), 0o755)


def _official() -> Path | None:
    """Return the official engine on PATH when it is new enough and whole.

    The verdict is kept, so that an engine of no use is asked and named once, not each time.
    """
    found = find_official(os.environ.get("PATH", ""))
    if found is None:
        return None
    status = found.stat()
    hosts = {host: _beside(found, host) for host in HOSTS}
    identity = [str(found), status.st_size, status.st_mtime_ns, pins.PULUMI, hosts]
    try:
        known = json.loads(OFFICIAL.read_text())
    except (FileNotFoundError, ValueError):
        known = {}
    if known.get("identity") != identity:
        trouble = _trouble(found, hosts)
        if trouble:
            ui.say(f"{found} is not used: {trouble}")
        known = {"identity": identity, "usable": not trouble}
        cache.write(OFFICIAL, json.dumps(known))
    return found if known["usable"] else None


def find_official(search: str) -> Path | None:
    """Return the first ``pulumi`` in ``search`` that is not a checkout's wrapper."""
    for folder in search.split(os.pathsep):
        candidate = Path(folder, "pulumi").absolute()
        if folder and candidate.is_file() and os.access(candidate, os.X_OK):
            with candidate.open("rb") as handle:
                if wrapper.MARK.encode() not in handle.read(200):
                    return candidate
    return None


def _beside(engine: Path, host: str) -> bool:
    """Return whether ``engine`` finds ``host``: beside itself, or on PATH; what is ours does not count."""
    search = [str(engine.resolve().parent), *os.environ.get("PATH", "").split(os.pathsep)]
    search = [part for part in search if part != str(paths.BIN)]
    return shutil.which(host, path=os.pathsep.join(search)) is not None


def _trouble(engine: Path, hosts: dict[str, bool]) -> str:
    """Return why ``engine`` can't be used; empty when it can."""
    try:
        said = run.run([engine, "version"], timeout=30)
    except ui.Problem as problem:
        return str(problem)
    if not new_enough(said):
        return f"it is {said.strip() or 'of unknown version'}, and {pins.PULUMI} or newer is needed"
    if lacking := [host for host, there in hosts.items() if not there]:
        return f"{lacking[0]}, which Pulumi's own packages bring, is neither beside it nor on PATH"
    return ""


def _make_ready(plugin: pins.Program, official: Path | None) -> None:
    """Put ``plugin`` where the engine looks, from the first place that has it."""
    ours = plugins.place(plugin)
    name = ours.parent.name
    built = golang.place(plugin)
    if official is None:
        cache.link(ours, built)
        return
    outdated = (
        ours.is_symlink()
        and ours.readlink().is_relative_to(paths.programs())
        and ours.readlink() != built
    )
    if os.access(ours, os.X_OK) and not outdated:
        return
    if _download(plugin, official, name, ours):
        return
    ui.say(
        f"the plugin {plugin.plugin} {plugin.version} can't be downloaded from here: building it"
    )
    golang.build([plugin])
    cache.link(ours, built)


def _download(plugin: pins.Program, official: Path, name: str, ours: Path) -> bool:
    """Take ``plugin`` from the user's home, the cache, or let ``official`` download it."""
    kept = _user_home() / "plugins" / name
    # The engine marks a folder that it has not filled yet by a file beside it.
    if os.access(kept / plugin.name, os.X_OK) and not kept.with_name(f"{name}.partial").exists():
        cache.link(ours, kept / plugin.name)
    elif golang.built([plugin]):
        cache.link(ours, golang.place(plugin))
    else:
        settings = environment.environment() | {"PULUMI_HOME": str(paths.HOME)}
        settings.pop(environment.OFFLINE, None)
        words: list[str | Path] = [official, "plugin", "install", "resource"]
        words += [plugin.plugin, plugin.version]
        if server := SERVERS.get(plugin.plugin):
            words += ["--server", server]
        ours.unlink(
            missing_ok=True
        )  # leads nowhere: the engine would take the folder for the plugin
        try:
            with ui.step(f"plugin {plugin.plugin} {plugin.version}", "downloading"):
                run.run(words, timeout=DOWNLOAD_S, env=settings)
        except ui.Problem:
            return False
    return True


def _user_home() -> Path:
    """Return the folder of the user's own Pulumi, whatever checkout's env.sh this shell has read."""
    chosen = Path(os.environ.get("PULUMI_HOME") or "~/.pulumi").expanduser()
    ours = chosen.parent.name == paths.LOCAL.name and chosen.name == paths.HOME.name
    return Path("~/.pulumi").expanduser() if ours else chosen


def new_enough(said: str) -> bool:
    """Return whether ``pulumi version`` said a version that serves this project's Python SDK."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", said.strip())
    oldest = tuple(int(part) for part in pins.PULUMI.split("."))
    return found is not None and tuple(int(part) for part in found.groups()) >= oldest
