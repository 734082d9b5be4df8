"""`tocsin oauth check`: get a token now, as a worker would, and say what it is or why there is none."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tocsin_console.commands.oauth_options import Mailbox, Name
from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.output import Cell, examples, moment, print_facts, print_json, say
from tocsin_console.reading.oauth_mailbox import mailbox_meant
from tocsin_console.reading.session import Session, open_ledger, run_to_end
from tocsin_schema.errors import Scope, TokenError, UsageError
from tocsin_schema.ledger import access_tokens, oauth_profiles
from tocsin_schema.ledger.access_tokens import TokenKey, TokenRow
from tocsin_schema.ledger.connection import AWAY, describe, open_pool
from tocsin_schema.ledger.oauth_profiles import OAuthProfile
from tocsin_schema.ledger.oauth_providers import GrantType
from tocsin_schema.ledger.refresh_tokens import list_refresh_tokens
from tocsin_schema.sealing import Sealer
from tocsin_workers.tokens.access_token import AccessToken
from tocsin_workers.tokens.grants import grant_of, subject_of
from tocsin_workers.tokens.refreshing import HoldOff, UseToken, Want
from tocsin_workers.tokens.refusals import cause_of
from tocsin_workers.tokens.single_flight import TokenSource
from tocsin_workers.tokens.token_facts import TokenFacts, read_token_facts

EPILOG = examples("tocsin oauth check m365", "tocsin oauth check workspace --user news@example.org --json")


@dataclass(frozen=True, slots=True)
class _Ready:
    """Whose token to get."""

    profile: OAuthProfile
    key: TokenKey
    sealer: Sealer
    url: str


def check(name: Name, user: Mailbox = None, as_json: JsonFlag = False) -> None:
    """Get a token now, as a worker would, and tell what it says of itself; never the token.

    The token that senders use meanwhile stays in use, whatever comes. Exit code 1 where there is none, with the cause
    and what to do. --user is the mailbox, for grants whose tokens are a mailbox's own.
    """
    with open_ledger() as ledger:

        async def prepare(session: Session) -> _Ready:
            return await _prepare(session, name, user)

        ready = ledger.visit(prepare)
        try:
            token = run_to_end(_obtain(ready))
        except TokenError as error:
            error.fix = error.fix or what_time_may_mend(ready.profile)
            if as_json:
                print_json(_failure_as_json(ready, error))
            living = run_to_end(_living_token_ends(ready))
            if living is not None:
                say(f"Senders go on with the token from before, until {moment(living)}.")
            raise
    facts = read_token_facts(token.token)
    if as_json:
        print_json(_as_json(ready, token, facts))
        return
    print_facts(_as_facts(ready, token, facts))
    if facts is None:
        say("The token is not a JWT, and so says nothing of itself.")


async def _prepare(session: Session, name: str, user: str | None) -> _Ready:
    profile = await oauth_profiles.get_by_name(session.connection, name)
    subject = ""
    if grant_of(profile).per_mailbox:
        users = await oauth_profiles.mailboxes_that_use(session.connection, profile.id)
        signed_in = [row.subject for row in await list_refresh_tokens(session.connection, profile.id)]
        mailbox = mailbox_meant(name, user, users or signed_in)
        if mailbox is None:
            raise UsageError(
                f"The tokens of OAuth profile {name!r} are a mailbox's own, and no sending profile uses it yet.",
                fix="Say which mailbox with --user MAILBOX.",
                scope=Scope.OAUTH_PROFILE,
            )
        subject = subject_of(profile, mailbox)
    key = TokenKey(profile.id, subject)
    # A person asks: what failed is asked once more.
    await access_tokens.forgive_failure(session.connection, key)
    return _Ready(profile, key, await session.sealer(), session.url)


async def _obtain(ready: _Ready) -> AccessToken:
    # Its warnings would say once more what the command says.
    logging.getLogger("tocsin_workers").addHandler(logging.NullHandler())
    try:
        async with open_pool(ready.url, size=2) as pool:
            source = TokenSource(pool, ready.sealer)
            row, step = await source.look(ready.key, want=Want.NEW)
            if isinstance(step, HoldOff):
                raise left_alone(ready.profile, row, seconds=step.seconds)
            try:
                return await source.obtain(ready.key, want=Want.NEW)
            finally:
                await source.finish()
    except AWAY as error:
        raise describe(error, ready.url) from error


def left_alone(profile: OAuthProfile, row: TokenRow, *, seconds: float) -> TokenError:
    """Say that the endpoint has wished for a pause, which a person's question does not overrule."""
    until = moment(row.now + timedelta(seconds=seconds))
    said = (row.failure or "nothing").removeprefix(f"OAuth profile {profile.name}: ")
    return TokenError(
        f"OAuth profile {profile.name} was not asked again: the endpoint wants to be left alone until {until};"
        f" it said: {said}",
        fix=row.failure_fix or f"Try again then: `tocsin oauth check {profile.name}`.",
        permanent=row.failure_permanent,
        retry_after=seconds,
        code=row.failure_code,
        cause=None if row.failure_code is None else cause_of(profile, row.failure_code, row.failure or ""),
    )


def what_time_may_mend(profile: OAuthProfile) -> str:
    """Say what to do about a failure that nothing is known to help against."""
    again = "Try again in a while."
    if profile.grant_type == GrantType.MANAGED_IDENTITY:
        return again
    return f"{again} If its address is wrong: `tocsin oauth set {profile.name} --token-endpoint URL`."


async def _living_token_ends(ready: _Ready) -> datetime | None:
    """Give the end of the token that senders still have, None where they have none."""
    async with open_pool(ready.url, size=1) as pool:
        row, step = await TokenSource(pool, ready.sealer).look(ready.key)
    return row.expires_at.astimezone(UTC) if isinstance(step, UseToken) and row.expires_at is not None else None


def _as_facts(ready: _Ready, token: AccessToken, facts: TokenFacts | None) -> list[tuple[str, Cell]]:
    told: list[tuple[str, Cell]] = [
        ("OAuth profile", ready.profile.name),
        ("Token", "obtained"),
        ("For", ready.key.subject or "the application"),
        ("Obtained", token.obtained_at),
        ("Expires", token.expires_at),
    ]
    if facts is None:
        return told
    said: list[tuple[str, Cell]] = [
        ("Audience", ", ".join(facts.audience)),
        ("Roles", ", ".join(facts.roles)),
        ("Scopes", " ".join(facts.scopes)),
        ("Tenant", facts.tenant),
        ("Application", facts.application),
        ("Object id", facts.object_id),
        ("User", facts.user),
        ("Says it expires", facts.expires_at),
    ]
    return [*told, *((label, value) for label, value in said if value)]


def _as_json(ready: _Ready, token: AccessToken, facts: TokenFacts | None) -> dict[str, object]:
    return {
        "oauth_profile": ready.profile.name,
        "mailbox": ready.key.subject or None,
        "ok": True,
        "obtained_at": token.obtained_at,
        "expires_at": token.expires_at,
        "says": None
        if facts is None
        else {
            "audience": list(facts.audience),
            "roles": list(facts.roles),
            "scopes": list(facts.scopes),
            "tenant": facts.tenant,
            "application": facts.application,
            "object_id": facts.object_id,
            "user": facts.user,
            "expires_at": facts.expires_at,
        },
    }


def _failure_as_json(ready: _Ready, error: TokenError) -> dict[str, object]:
    return {
        "oauth_profile": ready.profile.name,
        "mailbox": ready.key.subject or None,
        "ok": False,
        "problem": error.problem,
        "fix": error.fix,
        "cause": error.cause,
        "code": error.code,
        "permanent": error.permanent,
        "retry_after_seconds": error.retry_after,
    }
