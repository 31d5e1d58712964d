"""plain-secrets: no password, token or private key in an input that is not marked as secret.

What is not marked stands in the state, in the preview, and in whatever log they end up in. Judged
are inputs whose name says what they are, and texts that hold one: user data, answer files of the
installers, stylesheets, URLs. Hashes pass, as installers take them. The value itself is never shown.
The answers of an installer are secret as a whole (`WHOLE`): what else is in them, such as a licence,
has no name that tells.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import machines
import pulumi
from known import UNKNOWN, value
from pulumi_policy import (
    EnforcementLevel,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
)
from secret_marks import MARKED, Path

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_NAMES = {"password", "passwd", "passphrase", "pwd", "secret", "token", "passcode"}
_PAIRS = {
    ("private", "key"),
    ("api", "key"),
    ("secret", "key"),
    ("access", "key"),
    ("license", "key"),
    ("licence", "key"),
}
_HARMLESS = re.compile(
    r"\$(?:1|2[abxy]?|5|6|y|gy|7|apr1|argon2\w*|scrypt|pbkdf2\S*)\$|\{\w+\}|[*!xX]$|\$\{|\$\(|%\w|R$|RANDOM$",
)
"""How a hash, a locked password or a place-holder begins."""
_VALUE = r"""["']?(?P<value>[^\s"',]+)["']?,?\s*(?:\#.*)?$"""
_TEXTS = tuple(
    (re.compile(pattern, re.MULTILINE), words)
    for pattern, words in (
        (r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----", "a private key"),
        (r"[a-z][a-z0-9+.-]*://[^/\s:@'\"]*:(?P<value>[^/\s@'\"]+)@", "a URL with a password"),
        (
            r"^[\s\-{,]*[\"']?(?:plain_text_passwd|plain_passwd|passwd|password|root[-_]password|"
            r"admin_pass|adminpass|token|secret)[\"']?\s*[:=]\s*" + _VALUE,
            "a password",
        ),
        (
            r"[\"'](?:passwd|password|root[-_]password|token|secret)[\"']\s*:\s*\"(?P<value>[^\"]+)\"",
            "a password",
        ),
        (
            r"chpasswd:[^\n]*\n(?:[^\n]*\n){0,8}?\s+-?\s*[\"']?[a-z_][\w-]*:(?P<value>\S+)\s*$",
            "a list of passwords (chpasswd)",
        ),
        (
            r"[\"']?[a-z_][\w-]*:(?P<value>[^\s\"'|]+)[\"']?\s*\|\s*(?:sudo\s+)?chpasswd\b(?!.*-e)",
            "a password for chpasswd",
        ),
        (
            r"^\s*rootpw\s+(?!.*--(?:iscrypted|lock))(?:--\w+\s+)*(?P<value>\S+)",
            "a password (rootpw)",
        ),
        (r"<root-password(?![^>]*type=.hash)[^>]*>(?P<value>[^<]+)<", "a password (root-password)"),
        (r"<(?:\w*Password)>\s*<Value>(?P<value>[^<]+)</Value>", "a password (unattend)"),
        (r"\bpasswd/[\w-]*password(?:-again)?\s+password\s+(?P<value>\S+)", "a password (preseed)"),
        (r"\bpasswd=[\"'](?P<value>[^\"']+)[\"']", "a screen's password"),
        (r"name=[\"']passwd[\"']>\s*(?:<xsl:text>)?(?P<value>[^<\s]+)", "a screen's password"),
        (r"\bsshpass\s+-p\s*(?P<value>\S+)", "a password (sshpass)"),
        (r"--password[= ](?P<value>[^\s-]\S*)", "a password (--password)"),
    )
)
"""What in a text is a secret. The first is a key; of the others a group is the value."""
WHOLE = {machines.gate("InstallMedium"): ("answers",), machines.REMOTE: ("target",)}
"""Inputs that are a secret whatever is in them, by type: answers, and the keys to a hypervisor."""
_ENCODED = re.compile(r"[A-Za-z0-9+/\s]{16,}={0,2}\s*")


def _holds_no_plain_secret(args: ResourceValidationArgs, report: ReportViolation) -> None:
    marked = MARKED.get(args.urn)
    for key in WHOLE.get(args.resource_type, ()):
        given = value(args.props, key)
        if given and given is not UNKNOWN and (key,) not in (marked or ()):
            report(f"{args.name}: {key} is not marked as secret as a whole", None)
            return
    for path, given in _leaves(args.props, ()):
        if marked is not None and any(
            path[:length] in marked for length in range(1, len(path) + 1)
        ):
            continue
        if found := _secret(path, given):
            at = ".".join(map(str, path))
            unseen = (
                ""
                if marked is not None
                else (
                    " (whether it is marked as secret is not known: leave secret-marks on remediate)"
                )
            )
            report(f"{args.name}: {at} holds {found} that is not marked as secret{unseen}", None)


def _leaves(given: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield every known text in a resource's inputs, with its path."""
    if isinstance(given, str):
        yield path, given
    elif isinstance(given, pulumi.StringAsset):
        yield path, given.text
    elif isinstance(given, Mapping | Sequence):
        keys = given if isinstance(given, Mapping) else range(len(given))
        for key in keys:
            # The engine's own: the code of dynamic providers, lists of defaults.
            if isinstance(key, str) and key.startswith("__"):
                continue
            inner = value(given, key)
            if inner is not UNKNOWN:
                yield from _leaves(inner, (*path, key))


def _secret(path: Path, given: str) -> str:
    if not given.strip():
        return ""
    name = next((key for key in reversed(path) if isinstance(key, str)), "")
    if "\n" not in given and _is_secret_name(name):
        return "" if _HARMLESS.match(given) else "a password or key"
    return _in_text(given) or _in_text(_decoded(name, given))


def _is_secret_name(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    return bool(words) and (words[-1] in _NAMES or tuple(words[-2:]) in _PAIRS)


def _in_text(given: str) -> str:
    for pattern, words in _TEXTS:
        for found in pattern.finditer(given):
            secret = found.groupdict().get("value")
            if secret is None or not (_HARMLESS.match(secret) or secret in _NOTHING):
                return words
    return ""


_NOTHING = {"true", "false", "null", "None", "~", "|", ">", "{", "[", "[]", "{}", "no", "yes"}
"""Values in YAML and JSON that are no password."""


def _decoded(name: str, given: str) -> str:
    """Return the text of user data that is given in base 64, empty for anything else."""
    if "data" not in name.lower() or not _ENCODED.fullmatch(given):
        return ""
    try:
        return base64.b64decode(given, validate=False).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


PLAIN_SECRETS = ResourceValidationPolicy(
    name="plain-secrets",
    description="No password or private key is given without being marked as secret.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.CRITICAL,
    remediation_steps="Take it from `config.require_secret`, or wrap it: pulumi.Output.secret(...). In "
    "answer files give a hash.",
    validate=_holds_no_plain_secret,
)
