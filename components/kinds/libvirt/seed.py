"""The seed of a machine from the golden image: who may log in, and as whom it answers.

A shell script, in the place where cloud-init's NoCloud source looks for user data: the golden image
runs it at every boot (toolchain/image), and so would cloud-init. Its keys are generated for each
lab; the image itself holds none.
"""

from __future__ import annotations

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
"""


def files(
    *, name: str, instance: str, authorized: str, host_private: str, host_public: str
) -> dict[str, str]:
    """Return what is on the disc `LABEL` of the machine ``name``; see `user_data` and `meta_data`."""
    return {
        "/user-data": user_data(
            name=name, authorized=authorized, host_private=host_private, host_public=host_public
        ),
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
