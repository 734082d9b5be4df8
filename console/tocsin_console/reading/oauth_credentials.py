"""Reading certificates, private keys and service accounts out of the files that they come in: pure.

A certificate with its key comes as two PEM files, as one, or as PKCS #12 (PFX); which it is shows in its content.
What comes out is one form: PEM, the key as PKCS #8 and not encrypted, as it is sealed afterwards. No error holds
any of a file's content.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)

from tocsin_schema.errors import Scope, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

MIN_RSA_BITS = 2048
"""Microsoft and Google take no shorter ones; RFC 7518 section 3.3 neither."""

SERVICE_ACCOUNT = "service_account"

_NO_END_YEAR = 9999
"""RFC 5280 section 4.1.2.5: the year of a certificate without an end."""

_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)
_PEM, _PEM_KEY = b"-----BEGIN ", b"PRIVATE KEY-----"
# PKCS #8 says it in the first line, the older form in a header (RFC 1421 section 4.6.1.1).
_ENCRYPTED_PEM = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """What the files hold that a key comes in: one of the two may be missing."""

    certificate: bytes | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class KeyCredential:
    """A private key with what belongs to it. `certificate_expires_at` is None also where it has no end."""

    private_key_pem: str = field(repr=False)
    certificate_pem: str | None = None
    certificate_expires_at: datetime | None = None
    is_rsa: bool = True


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """What Google's file of a service account's key says."""

    client_email: str
    client_id: str | None
    """The number that domain-wide delegation is granted to."""
    key_id: str | None
    token_uri: str
    key: KeyCredential


def needs_password(files: KeyFiles) -> bool:
    """Whether the key in the files is encrypted."""
    certificate, private_key = files.certificate or b"", files.private_key
    if private_key is not None:
        return _is_encrypted_key(private_key)
    if _PEM in certificate:
        return _is_encrypted_key(certificate)
    if not _may_be_der(certificate) or _der_certificate(certificate) is not None:
        return False
    return _open_pfx(certificate, None) is None and _open_pfx(certificate, b"") is None


def read_key(files: KeyFiles, password: str | None) -> KeyCredential:
    """Read the key, and the certificate where there is one; refuse what does not belong together.

    Raises UsageError.
    """
    key, certificates = _key_and_certificates(files, None if password is None else password.encode())
    _check_key(key)
    certificate = _certificate_of(key, certificates)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
    is_rsa = isinstance(key, RSAPrivateKey)
    if certificate is None:
        return KeyCredential(pem, is_rsa=is_rsa)
    ends_at = certificate.not_valid_after_utc
    return KeyCredential(
        pem,
        certificate.public_bytes(Encoding.PEM).decode("ascii"),
        None if ends_at.year >= _NO_END_YEAR else ends_at,
        is_rsa,
    )


def read_service_account(content: bytes) -> ServiceAccount:
    """Read a service account's key file, as Google's console makes it (JSON). Raises UsageError."""
    account = _json_object(content)
    kind = account.get("type")
    if kind != SERVICE_ACCOUNT:
        raise _not_a_service_account(account, kind)
    return ServiceAccount(
        client_email=_text(account, "client_email"),
        client_id=_text(account, "client_id") if "client_id" in account else None,
        key_id=_text(account, "private_key_id") if "private_key_id" in account else None,
        token_uri=_text(account, "token_uri"),
        key=read_key(KeyFiles(private_key=_text(account, "private_key").encode()), None),
    )


def _key_and_certificates(
    files: KeyFiles, password: bytes | None
) -> tuple[PrivateKeyTypes, list[x509.Certificate] | None]:
    """Give the key and the certificates that may be its own; None where no certificate was given."""
    certificate, private_key = files.certificate, files.private_key
    if certificate is None:
        return _private_key(private_key or b"", password), None
    if _PEM in certificate:
        return _private_key(private_key or certificate, password), _pem_certificates(certificate)
    if (single := _der_certificate(certificate)) is not None:
        if private_key is None:
            raise _refused("there is a certificate and no private key", "Give --private-key-file too.")
        return _private_key(private_key, password), [single]
    if private_key is not None:
        raise _refused(
            "the certificate's file is neither PEM nor DER", "Give a PFX without --private-key-file, or a PEM file."
        )
    return _from_pfx(certificate, password)


def _from_pfx(content: bytes, password: bytes | None) -> tuple[PrivateKeyTypes, list[x509.Certificate]]:
    if not _may_be_der(content):
        raise _refused(
            "the certificate's file holds no certificate: it is neither PEM nor DER nor a PFX (PKCS #12)",
            "Give the file with the certificate, as it was exported.",
        )
    opened = _open_pfx(content, password)
    if opened is None and password is None:
        opened = _open_pfx(content, b"")
    if opened is None:
        raise _refused(
            "the certificate's file is no PEM file, and as a PFX (PKCS #12) it does not open",
            "Check the file, and the password in --certificate-password-file.",
        )
    key, certificate, others = opened
    if key is None:
        raise _refused("the PFX holds no private key", "Export it again, together with its private key.")
    return key, [*([certificate] if certificate is not None else []), *others]


def _open_pfx(
    content: bytes, password: bytes | None
) -> tuple[PrivateKeyTypes | None, x509.Certificate | None, list[x509.Certificate]] | None:
    try:
        return pkcs12.load_key_and_certificates(content, password)
    except _UNREADABLE:
        return None


def _private_key(content: bytes, password: bytes | None) -> PrivateKeyTypes:
    if _PEM in content and _PEM_KEY not in content:
        raise _refused("there is no private key in the file", "Give it with --private-key-file.")
    if password is None and _is_encrypted_key(content):
        raise _refused("the private key is encrypted", "Give its password with --certificate-password-file.")
    load = load_pem_private_key if _PEM in content else load_der_private_key
    try:
        return load(content, password)
    except _UNREADABLE:
        if password is not None:
            raise _refused(
                "the private key does not open with that password, or is not encrypted at all",
                "Check --certificate-password-file, or leave it out.",
            ) from None
        raise _refused("the private key cannot be read", "Give it in PEM form, as RSA of 2048 bits or more.") from None


def _is_encrypted_key(content: bytes) -> bool:
    if _PEM in content:
        return any(mark in content for mark in _ENCRYPTED_PEM)
    try:
        load_der_private_key(content, None)
    except TypeError:  # what the library raises for a missing password
        return True
    except _UNREADABLE:
        return False
    return False


def _pem_certificates(content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except _UNREADABLE:
        raise _refused(
            "there is no certificate in the file", "Give a file with lines `-----BEGIN CERTIFICATE-----`."
        ) from None


def _may_be_der(content: bytes) -> bool:
    """Whether it begins like a DER sequence of more than 127 octets (X.690 section 8.1.3), as no text does."""
    return content[:1] == b"\x30" and content[1:2] >= b"\x80"


def _der_certificate(content: bytes) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(content)
    except _UNREADABLE:
        return None


def _check_key(key: PrivateKeyTypes) -> None:
    """Refuse what assertions are not signed with: RSA from 2048 bits on (RS256, PS256) and P-256 (ES256) are."""
    match key:
        case RSAPrivateKey() if key.key_size >= MIN_RSA_BITS:
            return
        case RSAPrivateKey():
            raise _refused(
                f"the private key has {key.key_size} bits, and providers want {MIN_RSA_BITS} or more",
                "Make another key and certificate.",
            )
        case EllipticCurvePrivateKey() if isinstance(key.curve, SECP256R1):
            return
        case _:
            raise _refused("the private key is neither RSA nor P-256", "Make an RSA key of 2048 bits or more.")


def _certificate_of(key: PrivateKeyTypes, certificates: list[x509.Certificate] | None) -> x509.Certificate | None:
    """Find the key's own certificate: files often hold those of the authorities too."""
    if certificates is None:
        return None
    own = _public(key.public_key())
    for certificate in certificates:
        try:
            if _public(certificate.public_key()) == own:
                return certificate
        except _UNREADABLE:
            continue
    raise _refused(
        "the private key and the certificate do not belong together",
        "Give the key that the certificate was made for.",
    )


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _json_object(content: bytes) -> dict[str, object]:
    try:
        account = json.loads(content)
    except (ValueError, RecursionError):
        account = None
    if not isinstance(account, dict):
        raise _refused(
            "the service account's file is not JSON", "Give the key file that Google's console made, as it is."
        )
    return cast("dict[str, object]", account)


def _text(account: dict[str, object], name: str) -> str:
    value = account.get(name)
    if isinstance(value, str) and value:
        return value
    raise _refused(
        f"the service account's file has no {name}", "Give the key file that Google's console made, as it is."
    )


def _not_a_service_account(account: dict[str, object], kind: object) -> UsageError:
    if "installed" in account or "web" in account:
        return _refused(
            "that is the file of an OAuth client, not of a service account",
            "Make a key for the service account, or use the client with --grant refresh_token, --client-id and"
            " --client-secret-file.",
        )
    found = f"its type is {kind[:40]!r}" if isinstance(kind, str) else "it has no type"
    return _refused(
        f"that is not the key file of a service account: {found}",
        "In Google's console, make a key (JSON) for the service account.",
    )


def _refused(why: str, fix: str) -> UsageError:
    return UsageError(f"This credential cannot be: {why}.", fix=fix, scope=Scope.OAUTH_PROFILE)
