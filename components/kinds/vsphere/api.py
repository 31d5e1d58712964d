"""vSphere's API, for what the provider does not do: look again, mend, switches and port groups.

By pyvmomi, with one session for each piece of work: a vCenter keeps few. What is returned are its own
objects, of the few properties that gates ask for.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from components.reach.interrupt import CANCELLED
from components.reach.shell import Unreachable
from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

VERSION = "vim.version.version10"
"""The API of 6.5, which every vCenter since speaks: what is asked for is older."""
PORT = 443
CALL_S = 30
"""Longest answer of one call, seconds."""
POLL_S = 0.3
TASK_S = 300.0
NETWORK_S = 30.0
"""How long a vCenter may take to list a port group that its host has by then, seconds."""


@dataclass(frozen=True, slots=True)
class Api:
    """How a vCenter is reached, as plain data that goes through the engine; a secret as a whole."""

    server: str
    """HOST or HOST:PORT."""
    user: str
    password: str = field(repr=False)
    insecure: bool = False
    """Whether any certificate will do."""


class VsphereError(Refused):
    """vSphere refused something; the message is its own, or says what is not there."""


@dataclass(frozen=True)
class Node:
    """One ESXi host and the datastore that a lab uses on it, by their ids."""

    host: str
    pool: str
    """Resource pool of the host, or of the cluster it is in."""
    store: str


class Vsphere:
    """One vCenter; ``with`` logs in and out again."""

    def __init__(self, api: Api) -> None:
        self.name = api.server
        self._api = api
        self._stub: Any = None
        self._content: Any = None

    def __enter__(self) -> Self:
        """Log in.

        Raises:
            Unreachable: it does not answer, or does not take the password.
        """
        host, _, port = self.name.partition(":")
        trust = ssl.create_default_context()
        if self._api.insecure:
            trust.check_hostname = False
            trust.verify_mode = ssl.CERT_NONE
        self._stub = sdk().SoapStubAdapter(
            host=host,
            port=int(port or PORT),
            version=VERSION,
            sslContext=trust,
            httpConnectionTimeout=CALL_S,
        )
        try:
            with self.told():
                self._content = (
                    sdk().vim.ServiceInstance("ServiceInstance", self._stub).RetrieveContent()
                )
                self._content.sessionManager.Login(self._api.user, self._api.password, None)
        except VsphereError as refused:
            self._stub.DropConnections()
            raise Unreachable(f"{self.name}: {refused}") from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(VsphereError, Unreachable), self.told():
            self._content.sessionManager.Logout()
        self._stub.DropConnections()

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Raise what goes wrong inside in words: `VsphereError`, or `Unreachable`."""
        try:
            yield
        except sdk().vmodl.MethodFault as fault:
            raise VsphereError(words(fault)) from None
        except ssl.SSLCertVerificationError as wrong:
            why = f"its certificate is not trusted ({wrong.verify_message})"
            raise Unreachable(
                f"{self.name}: {why}; trust its authority on this machine, or set insecure: true"
            ) from None
        except (OSError, http.client.HTTPException) as silent:
            why = getattr(silent, "strerror", None) or str(silent) or type(silent).__name__
            raise Unreachable(f"{self.name}: {why[:1].lower()}{why[1:]}") from None

    # What is there.

    def datacenter(self, name: str) -> Any:
        """Return the datacenter called ``name``.

        Raises:
            VsphereError: there is none.
        """
        return self._one(
            "datacenter", name, self._all(sdk().vim.Datacenter, self._content.rootFolder)
        )

    def node(self, datacenter: str, host: str, store: str) -> Node:
        """Return the ids of a host and of one of its datastores.

        Raises:
            VsphereError: there is no such one; the message names those there are.
        """
        with self.told():
            hosts = self._all(sdk().vim.HostSystem, self.datacenter(datacenter).hostFolder)
            found = self._one("host", host, hosts)
            at = self._one(
                f"datastore of {host}", store, {one.name: one for one in found.datastore}
            )
            return Node(_id(found), _id(found.parent.resourcePool), _id(at))

    def _all(self, kind: Any, start: Any, *, deep: bool = True) -> dict[str, Any]:
        """Return the objects of ``kind`` below ``start``, by name."""
        view = self._content.viewManager.CreateContainerView(start, [kind], deep)
        try:
            collector = sdk().vmodl.query.PropertyCollector
            walk = collector.TraversalSpec(name="all", path="view", skip=False, type=type(view))
            asked = collector.FilterSpec(
                objectSet=[collector.ObjectSpec(obj=view, skip=True, selectSet=[walk])],
                propSet=[collector.PropertySpec(type=kind, pathSet=["name"])],
            )
            told = self._content.propertyCollector.RetrieveContents([asked])
            return {one.propSet[0].val: one.obj for one in told if one.propSet}
        finally:
            view.DestroyView()

    def _one(self, what: str, name: str, there: dict[str, Any]) -> Any:
        if name not in there:
            known = ", ".join(sorted(there)) or "none"
            raise VsphereError(f"{self.name} has no {what} {name}; there is {known}")
        return there[name]

    def read(self, thing: Any, *paths: str) -> dict[str, Any]:
        """Return properties of ``thing`` by path, all in one call; those that are unset are missing."""
        collector = sdk().vmodl.query.PropertyCollector
        asked = collector.FilterSpec(
            objectSet=[collector.ObjectSpec(obj=thing)],
            propSet=[collector.PropertySpec(type=type(thing), pathSet=list(paths))],
        )
        with self.told():
            [told] = self._content.propertyCollector.RetrieveContents([asked])
            return {each.name: each.val for each in told.propSet}

    def by_uuid(self, uuid: str) -> Any:
        """Return the machine with the BIOS UUID by which the provider knows it; None without one."""
        with self.told():
            return self._content.searchIndex.FindByUuid(None, uuid, True, False)

    def by_name(self, datacenter: str, name: str) -> Any:
        """Return the machine called ``name`` in the datacenter's own folder; None without one."""
        with self.told():
            folder = self.datacenter(datacenter).vmFolder
            return self._all(sdk().vim.VirtualMachine, folder, deep=False).get(name)

    def host(self, moid: str) -> Any:
        """Return the host with that id."""
        return self._object("HostSystem", moid)

    def pool(self, moid: str) -> Any:
        """Return the resource pool with that id."""
        return self._object("ResourcePool", moid)

    def store(self, moid: str) -> str:
        """Return the name of the datastore with that id."""
        with self.told():
            return str(self._object("Datastore", moid).name)

    def _object(self, kind: str, moid: str) -> Any:
        return getattr(sdk().vim, kind)(moid, self._stub)

    # What is done.

    def end(self, task: Any, deadline_s: float = TASK_S) -> Any:
        """Wait for the end of a task; return its result.

        Raises:
            VsphereError: it failed, or did not end within ``deadline_s`` seconds.
        """
        until = time.monotonic() + deadline_s
        while True:
            with self.told():
                info = task.info
            if info.state == "success":
                return info.result
            if info.state == "error":
                raise VsphereError(words(info.error))
            name = str(info.descriptionId or "a task")
            if time.monotonic() > until:
                raise VsphereError(f"{name} did not end within {deadline_s:.0f} s")
            if CANCELLED.wait(POLL_S):
                raise VsphereError(f"stopped while waiting for {name}")

    def power_on(self, machine: Any, deadline_s: float) -> None:
        """Switch a machine on, or go on with a suspended one."""
        with self.told():
            task = machine.PowerOnVM_Task(None)
        self.end(task, deadline_s)

    def power_off(self, machine: Any) -> None:
        """Switch a machine off at once."""
        with self.told():
            task = machine.PowerOffVM_Task()
        self.end(task)

    def reconfigure(self, machine: Any, spec: Any) -> None:
        """Change a machine."""
        with self.told():
            task = machine.ReconfigVM_Task(spec)
        self.end(task)

    def remove(self, machine: Any) -> None:
        """Remove a machine with its disks, whether it runs or not."""
        if self.read(machine, "runtime.powerState")["runtime.powerState"] != "poweredOff":
            self.power_off(machine)
        with self.told():
            task = machine.Destroy_Task()
        self.end(task)

    def create(self, datacenter: str, spec: Any, pool: str, host: str) -> Any:
        """Make a machine; return it."""
        with self.told():
            folder = self.datacenter(datacenter).vmFolder
            task = folder.CreateVM_Task(spec, self.pool(pool), self.host(host))
        return self.end(task)

    def network_id(self, datacenter: str, group: str) -> str:
        """Return the id of the network that a port group is, once it is listed.

        Raises:
            VsphereError: it is not, in time.
        """
        until = time.monotonic() + NETWORK_S
        while True:
            with self.told():
                found = self._all(sdk().vim.Network, self.datacenter(datacenter).networkFolder)
            if group in found:
                return _id(found[group])
            if time.monotonic() > until or CANCELLED.wait(POLL_S):
                raise VsphereError(f"{self.name} does not list the port group {group}")

    def networks(self, host: str) -> Any:
        """Return the network system of a host."""
        with self.told():
            return self.host(host).configManager.networkSystem


def sdk() -> Any:
    """Return pyvmomi, which has no types: 0.3 s that labs without vSphere need not pay."""
    import pyVmomi  # noqa: PLC0415

    return pyVmomi


def _id(thing: Any) -> str:
    return str(thing._moId)  # noqa: SLF001 - it has no public name


def words(fault: Any) -> str:
    """Return what a fault says, in one line: its message, and its name where that says nothing."""
    name = type(fault).__name__.rpartition(".")[2]
    said = " ".join(str(getattr(fault, "msg", "") or "").split())
    more: Sequence[Any] = getattr(fault, "faultMessage", None) or ()
    details = "; ".join(str(each.message) for each in more if each.message)
    text = said if said and said != name else name
    subject = getattr(fault, "name", "")
    if text == name and subject:
        text = f"{name} ({subject})"
    return f"{text} ({details})" if details and details not in text else text
