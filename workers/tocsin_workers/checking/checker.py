"""The main flow of a check: step by step what a sender does, up to the sender's address. No mail goes out unasked.

Steps that do not depend on each other are all tried, so that one run shows every cause: a token is asked for where
the server is out of reach, and a server is looked at where there is no token.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_never

from tocsin_schema.errors import ConfigurationError, SealError
from tocsin_schema.ledger.mailbox_walk import Limit
from tocsin_workers.checking.budget import PATIENCE_SECONDS, one_connection, read_full_day
from tocsin_workers.checking.describing import moment, offers
from tocsin_workers.checking.mailing import send_test_message
from tocsin_workers.checking.signing_in import Authorization, SigningIn
from tocsin_workers.checking.steps import Findings, Step
from tocsin_workers.diagnosis import connecting, microsoft, verdicts
from tocsin_workers.diagnosis.causes import Cause, Verdict
from tocsin_workers.diagnosis.certificate import read_certificate
from tocsin_workers.smtp.connection import SmtpServer, open_session, see_certificate
from tocsin_workers.smtp.credentials import BasicCredentials, Credentials, NoCredentials, OAuthCredentials
from tocsin_workers.smtp.deadlines import Deadlines
from tocsin_workers.smtp.envelope import LocalRefusal
from tocsin_workers.smtp.errors import SmtpAuthError, SmtpSessionError, SmtpTlsError
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.stages import Connected, Greeted, LoggedIn, Secured, Stage
from tocsin_workers.smtp.tls import TlsMode

if TYPE_CHECKING:
    from tocsin_schema.contract.addresses import Address
    from tocsin_schema.ledger.connection import Pool
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_schema.sealing import Sealer
    from tocsin_workers.checking.steps import CheckReport
    from tocsin_workers.diagnosis.certificate import Certificate
    from tocsin_workers.smtp.session import SenderTrial, Session

RESOLVE_SECONDS = 10.0
#: A person waits: shorter than a sender's. The test message is not sent again, so nothing is doubled either.
DEADLINES = Deadlines(connect=10, tls=10, command=15, mail=15, rcpt=15, data=15, body=30, final=60, reset=10)
#: All that happens over the connection; shorter than its lease.
CONVERSATION_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class CheckDesk:
    """What a check works with.

    `sealer` opens secrets, or is why there is none. `patience_seconds` is how long to wait for a connection or a time
    slot that workers have.
    """

    pool: Pool
    sealer: Sealer | SealError
    deadlines: Deadlines = DEADLINES
    patience_seconds: float = PATIENCE_SECONDS


async def check_profile(
    desk: CheckDesk, profile: SenderProfile, oauth_profile: OAuthProfile | None, *, to: Address | None = None
) -> CheckReport:
    """Try a profile, and tell of every step how it went. `to` gets a test message.

    `oauth_profile` is the one that the profile names. The errors of a Postgres that is away pass through.
    """
    check = _Check(desk, profile, oauth_profile)
    try:
        await _run(desk, check, profile, to)
    finally:
        await check.signing_in.close()
    if to is None:
        check.findings.skip(Step.MESSAGE, "no mail is sent; --to ADDRESS sends a test message")
    return check.findings.report(profile.name, is_paused=profile.paused_reason is not None)


async def _run(desk: CheckDesk, check: _Check, profile: SenderProfile, to: Address | None) -> None:
    """Take the steps, as far as each has what it needs."""
    check.look_at_state(await read_full_day(desk.pool, profile))
    is_known = await check.resolve_name()
    authorization = await check.signing_in.get()
    if is_known:
        async with one_connection(desk.pool, profile, patience_seconds=desk.patience_seconds) as has_connection:
            if check.note_connection(is_taken=has_connection):
                await check.converse(authorization, to)


class _Check:
    """One check under way."""

    def __init__(self, desk: CheckDesk, profile: SenderProfile, oauth_profile: OAuthProfile | None) -> None:
        self.findings = Findings()
        self._desk = desk
        self._profile = profile
        self._oauth_profile = oauth_profile
        self._provider = verdicts.provider_of(profile, oauth_profile)
        self.signing_in = SigningIn(desk.pool, desk.sealer, profile, oauth_profile, findings=self.findings)
        self._server = SmtpServer(
            profile.host,
            profile.port,
            TlsMode(profile.tls),
            ca_pem=profile.ca_pem,
            allow_plaintext_auth=profile.allow_plaintext_auth,
        )

    # Before any connection.

    def look_at_state(self, full_day: Limit | None) -> None:
        """Tell whether the profile may send at all at the moment; it is checked all the same.

        Where a day is full that somebody has limited, letting it go on is of no use.
        """
        profile = self._profile
        if profile.paused_reason is not None:
            fix = f"Once all else is ok here, let it go on: `tocsin profile resume {profile.name}`."
            self.findings.warn(Step.PROFILE, Verdict(Cause.PAUSED, f"It is paused: {profile.paused_reason}", fix))
        elif profile.parked_until is not None:
            until = moment(profile.parked_until)
            meaning = f"Its mailbox rests until {until}: {profile.parked_reason}"
            if full_day is None:
                fix = f"It goes on by itself; at once with `tocsin profile resume {profile.name}`."
            else:
                flag = "--tenant-per-day" if full_day is Limit.TENANT else "--per-day"
                fix = f"Wait, or raise {flag} (`tocsin profile set {profile.name} {flag} N`)."
            self.findings.warn(Step.PROFILE, Verdict(Cause.RESTING, meaning, fix))
        else:
            self.findings.ok(Step.PROFILE, f"not paused; it logs in as {profile.login}")

    async def resolve_name(self) -> bool:
        """Look the server's name up; whether it is known."""
        host, port = self._profile.host, self._profile.port
        fix = connecting.unknown_host(self._profile.name)
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError:
            meaning = f"No answer about the name {host!r} within {RESOLVE_SECONDS:g} s."
            self.findings.fail(Step.NAME, Verdict(Cause.UNKNOWN_HOST, meaning, fix))
            return False
        except (socket.gaierror, UnicodeError) as error:
            why = error.strerror if isinstance(error, socket.gaierror) else "it is no host name"
            meaning = f"The name {host!r} is not known here ({why})."
            self.findings.fail(Step.NAME, Verdict(Cause.UNKNOWN_HOST, meaning, fix))
            return False
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        self.findings.ok(Step.NAME, f"{host} is {', '.join(addresses)}")
        return True

    # Over one connection.

    def note_connection(self, *, is_taken: bool) -> bool:
        """Tell what was taken of the mailbox's budget; give back whether a connection may be opened."""
        connections = self._profile.connections
        if is_taken:
            held = "no limit on connections" if connections is None else f"1 of {connections} connections is held"
            self.findings.ok(Step.BUDGET, held)
            return True
        meaning = f"All {connections} connections of the mailbox are in use by workers, so signing in works."
        fix = "Check again when less is being sent, or look at `tocsin status`."
        self.findings.warn(Step.BUDGET, Verdict(Cause.CONNECTIONS_IN_USE, meaning, fix))
        for step in (Step.TCP, Step.TLS, Step.EHLO, Step.AUTH, Step.MAIL_FROM, Step.RSET, Step.MESSAGE):
            self.findings.skip(step, "not tried: no connection is free")
        return False

    async def converse(self, authorization: Authorization | None, to: Address | None) -> None:
        """Open a session, ask for the sender, and send the test message where one is wished for."""
        try:
            async with asyncio.timeout(CONVERSATION_SECONDS):
                await self._converse(authorization, to)
        except TimeoutError:
            meaning = f"It was not done within {CONVERSATION_SECONDS:g} s."
            verdict = Verdict(Cause.TOO_SLOW, meaning, "The server answers too slowly; try again in a while.")
            self.findings.fail(self.findings.next_step(), verdict)

    async def _converse(self, authorization: Authorization | None, to: Address | None) -> None:
        session = await self._sign_in(authorization)
        if session is None:
            return
        try:
            if authorization is None:
                self.findings.skip(Step.AUTH, "not tried: token failed")
                return
            is_welcome = self._note_sender(await session.try_sender(self._profile.from_address), authorization)
            if to is not None and is_welcome:
                await self._send(session, to, authorization)
        finally:
            await session.quit()

    async def _send(self, session: Session, to: Address, authorization: Authorization) -> None:
        if self._profile.parked_until is not None:
            self.findings.skip(Step.MESSAGE, "not sent: the mailbox rests")
            return
        await send_test_message(
            self._desk.pool,
            self._profile,
            session,
            to,
            findings=self.findings,
            token_facts=authorization.facts,
            patience_seconds=self._desk.patience_seconds,
        )

    async def _sign_in(self, authorization: Authorization | None) -> Session | None:
        """Open a session; a refused token is replaced once, since what was granted after it does not show in it."""
        try:
            return await self._open(authorization)
        except SmtpAuthError as error:
            newer = await self.signing_in.get_newer(authorization, error)
            if newer is None:
                self._note_refused_login(error, authorization)
                return None
            try:
                return await self._open(newer)
            except SmtpAuthError as again:
                self._note_refused_login(again, newer)
            except SmtpSessionError as other:
                await self._note_failed_session(other)
        except SmtpSessionError as error:
            await self._note_failed_session(error)
        except ConfigurationError as error:
            fix = connecting.bad_ca_file(self._profile.name)
            self.findings.fail(Step.TLS, Verdict(Cause.BAD_CA_FILE, error.problem, fix))
        return None

    async def _open(self, authorization: Authorization | None) -> Session:
        credentials = NoCredentials() if authorization is None else authorization.credentials
        if self._server.tls is TlsMode.NONE:
            self.findings.skip(Step.TLS, "the profile uses none: everything can be read on the way")
        return await open_session(
            self._server,
            credentials,
            local_hostname=socket.gethostname(),
            deadlines=self._desk.deadlines,
            on_stage=lambda stage: self._note_stage(stage, credentials),
        )

    # What was seen.

    def _note_stage(self, stage: Stage, credentials: Credentials) -> None:
        match stage:
            case Connected(address, seconds):
                milliseconds = round(seconds * 1000)
                where = f"{address or self._profile.host} port {self._profile.port}"
                self.findings.ok(Step.TCP, f"connected to {where}, greeted after {milliseconds} ms")
            case Secured(version, der):
                self._note_certificate(version, read_certificate(der))
            case Greeted(capabilities):
                self.findings.ok(Step.EHLO, offers(capabilities))
            case LoggedIn(mechanism):
                self._note_login(mechanism, credentials)
            case _:
                assert_never(stage)

    def _note_certificate(self, version: str, certificate: Certificate | None) -> None:
        if certificate is None:
            self.findings.ok(Step.TLS, f"{version}; the certificate is trusted")
        elif certificate.ends_soon(datetime.now(UTC)):
            meaning = f"The certificate ends on {certificate.valid_until:%Y-%m-%d}."
            verdict = Verdict(Cause.CERTIFICATE_EXPIRES_SOON, meaning, "Have the server's certificate renewed.")
            self.findings.warn(Step.TLS, verdict, f"{version}; certificate {certificate}.")
        else:
            self.findings.ok(Step.TLS, f"{version}; certificate {certificate}")

    def _note_login(self, mechanism: str | None, credentials: Credentials) -> None:
        match credentials:
            case OAuthCredentials(user=user) | BasicCredentials(user=user):
                self.findings.ok(Step.AUTH, f"logged in as {user} with {mechanism}")
            case NoCredentials():
                self.findings.skip(Step.AUTH, "the profile does not log in")

    def _note_refused_login(self, error: SmtpAuthError, authorization: Authorization | None) -> None:
        credentials = NoCredentials() if authorization is None else authorization.credentials
        login = self._profile.login if isinstance(credentials, NoCredentials) else credentials.user
        verdict = verdicts.explain_refused_login(
            self._provider,
            login,
            None if authorization is None else authorization.facts,
            error,
            now=datetime.now(UTC),
            oauth_profile=self._oauth_profile if isinstance(credentials, OAuthCredentials) else None,
            profile_name=self._profile.name,
            host=self._profile.host,
        )
        said = f"{error.problem} " if error.reply is not None and verdict is not None else ""
        verdict = verdict or connecting.explain_failed_session(error, profile_name=self._profile.name)
        if verdict.cause == self.findings.cause_of(Step.TOKEN):
            # The token showed it already, and its step says all there is to say.
            verdict = Verdict(verdict.cause, "The token step says why.", "Do what the token step says.")
        self.findings.fail(Step.AUTH, replace(verdict, meaning=f"{said}{verdict.meaning}"))

    async def _note_failed_session(self, error: SmtpSessionError) -> None:
        certificate = None
        if isinstance(error, SmtpTlsError):
            if self._server.tls is TlsMode.IMPLICIT:
                self.findings.ok(Step.TCP, f"connected to {self._server}")
            certificate = await self._refused_certificate(error)
        verdict = connecting.explain_failed_session(
            error, profile_name=self._profile.name, tls=self._server.tls, certificate=certificate
        )
        self.findings.fail(_step_of(error.phase), verdict)

    async def _refused_certificate(self, error: SmtpTlsError) -> Certificate | None:
        """Look at a certificate that was refused: it may hold the name that the profile should have."""
        if error.trouble is None or not error.trouble.startswith("certificate"):
            return None
        with suppress(SmtpSessionError):
            der = await see_certificate(
                self._server, local_hostname=socket.gethostname(), deadlines=self._desk.deadlines
            )
            return read_certificate(der)
        return None

    def _note_sender(self, trial: SenderTrial, authorization: Authorization) -> bool:
        """Tell whether the server takes the sender; give back whether it does."""
        address, login = self._profile.from_address, self._profile.login
        if isinstance(trial.mail, LocalRefusal):
            fix = f"Use an ASCII address: `tocsin profile set {self._profile.name} --from ADDRESS`."
            self.findings.fail(Step.MAIL_FROM, Verdict(Cause.SENDER_REFUSED, f"{trial.mail.text}.", fix))
            return False
        if trial.mail is None:
            why = "the connection was lost" if trial.cut is None else trial.cut.detail
            verdict = Verdict(Cause.CONNECTION_LOST, f"No reply to MAIL FROM: {why}.", "Try again in a while.")
            self.findings.fail(Step.MAIL_FROM, verdict)
            return False
        if not trial.mail.accepted:
            verdict = verdicts.explain_refused_message(
                Phase.MAIL,
                trial.mail,
                login=login,
                from_address=address,
                token_facts=authorization.facts,
                profile_name=self._profile.name,
                uses_oauth=authorization.token is not None,
            )
            said = f"{trial.mail}: " if str(trial.mail) not in verdict.meaning else ""
            self.findings.fail(Step.MAIL_FROM, replace(verdict, meaning=f"{said}{verdict.meaning}"))
            return False
        unsure = ""
        if microsoft.is_microsoft(self._provider) and address.lower() != login.lower():
            unsure = f"; whether {login} may send as it Microsoft says only after a message (--to)"
        self.findings.ok(Step.MAIL_FROM, f"{address} is accepted{unsure}")
        return self._note_reset(trial)

    def _note_reset(self, trial: SenderTrial) -> bool:
        if trial.reset is not None and trial.reset.accepted:
            self.findings.ok(Step.RSET, "taken back, nothing was sent")
            return True
        said = "no reply came" if trial.reset is None else str(trial.reset)
        verdict = Verdict(
            Cause.RESET_REFUSED, f"The server does not take RSET: {said}.", "Nothing was sent; try again."
        )
        self.findings.fail(Step.RSET, verdict)
        return False


def _step_of(phase: Phase) -> Step:
    match phase:
        case Phase.CONNECT | Phase.GREETING:
            return Step.TCP
        case Phase.TLS:
            return Step.TLS
        case Phase.EHLO:
            return Step.EHLO
        case _:
            return Step.AUTH
