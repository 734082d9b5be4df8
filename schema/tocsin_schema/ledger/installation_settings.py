"""Operators' settings of the whole installation: which there are, what they may hold, and their defaults.

The set is closed: a key that is not in `DEFINITIONS` is refused, so that a typing error is not a setting that
nobody reads. Values are stored as text; secrets are sealed, and nothing here ever gives one back but to the
mailer that logs in with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, assert_never

from psycopg.rows import class_row

from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.internal_domains import read_domains
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.sealing import Sealer

_QUERIES = named_queries("installation_settings")

EMAIL_PASSWORD_PURPOSE = "settings.sealed_value"  # noqa: S105  # the name of a column, not a password
"""What the sealed EmailPassword is authenticated with, beside its row."""

MAX_TEXT = 320
"""Characters in a setting that is a text: as long as the longest address."""

MAX_DOMAINS = 8000
"""Characters in a list of domains."""

MAX_PASSWORD = 1024
"""Characters in a password."""


class Kind(StrEnum):
    """What a setting holds, and so who may change and who may see it."""

    NUMBER = "number"
    TEXT = "text"
    DOMAINS = "domains"
    """Names of domains between commas, or `none`."""
    SECRET = "secret"  # noqa: S105  # a kind of setting, not a password
    FIXED = "fixed"
    """Made at the first migration; nobody changes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One setting: its name, what it may hold, and what it means. `lowest` and `highest` bound numbers."""

    key: str
    kind: Kind
    meaning: str
    default: int | None = None
    lowest: int = 0
    highest: int = 0


def _number(key: str, default: int, lowest: int, highest: int, meaning: str) -> Definition:
    return Definition(key=key, kind=Kind.NUMBER, default=default, lowest=lowest, highest=highest, meaning=meaning)


_HOUR = 3600
_YEAR_IN_HOURS = 366 * 24

DEFINITIONS: Mapping[str, Definition] = MappingProxyType(
    {
        definition.key: definition
        for definition in (
            Definition(
                key="DatabaseUniqueID",
                kind=Kind.FIXED,
                meaning="Names this ledger; part of every sealing key. Made at the first migration.",
            ),
            Definition(
                key="EmailUsername",
                kind=Kind.TEXT,
                meaning="Login of profiles with basic authentication that have no password of their own.",
            ),
            Definition(
                key="EmailPassword",
                kind=Kind.SECRET,
                meaning="Password that goes with EmailUsername. Sealed, and only ever sent to one host.",
            ),
            _number(
                "RetryFirstDelaySeconds", 30, 1, 24 * _HOUR,
                "Wait before the second try of a recipient; it doubles from try to try.",
            ),
            _number(
                "RetryMaximumDelaySeconds", 3600, 1, 7 * 24 * _HOUR,
                "Longest wait between two tries of a recipient.",
            ),
            _number(
                "UrgentExpiryHours", 6, 1, _YEAR_IN_HOURS,
                "An urgent job without expires_at is given up so long after intake or send_after.",
            ),
            _number("NormalExpiryHours", 72, 1, _YEAR_IN_HOURS, "The same for a normal job."),
            _number("BulkExpiryHours", 168, 1, _YEAR_IN_HOURS, "The same for a bulk job."),
            _number(
                "SuppressRefusedAddresses", 1, 0, 1,
                "1: an address that a server refuses for good is not written to again by its source; 0: it is.",
            ),
            _number(
                "UrgentSharePercent", 20, 0, 90,
                "How much of a mailbox's and a tenant's recipients of 24 hours is kept for urgent jobs.",
            ),
            Definition(
                key="InternalDomains",
                kind=Kind.DOMAINS,
                meaning="Domains of the organisation, with those below them: a tenant's limit counts all others.",
            ),
            _number(
                "RetentionDays", 400, 0, 36_600,
                "A month's jobs are removed when all of it is older than this; 0 keeps them for ever.",
            ),
        )
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class InstallationSettings:
    """The numbers in force, for whoever works by them. Seconds, hours and days, as the names say."""

    retry_first_delay_seconds: int
    retry_maximum_delay_seconds: int
    urgent_expiry_hours: int
    normal_expiry_hours: int
    bulk_expiry_hours: int
    suppress_refused_addresses: bool
    retention_days: int
    """0: for ever."""
    urgent_share_percent: int = 20
    internal_domains: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class StoredSetting:
    """A row of `settings`, without its secret."""

    key: str
    value: str | None
    is_sealed: bool
    bound_to: str | None
    read_only: bool
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class SharedLogin:
    """EmailUsername, and EmailPassword still sealed. `bound_to` is the only host that it may be sent to."""

    username: str
    row_id: UUID
    sealed_value: bytes
    bound_to: str


def definition_of(key: str) -> Definition:
    """Find a setting by its name. Raises UsageError, which lists the known ones."""
    if key in DEFINITIONS:
        return DEFINITIONS[key]
    raise UsageError(f"There is no setting {key!r}.", fix=f"The settings are: {', '.join(DEFINITIONS)}.")


def checked_value(definition: Definition, text: str) -> str:
    """Give the text as it is stored, or raise UsageError that says what the setting may hold."""
    match definition.kind:
        case Kind.NUMBER:
            return _checked_number(definition, text)
        case Kind.TEXT:
            return _checked_text(definition, text, MAX_TEXT)
        case Kind.DOMAINS:
            return _checked_domains(definition, text)
        case Kind.SECRET:
            return _checked_text(definition, text, MAX_PASSWORD)
        case Kind.FIXED:
            raise UsageError(f"{definition.key} is read-only.", fix="It stays what it is for this ledger's life.")
        case _:
            assert_never(definition.kind)


def in_force(stored: Mapping[str, str]) -> InstallationSettings:
    """Say which numbers hold, given the stored texts: those, or else the defaults."""

    def number(key: str) -> int:
        default = DEFINITIONS[key].default
        assert default is not None
        text = stored.get(key)
        return default if text is None else int(text)

    return InstallationSettings(
        retry_first_delay_seconds=number("RetryFirstDelaySeconds"),
        retry_maximum_delay_seconds=number("RetryMaximumDelaySeconds"),
        urgent_expiry_hours=number("UrgentExpiryHours"),
        normal_expiry_hours=number("NormalExpiryHours"),
        bulk_expiry_hours=number("BulkExpiryHours"),
        suppress_refused_addresses=bool(number("SuppressRefusedAddresses")),
        retention_days=number("RetentionDays"),
        urgent_share_percent=number("UrgentSharePercent"),
        internal_domains=read_domains(stored.get("InternalDomains", "")),
    )


async def read_stored(connection: Connection) -> dict[str, StoredSetting]:
    """Read every setting that has a row, by its name."""
    async with connection.cursor(row_factory=class_row(StoredSetting)) as cursor:
        await cursor.execute(_QUERIES["read_settings"])
        return {setting.key: setting async for setting in cursor}


async def read_in_force(connection: Connection) -> InstallationSettings:
    """Read the numbers that hold now."""
    stored = await read_stored(connection)
    return in_force({key: row.value for key, row in stored.items() if row.value is not None})


async def write_value(connection: Connection, key: str, text: str) -> str:
    """Store a number or a text, and give it as it is stored.

    Another share for urgent jobs holds at once: no mailbox or tenant is kept for them any longer by the one before.
    Raises UsageError for an unknown key, a secret or a value that does not fit.
    """
    definition = definition_of(key)
    value = checked_value(definition, text)
    if definition.kind is Kind.SECRET:
        raise UsageError(f"{key} is a secret.", fix="It is stored sealed, for one host.")
    if definition.kind is Kind.NUMBER:
        _refuse_contradiction(await read_in_force(connection), key, int(value))
    await connection.execute(_QUERIES["write_setting"], {"key": key, "value": value})
    if key == "UrgentSharePercent":
        await connection.execute(_QUERIES["forget_mailboxes_kept_for_urgent"])
        await connection.execute(_QUERIES["forget_tenants_kept_for_urgent"])
    return value


async def write_email_password(connection: Connection, sealer: Sealer, password: str, *, host: str) -> None:
    """Store EmailPassword, sealed and bound to the one mail host that it may be sent to. Raises UsageError."""
    value = checked_value(DEFINITIONS["EmailPassword"], password)
    row = await (await connection.execute(_QUERIES["lock_setting"], {"key": "EmailPassword"})).fetchone()
    assert row is not None
    sealed = sealer.seal(value, purpose=EMAIL_PASSWORD_PURPOSE, row_id=str(row[0]))
    await connection.execute(
        _QUERIES["write_sealed_setting"], {"key": "EmailPassword", "sealed_value": sealed, "bound_to": host}
    )


async def read_shared_login(connection: Connection) -> SharedLogin | None:
    """Read what basic authentication falls back on, or None unless both EmailUsername and EmailPassword are set."""
    async with connection.cursor(row_factory=class_row(SharedLogin)) as cursor:
        await cursor.execute(_QUERIES["read_shared_login"])
        return await cursor.fetchone()


def open_shared_password(login: SharedLogin, sealer: Sealer, *, host: str) -> str:
    """Open EmailPassword for a host. Raises UsageError for another host than its own, SealError."""
    if host.lower() != login.bound_to:
        raise UsageError(
            f"EmailPassword may only be sent to {login.bound_to}, not to {host}.",
            fix="Give the profile a password of its own, or set EmailPassword anew with --host.",
        )
    return sealer.open(login.sealed_value, purpose=EMAIL_PASSWORD_PURPOSE, row_id=str(login.row_id))


def _checked_number(definition: Definition, text: str) -> str:
    digits = text.strip()
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 10 else -1  # noqa: PLR2004
    if not definition.lowest <= number <= definition.highest:
        raise UsageError(
            f"{definition.key} cannot be {text[:40]!r}.",
            fix=f"Give a whole number from {definition.lowest} to {definition.highest}.",
        )
    return str(number)


def _checked_text(definition: Definition, text: str, longest: int) -> str:
    if not text.strip():
        raise UsageError(f"{definition.key} cannot be empty.", fix="Give a value.")
    if len(text) > longest or not text.isprintable():
        raise UsageError(
            f"{definition.key} is too long or holds a control character.",
            fix=f"Give one line of at most {longest} characters.",
        )
    return text


def _checked_domains(definition: Definition, text: str) -> str:
    if text.strip().lower() == "none":
        return ""
    domains = sorted(read_domains(_checked_text(definition, text, MAX_DOMAINS)))
    for domain in domains:
        if "." not in domain:
            raise UsageError(
                f"{domain!r} would make all of .{domain} internal.", fix="Give names like example.org, between commas."
            )
    return ", ".join(domains)


def _refuse_contradiction(now: InstallationSettings, key: str, number: int) -> None:
    first = number if key == "RetryFirstDelaySeconds" else now.retry_first_delay_seconds
    longest = number if key == "RetryMaximumDelaySeconds" else now.retry_maximum_delay_seconds
    if first > longest:
        raise UsageError(
            f"RetryFirstDelaySeconds ({first}) would be longer than RetryMaximumDelaySeconds ({longest}).",
            fix="Change the other one first.",
        )
