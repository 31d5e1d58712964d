"""ESXi's SDK at port 443: govmomi's simulator, behind what asks for the password that was planned.

The simulator knows one password, and of the planned one the answers tell its hash alone. Light modules only.
"""

from __future__ import annotations

import http.client
import re
import ssl
import subprocess
import threading
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SIMULATOR = ("/opt/nestlab/vcsim", "127.0.0.1:8443", "esx")
CERTIFICATE = "/opt/nestlab/sdk.pem"
KEY = "/opt/nestlab/sdk.key"
ITS_PASSWORD = "labpass"
LENGTH = "content-length"


def fits(password: str, hashed: str) -> bool:
    """Whether a password is the one with that hash (SHA-512 crypt)."""
    _, form, salt, _ = hashed.split("$")
    done = subprocess.run(
        ["openssl", "passwd", f"-{form}", "-salt", salt, "-stdin"],
        input=password + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip() == hashed


def serve(hashed: str) -> None:
    """Serve in a thread, for ever."""
    subprocess.Popen(SIMULATOR, stdout=subprocess.DEVNULL)

    def change(told: re.Match[bytes]) -> bytes:
        given = unescape(told[2].decode())
        return told[1] + (ITS_PASSWORD if fits(given, hashed) else "wrong").encode() + told[3]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers[LENGTH] or 0))
            if b":Login" in body or b"<Login" in body:
                body = re.sub(rb"(<password[^>]*>)(.*?)(</)", change, body)
            behind = http.client.HTTPSConnection(
                "127.0.0.1",
                8443,
                context=ssl._create_unverified_context(),  # noqa: S323 - loopback
            )
            headers = {k: v for k, v in self.headers.items() if k.lower() not in {LENGTH, "host"}}
            behind.request("POST", self.path, body, headers)
            answer = behind.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in {LENGTH, "transfer-encoding", "connection"}:
                    self.send_header(key, value)
            self.send_header(LENGTH, str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:  # type: ignore[explicit-override]  # light
            pass

    server = ThreadingHTTPServer(("0.0.0.0", 443), Handler)  # noqa: S104 - what a product does
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
