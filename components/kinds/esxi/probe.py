"""A nested ESXi takes orders: by its own commands, and by its SDK.

``{url}`` beside what `ssh` takes. First over SSH, where the planned host key shows that it is the
machine it should be; then by its SDK, which people's tools and its Host Client speak to and which is
up later: a login as root, the host not in maintenance mode, a datastore that can be used.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.gates.probes import ssh
from components.reach.waiting import Seen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from components.gates.probes import Asked, Place

VERSION = "vim.version.version10"
"""The API of 6.5, which every ESXi since speaks: what is asked for is older."""
CALL_S = 20
"""Longest answer of one call, seconds: a host that is nested twice takes some."""


def probe(asked: Asked, place: Place) -> Seen:
    """See `components.gates.probes.probe`."""
    seen = ssh.probe(asked, place)
    return _asked(asked) if seen.ok else seen


glance = ssh.glance


def _asked(asked: Asked) -> Seen:
    from pyVmomi import vmodl  # noqa: PLC0415 - 0.3 s, which labs without ESXi need not pay

    url = asked.probe.url
    try:
        with _session(url, asked.reach.password) as content:
            return _host(content)
    except vmodl.MethodFault as refused:
        told = getattr(refused, "msg", "") or type(refused).__name__
        words = " ".join(told.split())
        return Seen(ok=False, text=f"{url} refuses: {words}")
    except (OSError, http.client.HTTPException) as silent:
        return Seen(ok=False, text=f"{url} does not answer ({silent})")


@contextlib.contextmanager
def _session(url: str, password: str) -> Iterator[Any]:
    """Log in as root and out again: a host keeps few sessions.

    The certificate is the host's own making; whose it is, SSH has shown before.
    """
    import pyVmomi  # noqa: PLC0415

    sdk: Any = pyVmomi  # it has no types
    link = urlsplit(url)
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    stub = sdk.SoapStubAdapter(
        host=link.hostname,
        port=link.port or 443,
        version=VERSION,
        sslContext=unverified,
        httpConnectionTimeout=CALL_S,
    )
    try:
        content = sdk.vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
        content.sessionManager.Login("root", password, None)
        yield content
        content.sessionManager.Logout()
    finally:
        stub.DropConnections()


def _host(content: Any) -> Seen:
    about = content.about
    if about.apiType != "HostAgent":
        return Seen(ok=False, text=f"{about.fullName} answers, and no ESXi")
    host = content.rootFolder.childEntity[0].hostFolder.childEntity[0].host[0]
    if host.runtime.inMaintenanceMode:
        return Seen(ok=False, text="it is in maintenance mode")
    if not any(store.summary.accessible for store in host.datastore):
        return Seen(ok=False, text="it has no datastore yet")
    return Seen(ok=True, text=about.fullName)
