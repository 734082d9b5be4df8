"""What is sealed in the ledger, in a person's words: for the errors of values that do not open."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from tocsin_schema.errors import Scope

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The mark that the ledger's first master key leaves: whoever cannot open it has the wrong key.
KEY_CHECK_PURPOSE = "settings.MasterKeyCheck"


@dataclass(frozen=True, slots=True)
class Purpose:
    """One kind of sealed value.

    `name` is what `Sealer` binds it to, mostly `table.column`. `what` is what it is to a person, with `owner` for
    whose it is; `fix` says how to get another one.
    """

    name: str
    what: str
    owner: str
    fix: str
    scope: Scope

    def of(self, owner: str) -> str:
        """Name one value: `the password of sending profile 'news'`."""
        return f"the {self.what} of {self.owner} {owner!r}"


PURPOSES: Mapping[str, Purpose] = MappingProxyType(
    {
        purpose.name: purpose
        for purpose in (
            Purpose(
                "oauth_profiles.sealed_client_secret",
                "client secret",
                "OAuth profile",
                "Enter it anew with `tocsin oauth replace-secret`.",
                Scope.OAUTH_PROFILE,
            ),
            Purpose(
                "oauth_profiles.sealed_private_key",
                "private key",
                "OAuth profile",
                "Enter it anew with `tocsin oauth replace-secret`.",
                Scope.OAUTH_PROFILE,
            ),
            Purpose(
                "refresh_tokens.sealed_token",
                "refresh token",
                "OAuth profile",
                "Sign in anew with `tocsin oauth acquire`.",
                Scope.OAUTH_PROFILE,
            ),
            Purpose(
                "access_tokens.sealed_token",
                "access token",
                "OAuth profile",
                "A new one is asked for when it has expired; `tocsin key rotate` throws it away at once.",
                Scope.OAUTH_PROFILE,
            ),
            Purpose(
                "sending_profiles.sealed_password",
                "password",
                "sending profile",
                "Enter it anew with `tocsin profile replace-password`.",
                Scope.PROFILE,
            ),
            Purpose(
                "settings.sealed_value",
                "value",
                "setting",
                "Enter it anew with `tocsin setting set`.",
                Scope.INSTALLATION,
            ),
            Purpose(
                KEY_CHECK_PURPOSE,
                "mark",
                "setting",
                "Restore the right master key file.",
                Scope.INSTALLATION,
            ),
        )
    }
)


def purpose_of(name: str) -> Purpose:
    """Give a purpose by its name; one that stands for it where it is not known."""
    return PURPOSES.get(name) or Purpose(name, "value", "row", "Enter the secret anew.", Scope.INSTALLATION)
