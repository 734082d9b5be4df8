"""Reading the files that credentials come in, bounded: certificates and keys, binary ones among them."""

from __future__ import annotations

from tocsin_console.reading.inputs import MAX_SECRET_OCTETS, STANDARD_INPUT, read_octets, read_secret
from tocsin_console.reading.oauth_credentials import (
    KeyCredential,
    KeyFiles,
    ServiceAccount,
    needs_password,
    read_key,
    read_service_account,
)
from tocsin_schema.errors import UsageError


def read_key_files(certificate_file: str | None, private_key_file: str | None) -> KeyFiles:
    """Read what the files hold. Raises UsageError."""
    return KeyFiles(
        None if certificate_file is None else read_octets(certificate_file, MAX_SECRET_OCTETS, "The certificate"),
        None if private_key_file is None else read_octets(private_key_file, MAX_SECRET_OCTETS, "The private key"),
    )


def open_key(files: KeyFiles, password_file: str | None) -> KeyCredential:
    """Open the key in the files; its password comes from a file, standard input or, if it has one, a prompt.

    Raises UsageError.
    """
    password = None
    if password_file is not None or needs_password(files):
        password = read_secret(password_file, "The private key's password", flag="--certificate-password-file")
    return read_key(files, password)


def read_service_account_file(file: str) -> ServiceAccount:
    """Read a service account's key file. Raises UsageError."""
    return read_service_account(read_octets(file, MAX_SECRET_OCTETS, "The service account's key"))


def only_one_from_standard_input(*sources: str | None) -> None:
    """Refuse two secrets from one standard input. Raises UsageError."""
    if sources.count(STANDARD_INPUT) > 1:
        raise UsageError(
            "Standard input can be one secret only, and `-` is given for two.", fix="Put the others into files."
        )
