"""A vCenter that the real provider plugin can be run against: govmomi's simulator, built by this project.

It speaks the vSphere API and keeps inventory, machines, switches and datastore files in memory; it
runs nothing, checks little (any NIC on any guest) and knows no free licence. What an administrator
does by hand is asked of it in the same API, in the few calls of `_Sdk`.
"""

from __future__ import annotations

import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Self
from xml.sax.saxutils import escape

from toolchain.bootstrap import pins
from toolchain.engine import golang

if TYPE_CHECKING:
    from types import TracebackType

HOST = "127.0.0.1"
ANSWER_S = 30.0
NAMESPACE = "urn:vim25"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
ENVELOPE = (
    f'<e:Envelope xmlns:e="{SOAP}" xmlns:xsi="{XSI}"><e:Body>'
    '<{method} xmlns="{namespace}">{arguments}</{method}></e:Body></e:Envelope>'
)


@dataclass(frozen=True)
class Ref:
    """A managed object, as the API names it."""

    kind: str
    value: str

    def xml(self, tag: str = "_this") -> str:
        return f'<{tag} type="{self.kind}">{escape(self.value)}</{tag}>'


class Fault(Exception):
    """The vCenter refused."""


@dataclass
class _Sdk:
    """One session at the SOAP API."""

    url: str
    user: str
    password: str
    context: ssl.SSLContext = field(default_factory=ssl._create_unverified_context)

    def __post_init__(self) -> None:
        self.open = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=self.context),
            urllib.request.HTTPCookieProcessor(CookieJar()),
            urllib.request.ProxyHandler({}),
        ).open
        login = (
            f"<userName>{escape(self.user)}</userName><password>{escape(self.password)}</password>"
        )
        self.call("Login", Ref("SessionManager", "SessionManager"), login)

    def call(self, method: str, this: Ref, arguments: str = "") -> ET.Element:
        """Call a method; return the body of its answer."""
        body = ENVELOPE.format(
            method=method, namespace=NAMESPACE, arguments=this.xml() + arguments
        ).encode()
        headers = {"Content-Type": "text/xml", "SOAPAction": f"{NAMESPACE}/8.0.1.0"}
        request = urllib.request.Request(f"{self.url}/sdk", body, headers)  # noqa: S310 - loopback
        try:
            with self.open(request, timeout=ANSWER_S) as answer:
                told = ET.fromstring(answer.read())  # noqa: S314 - from our own process
        except urllib.error.HTTPError as error:
            told = ET.fromstring(error.read())  # noqa: S314 - from our own process
            raise Fault(f"{method}: {told.findtext('.//faultstring')}") from None
        found = told.find(f"{{{SOAP}}}Body")
        assert found is not None
        return found[0]

    def task(self, method: str, this: Ref, arguments: str = "") -> None:
        """Call a method that starts a task, and wait for its end.

        Raises:
            Fault: the task ended in an error.
        """
        started = self.call(method, this, arguments).findtext(_vim("returnval"))
        task = Ref("Task", started or "")
        end = time.monotonic() + ANSWER_S
        while time.monotonic() < end:
            told = self.properties(task, "info.state", "info.error")
            if told["info.state"].text == "success":
                return
            if told["info.state"].text == "error":
                raise Fault(f"{method}: {told['info.error'].findtext(_vim('localizedMessage'))}")
            time.sleep(0.02)
        raise Fault(f"{method} did not end within {ANSWER_S:.0f} s")

    def properties(self, this: Ref, *paths: str) -> dict[str, ET.Element]:
        """Read properties of one object, by path."""
        [told] = self._retrieve(
            this.kind, f"<objectSet>{this.xml('obj')}</objectSet>", paths
        ).values()
        return told

    def all(self, kind: str, *paths: str) -> dict[Ref, dict[str, ET.Element]]:
        """Read properties of every object of a kind."""
        scope = Ref("Folder", "group-d1").xml("container")
        made = self.call(
            "CreateContainerView",
            Ref("ViewManager", "ViewManager"),
            f"{scope}<type>{kind}</type><recursive>true</recursive>",
        )
        view = Ref("ContainerView", made.findtext(_vim("returnval")) or "")
        walk = (
            '<selectSet xsi:type="TraversalSpec"><name>all</name><type>ContainerView</type>'
            "<path>view</path><skip>false</skip></selectSet>"
        )
        start = f"<objectSet>{view.xml('obj')}<skip>true</skip>{walk}</objectSet>"
        return self._retrieve(kind, start, paths)

    def _retrieve(
        self, kind: str, start: str, paths: tuple[str, ...]
    ) -> dict[Ref, dict[str, ET.Element]]:
        wanted = "".join(f"<pathSet>{path}</pathSet>" for path in paths)
        told = self.call(
            "RetrievePropertiesEx",
            Ref("PropertyCollector", "propertyCollector"),
            f"<specSet><propSet><type>{kind}</type>{wanted}</propSet>{start}</specSet><options/>",
        )
        found = {}
        for item in told.iterfind(f"{_vim('returnval')}/{_vim('objects')}"):
            ref = item.find(_vim("obj"))
            assert ref is not None
            found[Ref(ref.attrib["type"], ref.text or "")] = {
                each.findtext(_vim("name")) or "": value
                for each in item.iterfind(_vim("propSet"))
                if (value := each.find(_vim("val"))) is not None
            }
        return found


@dataclass(frozen=True)
class Machine:
    """A virtual machine as the vCenter shows it."""

    name: str
    running: bool
    template: bool
    cpus: int
    memory_mib: int
    guest_id: str
    firmware: str
    nested: bool
    note: str
    macs: tuple[str, ...]
    adapters: tuple[str, ...]
    cdroms: tuple[str, ...]
    """Files in the drives."""
    disks: tuple[str, ...]


class Vcsim:
    """A running double, and what an administrator does to it by hand; machines go by their name."""

    user = "root"
    password = "labpass"
    datacenter = "DC0"
    host = "DC0_H0"
    """A host outside any cluster; the plugin finds a cluster's pool only in a real vCenter."""
    pool = "DC0_H0/Resources"
    datastore = "LocalDS_0"
    network = "VM Network"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [golang.place(pins.VCSIM), f"{HOST}:0", "vpx"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        self.server = urllib.parse.urlsplit(said.strip()).netloc.rpartition("@")[2]
        """Address and port, as the provider takes them."""
        assert self.server, f"vcsim did not start: {said}"
        self._sdk = _Sdk(f"https://{self.server}", self.user, self.password)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del kind, error, trace
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ANSWER_S)
        self._process.kill()
        self._process.communicate()

    # What is there.

    def machines(self) -> dict[str, Machine]:
        """Every virtual machine and template."""
        told = self._sdk.all("VirtualMachine", "name", "config", "runtime.powerState")
        found = [
            _machine(
                each["name"].text or "",
                each["config"],
                each["runtime.powerState"].text == "poweredOn",
            )
            for each in told.values()
        ]
        return {machine.name: machine for machine in found}

    def folders(self) -> set[str]:
        """Names of all folders."""
        return {each["name"].text or "" for each in self._sdk.all("Folder", "name").values()}

    def switches(self) -> dict[str, set[str]]:
        """The standard switches of the host, and their port groups."""
        config = self._network_system()["networkInfo"]
        found = {
            each.findtext(_vim("name")) or "": set[str]()
            for each in config.iterfind(_vim("vswitch"))
        }
        for group in config.iterfind(_vim("portgroup")):
            spec = group.find(_vim("spec"))
            assert spec is not None
            switch = spec.findtext(_vim("vswitchName")) or ""
            found.setdefault(switch, set()).add(spec.findtext(_vim("name")) or "")
        return found

    def _file(self, path: str) -> str:
        query = urllib.parse.urlencode({"dcPath": self.datacenter, "dsName": self.datastore})
        return f"https://{self.server}/folder/{urllib.parse.quote(path)}?{query}"

    def has_file(self, path: str) -> bool:
        """Whether the datastore holds a file: `has_file("iso/debian.iso")`."""
        try:
            with self._sdk.open(self._file(path)):
                return True
        except urllib.error.HTTPError:
            return False

    def content(self, path: str) -> bytes:
        """What is in a file of the datastore."""
        with self._sdk.open(self._file(path), timeout=ANSWER_S) as answer:
            read: bytes = answer.read()
        return read

    # What is done to it by hand.

    def put(self, path: str, content: bytes) -> None:
        """Write a file into the datastore, whose folder may not be there yet."""
        folder = f"[{self.datastore}] {path.rpartition('/')[0]}"
        [datacenter] = self._sdk.all("Datacenter", "name")
        made = f"<name>{escape(folder)}</name>{datacenter.xml('datacenter')}"
        with suppress(Fault):
            self._sdk.call("MakeDirectory", Ref("FileManager", "FileManager"), made)
        request = urllib.request.Request(self._file(path), content, method="PUT")  # noqa: S310 - loopback
        with self._sdk.open(request, timeout=ANSWER_S):
            pass

    def stop(self, name: str) -> None:
        """Switch a machine off."""
        self._sdk.task("PowerOffVM_Task", self._find(name))

    def remove(self, name: str) -> None:
        """Remove a machine with its disks, whether it runs or not."""
        found = self._find(name)
        with suppress(Fault):
            self._sdk.task("PowerOffVM_Task", found)
        self._sdk.task("Destroy_Task", found)

    def reconfigure(self, name: str, spec: str) -> None:
        """Change a machine: `reconfigure("web", "<memoryMB>1024</memoryMB>")`."""
        self._sdk.task("ReconfigVM_Task", self._find(name), f"<spec>{spec}</spec>")

    def take_out(self, name: str, path: str) -> None:
        """Remove the CD drive with a file in it."""
        config = self._sdk.properties(self._find(name), "config")["config"]
        drives = config.findall(f"{_vim('hardware')}/{_vim('device')}")
        file = f"{_vim('backing')}/{_vim('fileName')}"
        [key] = [
            each.findtext(_vim("key"))
            for each in drives
            if (each.findtext(file) or "").endswith(f"] {path}")
        ]
        drive = f'<device xsi:type="VirtualCdrom"><key>{key}</key></device>'
        self.reconfigure(name, f"<deviceChange><operation>remove</operation>{drive}</deviceChange>")

    def rename(self, name: str, new: str) -> None:
        """Give a machine another name."""
        self._sdk.task("Rename_Task", self._find(name), f"<newName>{escape(new)}</newName>")

    def _find(self, name: str) -> Ref:
        for ref, told in self._sdk.all("VirtualMachine", "name").items():
            if told["name"].text == name:
                return ref
        raise AssertionError(f"there is no machine {name}")

    def _network_system(self) -> dict[str, ET.Element]:
        for told in self._sdk.all("HostSystem", "name", "configManager.networkSystem").values():
            if told["name"].text == self.host:
                system = told["configManager.networkSystem"].text or ""
                return self._sdk.properties(Ref("HostNetworkSystem", system), "networkInfo")
        raise AssertionError(f"there is no host {self.host}")


def _vim(tag: str) -> str:
    return f"{{{NAMESPACE}}}{tag}"


def _machine(name: str, config: ET.Element, running: bool) -> Machine:
    def text(*path: str) -> str:
        return config.findtext("/".join(map(_vim, path))) or ""

    devices = config.findall(f"{_vim('hardware')}/{_vim('device')}")
    kinds = [(each.attrib[f"{{{XSI}}}type"].rpartition(":")[2], each) for each in devices]
    cards = [(kind, each) for kind, each in kinds if each.find(_vim("macAddress")) is not None]
    file = f"{_vim('backing')}/{_vim('fileName')}"
    return Machine(
        name=name,
        running=running,
        template=text("template") == "true",
        cpus=int(text("hardware", "numCPU")),
        memory_mib=int(text("hardware", "memoryMB")),
        guest_id=text("guestId"),
        firmware=text("firmware"),
        nested=text("nestedHVEnabled") == "true",
        note=text("annotation"),
        macs=tuple(each.findtext(_vim("macAddress")) or "" for _, each in cards),
        adapters=tuple(kind for kind, _ in cards),
        cdroms=tuple(each.findtext(file) or "" for kind, each in kinds if kind == "VirtualCdrom"),
        disks=tuple(each.findtext(file) or "" for kind, each in kinds if kind == "VirtualDisk"),
    )
