"""Why a profile does not work: the closed set of causes, and the form of a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tocsin_workers.tokens.refusal_causes import Cause as TokenCause


class Cause(StrEnum):
    """What is to blame: stable words for programs and documentation."""

    # The way to the server.
    UNKNOWN_HOST = "unknown_host"
    CONNECTION_REFUSED = "connection_refused"
    UNREACHABLE = "unreachable"
    FIREWALL = "firewall"
    NO_GREETING = "no_greeting"
    NOT_SMTP = "not_smtp"
    TOO_SLOW = "too_slow"
    CONNECTION_LOST = "connection_lost"
    SERVER_REFUSES_US = "server_refuses_us"
    SERVER_BUSY = "server_busy"
    """Throttled or out of order for now: nothing is wrong with the profile."""

    # TLS.
    STARTTLS_NOT_OFFERED = "starttls_not_offered"
    CERTIFICATE_FOR_ANOTHER_NAME = "certificate_for_another_name"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_EXPIRES_SOON = "certificate_expires_soon"
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"
    CERTIFICATE_OF_UNKNOWN_AUTHORITY = "certificate_of_unknown_authority"
    CERTIFICATE_NOT_TRUSTED = "certificate_not_trusted"
    TLS_FAILED = "tls_failed"
    BAD_CA_FILE = "bad_ca_file"

    # Getting credentials; why a token endpoint refuses is told by `tokens.refusal_causes.Cause`.
    NO_CREDENTIALS = "no_credentials"
    """The profile lacks a password or a key, or what it has does not open."""
    SIGN_IN_NEEDED = "sign_in_needed"
    TOKEN_ENDPOINT_AWAY = "token_endpoint_away"  # noqa: S105  # the same
    TOKEN_REFUSED_BY_ENDPOINT = "token_refused_by_endpoint"  # noqa: S105  # the same

    # Signing in.
    AUTH_NOT_OFFERED = "auth_not_offered"
    MECHANISM_NOT_OFFERED = "mechanism_not_offered"
    PLAINTEXT = "plaintext"
    WRONG_SCOPE = "wrong_scope"
    """The token is for another service: its audience, or what the server names as missing."""
    WRONG_TENANT = "wrong_tenant"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105  # the same
    PERMISSION_MISSING = "permission_missing"
    """The token lacks the role SMTP.SendAsApp or the scope SMTP.Send."""
    NOT_REGISTERED_OR_NO_PERMISSION = "not_registered_or_no_permission"
    """Microsoft says the same for the three that follow; they are told apart by looking, in this order."""
    SERVICE_PRINCIPAL_NOT_REGISTERED = "service_principal_not_registered"
    WRONG_OBJECT_ID = "wrong_object_id"
    MAILBOX_PERMISSION_MISSING = "mailbox_permission_missing"
    SMTP_AUTH_OFF_FOR_MAILBOX = "smtp_auth_off_for_mailbox"
    SMTP_AUTH_OFF_FOR_TENANT = "smtp_auth_off_for_tenant"
    SECURITY_DEFAULTS = "security_defaults"
    CONDITIONAL_ACCESS = "conditional_access"
    BASIC_AUTH_OFF = "basic_auth_off"
    WRONG_USER_NAME = "wrong_user_name"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105  # the same
    APP_PASSWORD_NEEDED = "app_password_needed"  # noqa: S105  # the same
    NOT_A_WORKSPACE_MAILBOX = "not_a_workspace_mailbox"
    """Google: the account is not one of the organisation, has no Gmail, or may not use SMTP."""
    TOKEN_OF_ANOTHER_ACCOUNT = "token_of_another_account"  # noqa: S105  # the same
    TOKEN_REFUSED = "token_refused"  # noqa: S105  # the same

    # Sending.
    NOT_LOGGED_IN = "not_logged_in"
    SEND_AS_DENIED = "send_as_denied"
    SENDER_BLOCKED = "sender_blocked"
    SENDER_REFUSED = "sender_refused"
    RECIPIENT_REFUSED = "recipient_refused"
    MESSAGE_REFUSED = "message_refused"
    MAILBOX_FULL = "mailbox_full"
    QUOTA_USED_UP = "quota_used_up"
    RESET_REFUSED = "reset_refused"

    # Ourselves.
    PAUSED = "paused"
    RESTING = "resting"
    CONNECTIONS_IN_USE = "connections_in_use"
    NO_TIME_SLOT = "no_time_slot"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of several causes for which a provider says the same: `look` is how to see it, `fix` what to do then."""

    cause: Cause
    look: str
    fix: str

    def __str__(self) -> str:
        return f"{self.look}: {self.fix}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A cause with what it means here and what to do, for a person. No secret is in it.

    Where a provider does not tell its causes apart, `candidates` are those that are left, in the order in which to
    look; `fix` holds them as a numbered list.
    """

    cause: Cause | TokenCause
    meaning: str
    fix: str
    candidates: tuple[Candidate, ...] = ()

    @classmethod
    def one_of(cls, cause: Cause, meaning: str, *candidates: Candidate) -> Verdict:
        """Make a verdict of which a person has to find out which candidate it is."""
        steps = [f"{number}. {candidate}" for number, candidate in enumerate(candidates, start=1)]
        return cls(cause, meaning, "\n".join(["Look in this order.", *steps]), candidates)
