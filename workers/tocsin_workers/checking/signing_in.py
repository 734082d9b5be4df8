"""What a profile signs in with, as a check gets it: the fleet's own token or a new one, or the password."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tocsin_schema.errors import SealError, TocsinError, TokenError
from tocsin_schema.ledger import access_tokens
from tocsin_schema.ledger.access_tokens import TokenKey
from tocsin_schema.ledger.sending_profile_rules import Auth
from tocsin_workers.checking.describing import claims, moment
from tocsin_workers.checking.steps import Step
from tocsin_workers.classification import Kind, classify
from tocsin_workers.diagnosis import verdicts
from tocsin_workers.sender.authorizing import CredentialSource
from tocsin_workers.smtp.credentials import Credentials, NoCredentials, OAuthCredentials
from tocsin_workers.tokens.access import TokenAccess
from tocsin_workers.tokens.grants import subject_of
from tocsin_workers.tokens.single_flight import TokenSource
from tocsin_workers.tokens.token_facts import TokenFacts, read_token_facts

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Pool
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_schema.sealing import Sealer
    from tocsin_workers.checking.steps import Findings
    from tocsin_workers.smtp.errors import SmtpAuthError
    from tocsin_workers.tokens.access_token import AccessToken


@dataclass(frozen=True, slots=True)
class Authorization:
    """What to log in with; a token with what it says of itself, and whether this check has obtained it."""

    credentials: Credentials
    token: AccessToken | None = None
    facts: TokenFacts | None = None
    is_new: bool = False


class SigningIn:
    """Gets what a profile signs in with, and notes how that went."""

    def __init__(
        self,
        pool: Pool,
        sealer: Sealer | SealError,
        profile: SenderProfile,
        oauth_profile: OAuthProfile | None,
        *,
        findings: Findings,
    ) -> None:
        self._pool = pool
        self._sealer_or_error = sealer
        self._profile = profile
        self._oauth_profile = oauth_profile
        self._provider = verdicts.provider_of(profile, oauth_profile)
        self._findings = findings
        self._source: TokenSource | None = None

    async def close(self) -> None:
        """Let a request that must not be cut off come to its end."""
        if self._source is not None:
            await self._source.finish()

    async def get(self) -> Authorization | None:
        """Get the token or open the password; None where there is none to be had."""
        match Auth(self._profile.auth):
            case Auth.NONE:
                self._findings.skip(Step.TOKEN, "the profile does not log in")
                return Authorization(NoCredentials())
            case Auth.BASIC:
                return await self._get_password()
            case Auth.OAUTH:
                return await self._get_token()

    async def _get_password(self) -> Authorization | None:
        try:
            source = self._token_source()
            tokens = TokenAccess(source, _no_broker)
            got = await CredentialSource(self._pool, self._sealer(), tokens).get(self._profile)
        except TocsinError as error:
            self._findings.fail(Step.TOKEN, verdicts.explain_no_credentials(error, profile_name=self._profile.name))
            return None
        self._findings.ok(Step.TOKEN, "no token needed: the profile logs in with a password, which opens")
        return Authorization(got.credentials)

    async def _get_token(self, *, beyond: int | None = None) -> Authorization | None:
        """Give the fleet's token, or a new one; what an endpoint refused for good may be asked for again at once."""
        assert self._oauth_profile is not None
        key = TokenKey(self._oauth_profile.id, subject_of(self._oauth_profile, self._profile.login))
        try:
            source = self._token_source()
            async with self._pool.connection() as connection:
                await access_tokens.forgive_failure(connection, key)
            before, _ = await source.look(key)
            token = await source.obtain(key, beyond=beyond)
        except TokenError as error:
            verdict = verdicts.explain_no_token(
                error, self._oauth_profile, profile_name=self._profile.name, login=self._profile.login
            )
            self._findings.fail(Step.TOKEN, verdict)
            return None
        except TocsinError as error:
            self._findings.fail(Step.TOKEN, verdicts.explain_no_credentials(error, profile_name=self._profile.name))
            return None
        facts = read_token_facts(token.token)
        self._note_token(token, facts)
        credentials = OAuthCredentials(self._profile.login, token.token.get_secret_value())
        return Authorization(credentials, token, facts, is_new=token.version != before.version)

    def _note_token(self, token: AccessToken, facts: TokenFacts | None) -> None:
        detail = f"obtained {moment(token.obtained_at)}, expires {moment(token.expires_at)}; {claims(facts)}"
        doubt = verdicts.doubt_token(
            self._provider,
            facts,
            now=token.read_at,
            oauth_profile=self._oauth_profile,
            login=self._profile.login,
            host=self._profile.host,
        )
        if doubt is None:
            self._findings.ok(Step.TOKEN, detail)
        else:
            # Only the server's word counts: it is asked all the same.
            self._findings.warn(Step.TOKEN, doubt, f"{detail}.")

    async def get_newer(self, authorization: Authorization | None, error: SmtpAuthError) -> Authorization | None:
        """Get another token in place of a refused one that is older than this check; None where that is no help."""
        if authorization is None or authorization.token is None or authorization.is_new:
            return None
        if error.reply is None or classify(error.phase, error.reply).kind is not Kind.NOT_AUTHENTICATED:
            return None
        token = authorization.token
        await self._token_source().note_refusal(token.key, version=token.version)
        newer = await self._get_token(beyond=token.version)
        return None if newer is None else replace(newer, is_new=True)

    def _sealer(self) -> Sealer:
        """Give what opens secrets. Raises SealError."""
        if isinstance(self._sealer_or_error, SealError):
            raise self._sealer_or_error
        return self._sealer_or_error

    def _token_source(self) -> TokenSource:
        """Give the one source of this check. Raises SealError."""
        if self._source is None:
            self._source = TokenSource(self._pool, self._sealer())
        return self._source


async def _no_broker(_key: TokenKey) -> None:
    """Ask nobody: a check asks by itself."""
