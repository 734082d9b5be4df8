"""What an access token says of itself, for a person who looks for a mistake. Nothing here trusts it.

Only the mail server can check the signature, and only its verdict counts; but where it refuses without saying why,
the token's own claims mostly tell. A token that is no JWT (Google's, a personal Microsoft account's) tells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import jwt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jwt.types import Options
    from pydantic import SecretStr

#: Characters of a token that is looked into: as many as a grant takes.
MAX_TOKEN = 16 * 1024
#: Characters of one claim, and values of one list, that are kept.
MAX_TEXT = 200
MAX_VALUES = 20

# Nothing is checked, the times neither: an expired token is worth a look too.
_UNCHECKED: Options = {
    "verify_signature": False,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """The claims that a refusal may lie in: RFC 7519 section 4.1, RFC 9068, and Microsoft's own. Not the token.

    `roles` are an application's permissions, `scopes` those that a person has delegated (`scp`). `application` is
    the client id (`appid`, `azp`). `object_id` (`oid`) is in an application's own token that of its service principal,
    which Entra shows under Enterprise applications; in a person's token it is that person's.
    """

    audience: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    tenant: str | None = None
    application: str | None = None
    object_id: str | None = None
    user: str | None = None
    expires_at: datetime | None = None

    @property
    def is_delegated(self) -> bool:
        """Whether it acts in a person's name: such a token has scopes, an application's own has roles."""
        return bool(self.scopes) or self.user is not None


def read_token_facts(token: SecretStr) -> TokenFacts | None:
    """Read a token's claims, as far as they are what they should be; None where it is no JWT.

    Bounded in what it reads and keeps, and never raises. What it gives is printable.
    """
    text = token.get_secret_value()
    if len(text) > MAX_TOKEN:
        return None
    try:
        claims: Mapping[str, object] = jwt.decode(text, options=_UNCHECKED)
    except (jwt.InvalidTokenError, ValueError):
        return None
    return TokenFacts(
        audience=_texts(claims.get("aud")),
        roles=_texts(claims.get("roles")),
        scopes=_words(claims.get("scp")) or _words(claims.get("scope")),
        tenant=_text(claims.get("tid")),
        application=_first(claims, "appid", "azp", "client_id"),
        object_id=_text(claims.get("oid")),
        user=_first(claims, "upn", "preferred_username", "unique_name"),
        expires_at=_moment(claims.get("exp")),
    )


def _first(claims: Mapping[str, object], *names: str) -> str | None:
    return next(filter(None, (_text(claims.get(name)) for name in names)), None)


def _words(claim: object) -> tuple[str, ...]:
    """Read a list of words, which most issuers write as one text with spaces (RFC 8693 section 4.2)."""
    return _texts(claim.split() if isinstance(claim, str) else claim)


def _texts(claim: object) -> tuple[str, ...]:
    if isinstance(claim, str):
        values: Iterable[object] = (claim,)
    elif isinstance(claim, list):
        values = cast("list[object]", claim)[:MAX_VALUES]
    else:
        return ()
    return tuple(filter(None, map(_text, values)))[:MAX_VALUES]


def _text(claim: object) -> str | None:
    if not isinstance(claim, str):
        return None
    return "".join(character if character.isprintable() else "�" for character in claim[:MAX_TEXT]).strip() or None


def _moment(claim: object) -> datetime | None:
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        return None
    try:
        return datetime.fromtimestamp(claim, UTC)
    except (ValueError, OverflowError, OSError):
        return None
