"""The errors that Tocsin raises, and what each promises to tell.

Every error names its scope (what is to blame), says what is wrong in words for a person, and, where there is
something to do, says what to do. None carries a secret.

    TocsinError
    ├── UsageError              the caller asked for something impossible; exit code 2
    ├── ConfigurationError      a setting is missing or wrong
    ├── SealError               a sealed value does not open, or there is no master key
    │   └── UnknownKeyError     this process's master keys are not the fleet's
    ├── ContractError           a part of a job breaks the contract on the wire
    ├── AddressError            a text is not exactly one mail address
    ├── RenderingError          a template cannot be rendered for a message
    ├── LedgerError             Postgres cannot be reached, refuses us, or has another schema
    ├── MessageBrokerError      RabbitMQ (or its stand-in) cannot be reached or refuses a message
    ├── TokenError              a token endpoint gave no token
    └── SmtpError               a mail server could not be spoken to
"""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """What an error blames: the narrowest thing whose repair would mend it."""

    INSTALLATION = "installation"
    LEDGER = "ledger"
    MESSAGE_BROKER = "message broker"
    SESSION = "session"
    MAILBOX = "mailbox"
    PROFILE = "profile"
    OAUTH_PROFILE = "oauth profile"
    TEMPLATE = "template"
    SENDER = "sender"
    JOB = "job"
    MESSAGE = "message"
    RECIPIENT = "recipient"


class TocsinError(Exception):
    """Something that a person can understand went wrong.

    `problem` is one sentence that says what is wrong and where; `fix` says what to do, or is None where there
    is nothing to do but wait. `str()` gives both.
    """

    scope: Scope = Scope.INSTALLATION

    def __init__(self, problem: str, *, fix: str | None = None, scope: Scope | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix
        if scope is not None:
            self.scope = scope

    def __str__(self) -> str:
        return self.problem if self.fix is None else f"{self.problem} {self.fix}"


class UsageError(TocsinError):
    """The caller asked for something that cannot be: exit code 2 on the command line."""


class ConfigurationError(TocsinError):
    """A setting is missing, malformed or contradicts another."""


class SealError(TocsinError):
    """A sealed value does not open here, or no master key is to be had."""


class UnknownKeyError(SealError):
    """A master key is not in this process's key file, or no longer.

    The value is not to blame: another process, whose file is as it should be, opens and seals it.
    """


class ContractError(TocsinError):
    """A part breaks the contract on the wire.

    `code` is a stable word for programs (`unknown_field`, `too_many_recipients`, …); `field` is the JSON path
    of the offender (`recipients[3].address`), or None where the whole part is at fault.
    """

    scope = Scope.JOB

    def __init__(self, code: str, problem: str, *, field: str | None = None, fix: str | None = None) -> None:
        super().__init__(problem, fix=fix)
        self.code = code
        self.field = field


class AddressError(TocsinError):
    """A text is not exactly one mail address."""

    scope = Scope.RECIPIENT


class RenderingError(TocsinError):
    """A template cannot be rendered for this message: an undefined tag, a line break in a header, too long."""

    scope = Scope.MESSAGE


class LedgerError(TocsinError):
    """Postgres cannot be reached, refuses us, or holds another schema than this release expects."""

    scope = Scope.LEDGER


class MessageBrokerError(TocsinError):
    """RabbitMQ, or its embedded stand-in, cannot be reached, or did not take a message."""

    scope = Scope.MESSAGE_BROKER


class TokenError(TocsinError):
    """A token endpoint gave no token.

    `permanent` says that asking again will not help until a person changes something; `retry_after` is the
    endpoint's own wish in seconds, where it sent one; `code` is Microsoft's AADSTS code where there is one, else the
    OAuth error code (RFC 6749 section 5.2); `cause` is what is behind a refusal, in one word that does not depend on
    the provider (`tocsin_workers.tokens.refusal_causes.Cause`), where that is known.
    """

    scope = Scope.OAUTH_PROFILE

    def __init__(
        self,
        problem: str,
        *,
        fix: str | None = None,
        permanent: bool = False,
        retry_after: float | None = None,
        code: str | None = None,
        cause: str | None = None,
    ) -> None:
        super().__init__(problem, fix=fix)
        self.permanent = permanent
        self.retry_after = retry_after
        self.code = code
        self.cause = cause


class SmtpError(TocsinError):
    """A mail server could not be spoken to; see `tocsin_workers.smtp` for the narrower ones."""

    scope = Scope.SESSION
