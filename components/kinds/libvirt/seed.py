"""The seed of a machine from the golden image: who may log in, and as whom it answers.

A shell script, in the place where cloud-init's NoCloud source looks for user data: the golden image
runs it at every boot (toolchain/image), and so would cloud-init. Its keys are generated for each
lab; the image itself holds none.
"""

from __future__ import annotations

from dataclasses import dataclass

LABEL = "cidata"
"""What NoCloud looks for, and so does the golden image."""
SCRIPT = """\
#!/bin/sh
# Run as root at every boot, before the network is up; must be idempotent.
set -eu
umask 077
hostname {name}
echo {name} > /etc/hostname
mkdir -p /root/.ssh
cat > /root/.ssh/authorized_keys <<'NESTLAB'
{authorized}
NESTLAB
cat > /etc/ssh/ssh_host_ed25519_key <<'NESTLAB'
{private}
NESTLAB
cat > /etc/ssh/ssh_host_ed25519_key.pub <<'NESTLAB'
{public}
NESTLAB
chmod 644 /etc/hostname /etc/ssh/ssh_host_ed25519_key.pub
# Whoever switches it off the hard way would find these files empty.
sync
"""
# Of /run, so that a boot without it finds the NIC as the image has it. Its MAC is the NIC's: what the network
# around reserves is this host's still.
UPLINK = """umask 022
mkdir -p /run/systemd/network
cat > /run/systemd/network/05-uplink.netdev <<'NESTLAB'
[NetDev]
Name={bridge}
Kind=bridge
MACAddress={mac}

[Bridge]
STP=no
ForwardDelaySec=0
NESTLAB
cat > /run/systemd/network/05-uplink-port.network <<'NESTLAB'
[Match]
Name=en* eth*
MACAddress={mac}

[Network]
Bridge={bridge}
LinkLocalAddressing=no
NESTLAB
sed 's/^Name=.*/Name={bridge}/' /etc/systemd/network/10-dhcp.network > /run/systemd/network/05-uplink.network
"""


@dataclass(frozen=True)
class Uplink:
    """A bridge on a NIC of the machine, which has what the NIC would have."""

    bridge: str
    mac: str


def files(
    *,
    name: str,
    instance: str,
    authorized: str,
    host_private: str,
    host_public: str,
    uplink: Uplink | None = None,
) -> dict[str, str]:
    """Return what is on the disc `LABEL` of the machine ``name``; see `user_data` and `meta_data`."""
    bridged = UPLINK.format(bridge=uplink.bridge, mac=uplink.mac) if uplink else ""
    return {
        "/user-data": user_data(
            name=name, authorized=authorized, host_private=host_private, host_public=host_public
        )
        + bridged,
        "/meta-data": meta_data(name=name, instance=instance),
    }


def user_data(*, name: str, authorized: str, host_private: str, host_public: str) -> str:
    """Return the seed of the machine ``name`` (a slug), with OpenSSH keys; holds a secret."""
    return SCRIPT.format(
        name=name,
        authorized=authorized.strip(),
        private=host_private.strip(),
        public=host_public.strip(),
    )


def meta_data(*, name: str, instance: str) -> str:
    """Return NoCloud's meta data; cloud-init runs a seed once for each ``instance``."""
    return f"instance-id: {instance}\nlocal-hostname: {name}\n"
