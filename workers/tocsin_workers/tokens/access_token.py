"""The access token as a sender holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic import SecretStr

    from tocsin_schema.ledger.access_tokens import TokenKey


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token, masked until `token.get_secret_value()`. All times are the database's clock.

    `version` is the row's when it was read: with a refusal it says which one was refused.
    """

    key: TokenKey
    token: SecretStr
    version: int
    obtained_at: datetime
    expires_at: datetime
    read_at: datetime
