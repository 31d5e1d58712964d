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
_NAMES = {
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "passcode",
    "rootpw",
    "adminpass",
    "passwort",
}
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
_VALUE = r"""["']?(?P<value>[^\s"',}\]]{1,256})["']?"""
_SPACE = r"[ \t]{1,40}"
_NAMED = (
    r"plain_text_passwd|plain_passwd|hashed_passwd|passwd|password|passphrase|root[-_]?password|rootpw|"
    r"admin_pass|adminpass|token|secret"
)
_SHELL = r"(?:^|[\s;&|(\"'`])"
"""What may stand before a command's name."""
_TEXTS = tuple(
    (re.compile(pattern, re.MULTILINE), words)
    for pattern, words in (
        (r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----", "a private key"),
        (
            r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,20}://[^/\s:@'\"]{0,128}:(?P<value>[^/\s@'\"]{1,256})@",
            "a URL with a password",
        ),
        (
            r"://(?:[^/\s:@]{1,64}:)?(?P<value>(?:gh[opsu]_|github_pat_|glpat-|xox[bp]-)\w{1,256})@",
            "a URL with a token",
        ),
        (
            r"[?&](?:password|passwd|pwd|token|access_token|api_?key|secret)=(?P<value>[^&\s\"']{1,256})",
            "a URL with a password",
        ),
        (
            (
                rf"^[ \t\-{{,]{{0,64}}[\"']?(?:{_NAMED})[\"']?[ \t]{{0,40}}[:=][ \t]{{0,40}}{_VALUE},?"
                r"[ \t]{0,40}(?:\#[^\n]{0,400})?$"
            ),
            "a password",
        ),
        (
            rf"[{{,][ \t]{{0,40}}[\"']?(?:{_NAMED})[\"']?[ \t]{{0,40}}:[ \t]{{1,40}}{_VALUE}",
            "a password",
        ),
        (
            (
                r"[\"'](?:passwd|password|root[-_]password|rootpw|token|secret)[\"'][ \t]{0,40}:[ \t]{0,40}"
                r"\"(?P<value>[^\"]{1,256})\""
            ),
            "a password",
        ),
        (
            (
                r"chpasswd:[^\n]{0,400}\n(?:[^\n]{0,400}\n){0,8}?[ \t]{1,40}-?[ \t]{0,40}[\"']?[a-z_][\w-]{0,32}:"
                r"(?P<value>[^\s\"']{1,256})[\"']?[ \t]{0,40}$"
            ),
            "a list of passwords (chpasswd)",
        ),
        (
            (
                r"chpasswd[\"']?:[ \t]{0,40}\{[^{}\n]{0,200}?list[\"']?:[ \t]{0,40}\[?[ \t]{0,40}[\"']?[a-z_][\w-]{0,32}:"
                r"(?P<value>[^\s\"'|,\]}]{1,256})"
            ),
            "a list of passwords (chpasswd)",
        ),
        (
            (
                r"(?<![^\s\"'|])[a-z_][\w-]{0,32}:(?P<value>[^\s\"'|]{1,256})(?:\\n)?[\"']?[ \t]{0,40}\|[ \t]{0,40}"
                r"(?:sudo[ \t]{1,40})?chpasswd\b(?![^\n]{0,80}-e)"
            ),
            "a password for chpasswd",
        ),
        (
            (
                r"chpasswd[^\n<]{0,80}<<<?-?[ \t]{0,40}(?:[\"']?\w{1,20}[\"']?\n)?[ \t]{0,40}[\"']?[a-z_][\w-]{0,32}:"
                r"(?P<value>[^\s\"']{1,256})"
            ),
            "a password for chpasswd",
        ),
        (
            r"(?<![^\s\"'|])(?P<value>[^\s\"'|]{1,256})[\"']?[ \t]{0,40}\|[ \t]{0,40}(?:sudo[ \t]{1,40})?passwd[ \t]{1,40}--stdin",
            "a password for passwd",
        ),
        (
            (
                r"^[ \t]{0,40}rootpw[ \t]{1,40}(?![^\n]{0,200}--(?:iscrypted|lock))(?:--\w{1,40}[ \t]{1,40}){0,8}"
                r"(?P<value>\S{1,256})"
            ),
            "a password (rootpw)",
        ),
        (
            (
                rf"{_SHELL}(?:usermod|useradd|adduser)(?:[ \t]{{1,40}}[^\s;|&]{{1,80}}){{0,12}}?[ \t]{{1,40}}"
                r"(?:-p|--password)(?:[ \t]{1,40}|=)[\"']?(?P<value>[^\s\"']{1,256})"
            ),
            "a password (usermod)",
        ),
        (
            (
                rf"{_SHELL}openssl{_SPACE}passwd(?:[ \t]{{1,40}}-(?:[156]|apr1|aixmd5|noverify|quiet|table|reverse|"
                r"salt[ \t]{1,40}\S{1,40})){0,8}[ \t]{1,40}(?!-)[\"']?(?P<value>[^\s\"')]{1,256})"
            ),
            "a password (openssl passwd)",
        ),
        (r"-pass(?:in|out)?[ \t]{1,40}pass:(?P<value>\S{1,256})", "a password (openssl)"),
        (
            rf"(?i:{_SHELL}net1?(?:\.exe)?{_SPACE}user{_SPACE}[^\s/]{{1,64}}{_SPACE}(?P<value>[^\s/]\S{{0,255}}))",
            "a password (net user)",
        ),
        (
            (
                r"(?i:ConvertTo-SecureString(?:[ \t]{1,40}-(?:String|AsPlainText|Force)){0,3}[ \t]{1,40}"
                r"[\"'](?P<value>[^\"']{1,256})[\"'])"
            ),
            "a password (ConvertTo-SecureString)",
        ),
        (
            (
                r"(?i:New-LocalUser|Set-LocalUser|Set-ADAccountPassword)[^\n]{0,200}-Password[ \t]{1,40}"
                r"[\"'](?P<value>[^\"'\n]{1,256})[\"']"
            ),
            "a password (New-LocalUser)",
        ),
        (
            (
                r"(?i:<(?:\w{0,40}Password|Password)>\s{0,40}(?:<PlainText>\w{0,8}</PlainText>\s{0,40})?<Value>"
                r"(?P<value>[^<]{1,512})</Value>)"
            ),
            "a password (unattend)",
        ),
        (
            r"<root-password(?![^>]{0,200}type=.hash)[^>]{0,200}>(?P<value>[^<]{1,512})<",
            "a password (root-password)",
        ),
        (
            r"\bpasswd/[\w-]{0,40}password(?:-again)?[ \t]{1,40}password[ \t]{1,40}(?P<value>\S{1,256})",
            "a password (preseed)",
        ),
        (r"\bpasswd=[\"'](?P<value>[^\"']{1,256})[\"']", "a screen's password"),
        (
            r"name=[\"']passwd[\"']>\s{0,40}(?:<xsl:text>)?(?P<value>[^<\s]{1,256})",
            "a screen's password",
        ),
        (
            r"\bsshpass[ \t]{1,40}-p[ \t]{0,40}[\"']?(?P<value>[^\s\"']{1,256})",
            "a password (sshpass)",
        ),
        (
            r"\bmysql(?:admin|dump)?\b[^\n]{0,200}[ \t]-p(?P<value>[^\s]{1,256})",
            "a password (mysql)",
        ),
        (
            r"\b(?:curl|wget)\b[^\n]{0,200}?[ \t](?:-u|--user)[ \t=]{1,40}[\"']?[^\s:\"']{1,64}:(?!\$\w)(?P<value>[^\s\"']{1,256})",
            "a password (curl)",
        ),
        (
            r"(?i:\bAuthorization:[ \t]{0,40}(?:Bearer|Basic|Token)[ \t]{1,40}(?P<value>[^\s\"']{8,512}))",
            "a token",
        ),
        (
            (
                r"\bmachine[ \t]{1,40}\S{1,128}[ \t\n]{1,40}login[ \t]{1,40}\S{1,64}[ \t\n]{1,40}password[ \t]{1,40}"
                r"(?P<value>\S{1,256})"
            ),
            "a password (netrc)",
        ),
        (
            r"--pass(?:word|phrase)[= ][\"']?(?P<value>[^\s\-\"']\S{0,255})",
            "a password (--password)",
        ),
        (
            (
                r"(?:^|[\s;&|(\"'`])[A-Z][A-Z0-9_]{0,40}?(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|SSHPASS|_PWD)=(?!\$\w)"
                r"[\"']?(?P<value>[^\s\"';]{1,256})"
            ),
            "a password in a variable",
        ),
        (
            rf"{_SHELL}(?:PASSWORD|PASSWD|SECRET|TOKEN|SSHPASS)=(?!\$\w)[\"']?(?P<value>[^\s\"';]{{1,256}})",
            "a password in a variable",
        ),
    )
)
"""What in a text is a secret. The first is a key; of the others a group is the value."""
LOOKED_AT = 1 << 20
"""Characters of a text that are looked through, in time that grows as it does: every repetition above
has a bound. A longer one is no configuration, and is refused unless it is marked."""
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
        if command := _command(given):
            yield path, command
        keys = given if isinstance(given, Mapping) else range(len(given))
        for key in keys:
            # The engine's own: the code of dynamic providers, lists of defaults.
            if isinstance(key, str) and key.startswith("__"):
                continue
            inner = value(given, key)
            if inner is not UNKNOWN:
                yield from _leaves(inner, (*path, key))


def _command(given: Any) -> str:
    """Return the words of a list as the command line that they may be; empty for anything else."""
    if isinstance(given, Mapping):
        return ""
    words = [value(given, number) for number in range(len(given))]
    return " ".join(words) if len(words) > 1 and all(isinstance(w, str) for w in words) else ""


def _secret(path: Path, given: str) -> str:
    if not given.strip():
        return ""
    if len(given) > LOOKED_AT:
        return f"more than {LOOKED_AT} characters, which nobody looks through,"
    if "chpasswd" in path and _USER.match(given):
        return "a list of passwords (chpasswd)"
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


_USER = re.compile(r"[a-z_][\w-]{0,32}:(?!\$|\{\w+\}|R$|RANDOM$)\S")
"""How a line of chpasswd's list begins, if what follows is no hash."""
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
