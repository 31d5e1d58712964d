"""A stand-in for GitHub's REST API, as docs.github.com/rest says of issue comments and pull requests (2022-11-28).

List issue comments: `per_page` at most 100 (default 30), `page` from 1, a Link header with rel="next" while
there is more. Create answers 201, update 200 and 404 where there is none; a body of more than 65,536
characters is refused with 422.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 65_536
TOKEN = "a-token"


@dataclass
class GitHub:
    """One repository, ``o/r``, with one pull request, 7."""

    comments: list[dict[str, Any]] = field(default_factory=list)
    robot: str = "github-actions[bot]"
    head: str = "c0ffee"
    asked: list[str] = field(default_factory=list)
    api: str = ""
    moved: str = ""
    """Where everything is redirected to, if anywhere."""

    def say(self, author: str, body: str) -> None:
        at = len(self.comments) + 1
        self.comments.append({"id": at, "user": {"login": author}, "body": body})

    def answer(  # noqa: PLR0911 - one for each thing that GitHub says
        self, method: str, path: str, told: Any
    ) -> tuple[int, Any, dict[str, str]]:
        self.asked.append(f"{method} {path}")
        at = urlsplit(path)
        if self.moved:
            return 307, {}, {"Location": self.moved}
        if (method, at.path) == ("GET", "/repos/o/r/pulls/7"):
            return 200, {"number": 7, "head": {"sha": self.head}}, {}
        if method != "GET" and len(told["body"]) > LONGEST:
            return 422, {"message": "Validation Failed"}, {}
        if at.path == "/repos/o/r/issues/7/comments":
            if method == "POST":
                self.say(self.robot, told["body"])
                return 201, self.comments[-1], {}
            asked = parse_qs(at.query)
            size = min(100, int(asked.get("per_page", ["30"])[0]))
            page = int(asked.get("page", ["1"])[0])
            found = self.comments[(page - 1) * size : page * size]
            more = len(self.comments) > page * size
            link = f'<{self.api}{at.path}?per_page={size}&page={page + 1}>; rel="next"'
            return 200, found, {"Link": link} if more else {}
        number = at.path.removeprefix("/repos/o/r/issues/comments/")
        mine = [each for each in self.comments if str(each["id"]) == number]
        if method == "PATCH" and mine:
            mine[0]["body"] = told["body"]
            return 200, mine[0], {}
        return 404, {"message": "Not Found"}, {}

    @contextmanager
    def serving(self) -> Iterator[GitHub]:
        github = self

        class Handler(BaseHTTPRequestHandler):
            def _all(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                told = json.loads(self.rfile.read(size) or b"null")
                known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                status, body, more = (
                    github.answer(self.command, self.path, told)
                    if known
                    else (401, {"message": "Bad credentials"}, {})
                )
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**more, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = _all  # noqa: N815 - named by the base class

            @override
            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.api = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
