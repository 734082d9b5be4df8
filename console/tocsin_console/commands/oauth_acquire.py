"""`tocsin oauth acquire`: sign in at another screen, so that tokens may be asked for in a mailbox's name."""

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import assert_never

from pydantic import SecretStr
from rich.console import Console
from rich.live import Live
from rich.text import Text

from tocsin_console.commands.oauth_options import Mailbox, Name
from tocsin_console.commands.oauth_writing import sign_in_key, tell_who_goes_on
from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.output import counted, examples, harmless, print_json, say
from tocsin_console.reading.device_waiting import Clock, wait_for_decision
from tocsin_console.reading.oauth_mailbox import mailbox_meant
from tocsin_console.reading.session import Session, open_ledger, run_to_end
from tocsin_schema.errors import Scope, TokenError, UsageError
from tocsin_schema.ledger import oauth_profiles
from tocsin_schema.ledger.oauth_profiles import CLIENT_SECRET_PURPOSE, OAuthProfile
from tocsin_schema.ledger.oauth_providers import MICROSOFT_CLOUDS, GrantType, OAuthProvider
from tocsin_schema.ledger.pausing import resume_users_of_oauth_profile
from tocsin_schema.ledger.refresh_tokens import store_sign_in
from tocsin_schema.sealing import Sealer
from tocsin_workers.tokens import device_sign_in
from tocsin_workers.tokens.device_sign_in import DeviceCode, SignedIn, Undecided
from tocsin_workers.tokens.grants.seam import GrantSecrets
from tocsin_workers.tokens.single_flight import REQUEST_DEADLINE_SECONDS

EPILOG = examples("tocsin oauth acquire person", "tocsin oauth acquire person --user news@example.org")

_SECONDS_BETWEEN_LINES = 60.0


@dataclass(frozen=True, slots=True)
class _Ready:
    """What a sign-in begins with. `mailbox` is None where it shall be that of whoever signs in."""

    profile: OAuthProfile
    secrets: GrantSecrets = field(repr=False)
    mailbox: str | None
    sealer: Sealer


def acquire(name: Name, user: Mailbox = None, as_json: JsonFlag = False) -> None:
    """Sign in with a code at another screen, for OAuth profiles with the grant device_code.

    It shows a code and where to enter it, waits until that is done, and stores the sign-in sealed, for one mailbox:
    --user, or the one that uses the profile, or that of whoever signs in. From then on it renews itself.
    """
    with open_ledger() as ledger:

        async def prepare(session: Session) -> _Ready:
            return await _prepare(session, name, user)

        ready = ledger.visit(prepare)
        signed_in = _sign_in(ready)
        mailbox = _mailbox_of(ready, signed_in)

        async def store(session: Session) -> list[str]:
            return await _store(session, ready, mailbox, signed_in)

        resumed = ledger.visit(store)
    say(f"Signed in{f' as {signed_in.account}' if signed_in.account else ''}, for {mailbox}.")
    _warn_of_another_account(ready.profile, mailbox, signed_in.account)
    tell_who_goes_on(resumed)
    if as_json:
        print_json({"oauth_profile": name, "mailbox": mailbox, "account": signed_in.account, "resumed": resumed})


async def _prepare(session: Session, name: str, user: str | None) -> _Ready:
    profile = await oauth_profiles.get_by_name(session.connection, name)
    _check_grant(profile)
    mailboxes = await oauth_profiles.mailboxes_that_use(session.connection, profile.id)
    mailbox = mailbox_meant(name, user, mailboxes)
    sealer = await session.sealer()
    sealed = (await oauth_profiles.read_sealed_secrets(session.connection, profile.id)).client_secret
    secret = None
    if sealed is not None:
        secret = SecretStr(sealer.open(sealed, purpose=CLIENT_SECRET_PURPOSE, row_id=str(profile.id)))
    return _Ready(profile, GrantSecrets(client_secret=secret), mailbox, sealer)


def _sign_in(ready: _Ready) -> SignedIn:
    """Show the code, wait for the person. Raises TokenError where they do not sign in."""
    profile, secrets = ready.profile, ready.secrets

    async def run() -> SignedIn | Undecided:
        code = await device_sign_in.begin(profile, secrets, deadline_seconds=REQUEST_DEADLINE_SECONDS)

        async def poll() -> SignedIn | Undecided:
            return await device_sign_in.poll(profile, secrets, code, deadline_seconds=REQUEST_DEADLINE_SECONDS)

        clock = asyncio.get_running_loop().time
        _show(code, ready.mailbox)
        with _countdown(clock() + code.expires_in_seconds, clock) as pause:
            return await wait_for_decision(poll, code, Clock(clock, pause))

    try:
        decision = run_to_end(run())
    except KeyboardInterrupt:
        say("Stopped. Nobody was signed in, and nothing was stored.")
        raise
    match decision:
        case SignedIn():
            return decision
        case Undecided.DECLINED:
            raise TokenError(
                f"OAuth profile {profile.name}: the sign-in was declined at the other screen.",
                fix=f"Run `tocsin oauth acquire {profile.name}` again, and confirm there.",
                permanent=True,
                code="access_denied",
            )
        case Undecided.EXPIRED | Undecided.PENDING | Undecided.SLOW_DOWN:
            raise TokenError(
                f"OAuth profile {profile.name}: nobody signed in before the code expired.",
                fix=f"Run `tocsin oauth acquire {profile.name}` again, and enter the new code in time.",
                permanent=True,
                code="expired_token",
            )
        case _:
            assert_never(decision)


async def _store(session: Session, ready: _Ready, mailbox: str, signed_in: SignedIn) -> list[str]:
    """Store the sign-in, if the profile still asks whom it came from. Raises UsageError."""
    profile = await oauth_profiles.lock(session.connection, ready.profile.name)
    if _asks_as(profile) != _asks_as(ready.profile):
        raise UsageError(
            f"Somebody else changed the OAuth profile {profile.name!r} meanwhile, and the sign-in is not for what it"
            " is now.",
            fix=f"Nothing was stored. Run `tocsin oauth acquire {profile.name}` again.",
            scope=Scope.OAUTH_PROFILE,
        )
    await store_sign_in(
        session.connection,
        ready.sealer,
        sign_in_key(profile.id, mailbox),
        signed_in.refresh_token.get_secret_value(),
        account=signed_in.account,
        lifetime_seconds=signed_in.refresh_lifetime_seconds,
    )
    return await resume_users_of_oauth_profile(session.connection, profile.id)


def _check_grant(profile: OAuthProfile) -> None:
    """Refuse grants for which nobody signs in here. Raises UsageError."""
    grant, name = GrantType(profile.grant_type), profile.name
    match grant:
        case GrantType.DEVICE_CODE:
            return
        case GrantType.REFRESH_TOKEN:
            fix = f"Give it a refresh token: `tocsin oauth set {name} --refresh-token-file F --user MAILBOX`"
            if profile.provider != OAuthProvider.GOOGLE:
                fix += f"; or let people sign in here: `tocsin oauth set {name} --grant device_code`"
        case GrantType.JWT_BEARER:
            fix = f"Its key is enough. See whether it works: `tocsin oauth check {name} --user MAILBOX`"
        case GrantType.CLIENT_CREDENTIALS | GrantType.WORKLOAD_IDENTITY | GrantType.MANAGED_IDENTITY:
            fix = f"It proves itself without a person. See whether it works: `tocsin oauth check {name}`"
        case _:
            assert_never(grant)
    raise UsageError(
        f"Nobody signs in for the OAuth profile {name!r}: its grant is {grant}.",
        fix=f"{fix}.",
        scope=Scope.OAUTH_PROFILE,
    )


def _mailbox_of(ready: _Ready, signed_in: SignedIn) -> str:
    """Give the mailbox that the sign-in is for. Raises TokenError where nobody says."""
    mailbox = ready.mailbox or signed_in.account
    if mailbox is None:
        raise TokenError(
            f"OAuth profile {ready.profile.name}: the provider does not tell who signed in, and no sending profile"
            " uses it yet, so nobody knows for which mailbox.",
            fix=f"Nothing was stored. Run `tocsin oauth acquire {ready.profile.name} --user MAILBOX`.",
            permanent=True,
        )
    return mailbox


def _warn_of_another_account(profile: OAuthProfile, mailbox: str, account: str | None) -> None:
    """Tell that somebody else's permission is needed where the account is not the mailbox."""
    if account is None or account.lower() == mailbox.lower():
        return
    if OAuthProvider(profile.provider) in MICROSOFT_CLOUDS:
        needed = (
            "as for a shared mailbox, the account needs Full Access and Send As in Exchange Online: "
            f"`Add-MailboxPermission -Identity {mailbox} -User {account} -AccessRights FullAccess` and "
            f"`Add-RecipientPermission -Identity {mailbox} -Trustee {account} -AccessRights SendAs`."
        )
    else:
        needed = f"the provider has to let {account} log in as {mailbox}."
    say(
        f"Warning: {account} signed in, and the mailbox is {mailbox}. That is stored, and works if meant so: {needed}"
        f" If it was not: `tocsin oauth acquire {profile.name} --user {mailbox}` as {mailbox}."
    )


def _asks_as(profile: OAuthProfile) -> tuple[object, ...]:
    """Give what a sign-in is bound to."""
    return profile.id, profile.grant_type, oauth_profiles.issuer_of(profile)


def _show(code: DeviceCode, mailbox: str | None) -> None:
    whom = f" as {mailbox}" if mailbox is not None else ""
    say(f"To sign in{whom}, open\n\n    {code.verification_uri}\n\nand enter the code\n\n    {code.user_code}\n")
    if not sys.stderr.isatty():
        say(f"It is good for {counted(math.ceil(code.expires_in_seconds / 60), 'minute')}.")


@contextmanager
def _countdown(ends_at: float, clock: Callable[[], float]) -> Generator[Callable[[float], Awaitable[None]]]:
    """Give what sleeps, and meanwhile shows how long the code is good: each second on a terminal, else each minute."""
    if not sys.stderr.isatty():
        yield _Lines(ends_at, clock)
        return

    def left() -> Text:
        return Text(f"Waiting for the sign-in, {harmless(_minutes(ends_at - clock()))} left. Ctrl-C stops.")

    with Live(get_renderable=left, console=Console(file=sys.stderr), refresh_per_second=2, transient=True):
        yield asyncio.sleep


class _Lines:
    """Sleeps, and says every minute that it waits."""

    def __init__(self, ends_at: float, clock: Callable[[], float]) -> None:
        self._ends_at = ends_at
        self._clock = clock
        self._said_at = clock()

    async def __call__(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        now = self._clock()
        if now - self._said_at >= _SECONDS_BETWEEN_LINES:
            self._said_at = now
            say(f"Waiting for the sign-in, {_minutes(self._ends_at - now)} left.")


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(max(int(seconds), 0), 60)
    return f"{minutes}:{rest:02d} min"
