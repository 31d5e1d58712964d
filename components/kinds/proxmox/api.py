"""Proxmox VE's API, for what the provider does not do: look again, mend, network bridges.

By proxmoxer. The API of a nested host has a certificate of its own making; whose it is, its gate has
seen over SSH before, by the host key that was planned.
"""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.reach.interrupt import CANCELLED
from components.reach.shell import Unreachable
from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

CALL_S = 20
"""Longest answer of one call, seconds: an emulated host takes some."""
TASK_POLL_S = 0.3
GONE = ("does not exist", "no such")
"""What the API says, with status 500, of guests and interfaces that are not there."""


@dataclass(frozen=True, slots=True)
class Api:
    """How an API is reached, as plain data that goes through the engine; a secret as a whole."""

    url: str
    """https://HOST:PORT"""
    user: str
    """USER@REALM, or USER@REALM!TOKENID with a token."""
    password: str = field(repr=False)
    """Of the user, or the token's secret."""
    insecure: bool = False
    """Whether any certificate will do."""


class _File(io.BytesIO):
    """A file as proxmoxer sends one, which takes its name from what it reads."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(content)
        self.name = name


class PveError(Refused):
    """The API refused something; the message is its own."""


class Pve:
    """One API, logged in."""

    def __init__(self, api: Api) -> None:
        """Log in.

        Raises:
            Unreachable: it does not answer, or does not take the password.
        """
        import proxmoxer  # noqa: PLC0415 - 0.1 s, which labs without Proxmox need not pay

        link = urlsplit(api.url)
        self.name = f"{link.hostname}:{link.port}"
        user, _, token = api.user.partition("!")
        secret = {"token_name": token, "token_value": api.password}
        with self._told():
            self._api = proxmoxer.ProxmoxAPI(
                link.hostname,
                port=link.port or 8006,
                user=user,
                verify_ssl=not api.insecure,
                timeout=CALL_S,
                **(secret if token else {"password": api.password}),
            )

    def get(self, path: str, **params: Any) -> Any:
        """Return what is at ``path``, such as nodes/pve/qemu."""
        with self._told():
            return self._api(path).get(**params)

    def find(self, path: str) -> Any:
        """Return what is at ``path``; None where there is nothing."""
        try:
            return self.get(path)
        except PveError as refused:
            if any(word in str(refused).lower() for word in GONE):
                return None
            raise

    def post(self, path: str, **params: Any) -> Any:
        """Send ``params`` to ``path``; return the answer, often a task."""
        with self._told():
            return self._api(path).post(**params)

    def upload(self, path: str, name: str, data: bytes, *, content: str, sha256: str) -> Any:
        """Send a file of that ``name`` to a storage's ``path``, as what ``content`` says; return the task."""
        # In this order, or it is refused: Proxmox VE reads the fields one after another (pve-http-server,
        # AnyEvent.pm, file_upload_multipart).
        told = {"content": content, "checksum-algorithm": "sha256", "checksum": sha256}
        return self.post(path, **told, filename=_File(name, data))

    def put(self, path: str, **params: Any) -> Any:
        """Change ``path``."""
        with self._told():
            return self._api(path).put(**params)

    def delete(self, path: str, **params: Any) -> Any:
        """Remove ``path``."""
        with self._told():
            return self._api(path).delete(**params)

    def wait(self, node: str, task: Any, deadline_s: float) -> None:
        """Wait for the end of ``task``, the UPID that a call returned; None is one that has ended.

        Raises:
            PveError: it failed, or did not end within ``deadline_s`` seconds.
        """
        if not isinstance(task, str) or not task.startswith("UPID:"):
            return
        until = time.monotonic() + deadline_s
        while (told := self.get(f"nodes/{node}/tasks/{task}/status")).get("status") != "stopped":
            if time.monotonic() > until:
                raise PveError(f"{told.get('type')} did not end within {deadline_s:.0f} s")
            if CANCELLED.wait(TASK_POLL_S):
                raise PveError(f"stopped while waiting for {told.get('type')}")
        if told.get("exitstatus") not in {"OK", None} and "WARNINGS" not in told["exitstatus"]:
            raise PveError(f"{told.get('type')}: {told['exitstatus']}")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        import proxmoxer  # noqa: PLC0415
        import requests  # noqa: PLC0415
        import urllib3  # noqa: PLC0415

        # It would be said to the user on every call; what there is to say stands in this module.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        try:
            yield
        except proxmoxer.ResourceException as refused:
            raise PveError(_words(refused)) from None
        except proxmoxer.AuthenticationError as refused:
            raise Unreachable(f"{self.name}: {refused}") from None
        except (requests.RequestException, OSError) as silent:
            raise Unreachable(f"{self.name}: {_cause(silent)}") from None


def _words(refused: Any) -> str:
    errors = refused.errors if isinstance(refused.errors, dict) else {}
    fields = ", ".join(f"{field}: {' '.join(str(why).split())}" for field, why in errors.items())
    # The reason that stands in the status line is Proxmox' own; the other is HTTP's name of the number.
    text = " ".join(str(refused.content or refused.status_message).split())
    return f"{text} ({fields})" if fields else text


def _cause(silent: BaseException) -> str:
    """Return what is at the bottom of requests' nested errors."""
    inner = silent
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return str(text)[:1].lower() + str(text)[1:]
