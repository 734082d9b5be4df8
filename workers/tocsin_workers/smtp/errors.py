"""The errors of opening and keeping an SMTP session; the tree stands in the package's docstring."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from tocsin_schema.errors import Scope, SmtpError
from tocsin_workers.smtp.phases import Phase

if TYPE_CHECKING:
    from tocsin_workers.smtp.replies import Reply


class Trouble(StrEnum):
    """What is wrong where no reply of the server tells it."""

    UNKNOWN_HOST = "unknown_host"
    CONNECTION_REFUSED = "connection_refused"
    UNREACHABLE = "unreachable"
    NO_ANSWER = "no_answer"
    """Nothing at all comes back, not even a refusal: mostly a firewall."""
    NO_GREETING = "no_greeting"
    """The connection is there, and nobody speaks."""
    NOT_SMTP = "not_smtp"
    STARTTLS_NOT_OFFERED = "starttls_not_offered"
    CERTIFICATE_FOR_ANOTHER_NAME = "certificate_for_another_name"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"
    CERTIFICATE_OF_UNKNOWN_AUTHORITY = "certificate_of_unknown_authority"
    CERTIFICATE_NOT_TRUSTED = "certificate_not_trusted"
    HANDSHAKE_FAILED = "handshake_failed"
    AUTH_NOT_OFFERED = "auth_not_offered"
    MECHANISM_NOT_OFFERED = "mechanism_not_offered"
    PLAINTEXT = "plaintext"
    """We do not send credentials without TLS."""


class SmtpSessionError(SmtpError):
    """The session with a mail server could not be opened, or it has ended.

    `phase` is the step that failed, `reply` what the server said, if it said anything: together they are what
    `classification.classify` takes. `trouble` tells what is wrong where no reply does.
    """

    scope = Scope.SESSION

    def __init__(
        self,
        problem: str,
        *,
        phase: Phase,
        reply: Reply | None = None,
        trouble: Trouble | None = None,
        fix: str | None = None,
        scope: Scope | None = None,
    ) -> None:
        super().__init__(problem, fix=fix, scope=scope)
        self.phase = phase
        self.reply = reply
        self.trouble = trouble


class SmtpConnectError(SmtpSessionError):
    """No connection to the server, or it did not greet us as it should."""


class SmtpTlsError(SmtpSessionError):
    """The server offers no TLS, or shows a certificate that is not to be trusted: a person has to act."""

    scope = Scope.PROFILE


class SmtpAuthError(SmtpSessionError):
    """The server refused our credentials, or we refuse to send them (`reply` is None then).

    `mechanism` is the SASL mechanism that was tried. `detail` is what the server added in a 334 before its
    refusal: the JSON of XOAUTH2 and OAUTHBEARER (RFC 7628 section 3.2.2) as text, or None.
    """

    scope = Scope.MAILBOX

    def __init__(
        self,
        problem: str,
        *,
        reply: Reply | None = None,
        detail: str | None = None,
        mechanism: str | None = None,
        trouble: Trouble | None = None,
        fix: str | None = None,
        scope: Scope | None = None,
    ) -> None:
        super().__init__(problem, phase=Phase.AUTH, reply=reply, trouble=trouble, fix=fix, scope=scope)
        self.detail = detail
        self.mechanism = mechanism


class SmtpDisconnected(SmtpSessionError):  # noqa: N818  # the word says it; "DisconnectedError" says less
    """The connection was lost, or the server closed it."""


class SmtpDeadline(SmtpSessionError):  # noqa: N818  # the same
    """The server took longer than the phase's deadline."""


class SmtpProtocolError(SmtpSessionError):
    """The server said something that is not SMTP, or that fits no command of ours."""
