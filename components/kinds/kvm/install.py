"""Nested KVM: a Debian host with libvirt, a linked clone of the golden image.

It boots the image's own kernel directly, so no boot loader runs, and learns who may log in from its
seed. Its guests have hardware virtualization, which the CPU given to it makes real or emulated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pulumi_libvirt as libvirt

from components.gates.probes import Probe
from components.kinds.kvm.model import KIND
from components.kinds.libvirt import cloned as golden
from components.kinds.libvirt.place import LibvirtPlace
from components.reach.shell import SSH_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi

    from components.place.contract import HypervisorMade, Lab, NetworkMade
    from components.stackfile import HypervisorSpec, MachinePlan

KEYS = "NESTLAB_KEYS"
"""Variable with the folder that all keys of a checkout are in (toolchain/engine/environment.py).

terraform-provider-libvirt's SSH client expands variables in the URI's paths once (uri/ssh.go), and what
they hold stands for itself, whatever letters the checkout's path has. The folder is also the client's
HOME, where it looks for ``.ssh/config``: Port, ProxyJump and HostKeyAlgorithms of a ``Host *`` there
would go before the URI."""
POOL = "nestlab"
POOL_PATH = "/var/lib/libvirt/nestlab"
"""Folder of a nested host in which the lab makes its own."""
QEMU_GROUP = "64055"
"""Of Debian's libvirt-qemu, on every installation (base-passwd's README; libvirt-daemon-system sets it)."""


def _virtualizes(spec: HypervisorSpec, lab: Lab, host: LibvirtPlace) -> bool:
    """Whether one of ``spec`` on ``host`` sees hardware virtualization, of which its guests can have theirs.

    An emulated processor shows it, that of the outer host's KVM where it nests.
    """
    if spec.nested is False:
        return False
    return bool(host.plan.path) or lab.nests or host.accelerator == "tcg"


def install(
    name: str,
    *,
    lab: Lab,
    host: LibvirtPlace,
    spec: HypervisorSpec,
    plan: MachinePlan,
    networks: Mapping[str, NetworkMade],
    opts: pulumi.ResourceOptions,
) -> HypervisorMade:
    """Make a nested KVM host on ``host``."""
    opened, login = golden.opened(
        name,
        lab.golden["kvm"],
        Probe(kind="libvirt"),
        direct=True,
        lab=lab,
        host=host,
        spec=spec,
        plan=plan,
        networks=networks,
        parent=opts.parent,
    )
    keys = f"${KEYS}/{quote(lab.private.name)}/{quote(plan.name)}"
    uri = (
        f"qemu+ssh://{KIND.user}@{login.route.address}:{login.route.ports[SSH_PORT]}/system"
        f"?sshauth=privkey&keyfile={keys}/id_ed25519&knownhosts={keys}/known_hosts"
    )
    # Known only when the gate is open: a provider with a known address connects in preview too.
    provider = libvirt.Provider(
        f"{name}-libvirt",
        uri=opened.answers.apply(lambda _: uri),
        opts=host.bound(opts.parent, env_var_mappings={KEYS: "HOME"}),
    )
    place = LibvirtPlace(
        lab=lab,
        plan=lab.plan.place(*plan.path),
        name=name,
        owner=opts.parent or opened.ready,
        provider=provider,
        target=opened.reach,
        uri=golden.LIBVIRT,
        accelerator="kvm" if _virtualizes(spec, lab, host) else "tcg",
        pool_name=POOL,
        pool_path=lab.identity.below(POOL_PATH),
        group=lab.identity.group.apply(lambda known: known if known is None else QEMU_GROUP),
        cores=plan.cores,
        inside=opened.inside,
    )
    return opened.made(plan, place, user=KIND.user)


INSTALLER = install
