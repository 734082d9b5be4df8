"""What a server's certificate says, whether it is to be trusted or not. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from datetime import datetime

#: A certificate that ends within this time deserves a warning.
SOON = timedelta(days=14)
#: Characters of one name, and names, that are shown: a certificate is somebody else's text.
MAX_NAME = 120
MAX_NAMES = 20


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whose it is, by whom, for which names, and for how long."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    valid_from: datetime
    valid_until: datetime

    @property
    def listed(self) -> str:
        """The names, one after the other."""
        more = " …" if len(self.names) > MAX_NAMES else ""
        return ", ".join(self.names[:MAX_NAMES]) + more

    def ends_soon(self, now: datetime) -> bool:
        """Whether it is time to renew it."""
        return self.valid_until - now < SOON

    def __str__(self) -> str:
        return (
            f"for {self.listed or self.subject}, issued by {self.issuer}, "
            f"valid from {self.valid_from:%Y-%m-%d} until {self.valid_until:%Y-%m-%d}"
        )


def read_certificate(der: bytes) -> Certificate | None:
    """Read a certificate; None where it cannot be read."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        return Certificate(
            _name(certificate.subject),
            _name(certificate.issuer),
            _names(certificate),
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension):
        return None


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    names = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return tuple(_shown(str(name)) for name in (*names, *addresses))[: MAX_NAMES + 1]


def _name(name: x509.Name) -> str:
    for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME):
        for attribute in name.get_attributes_for_oid(oid):
            return _shown(str(attribute.value))
    return _shown(name.rfc4514_string()) or "nobody"


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text[:MAX_NAME])
