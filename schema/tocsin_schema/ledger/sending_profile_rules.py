"""What may go together in a sending profile: pure decisions, made before anything is written."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, assert_never

from tocsin_schema.errors import Scope, UsageError

"""Recipients in one batch; a batch row's bit strings end there."""

# RFC 1123 section 2.1 names, and addresses; no spaces, quotes or brackets can hide in them.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Tls(StrEnum):
    """When TLS begins: after STARTTLS (RFC 3207), from the first octet (RFC 8314), or never."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    NONE = "none"


class Auth(StrEnum):
    """How we log in: with an OAuth access token, with a password, or not at all."""

    OAUTH = "oauth"
    BASIC = "basic"
    NONE = "none"


class Copies(StrEnum):
    """What an email copy holds of the content: a reference from which it is made again, or every byte."""

    REFERENCE = "reference"
    FULL = "full"


class ProfilePipelining(StrEnum):
    """How many SMTP commands may be under way at once (RFC 2920); see `tocsin_workers.smtp.pipelining`."""

    FULL = "full"
    ENVELOPE = "envelope"
    OFF = "off"


class PasswordSource(Enum):
    """Where the password of a profile comes from."""

    OWN = "its own"
    INSTALLATION = "the installation's"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider allows a mailbox; None means no limit."""

    connections: int | None
    messages_per_minute: int | None
    recipients_per_day: int | None


class Unsaid(Enum):
    """A limit that the caller said nothing about, which is something else than none."""

    UNSAID = "unsaid"


UNSAID: Final = Unsaid.UNSAID


@dataclass(frozen=True, slots=True)
class AskedLimits:
    """The limits that a caller asked for: a number, None for no limit, or UNSAID."""

    connections: int | Unsaid | None = UNSAID
    messages_per_minute: int | Unsaid | None = UNSAID
    recipients_per_day: int | Unsaid | None = UNSAID

    @property
    def is_anything(self) -> bool:
        """Whether the caller said anything about limits."""
        return self != AskedLimits()


@dataclass(frozen=True, slots=True)
class AskedTenant:
    """The tenant that a caller asked for: a name and its limit, None for none, or UNSAID."""

    name: str | Unsaid | None = UNSAID
    external_recipients_per_day: int | Unsaid | None = UNSAID

    @property
    def is_anything(self) -> bool:
        """Whether the caller said anything about a tenant."""
        return self != NO_TENANT_ASKED


NO_TENANT_ASKED: Final = AskedTenant()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileDraft:
    """A sending profile as it shall be, before it is checked and written. Secrets travel beside it."""

    name: str
    provider: str
    host: str
    port: int
    tls: Tls
    auth: Auth
    from_address: str
    oauth_profile: str | None
    login: str
    ca_pem: str | None
    allow_plaintext_auth: bool
    batch_size: int
    copies: Copies
    pipelining: ProfilePipelining = ProfilePipelining.ENVELOPE

    @property
    def mailbox(self) -> tuple[str, str]:
        """What the provider limits: host and login. No provider tells logins apart by their case."""
        return self.host, self.login.lower()


def checked_name(name: str, what: str) -> str:
    """Give the name if it can stand in commands, logs and JSON as it is. Raises UsageError."""
    if _NAME.fullmatch(name):
        return name
    raise UsageError(
        f"{name[:64]!r} cannot be the name of {what}.",
        fix="Take up to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit.",
    )


def checked_host(host: str) -> str:
    """Give a host name or IP address in lower case. Raises UsageError."""
    lowered = host.strip().lower().rstrip(".")
    if _HOST_NAME.fullmatch(lowered) or _is_ip_address(lowered):
        return lowered
    raise UsageError(
        f"{host[:80]!r} is not the name of a mail server.", fix="Give a host name only, without port or scheme."
    )


def limits_to_keep(asked: AskedLimits, *, found: Limits) -> Limits:
    """Say which limits a mailbox has from now on: what was asked for, else what was there."""
    return Limits(
        connections=_said(asked.connections, found.connections),
        messages_per_minute=_said(asked.messages_per_minute, found.messages_per_minute),
        recipients_per_day=_said(asked.recipients_per_day, found.recipients_per_day),
    )


def check_draft(draft: ProfileDraft, password: PasswordSource) -> None:
    """Refuse what cannot work or would send credentials in clear. Raises UsageError."""
    match draft.auth:
        case Auth.OAUTH:
            if draft.oauth_profile is None:
                raise _refused("authentication by OAuth needs an OAuth profile", "Name it with --oauth.")
        case Auth.BASIC:
            if password is PasswordSource.NOWHERE:
                raise _refused(
                    f"authentication with a password needs one for {draft.host}",
                    "Give --password-file, or set EmailUsername and EmailPassword for this host.",
                )
        case Auth.NONE:
            if draft.oauth_profile is not None:
                raise _refused("an OAuth profile is of no use without authentication", "Leave --oauth out.")
        case _:
            assert_never(draft.auth)
    _check_plaintext(draft)


def is_loopback(host: str) -> bool:
    """Whether what is sent to the host never leaves this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def password_must_be_given_again(old: ProfileDraft, new: ProfileDraft) -> bool:
    """Whether a stored password would go to another server than the one it was given for."""
    return old.host != new.host


def _check_plaintext(draft: ProfileDraft) -> None:
    if draft.tls is not Tls.NONE or draft.auth is Auth.NONE:
        return
    if not draft.allow_plaintext_auth:
        raise _refused(
            "without TLS, anyone on the way could read the credentials",
            "Use --tls starttls or implicit. For a server on this machine there is --allow-plaintext-auth.",
        )
    if not is_loopback(draft.host):
        raise _refused(
            f"credentials go without TLS to this machine only, and {draft.host} is not this machine",
            "Use --tls starttls or implicit, or the host localhost, 127.0.0.1 or ::1.",
        )


def _refused(why: str, fix: str) -> UsageError:
    return UsageError(f"This sending profile cannot be: {why}.", fix=fix, scope=Scope.PROFILE)


def _said(asked: int | Unsaid | None, found: int | None) -> int | None:
    return found if isinstance(asked, Unsaid) else asked


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
