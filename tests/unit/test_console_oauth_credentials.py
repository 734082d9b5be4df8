"""Certificates, keys and service accounts are taken in every form in which they come, and no secret is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st

from tocsin_console.reading.oauth_credentials import KeyFiles, needs_password, read_key, read_service_account
from tocsin_schema.errors import UsageError

PASSWORD = "p4ssw0rd~of~the~key"
NOT_AFTER = datetime(2027, 3, 1, tzinfo=UTC)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(key: rsa.RSAPrivateKey = KEY, not_after: datetime = NOT_AFTER) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tocsin")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(not_after)
        .sign(key, hashes.SHA256())
    )


def key_pem(key: Any = KEY, password: str | None = None, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
    return key.private_bytes(Encoding.PEM, form, encryption)


def pfx(password: str | None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
    return pkcs12.serialize_key_and_certificates(b"tocsin", KEY, CERTIFICATE, [AUTHORITY], encryption)


CERTIFICATE = certificate()
AUTHORITY = certificate(OTHER_KEY)
CERTIFICATE_PEM = CERTIFICATE.public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("files", "password"),
    [
        (KeyFiles(CERTIFICATE_PEM, key_pem()), None),
        (KeyFiles(CERTIFICATE_PEM + key_pem()), None),
        (KeyFiles(key_pem() + AUTHORITY.public_bytes(Encoding.PEM) + CERTIFICATE_PEM), None),
        (KeyFiles(CERTIFICATE_PEM, key_pem(form=PrivateFormat.TraditionalOpenSSL)), None),
        (KeyFiles(CERTIFICATE_PEM, key_pem(password=PASSWORD)), PASSWORD),
        (KeyFiles(CERTIFICATE_PEM + key_pem(password=PASSWORD, form=PrivateFormat.TraditionalOpenSSL)), PASSWORD),
        (KeyFiles(CERTIFICATE.public_bytes(Encoding.DER), key_pem()), None),
        (KeyFiles(pfx(PASSWORD)), PASSWORD),
        (KeyFiles(pfx(None)), None),
    ],
    ids=[
        "two files",
        "one file",
        "with its authority",
        "PKCS #1",
        "encrypted",
        "old encryption",
        "DER",
        "PFX",
        "PFX 0",
    ],
)
def test_a_certificate_and_its_key_come_in_many_forms_and_leave_in_one(files: KeyFiles, password: str | None) -> None:
    assert needs_password(files) is (password is not None)
    read = read_key(files, password)
    assert read.certificate_pem == CERTIFICATE_PEM.decode()
    assert read.certificate_expires_at == NOT_AFTER
    assert read.private_key_pem == key_pem().decode()
    assert "PRIVATE" not in repr(read)
    assert "PRIVATE" not in repr(files)


def test_a_key_alone_has_no_certificate() -> None:
    read = read_key(KeyFiles(private_key=key_pem()), None)
    assert (read.certificate_pem, read.certificate_expires_at) == (None, None)


def test_a_certificate_without_an_end_has_none() -> None:
    endless = certificate(not_after=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert read_key(KeyFiles(endless.public_bytes(Encoding.PEM), key_pem()), None).certificate_expires_at is None


def test_a_p_256_key_is_read_and_told_apart() -> None:
    assert not read_key(KeyFiles(private_key=key_pem(ec.generate_private_key(ec.SECP256R1()))), None).is_rsa


@pytest.mark.parametrize(
    ("files", "password", "told"),
    [
        (KeyFiles(CERTIFICATE_PEM, key_pem(OTHER_KEY)), None, "do not belong together"),
        (KeyFiles(CERTIFICATE_PEM), None, "no private key.*--private-key-file"),
        (KeyFiles(CERTIFICATE.public_bytes(Encoding.DER)), None, "no private key"),
        (KeyFiles(key_pem()), None, "no certificate"),
        (KeyFiles(CERTIFICATE_PEM, b"hello"), None, "cannot be read"),
        (KeyFiles(CERTIFICATE_PEM, key_pem(password=PASSWORD)), None, "encrypted.*--certificate-password-file"),
        (KeyFiles(CERTIFICATE_PEM, key_pem(password=PASSWORD)), "wrong", "does not open with that password"),
        (KeyFiles(CERTIFICATE_PEM, key_pem()), PASSWORD, "not encrypted at all"),
        (KeyFiles(pfx(PASSWORD)), "wrong", "does not open"),
        (KeyFiles(pfx(PASSWORD), key_pem()), PASSWORD, "without --private-key-file"),
        (KeyFiles(private_key=key_pem(ec.generate_private_key(ec.SECP384R1()))), None, "neither RSA nor P-256"),
        (
            KeyFiles(private_key=key_pem(rsa.generate_private_key(public_exponent=65537, key_size=1024))),
            None,
            "1024 bits",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_refused_and_says_what_to_give(files: KeyFiles, password: str | None, told: str) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        read_key(files, password)
    assert refused.value.fix
    assert PASSWORD not in str(refused.value)


@given(st.binary(max_size=200), st.binary(max_size=200), st.none() | st.text(max_size=5))
def test_no_content_of_a_file_raises_anything_else(certificate: bytes, key: bytes, password: str | None) -> None:
    for head in (b"", b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"):
        for files in (
            KeyFiles(head + certificate),
            KeyFiles(certificate, head + key),
            KeyFiles(private_key=head + key),
        ):
            needs_password(files)
            with pytest.raises(UsageError):
                read_key(files, password)
    with pytest.raises(UsageError):
        read_service_account(key)


ACCOUNT = {
    "type": "service_account",
    "private_key_id": "kid1",
    "private_key": key_pem().decode(),
    "client_email": "sa@p.iam.gserviceaccount.com",
    "client_id": "12345",
    "token_uri": "https://oauth2.googleapis.com/token",
}


def test_a_service_accounts_file_says_all_of_it() -> None:
    account = read_service_account(json.dumps(ACCOUNT).encode())
    assert (account.client_email, account.client_id) == ("sa@p.iam.gserviceaccount.com", "12345")
    assert (account.key_id, account.token_uri) == ("kid1", "https://oauth2.googleapis.com/token")
    assert load_pem_private_key(account.key.private_key_pem.encode(), None) is not None
    assert "PRIVATE" not in repr(account)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({**ACCOUNT, "type": "authorized_user"}, "'authorized_user'"),
        ({"installed": {"client_id": "x", "client_secret": "y"}}, "OAuth client.*--grant refresh_token"),
        ({**ACCOUNT, "private_key": "x"}, "cannot be read"),
        ({name: value for name, value in ACCOUNT.items() if name != "client_email"}, "client_email"),
        ({**ACCOUNT, "token_uri": 7}, "token_uri"),
        ([], "not JSON"),
    ],
)
def test_another_file_is_refused_and_named(content: object, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_service_account(json.dumps(content).encode())
    with pytest.raises(UsageError, match="not JSON"):
        read_service_account(b"[" * 60_000)


def test_a_file_that_is_no_certificate_needs_no_password() -> None:
    for content in (b"hello", b"0 is how this text begins", b"\x30\x03abc", b""):
        assert not needs_password(KeyFiles(content))
        with pytest.raises(UsageError, match="neither PEM nor DER nor a PFX"):
            read_key(KeyFiles(content), None)
