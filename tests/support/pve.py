"""A Proxmox VE that the real provider plugin can be run against: fakepve, completed and put right.

fakepve (AGPL, so tests only) answers all of the API and keeps guests, storage, pools and tasks. What
is added is what the whole life of a lab needs beyond that: a guest deleted with the slash that the
plugin writes, disks that grow and are imported, uploads of disk images, bridges that exist once they
are applied, addresses for containers, templates to download, and a start that fails as the real one
does where there is no KVM or no bridge. Left out: what happens inside guests, and SSH to the node.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiohttp import web
from fakepve import FakePve, PveError, TaskError, schema, settle
from fakepve.certs import make_cert
from fakepve.qemu import DRIVE_KEY, with_mac

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from types import TracebackType

    Body = Callable[[], Awaitable[Any]]

T = TypeVar("T")
Values = dict[str, Any]
HOST = "127.0.0.1"
NODE = "pve1"
ANSWER_S = 30.0
GIB = 2**30
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
NETWORK = re.compile(r"net\d+")
HOTPLUG = re.compile(r"(net|scsi|virtio|unused)\d+")
"""What is plugged into a running machine, and out of it, at once."""
ALWAYS = re.compile(r"unused\d+")
"""What is removed at once whatever its guest's option `hotplug` says."""
QCOW2 = b"QFI\xfb"
UPLOADS = {
    "iso": r"[^/]+\.(?i:iso|img)",
    "vztmpl": r"[^/]+\.tar\.(gz|xz|zst|bz2)",
    "import": r"[a-zA-Z0-9\-.+=_]+\.(ova|qcow2|raw|vmdk)",
}
"""Names that may be uploaded, by content: PVE/API2/Storage/Status.pm and PVE/Storage.pm of 8.4."""
FORM = ("content", "checksum-algorithm", "checksum")
"""Fields of an upload as they are read, one after another: pve-http-server, AnyEvent.pm, file_upload_multipart."""
LOCAL = "iso,vztmpl,backup"
"""What the storage `local` holds as the installer makes it; since its 9.0.7 (PVE 9.0) `import` too."""
TEMPLATES = (
    "alpine-3.22-default_20250617_amd64.tar.xz",
    "debian-12-standard_12.12-1_amd64.tar.zst",
)
"""What `pveam available` offers."""
NO_KVM = (
    "KVM virtualisation configured, but not available. Either disable in VM configuration or"
    " enable in BIOS."
)


@dataclass(frozen=True)
class Request:
    """One request as it came in; passwords and tickets are blotted out."""

    method: str
    path: str
    body: str


class Api(FakePve):  # type: ignore[misc]  # fakepve has no types
    """The API of one cluster: fakepve, and the answers that it leaves out."""

    def __init__(self, user: str, password: str, nodes: Iterable[str]) -> None:
        super().__init__(user, password, host=HOST, port=0)
        self.nodes = {name: {"online": True} for name in nodes}
        self.storages["local"]["content"] = LOCAL
        self.kvm = True
        self.digests: dict[str, str] = {}
        """SHA-256 of each file that was uploaded, by volume."""
        self.images: dict[str, int] = {}
        """Bytes that a guest sees of each disk image, by volume."""
        self.folder: Path | None = None
        """Where ISOs of the storage `local` really lie, as in /var/lib/vz/template/iso of a node; None: nowhere."""
        self.ostypes: dict[int, str] = {}
        self.bridges = {name: {"vmbr0": _bridge("vmbr0", active=1)} for name in self.nodes}

    def _build_app(self) -> Any:
        app = super()._build_app()
        for route in list(app.router.routes()):
            where = route.resource.canonical if route.resource else ""
            if route.method == "DELETE" and where.endswith("/{vmid}"):
                # The plugin deletes qemu/101/?purge=1; Proxmox takes the slash, fakepve does not.
                app.router.add_route("DELETE", f"{where}/", route.handler)
        return app

    def _routes_completed(self) -> list[tuple[str, str, Any]]:
        """Answers beside those of fakepve, which finds this table by its name."""
        node, network = "/nodes/{node}", "/nodes/{node}/network"
        return [
            ("PUT", f"{node}/qemu/{{vmid}}/resize", self._resize),
            ("GET", f"{node}/aplinfo", self._templates),
            ("POST", f"{node}/aplinfo", self._template),
            ("GET", network, self._networks),
            ("POST", network, self._network_create),
            ("PUT", network, self._networks_apply),
            ("DELETE", network, self._networks_revert),
            ("GET", f"{network}/{{iface}}", self._network_read),
            ("PUT", f"{network}/{{iface}}", self._network_update),
            ("DELETE", f"{network}/{{iface}}", self._network_delete),
        ]

    async def answer(
        self, request: web.Request, match: Any, params: Values, user: str, call: Any = None
    ) -> Any:
        """Take a list that is sent as one parameter many times, as the plugin does for containers."""
        told = {k: ",".join(x) if isinstance(x, list) else x for k, x in params.items()}
        return await super().answer(request, match, told, user, call)

    # Disks.

    async def _resize(self, v: Values, user: str) -> Any:
        vm = self.find(v["node"], v["vmid"])
        text, size = str(vm.config.get(v["disk"], "")), str(v["size"])
        if not text:
            raise PveError(500, f"disk '{v['disk']}' does not exist")
        had = _bytes(_option(text, "size"))
        wanted = _bytes(size.removeprefix("+")) + (had if size.startswith("+") else 0)
        if wanted < had:
            raise PveError(500, "shrinking disks is not supported")

        async def body() -> None:
            vm.config[v["disk"]] = f"{_without(text, 'size')},size={_text(wanted)}"
            volume = self._qm_volume(text.partition(",")[0])
            if volume:
                volume["size"] = wanted

        return await self.task(vm.node, "resize", vm.vmid, user, body, vm=vm)

    def _image(self, volume: str) -> int:
        if volume not in self.images:
            raise PveError(500, f"volume '{volume}' does not exist")
        return self.images[volume]

    def _qm_check_drive(
        self, user: str, vmid: int, pool: str | None, key: str, value: str, default: str | None
    ) -> None:
        source = _option(value, "import-from")
        if source:
            self._image(source)
        super()._qm_check_drive(user, vmid, pool, key, _without(value, "import-from"), default)

    def _qm_new_drive(self, vmid: int, key: str, value: str, default: str | None) -> Any:
        source = _option(value, "import-from")
        if value.partition(",")[0].endswith(":cloudinit"):
            made, volumes = super()._qm_new_drive(vmid, key, value, default)
            return _cloudinit(made), [self._rename(volume) for volume in volumes]
        if not source:
            return super()._qm_new_drive(vmid, key, value, default)
        # A disk made from an image is as large as the image says; growing it is another request.
        size = self._image(source)
        storage, _, rest = _without(_without(value, "import-from"), "size").partition(",")
        fresh = ",".join(filter(None, (f"{storage.partition(':')[0]}:{-(-size // GIB)}", rest)))
        made, volumes = super()._qm_new_drive(vmid, key, fresh, default)
        return f"{_without(made, 'size')},size={_text(size)}", volumes

    async def _apply_config(self, vm: Any, user: str, p: Values) -> None:
        """Store what Proxmox would: numbers as numbers, drives allocated, plugged in while it runs.

        A disk that is taken out stays as `unused[n]`, whose removal frees the volume, as ``force`` does at once:
        qemu-server's API2/Qemu.pm, and QemuServer.pm, vmconfig_register_unused_drive and try_deallocate_drive.
        """
        told = _typed("/nodes/{node}/qemu/{vmid}/config", vm, p)
        force = told.pop("force", None)
        gone = {key: str(vm.config.get(key, "")) for key in str(told.get("delete", "")).split(",")}
        for key, value in told.items():
            if NETWORK.fullmatch(key):
                told[key] = with_mac(value)
            elif DRIVE_KEY.match(key):
                self._qm_check_drive(user, vm.vmid, None, key, value, None)
                told[key], _ = self._qm_new_drive(vm.vmid, key, value, None)
        await super()._apply_config(vm, user, told)
        plugs = str(vm.config.get("hotplug", "disk,network")) != "0"
        at_once = HOTPLUG if plugs else ALWAYS
        for key in [key for key in vm.pending if at_once.fullmatch(key)]:
            value = vm.pending.pop(key)
            vm.config.pop(key, None)
            if value is not None:
                vm.config[key] = value
        for key, value in gone.items():
            if key not in vm.config:
                self._let_go(vm, key, value, force=bool(force))

    def _let_go(self, vm: Any, key: str, value: str, *, force: bool) -> None:
        volume = value.partition(",")[0]
        if not self._qm_volume(volume) or "media=cdrom" in value:
            return
        if force or key.startswith("unused"):
            self._qm_free(volume)
        elif DRIVE_KEY.match(key):
            free = next(number for number in range(256) if f"unused{number}" not in vm.config)
            vm.config[f"unused{free}"] = volume

    def _rename(self, volume: str) -> str:
        """Give a drive of cloud-init's the name that Proxmox gives it, by which the plugin knows it."""
        storage, _, name = volume.partition(":")
        volumes = self.storages[storage]["volumes"]
        volumes[_cloudinit(name)] = volumes.pop(name)
        return _cloudinit(volume)

    async def _config_get(self, request: web.Request) -> web.Response:
        """Tell it with what waits for the guest to be off, but for ``current`` (API2/Qemu.pm, vm_config)."""
        told = json.loads((await super()._config_get(request)).body)
        if request.query.get("current", "0") in {"0", "false"}:
            waits = self._vm(request, "VM.Audit").pending
            told["data"] |= {key: value for key, value in waits.items() if value is not None}
            told["data"] = {k: it for k, it in told["data"].items() if waits.get(k, "") is not None}
        if "cipassword" in told["data"]:
            told["data"]["cipassword"] = "**********"
        return web.json_response(told)

    async def _upload(self, request: web.Request) -> web.Response:
        node, name = request.match_info["node"], request.match_info["storage"]
        store = self._active_store(name, node)
        boundary = request.headers["Content-Type"].partition("boundary=")[2]
        told, filename, data = _form(await request.read(), boundary)
        if list(told) != [each for each in FORM if each in told]:
            raise PveError(500, "wrong Content-Disposition in multipart, expected 'form-data'")
        content = told.get("content", "")
        if content not in UPLOADS:
            raise PveError(400, "Parameter verification failed.", {"content": "value not allowed"})
        if content not in store["content"].split(","):
            raise PveError(500, f"storage '{name}' does not support '{content}' content")
        if not re.fullmatch(UPLOADS[content], filename):
            raise PveError(
                400, "Parameter verification failed.", {"filename": "wrong file extension"}
            )
        volume = f"{name}:{content}/{filename}"
        method, wanted = told.get("checksum-algorithm", "sha256"), told.get("checksum", "")

        async def body() -> None:
            got = hashlib.new(method, data).hexdigest()
            if wanted and wanted.lower() != got:
                raise TaskError(f"checksum mismatch: got '{got}' != expect '{wanted}'")
            if self.folder and content == "iso":
                file = self.folder / filename
                file.write_bytes(data)
                # Status.pm, upload: "best effort to match apl_download behaviour".
                file.chmod(0o644)
            self.store_file(name, filename, len(data), content)
            self.digests[volume] = hashlib.sha256(data).hexdigest()
            if content == "import":
                qcow2 = data.startswith(QCOW2)
                self.images[volume] = int.from_bytes(data[24:32], "big") if qcow2 else len(data)

        return web.json_response(
            {"data": await self.task(node, "imgcopy", "", self.user, body)},
        )

    async def _content_delete(self, v: Values, user: str) -> Any:
        self._gone(v["volume"])
        return await super()._content_delete(v, user)

    def _gone(self, volume: str) -> None:
        if self.folder:
            (self.folder / volume.rpartition("/")[2]).unlink(missing_ok=True)

    # Starting, and addresses.

    def _refusal(self, node: str, config: Values, *, kvm: bool) -> str | None:
        for key, value in config.items():
            volume = str(value).partition(",")[0]
            store, _, name = volume.partition(":")
            is_cd = DRIVE_KEY.match(key) and "media=cdrom" in str(value) and name.startswith("iso/")
            if is_cd and name not in self._volumes(store):
                # PVE/Storage/Plugin.pm, activate_volume.
                return f"volume '{volume}' does not exist"
        if kvm and not self.kvm and str(config.get("kvm", "1")) != "0":
            return NO_KVM
        for key, value in config.items():
            bridge = _option(str(value), "bridge") if NETWORK.fullmatch(key) else ""
            if bridge and not self.bridges[node].get(bridge, {}).get("active"):
                return f"bridge '{bridge}' does not exist"
        return None

    async def _do_start(self, vm: Any, user: str, p: Values) -> Any:
        told = vm.config | vm.pending
        vm.start_error = self._refusal(vm.node, told, kvm=True)
        return await super()._do_start(vm, user, p)

    async def _start_steps(self, ct: Any, user: str, skiplock: bool = False) -> None:
        ct.start_error = self._refusal(ct.node, ct.config | ct.pending, kvm=False)
        await super()._start_steps(ct, user, skiplock)

    async def _lxc_create(self, user: str, v: Values) -> Any:
        self.ostypes[int(v["vmid"])] = v.get("ostype", "")
        return await super()._lxc_create(user, v)

    async def task(
        self, node: str, kind: str, number: Any, user: str, body: Body, **more: Any
    ) -> Any:
        """Run a task; a container is of the type that was asked for, not of the one guessed."""
        if kind != "vzcreate":
            return await super().task(node, kind, number, user, body, **more)

        async def typed() -> Any:
            said = await body()
            ct = more["vm"]
            ct.config["ostype"] = self.ostypes[ct.vmid] or ct.config["ostype"]
            return said

        return await super().task(node, kind, number, user, typed, **more)

    async def _lxc_config_get(self, user: str, v: Values) -> Any:
        told = await super()._lxc_config_get(user, v)
        if told.get("description"):
            told["description"] = told["description"].rstrip("\n") + "\n"
        return told

    async def _lxc_interfaces(self, user: str, v: Values) -> Any:
        told = await super()._lxc_interfaces(user, v)
        config = self._find_ct(v["node"], v["vmid"]).config
        asking = [
            _option(str(config[key]), "ip") == "dhcp" for key in sorted(config) if key[:3] == "net"
        ]
        for number, (item, asks) in enumerate(zip((told or [])[1:], asking, strict=False)):
            if asks:  # as a network with a DHCP server would
                address = f"198.51.{100 + number}.{int(v['vmid']) % 250 + 2}"
                lease = {"ip-address-type": "inet", "ip-address": address, "prefix": "24"}
                item |= {"inet": f"{address}/24", "ip-addresses": [lease]}
        return told

    # Bridges: what is written exists once it is applied.

    def _interface(self, v: Values) -> Values:
        found: Values = self.bridges[v["node"]].get(v["iface"], {"removed": True})
        if found.get("removed"):
            raise PveError(
                400, "Parameter verification failed.", {"iface": "interface does not exist"}
            )
        return found

    async def _networks(self, v: Values, user: str) -> list[Values]:
        del user
        wanted = {"any_bridge": "bridge"}.get(v.get("type", ""), v.get("type"))
        there = [bridge for bridge in self.bridges[v["node"]].values() if not bridge.get("removed")]
        return [bridge for bridge in there if wanted in {None, bridge["type"]}]

    async def _network_read(self, v: Values, user: str) -> Values:
        del user
        return {key: value for key, value in self._interface(v).items() if key != "iface"}

    async def _network_create(self, v: Values, user: str) -> None:
        del user
        known = self.bridges[v["node"]]
        if not known.get(v["iface"], {"removed": True}).get("removed"):
            raise PveError(
                400, "Parameter verification failed.", {"iface": "interface already exists"}
            )
        active = known.get(v["iface"], {}).get("active", 0)
        told = {key: value for key, value in v.items() if key not in {"node", "iface"}}
        known[v["iface"]] = _bridge(v["iface"], active=active) | told

    async def _network_update(self, v: Values, user: str) -> None:
        del user
        bridge = self._interface(v)
        for key in str(v.get("delete", "")).split(","):
            bridge.pop(key, None)
        bridge |= {key: value for key, value in v.items() if key not in {"node", "iface", "delete"}}

    async def _network_delete(self, v: Values, user: str) -> None:
        del user
        if self._interface(v).get("active"):
            self.bridges[v["node"]][v["iface"]]["removed"] = True
        else:
            del self.bridges[v["node"]][v["iface"]]

    async def _networks_apply(self, v: Values, user: str) -> Any:
        async def body() -> None:
            known = self.bridges[v["node"]].items()
            kept = {name: bridge for name, bridge in known if not bridge.get("removed")}
            for bridge in kept.values():
                bridge |= {"active": 1, "exists": 1}
            self.bridges[v["node"]] = kept

        return await self.task(v["node"], "srvreload", "networking", user, body)

    async def _networks_revert(self, v: Values, user: str) -> None:
        del user
        known = self.bridges[v["node"]].items()
        kept = {name: bridge for name, bridge in known if bridge.get("active")}
        for bridge in kept.values():
            bridge.pop("removed", None)
        self.bridges[v["node"]] = kept

    # Templates of containers, `pveam`.

    async def _templates(self, v: Values, user: str) -> list[Values]:
        del v, user
        return [{"template": name, "section": "system", "type": "lxc"} for name in TEMPLATES]

    async def _template(self, v: Values, user: str) -> Any:
        if v["template"] not in TEMPLATES:
            raise PveError(400, "Parameter verification failed.", {"template": "no such template"})

        async def body() -> None:
            self.store_file(v["storage"], v["template"], 3 * 2**20, "vztmpl")

        return await self.task(v["node"], "download", v["storage"], user, body)


class Pve:
    """A running double, and what an administrator does to it by hand.

    Guests are named by their number, virtual machines and containers alike.
    """

    user = "root@pam"
    password = "secret"

    def __init__(self, *nodes: str, kvm: bool = True) -> None:
        self.nodes = nodes or (NODE,)
        self.api = Api(self.user, self.password, self.nodes)
        """What is not offered here; touch it through ``within``, the server runs in a thread."""
        self.api.kvm = kvm
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        with tempfile.TemporaryDirectory() as folder:
            certificate, key, _ = make_cert(folder, hosts=(HOST,))
            self.certificate = Path(certificate).read_text()
            self._wait(self.api.start(certificate, key))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del kind, error, trace
        try:
            self._wait(settle())
            self._wait(self.api.stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(ANSWER_S)
            self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_S)

    def within(self, change: Callable[[Api], T]) -> T:
        """Run ``change`` where the server runs, between two requests."""

        async def run() -> T:
            return change(self.api)

        return self._wait(run())

    @property
    def url(self) -> str:
        """The endpoint, as the provider takes it."""
        return f"{self.api.url}/"

    @property
    def node(self) -> str:
        """The first node."""
        return self.nodes[0]

    # What is there.

    def vms(self) -> dict[int, str]:
        """Each virtual machine's status; templates are ``template``."""
        return self.within(lambda api: {vm.vmid: _status(vm) for vm in api.vms})

    def disks(self, storage: str = "local-lvm") -> set[str]:
        """Each volume of a storage that holds disks."""
        return self.within(lambda api: set(api.storages[storage].get("volumes", {})))

    def containers(self) -> dict[int, str]:
        """Each container's status."""
        return self.within(lambda api: {ct.vmid: _status(ct) for ct in api.cts})

    def config(self, number: int) -> Values:
        """A guest's configuration as Proxmox writes it, with what waits for a restart in it."""

        def read(api: Api) -> Values:
            guest = _guest(api, number)
            return {k: x for k, x in (guest.config | guest.pending).items() if x is not None}

        return self.within(read)

    def node_of(self, number: int) -> str:
        """The node a guest lives on."""
        return str(self.within(lambda api: _guest(api, number).node))

    def files(self, storage: str = "local") -> dict[str, str]:
        """SHA-256 of each file on a storage by its volume; empty for one that was not uploaded."""

        def read(api: Api) -> dict[str, str]:
            names = api.storages[storage].get("volumes", {})
            volumes = [f"{storage}:{name}" for name in names]
            return {volume: api.digests.get(volume, "") for volume in volumes}

        return self.within(read)

    def bridges(self, node: str = NODE) -> dict[str, bool]:
        """Each bridge of a node, and whether it is applied."""
        return self.within(
            lambda api: {name: bool(it.get("active")) for name, it in api.bridges[node].items()}
        )

    def pools(self) -> dict[str, set[int]]:
        """The guests of each pool."""
        return self.within(lambda api: {name: set(ids) for name, ids in api.pools.items()})

    @property
    def requests(self) -> list[Request]:
        """Every request so far, oldest first."""
        seen = self.within(lambda api: list(api.requests))
        return [
            Request(method, path.removeprefix("/api2/json"), body.decode(errors="replace"))
            for method, path, body in seen
        ]

    # What is done to it by hand.

    def stop(self, number: int) -> None:
        """Switch a guest off."""

        def change(api: Api) -> None:
            guest = _guest(api, number)
            guest.status = "stopped"
            if number in {vm.vmid for vm in api.vms}:
                guest.qmpstatus = "stopped"

        self.within(change)

    def remove(self, number: int) -> None:
        """Remove a guest with its disks, whether it runs or not."""

        def change(api: Api) -> None:
            guest = _guest(api, number)
            for kept in (api.vms, api.cts):
                if guest in kept:
                    kept.remove(guest)
            for name, store in api.storages.items():
                del name
                volumes = store.get("volumes", {})
                for volume in [key for key, it in volumes.items() if it.get("vmid") == number]:
                    del volumes[volume]
            api._pool_leave(number)

        self.within(change)

    def reconfigure(self, number: int, **options: str | None) -> None:
        """Change options of a guest at once; one given as None is taken out."""

        def change(api: Api) -> None:
            guest = _guest(api, number)
            kind = "qemu" if guest in api.vms else "lxc"
            given = {key: value for key, value in options.items() if value is not None}
            told = _typed(f"/nodes/{{node}}/{kind}/{{vmid}}/config", guest, given)
            for key in options:
                guest.config.pop(key, None)
            guest.config.update(told)

        self.within(change)

    def unplug(self, number: int, place: str) -> None:
        """Detach a disk of a guest, which keeps it as an unused one."""

        def change(api: Api) -> None:
            guest = _guest(api, number)
            api._let_go(guest, place, str(guest.config.pop(place)), force=False)

        self.within(change)

    def takes(self, content: str, storage: str = "local") -> None:
        """Have a storage take another content, such as ``import``."""

        def change(api: Api) -> None:
            store = api.storages[storage]
            store["content"] = ",".join(sorted({*store["content"].split(","), content}))

        self.within(change)

    def put_file(self, volume: str, size: int = 2**20) -> None:
        """Put a file on a storage: ``put_file("local:vztmpl/alpine.tar.xz")``."""
        storage, _, name = volume.partition(":")
        content, _, name = name.partition("/")

        def change(api: Api) -> None:
            api.store_file(storage, name, size, content)
            if content == "import":
                api.images[volume] = size

        self.within(change)

    def remove_file(self, volume: str) -> None:
        """Remove a file from a storage."""
        storage, _, name = volume.partition(":")

        def change(api: Api) -> None:
            api._gone(volume)
            del api.storages[storage]["volumes"][name]
            api.storages[storage]["files"].discard(name.partition("/")[2])

        self.within(change)

    def make_vm(self, number: int, name: str, **config: str) -> None:
        """Make a stopped virtual machine that belongs to somebody else."""
        self.within(lambda api: api.add_vm(number, name, node=self.node, config=config))

    # Trouble.

    def fail(
        self,
        method: str,
        path: str,
        message: str,
        *,
        status: int = 500,
        times: int | None = 1,
    ) -> None:
        """Refuse requests whose path ends with ``path``; ``times`` None: until the end."""
        self.within(lambda api: api.fail(method, path, status, message, times=times))

    def slow(self, seconds: float) -> None:
        """Answer each request that much later."""

        def change(api: Api) -> None:
            api.time_scale = 1.0 if seconds else 0.0
            api.slow_network(seconds)

        self.within(change)


def _status(guest: Any) -> str:
    return "template" if guest.template else str(guest.status)


def _guest(api: Api, number: int) -> Any:
    guest = api.guest(number)
    assert guest is not None, f"there is no guest {number}"
    return guest


def _typed(path: str, guest: Any, options: Values) -> Values:
    """Return options as Proxmox stores them, numbers as numbers; refuse what it would refuse."""
    spec = schema.load().paths[path]["PUT"]["parameters"]
    told, wrong = schema.validate(spec, options | {"node": guest.node, "vmid": guest.vmid})
    if wrong:
        raise PveError(400, "Parameter verification failed.", wrong)
    return {key: value for key, value in told.items() if key not in {"node", "vmid"}}


def _bridge(name: str, *, active: int) -> Values:
    bridge: Values = {"iface": name, "type": "bridge", "method": "manual", "autostart": 1}
    return bridge | ({"active": 1, "exists": 1} if active else {})


def _option(text: str, key: str) -> str:
    """Return the value of ``key=`` in a property string; empty when it is not there."""
    found = [part.partition("=")[2] for part in text.split(",") if part.startswith(f"{key}=")]
    return found[0] if found else ""


def _cloudinit(volume: str) -> str:
    return re.sub(r"-disk-\d+", "-cloudinit", volume)


def _without(text: str, key: str) -> str:
    return ",".join(part for part in text.split(",") if not part.startswith(f"{key}="))


def _bytes(size: str) -> int:
    found = re.fullmatch(r"(\d+)([KMGT]?)", size)
    return int(found[1]) * UNITS[found[2]] if found else 0


def _text(size: int) -> str:
    unit = max((unit for unit, one in UNITS.items() if not size % one), key=UNITS.__getitem__)
    return f"{size // UNITS[unit]}{unit}"


def _form(body: bytes, boundary: str) -> tuple[dict[str, str], str, bytes]:
    """Return the fields, the file's name and the file of a multipart upload."""
    told, filename, data = dict[str, str](), "", b""
    for part in body.split(b"--" + boundary.encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        named = dict(re.findall(r'(\w+)="([^"]*)"', head.decode()))
        if "filename" in named:
            filename, data = named["filename"], content.removesuffix(b"\r\n")
        else:
            told[named["name"]] = content.removesuffix(b"\r\n").decode()
    return told, filename, data
