"""What a Microsoft application proves itself with: a certificate's private key where there is one, else a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tocsin_workers.tokens import refusals

if TYPE_CHECKING:
    from pydantic import SecretStr

    from tocsin_schema.errors import TokenError
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.grants.msal_client import Credential
    from tocsin_workers.tokens.grants.seam import GrantSecrets


def credential_of(profile: OAuthProfile, secrets: GrantSecrets) -> Credential | None:
    """Give what MSAL takes as `client_credential`, None where the profile has neither key nor secret.

    Raises TokenError (permanent) where the private key cannot be used with the profile's certificate.
    """
    if secrets.private_key is not None:
        return _certificate(profile, secrets.private_key)
    return None if secrets.client_secret is None else secrets.client_secret.get_secret_value()


def _certificate(profile: OAuthProfile, private_key: SecretStr) -> Credential:
    """Check what MSAL would choke on in the middle, and give it the PEM."""
    if not profile.certificate_pem:
        raise _unusable_key(profile, "it has a private key and no certificate")
    try:
        certificate = x509.load_pem_x509_certificate(profile.certificate_pem.encode())
        key = load_pem_private_key(private_key.get_secret_value().encode(), None)
        own = isinstance(key, RSAPrivateKey) and key.public_key() == certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unusable_key(profile, "its certificate or its private key is not readable as PEM") from None
    if not isinstance(key, RSAPrivateKey):
        raise _unusable_key(profile, "its private key is not an RSA key, and Microsoft takes no other")
    if not own:
        raise _unusable_key(profile, "its private key does not belong to its certificate")
    # Signed with PS256 and named by x5t#S256, which MSAL reads from the certificate.
    return {"private_key": private_key.get_secret_value(), "public_certificate": profile.certificate_pem}


def _unusable_key(profile: OAuthProfile, what: str) -> TokenError:
    option = f"set {profile.name} --certificate-file FILE --private-key-file FILE"
    return refusals.misconfigured(profile, what, option)
