"""Private keys, and the assertions that they sign."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.refusal_fixes import key_option

if TYPE_CHECKING:
    from pydantic import SecretStr

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile

#: An assertion is worth a token while it lives; the clocks of both sides may not differ by more.
LIFETIME_SECONDS = 300
#: RFC 7518 section 3.3.
MIN_RSA_BITS = 2048


def signed_assertion(
    profile: OAuthProfile, private_key: SecretStr | None, *, issuer: str, subject: str, audience: str
) -> str:
    """Sign that `issuer` asks in the name of `subject` (RFC 7523 section 3): RS256 or ES256, by the kind of key.

    Raises TokenError (permanent) where there is no key that can.
    """
    key = signing_key(profile, private_key)
    now = int(time.time())
    claims = {
        "iss": issuer,
        "sub": subject,
        "aud": audience,
        "iat": now,
        "exp": now + LIFETIME_SECONDS,
        "jti": str(uuid4()),
    }
    return jwt.encode(
        claims,
        key,
        algorithm="RS256" if isinstance(key, RSAPrivateKey) else "ES256",
        headers=None if profile.key_id is None else {"kid": profile.key_id},
    )


def signing_key(profile: OAuthProfile, private_key: SecretStr | None) -> RSAPrivateKey | EllipticCurvePrivateKey:
    """Read a private key: RSA of 2048 bits or more, or P-256. It takes a while (50 ms): not in the event loop.

    Raises TokenError (permanent) where there is none, or another.
    """
    option = f"set {profile.name} {key_option(profile)}"
    if private_key is None:
        raise refusals.misconfigured(profile, "it has no private key", option)
    try:
        key = load_pem_private_key(private_key.get_secret_value().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        key = None
    match key:
        case RSAPrivateKey() if key.key_size >= MIN_RSA_BITS:
            return key
        case EllipticCurvePrivateKey() if isinstance(key.curve, SECP256R1):
            return key
        case _:
            raise refusals.misconfigured(
                profile, f"its private key is not RSA with {MIN_RSA_BITS} bits or more, nor P-256, in PEM", option
            )
