"""Profiles to be checked, on real servers: a ledger, a token endpoint, a mail server that answers as it is told."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import jwt
import psycopg
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.servers.smtp import ScriptedMailServer, authority_pem, scripted_mail_server, server_context
from tests.servers.token_endpoint import CLIENT_ID, CLIENT_SECRET, TENANT, TokenEndpoint, json_reply, token_endpoint
from tocsin_schema.contract.addresses import parse_address
from tocsin_schema.ledger import oauth_profiles, sending, sending_profiles
from tocsin_schema.ledger.connection import Pool, open_pool
from tocsin_schema.ledger.oauth_profiles import NewOAuthProfile, SealedSecrets
from tocsin_schema.ledger.sending_profile_rules import AskedLimits, Auth, Copies, Limits, ProfileDraft, Tls
from tocsin_schema.sealing import Sealer, load_sealer
from tocsin_schema.settings import Settings
from tocsin_workers.checking.checker import CheckDesk, check_profile
from tocsin_workers.checking.steps import CheckReport, Step, StepResult, StepVerdict
from tocsin_workers.smtp.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.diagnosis.causes import Cause
    from tocsin_workers.tokens.refusal_causes import Cause as TokenCause

MAILBOX = "news@campus.example"
OBJECT_ID = "77777777-6666-4555-8444-333333333333"
UNLIMITED = Limits(None, None, None)
PASSWORD = "correct horse battery"
UNSUCCESSFUL = "535 5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]"


@dataclass
class CheckedInstallation:
    """A ledger, a token endpoint, and profiles that use them."""

    pool: Pool
    sealer: Sealer
    endpoint: TokenEndpoint
    desk: CheckDesk = field(init=False)

    def __post_init__(self) -> None:
        deadlines = Deadlines(connect=5, tls=5, command=5, mail=5, rcpt=5, data=5, final=5, reset=5)
        self.desk = CheckDesk(self.pool, self.sealer, deadlines, patience_seconds=0.0)

    async def add_oauth_profile(self, *, provider: str = "custom", scope: str | None = None) -> OAuthProfile:
        is_microsoft = provider.startswith("microsoft365")
        new = NewOAuthProfile(
            name=f"oauth-{uuid4()}",
            provider=provider,
            grant_type="client_credentials",
            token_endpoint=self.endpoint.microsoft_url if is_microsoft else self.endpoint.custom_url,
            scope=scope or ("https://outlook.office365.com/.default" if is_microsoft else "https://mail.google.com/"),
            tenant_id=TENANT,
            client_id=CLIENT_ID,
            ca_pem=self.endpoint.ca_pem,
        )
        sealed = self.sealer.seal(CLIENT_SECRET, purpose=oauth_profiles.CLIENT_SECRET_PURPOSE, row_id=str(new.id))
        async with self.pool.connection() as connection:
            return await oauth_profiles.add(connection, new, sealed=SealedSecrets(sealed))

    async def add_google_profile(self) -> OAuthProfile:
        """Add a service account that our token endpoint stands in for Google to."""
        new = NewOAuthProfile(
            name=f"oauth-{uuid4()}",
            provider="google",
            grant_type="jwt_bearer",
            token_endpoint=self.endpoint.custom_url,
            scope="https://mail.google.com/",
            tenant_id=TENANT,
            client_id="mailer@project.iam.gserviceaccount.com",
            delegation_client_id="104857600000000000001",
            ca_pem=self.endpoint.ca_pem,
        )
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        sealed = self.sealer.seal(key.decode(), purpose=oauth_profiles.PRIVATE_KEY_PURPOSE, row_id=str(new.id))
        async with self.pool.connection() as connection:
            return await oauth_profiles.add(connection, new, sealed=SealedSecrets(private_key=sealed))

    async def add_profile(
        self,
        server: ScriptedMailServer,
        *,
        oauth: OAuthProfile | None = None,
        password: str | None = None,
        limits: Limits = UNLIMITED,
        **fields: Any,
    ) -> str:
        auth = Auth.OAUTH if oauth else Auth.BASIC if password else Auth.NONE
        usual = {
            "name": f"profile-{uuid4()}",
            "provider": "custom",
            "host": "localhost",
            "port": server.port,
            "tls": Tls.STARTTLS,
            "auth": auth,
            "from_address": MAILBOX,
            "oauth_profile": oauth.name if oauth else None,
            # Mailboxes are by host and login: a test's own.
            "login": f"{uuid4().hex}@campus.example",
            "ca_pem": authority_pem(),
            "allow_plaintext_auth": False,
            "batch_size": 50,
            "copies": Copies.REFERENCE,
        }
        draft = ProfileDraft(**{**usual, **fields})
        async with self.pool.connection() as connection:
            await sending_profiles.add_profile(
                connection, draft, asked=AskedLimits(), defaults=limits, password=password, sealer=self.sealer
            )
        return draft.name

    async def read(self, name: str) -> tuple[SenderProfile, OAuthProfile | None]:
        async with self.pool.connection() as connection:
            found = await sending_profiles.read_profile(connection, name)
            profile = await sending.read_sender_profile(connection, found.id)
            assert profile is not None
            oauth = None
            if profile.oauth_profile_id is not None:
                oauth = await oauth_profiles.get_by_id(connection, profile.oauth_profile_id)
            return profile, oauth

    async def check(self, name: str, *, to: str | None = None) -> Seen:
        profile, oauth = await self.read(name)
        report = await check_profile(self.desk, profile, oauth, to=None if to is None else parse_address(to))
        assert await self.count("SELECT count(*) FROM workers WHERE role = 'check'") == 0
        return Seen(report)

    async def count(self, query: str) -> int:
        async with self.pool.connection() as connection:
            row = await (await connection.execute(query.encode())).fetchone()
            assert row is not None
            return int(row[0])


@dataclass
class Seen:
    """A report, asked by step."""

    report: CheckReport

    def __getitem__(self, step: Step) -> StepResult:
        return next(result for result in self.report.steps if result.step is step)

    def verdicts(self) -> dict[str, str]:
        return {str(result.step): str(result.verdict) for result in self.report.steps}

    def says(self, step: Step, verdict: StepVerdict, cause: Cause | TokenCause, *words: str) -> None:
        result = self[step]
        assert (result.verdict, result.cause) == (verdict, cause), result
        assert result.fix
        for word in words:
            assert word in f"{result.detail}\n{result.fix}", (word, result)

    def failed(self, step: Step, cause: Cause | TokenCause, *words: str) -> None:
        assert not self.report.is_ok
        self.says(step, StepVerdict.FAILED, cause, *words)


@asynccontextmanager
async def checked_installation(ledger_url: str, key_file: Path) -> AsyncIterator[CheckedInstallation]:
    """Give a ledger with a token endpoint of its own."""
    async with await psycopg.AsyncConnection.connect(ledger_url) as connection:
        sealer = await load_sealer(connection, Settings(master_key_file=key_file), is_to_seal=True)
    async with open_pool(ledger_url, size=3) as pool, token_endpoint() as endpoint:
        yield CheckedInstallation(pool, sealer, endpoint)


@asynccontextmanager
async def mail_server(**options: Any) -> AsyncIterator[ScriptedMailServer]:
    async with scripted_mail_server(ScriptedMailServer(**{"tls": server_context(), **options})) as server:
        yield server


def microsoft_token(**claims: Any) -> str:
    usual = {
        "aud": "https://outlook.office365.com", "roles": ["SMTP.SendAsApp"], "tid": TENANT, "appid": CLIENT_ID,
        "oid": OBJECT_ID, "exp": int((datetime.now(UTC) + timedelta(hours=1)).timestamp()), "pad": "x" * 800,
    }  # fmt: skip
    return jwt.encode({**usual, **claims}, "a key of at least 32 octets, as HS256 wants", algorithm="HS256")


def gives(token: str) -> Any:
    return json_reply(200, {"token_type": "Bearer", "expires_in": 3600, "access_token": token})


EXCHANGE = ("PIPELINING", "SIZE 157286400", "AUTH LOGIN XOAUTH2")
