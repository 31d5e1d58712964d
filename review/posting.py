"""One comment on a pull request, over GitHub's REST API (version 2022-11-28): ours is updated, else made.

Endpoints: "List issue comments", "Create an issue comment", "Update an issue comment", "Get a pull
request" of docs.github.com/rest. Ours is the one that begins with our marker *and* was written by us:
anybody may write the marker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from components.refused import Refused
from review.markdown import MARKER

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "2022-11-28"
API = "https://api.github.com"
ROBOT = "github-actions[bot]"
"""Who writes with a workflow's own token."""
PAGE, PAGES = 100, 100
"""Comments of a page (the most that GitHub gives), and pages that are looked through."""
WAIT_S = 30.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class NotPosted(Refused):
    """There is no comment, or not the one that was meant."""


class GitHub:
    """A repository's comments; ``token`` may write issues or pull requests, ``author`` is whose it is."""

    def __init__(self, repository: str, token: str, *, api: str = API, author: str = ROBOT) -> None:
        at = urlsplit(api)
        if at.scheme != "https" and at.hostname not in LOOPBACK:
            raise NotPosted(f"{api!r} is no https address, and a token is sent there")
        self._at = f"{api.rstrip('/')}/repos/{repository}"
        self._author = author
        self._session = requests.Session()
        # Neither a proxy's password nor one of ~/.netrc replaces the token.
        self._session.trust_env = False
        self._session.headers.update(
            {
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {token}",
                "X-GitHub-Api-Version": VERSION,
            }
        )

    def post(self, number: int, body: str, *, commit: str = "") -> str:
        """Have the pull request ``number`` carry ``body`` once; return "made", "updated" or "as it was".

        ``commit``: what its branch has to be at. A report says its own number, and may lie.

        Raises:
            NotPosted: GitHub refused, or the branch is elsewhere.
        """
        if commit and (found := self._asked("GET", f"/pulls/{number}")["head"]["sha"]) != commit:
            raise NotPosted(
                f"the pull request {number} is at {found}, and the report was made of {commit}: nothing was"
                " written. The run for its newest commit writes the comment."
            )
        mine = next(self._mine(number), None)
        if mine is None:
            self._asked("POST", f"/issues/{number}/comments", {"body": body})
            return "made"
        if mine["body"] == body:
            return "as it was"
        self._asked("PATCH", f"/issues/comments/{int(mine['id'])}", {"body": body})
        return "updated"

    def _mine(self, number: int) -> Iterator[dict[str, Any]]:
        for page in range(1, PAGES + 1):
            at = f"/issues/{number}/comments?per_page={PAGE}&page={page}"
            answer = self._answer("GET", at)
            for each in answer.json():
                by = (each.get("user") or {}).get("login")
                if by == self._author and str(each.get("body", "")).startswith(MARKER):
                    yield each
            # Only whether there is one more: where it leads is no matter of the answer's.
            if "next" not in answer.links:
                return

    def _asked(self, method: str, at: str, told: dict[str, Any] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self._answer(method, at, told).json()
        return found

    def _answer(
        self, method: str, at: str, told: dict[str, Any] | None = None
    ) -> requests.Response:
        try:
            answer = self._session.request(
                method, f"{self._at}{at}", json=told, timeout=WAIT_S, allow_redirects=False
            )
        except requests.RequestException as failed:
            raise NotPosted(f"GitHub was not reached: {type(failed).__name__}") from None
        if not 200 <= answer.status_code < 300:  # noqa: PLR2004 - success, RFC 9110
            try:
                said = str(answer.json().get("message", ""))
            except (ValueError, AttributeError):
                said = ""
            what = f"{method} {at.partition('?')[0]}"
            raise NotPosted(
                f"GitHub refused {what} with {answer.status_code} {said[:200]!r}; the token needs"
                " pull-requests: write"
            )
        return answer
