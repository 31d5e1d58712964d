"""Generated secrets: made once, kept in the stack's state encrypted, nowhere else.

They are dynamic resources because the providers that offer them (tls, random) can't be had where
only package registries are reached.
"""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pulumi.dynamic import CreateResult, DiffResult
from typing_extensions import override

from components.gates.base import BorderProvider, BorderResource, Made, Named, Properties, Secret

if TYPE_CHECKING:
    import pulumi

    from components.gates.base import Props

VNC_LENGTH = 8
"""RFC 6143 7.2.2: VNC authentication uses the first eight characters, no more."""
READABLE = "".join(sorted(set(string.ascii_letters + string.digits) - set("0O1lI")))
"""Letters that are not taken for one another when read from a sheet."""

KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
"""What every password has some of."""

SshAlgorithm = Literal["ed25519", "ecdsa"]
"""Ed25519, or ECDSA with the curve P-256 for those whose SSH knows FIPS 140-2's keys only."""
LAB_KEY: SshAlgorithm = "ed25519"
"""What a lab's own key is, and every machine's that says nothing else."""


@dataclass(frozen=True, kw_only=True)
class _KeyPair(Properties):
    comment: str
    algorithm: SshAlgorithm = LAB_KEY
    private: Secret[Made[str]] = None
    public: Made[str] = None


class SshKeyProvider(BorderProvider[_KeyPair]):
    """Makes key pairs."""

    shape = _KeyPair

    @override
    def create(self, props: Props) -> CreateResult:
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            Encoding,
            NoEncryption,
            PrivateFormat,
            PublicFormat,
        )

        given = self.given(props)
        key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
        if given.algorithm == "ecdsa":
            key = ec.generate_private_key(ec.SECP256R1())
        else:
            key = ed25519.Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        made = replace(given, private=private, public=f"{public} {given.comment}")
        return CreateResult(given.comment, self.carried(made))

    @override
    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        differs = self.stored(_olds).algorithm != self.given(_news).algorithm
        return DiffResult(changes=differs, replaces=["algorithm"] if differs else [])


class SshKey(BorderResource, module="nestlab", name="SshKey"):
    """A key pair in OpenSSH's formats."""

    private: pulumi.Output[str]
    """Private key, secret."""
    public: pulumi.Output[str]
    """Public key, one line."""

    def __init__(
        self,
        name: str,
        *,
        algorithm: SshAlgorithm = LAB_KEY,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(SshKeyProvider(), name, _KeyPair(comment=name, algorithm=algorithm), opts)


@dataclass(frozen=True, kw_only=True)
class _Password(Named):
    length: int
    value: Secret[Made[str]] = None


class PasswordProvider(BorderProvider[_Password]):
    """Makes passwords."""

    shape = _Password

    @override
    def create(self, props: Props) -> CreateResult:
        given = self.given(props)
        while True:
            made = "".join(secrets.choice(READABLE) for _ in range(given.length))
            # Windows refuses one that has no digit, as one of twelve would be.
            if all(any(letter in kind for letter in made) for kind in KINDS):
                return CreateResult(given.name, self.carried(replace(given, value=made)))

    @override
    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        differs = self.stored(_olds).length != self.given(_news).length
        return DiffResult(changes=differs, replaces=["length"] if differs else [])


class Password(BorderResource, module="nestlab", name="Password"):
    """A random password of small letters, capitals and digits that can be read aloud; ``length`` >= 3."""

    value: pulumi.Output[str]
    """The password, secret."""

    def __init__(
        self, name: str, *, length: int = VNC_LENGTH, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(PasswordProvider(), name, _Password(length=length), opts)
