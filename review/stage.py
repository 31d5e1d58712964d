"""A stage on which a stack is put up without a host: a project of its own, the real engine, stand-ins.

First the base branch's stack is put up (`review.stand_in`: nothing is made), then the other branch's is
previewed on top of it, with the policy pack: what comes out is the engine's own preview.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from review import stand_in
from toolchain.bootstrap import paths, ui
from toolchain.engine import environment, plugins, wrapper
from toolchain.engine.state import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

PHRASE = "no secret is here"
DEADLINE_S = 600
STREAM = "PULUMI_ENABLE_STREAMING_JSON_PREVIEW"
"""Has a preview in JSON say also what the policy pack does."""
SHOWN = ("create", "update", "replace", "delete", "same")
"""Steps that the engine shows; a replacement is one of them, and not its parts."""
NO_CAUSE = ("preview failed", "update failed")
"""Errors that say only that there was another one, or that a rule is broken."""
KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "NESTLAB_ALLOW", "NESTLAB_CACHE", "XDG_CACHE_HOME")
"""What of this process's environment the engine and its programs are given: no token is among it."""
GOLDEN = {
    "version": 1, "hash": "0", "pool": "nestlab-images", "volume": "0.qcow2", "kernel": "/images/vmlinuz",
    "initrd": "/images/initrd", "root_gib": 4,
    "files": {"disk": "/cache/disk", "kernel": "/cache/vmlinuz", "initrd": "/cache/initrd"},
}  # fmt: skip
"""A golden image, as for the host's facts: the same for both versions, so that it is no difference."""
HOST = {"version": 1, "accelerator": "kvm", "cores": 2, "memory_mib": 1 << 20, "kvm_nested": True}


@dataclass
class Preview:
    """What the engine said that it would do."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    """As in `pulumi preview --json`."""
    judged: list[dict[str, Any]] = field(default_factory=list)
    """What the policy pack said (apitype.PolicyEvent)."""
    errors: list[str] = field(default_factory=list)

    def add(self, metadata: dict[str, Any]) -> None:
        """Take in one step (apitype.StepEventMetadata)."""
        if metadata["op"] not in SHOWN:
            return
        old, new = metadata.get("old"), metadata.get("new")
        self.steps.append(
            {
                "op": metadata["op"],
                "urn": metadata["urn"],
                "oldState": old,
                "newState": new,
                "replaceReasons": metadata.get("keys") or [],
                "diffReasons": metadata.get("diffs") or [],
                "detailedDiff": metadata.get("detailedDiff"),
            }
        )


@dataclass
class Stage:
    """A scratch project below ``folder``, with one stack at a time."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    deadline_s: float = DEADLINE_S

    @classmethod
    def make(cls, folder: Path, providers: str) -> Stage:
        """Make the project; ``providers`` is what `stand_in.serving` yields."""
        for each in ("state", "home", "stacks", f"{PROJECT}/.nestlab"):
            (folder / each).mkdir(parents=True)
        root = folder / PROJECT
        shutil.copy2(paths.ROOT / "review" / "program" / "__main__.py", root)
        (root / "Pulumi.yaml").write_text(
            f"name: {PROJECT}\nruntime:\n  name: python\nstackConfigDir: ../stacks\n"
        )
        for name, facts in {"host": HOST, "golden": GOLDEN, "golden-xen": GOLDEN}.items():
            (root / ".nestlab" / f"{name}.json").write_text(json.dumps(facts))
        own = {
            "HOME": str(folder / "home"),
            environment.BACKEND: f"file://{folder}/state",
            environment.PHRASE: PHRASE,
            stand_in.VARIABLE: providers,
        }
        given = {name: os.environ[name] for name in KEPT if name in os.environ}
        made = environment.environment(given | own)
        # The stand-ins listen here, and not where libvirt may live.
        return cls(folder, made | {"NESTLAB_RECOVERING": "yes", wrapper.HERE: "yes"})

    def standing(self, stack: str, text: bytes | None) -> None:
        """Put up what ``text`` says; None: nothing, a stack that is new.

        Raises:
            Problem: it is refused, in the words of a preview.
        """
        # A stack may be called as an option is.
        self._must("stack", "init", "--", stack)
        if text is not None:
            self._told(stack, text)
            self._must("up", "--yes", "--skip-preview", "--suppress-outputs", "--stack", stack)

    def preview(self, stack: str, text: bytes) -> Preview:
        """Return the engine's preview of ``text`` on what stands, with what the policy pack says.

        Raises:
            Problem: it is refused, in the words of a preview.
        """
        self._told(stack, text)
        pack = ("--policy-pack", str(paths.ROOT / "policies"))
        done = self._run("preview", "--json", *pack, "--stack", stack, **{STREAM: "true"})
        told = _read(done.stdout)
        # A rule that is broken fails a preview as well, and is a finding.
        if done.returncode and not (told.judged and not told.errors):
            raise ui.Problem(
                "\n".join(told.errors) or done.stderr.strip() or "no word of the engine"
            )
        return told

    def resources(self, stack: str) -> list[dict[str, Any]]:
        """Return what stands, as the state has it."""
        told = json.loads(self._must("stack", "export", "--stack", stack))
        found: list[dict[str, Any]] = told["deployment"].get("resources") or []
        return found

    def _told(self, stack: str, text: bytes) -> None:
        (self.folder / "stacks" / f"Pulumi.{stack}.yaml").write_bytes(text)

    def _must(self, *words: str) -> str:
        done = self._run(*words)
        if done.returncode:
            raise ui.Problem(_complained(done))
        return done.stdout

    def _run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [str(paths.BIN / "pulumi"), "--non-interactive", "--color", "never", *words],
                cwd=self.folder / PROJECT,
                env=self.variables | more,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=self.deadline_s,
            )
        except subprocess.TimeoutExpired:
            raise ui.Problem(
                f"the engine took more than {self.deadline_s} s for it: make the lab smaller"
            ) from None


def _complained(done: subprocess.CompletedProcess[str]) -> str:
    """Return the errors of a command that prints for people."""
    found = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    begun = [n for n, line in enumerate(found) if line.startswith("error: ")]
    return (
        "\n".join(found[begun[0] :]).removeprefix("error: ") if begun else "no word of the engine"
    )


def _read(said: str) -> Preview:
    """Read the events of a preview, one a line."""
    told = Preview()
    for line in said.splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if "resourcePreEvent" in event:
                told.add(event["resourcePreEvent"]["metadata"])
            elif "policyEvent" in event:
                told.judged.append(event["policyEvent"])
            elif "diagnosticEvent" in event:
                each = event["diagnosticEvent"]
                text = str(each.get("message", "")).strip().removeprefix("error: ")
                if each.get("severity") == "error" and text not in NO_CAUSE:
                    told.errors.append(text)
    return told


def asked_by(*texts: bytes | None) -> set[str]:
    """Return the names of the plugins that the stack files ``texts`` ask for."""
    words = "\n".join(each.decode(errors="replace") for each in texts if each)
    plain = plugins.COMMENT.sub("", words)
    return {plugins.ALWAYS} | {plugin for plugin, word in plugins.ASKED_BY.items() if word in plain}
