"""The command ``toolchain``: an engine, its plugins and a Python environment, ready in ``.nestlab``.

Two ways lead there. Where an official engine is installed and its plugins can be downloaded, those
are used. Elsewhere engine and plugins are built from their Go modules, once for each machine.

What it leaves out: libvirt and the machine itself (``host``), images (``image``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import time
from pathlib import Path

from toolchain import cache, environment, golang, paths, pins, python_env, run, ui, wrapper

HOSTS = {"pulumi-language-python": "langhost", "pulumi-resource-pulumi-python": "dynhost"}
"""Executable the engine looks for -> module that serves it, where the engine is built here."""
DOWNLOAD_S = 120.0
"""For one plugin, seconds. A machine that reaches the download site needs a few."""
SERVERS = {"proxmoxve": "github://api.github.com/muhlba91/pulumi-proxmoxve"}
"""Where a plugin is published when the engine's own makers don't publish it; its SDK says so."""
OFFICIAL = paths.LOCAL / "official.json"
"""The verdict on the official engine found on PATH, with what identifies that file."""


def main(argv: list[str]) -> int:
    """Make everything that is missing; nothing is printed when nothing had to be done."""
    parser = argparse.ArgumentParser(
        prog="python3 -m toolchain toolchain", description=main.__doc__
    )
    parser.parse_args(argv)
    began, fresh = time.monotonic(), not paths.ENV_SH.is_file()
    python_env.ensure()
    _private_folders()
    if (official := _official()) is not None:
        _fill(official, built=False)
    else:
        programs = (pins.ENGINE, *pins.PLUGINS, pins.VCSIM)
        golang.build(programs)
        _fill(golang.place(pins.ENGINE), built=True)
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


def _fill(engine: Path, *, built: bool) -> None:
    """Put into ``.nestlab`` what leads to ``engine``; what is there already is left alone."""
    for name, module in HOSTS.items():
        if built:
            cache.write(engine.parent / name, wrapper.host(module), 0o755)
            cache.link(paths.BIN / name, engine.parent / name)
        else:
            cache.remove(paths.BIN / name)
    for plugin in pins.PLUGINS if built else ():
        folder = paths.HOME / "plugins" / f"resource-{plugin.plugin}-v{plugin.version}"
        cache.link(folder / plugin.name, golang.place(plugin))
    cache.write(paths.ENV_SH, environment.env_sh(built_here=built))
    # Last: with the wrapper there, everything it needs is there.
    cache.write(paths.BIN / "pulumi", wrapper.pulumi(engine), 0o755)


def _official() -> Path | None:
    """Return the official engine on PATH when it is new enough and its plugins can be had.

    The verdict is kept, so that a machine without the download site asks it once, not each time.
    """
    found = find_official(os.environ.get("PATH", ""))
    if found is None:
        return None
    status = found.stat()
    identity = [str(found), status.st_size, status.st_mtime_ns, pins.PULUMI]
    try:
        known = json.loads(OFFICIAL.read_text())
    except (FileNotFoundError, ValueError):
        known = {}
    if known.get("identity") != identity:
        trouble = _trouble(found)
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


def _trouble(engine: Path) -> str:
    """Return why ``engine`` can't be used; empty when it can. Installs its plugins."""
    try:
        said = run.run([engine, "version"], timeout=30)
    except ui.Problem as problem:
        return str(problem)
    if not new_enough(said):
        return f"it is {said.strip() or 'of unknown version'}, and {pins.PULUMI} or newer is needed"
    settings = environment.environment() | {"PULUMI_HOME": str(paths.HOME)}
    settings.pop(environment.OFFLINE, None)
    with ui.step("plugins of the official engine") as step:
        for plugin in pins.PLUGINS:
            step.note(f"downloading {plugin.plugin} {plugin.version}")
            server = SERVERS.get(plugin.plugin)
            install: list[str | Path] = [engine, "plugin", "install", "resource"]
            words = [*install, plugin.plugin, plugin.version]
            try:
                run.run(
                    [*words, *(["--server", server] if server else [])],
                    timeout=DOWNLOAD_S,
                    env=settings,
                )
            except ui.Problem:
                return f"its plugin {plugin.plugin} {plugin.version} can't be downloaded from here"
    return ""


def new_enough(said: str) -> bool:
    """Return whether ``pulumi version`` said a version that serves this project's Python SDK."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", said.strip())
    oldest = tuple(int(part) for part in pins.PULUMI.split("."))
    return found is not None and tuple(int(part) for part in found.groups()) >= oldest
