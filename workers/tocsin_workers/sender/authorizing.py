"""Credentials for a profile: an access token, a password, or none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tocsin_schema.errors import ConfigurationError, Scope
from tocsin_schema.ledger.installation_settings import open_shared_password, read_shared_login
from tocsin_schema.ledger.oauth_profiles import get_by_id
from tocsin_schema.ledger.sending_profile_rules import Auth
from tocsin_schema.ledger.sending_profiles import PASSWORD_PURPOSE
from tocsin_workers.smtp.credentials import BasicCredentials, Credentials, NoCredentials, OAuthCredentials
from tocsin_workers.tokens.refreshing import AfterRefusal

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Pool
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_schema.sealing import Sealer
    from tocsin_workers.tokens.access import TokenAccess
    from tocsin_workers.tokens.access_token import AccessToken


@dataclass(frozen=True, slots=True)
class Authorization:
    """What SMTP logs in with, and the token that it was made of, with where that came from."""

    credentials: Credentials
    token: AccessToken | None = field(default=None, repr=False)
    oauth_profile: OAuthProfile | None = None


class CredentialSource:
    """Gives the credentials of profiles. Secrets are opened here, used, and not kept."""

    def __init__(self, pool: Pool, sealer: Sealer, tokens: TokenAccess) -> None:
        self._pool = pool
        self._sealer = sealer
        self._tokens = tokens

    async def get(self, profile: SenderProfile) -> Authorization:
        """Give what to log in with now. Raises TokenError, SealError, ConfigurationError or UsageError."""
        match Auth(profile.auth):
            case Auth.OAUTH:
                return await self._token(profile)
            case Auth.BASIC:
                return Authorization(await self._password(profile))
            case Auth.NONE:
                return Authorization(NoCredentials())

    async def replace(self, authorization: Authorization) -> bool:
        """Tell that the server refused these; whether `get` gives others now that are worth a try."""
        if authorization.token is None or not isinstance(authorization.credentials, OAuthCredentials):
            return False
        mailbox = authorization.credentials.user
        return await self._tokens.refused(authorization.token, mailbox) is AfterRefusal.TRY_AGAIN

    async def _token(self, profile: SenderProfile) -> Authorization:
        assert profile.oauth_profile_id is not None
        async with self._pool.connection() as connection:
            oauth_profile = await get_by_id(connection, profile.oauth_profile_id)
        # A foreign key keeps it there for as long as the sending profile names it.
        assert oauth_profile is not None
        token = await self._tokens.get(oauth_profile, profile.login)
        return Authorization(OAuthCredentials(profile.login, token.token.get_secret_value()), token, oauth_profile)

    async def _password(self, profile: SenderProfile) -> BasicCredentials:
        """Open the profile's own password, else EmailUsername and EmailPassword, bound to their host."""
        if profile.sealed_password is not None:
            password = self._sealer.open(profile.sealed_password, purpose=PASSWORD_PURPOSE, row_id=str(profile.id))
            return BasicCredentials(profile.login, password)
        async with self._pool.connection() as connection:
            shared = await read_shared_login(connection)
        if shared is None:
            raise ConfigurationError(
                f"Profile {profile.name} has no password, and EmailUsername and EmailPassword are not both set.",
                fix="Run `tocsin profile replace-password`, or set both with `tocsin setting set`.",
                scope=Scope.PROFILE,
            )
        return BasicCredentials(shared.username, open_shared_password(shared, self._sealer, host=profile.host))
