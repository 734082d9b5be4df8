"""Opening a session: connect, greet, secure, authenticate, and take the connection over from aiosmtplib."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, cast

import aiosmtplib

from tocsin_schema.errors import Scope
from tocsin_workers.classification import classify
from tocsin_workers.smtp.authentication import authenticate, reply_of
from tocsin_workers.smtp.capabilities import Capabilities
from tocsin_workers.smtp.credentials import Credentials, NoCredentials
from tocsin_workers.smtp.deadlines import Deadlines
from tocsin_workers.smtp.dialogue import Pipelining
from tocsin_workers.smtp.errors import (
    SmtpAuthError,
    SmtpConnectError,
    SmtpDeadline,
    SmtpDisconnected,
    SmtpProtocolError,
)
from tocsin_workers.smtp.phases import Phase, TimedPhase
from tocsin_workers.smtp.session import Session
from tocsin_workers.smtp.tls import TlsMode, client_context, no_starttls, tls_error
from tocsin_workers.smtp.wire import Observe, unobserved

if TYPE_CHECKING:
    from collections.abc import Generator

    from tocsin_workers.smtp.replies import Reply


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where and how to reach a mail server.

    `ca_pem` holds the certificate authorities to trust instead of the system's. `allow_plaintext_auth` lets
    credentials go over a connection without TLS, to a loopback address only.
    """

    host: str
    port: int
    tls: TlsMode = TlsMode.STARTTLS
    ca_pem: str | None = field(default=None, repr=False)
    allow_plaintext_auth: bool = False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


async def open_session(
    server: SmtpServer,
    credentials: Credentials,
    *,
    local_hostname: str,
    deadlines: Deadlines | None = None,
    pipelining: Pipelining = Pipelining.ENVELOPE,
    observe: Observe = unobserved,
) -> Session:
    """Open a session that is ready for transactions.

    `local_hostname` is what we call ourselves in EHLO. `observe` is given the seconds of each phase, here and
    in the session's transactions.

    Raises the errors of the package's docstring, and `ConfigurationError` for a `ca_pem` without certificate.
    Whatever happens, also on cancellation, no connection is left behind.
    """
    _refuse_plaintext_credentials(server, credentials)
    opening = asyncio.create_task(
        _open(
            server,
            credentials,
            local_hostname=local_hostname,
            deadlines=deadlines or Deadlines(),
            pipelining=pipelining,
            observe=observe,
        )
    )
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await _call_off(opening)
        raise


async def _call_off(opening: asyncio.Task[Session]) -> None:
    """Cancel until it takes: before Python 3.12 the `wait_for` in aiosmtplib may swallow a cancellation."""
    while not opening.done():
        opening.cancel()
        await asyncio.sleep(0)
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()


async def _open(
    server: SmtpServer,
    credentials: Credentials,
    *,
    local_hostname: str,
    deadlines: Deadlines,
    pipelining: Pipelining,
    observe: Observe,
) -> Session:
    # In a thread: building a context takes 50 ms, which the event loop has not got.
    context = None if server.tls is TlsMode.NONE else await asyncio.to_thread(client_context, server.ca_pem)
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        local_hostname=local_hostname,
        use_tls=server.tls is TlsMode.IMPLICIT,
        start_tls=False,
        tls_context=context,
    )
    try:
        started = monotonic()
        await _connect(client, server, deadlines)
        capabilities = await _greet(client, server, deadlines)
        started = _lap(observe, TimedPhase.CONNECT, started)
        if server.tls is TlsMode.STARTTLS:
            await _upgrade(client, server, deadlines)
            capabilities = await _greet(client, server, deadlines)
            started = _lap(observe, TimedPhase.TLS, started)
        _refuse_foreign_plaintext(client, server, credentials)
        await _log_in(client, server, credentials, capabilities, deadlines)
        _lap(observe, TimedPhase.AUTH, started)
        transport = _transport_of(client, server)
    except BaseException:
        _abort(client)
        raise
    return Session(
        transport,
        capabilities,
        server=str(server),
        deadlines=deadlines,
        observe=observe,
        pipelining=pipelining,
    )


async def _connect(client: aiosmtplib.SMTP, server: SmtpServer, deadlines: Deadlines) -> None:
    with _translated(server, Phase.CONNECT, deadlines):
        await client.connect(timeout=deadlines.connect)


async def _greet(client: aiosmtplib.SMTP, server: SmtpServer, deadlines: Deadlines) -> Capabilities:
    with _translated(server, Phase.EHLO, deadlines):
        try:
            await client.ehlo(timeout=deadlines.command)
        except aiosmtplib.SMTPHeloError as error:
            # A 5yz says that the server does not know EHLO (RFC 5321 section 4.1.1.1).
            if error.code // 100 != 5:  # noqa: PLR2004  # the class of the reply
                raise
            await client.helo(timeout=deadlines.command)
        return Capabilities.of(client.esmtp_extensions, client.server_auth_methods)


async def _upgrade(client: aiosmtplib.SMTP, server: SmtpServer, deadlines: Deadlines) -> None:
    if not client.supports_extension("starttls"):
        raise no_starttls(server.host, server.port)
    with _translated(server, Phase.TLS, deadlines):
        await client.starttls(timeout=deadlines.tls)


async def _log_in(
    client: aiosmtplib.SMTP,
    server: SmtpServer,
    credentials: Credentials,
    capabilities: Capabilities,
    deadlines: Deadlines,
) -> None:
    with _translated(server, Phase.AUTH, deadlines):
        await authenticate(
            client,
            credentials,
            capabilities,
            host=server.host,
            port=server.port,
            timeout=deadlines.command,
        )


def _transport_of(client: aiosmtplib.SMTP, server: SmtpServer) -> asyncio.Transport:
    transport = client.transport
    if transport is None or transport.is_closing():
        raise SmtpDisconnected(f"{server} closed the connection after the log-in.", phase=Phase.AUTH)
    # uvloop's transports are not subclasses of asyncio's, but do the same.
    return cast("asyncio.Transport", transport)


def _abort(client: aiosmtplib.SMTP) -> None:
    if client.transport is not None:
        cast("asyncio.Transport", client.transport).abort()
    client.close()


def _lap(observe: Observe, phase: TimedPhase, started: float) -> float:
    now = monotonic()
    observe(phase, now - started)
    return now


# Credentials without TLS.


def _refuse_plaintext_credentials(server: SmtpServer, credentials: Credentials) -> None:
    if server.tls is not TlsMode.NONE or isinstance(credentials, NoCredentials):
        return
    if not server.allow_plaintext_auth:
        raise _plaintext_refused(server, "the profile does not allow it")
    if server.host.lower() != "localhost" and not _is_loopback(server.host):
        raise _plaintext_refused(server, "the profile allows it, but only loopback addresses are trusted so far")


def _refuse_foreign_plaintext(client: aiosmtplib.SMTP, server: SmtpServer, credentials: Credentials) -> None:
    """Look again where we really are: any name may resolve to anything."""
    if server.tls is not TlsMode.NONE or isinstance(credentials, NoCredentials):
        return
    if client.transport is None:
        return
    peer = cast("tuple[object, ...] | None", client.transport.get_extra_info("peername"))
    if not peer or not _is_loopback(str(peer[0])):
        raise _plaintext_refused(server, "its name does not lead to a loopback address")


def _plaintext_refused(server: SmtpServer, why: str) -> SmtpAuthError:
    return SmtpAuthError(
        f"Credentials are not sent to {server} without TLS: {why}.",
        fix="Use --tls starttls or --tls implicit.",
        scope=Scope.PROFILE,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# aiosmtplib's errors in our words.


@contextmanager
def _translated(server: SmtpServer, phase: Phase, deadlines: Deadlines) -> Generator[None]:
    try:
        yield
    except aiosmtplib.SMTPTimeoutError as error:
        seconds = deadlines.seconds(phase)
        raise SmtpDeadline(
            f"{server} did not answer within {seconds:g} s ({phase}).", phase=phase, fix=_REACHABLE
        ) from error
    except aiosmtplib.SMTPResponseException as error:
        raise _refused(server, phase, error) from error
    except aiosmtplib.SMTPServerDisconnected as error:
        raise SmtpDisconnected(f"{server} closed the connection ({phase}).", phase=phase) from error
    except (aiosmtplib.SMTPException, OSError) as error:
        cause = error.__cause__ if isinstance(error, aiosmtplib.SMTPConnectError) else error
        if isinstance(cause, ssl.SSLError):
            raise tls_error(cause, server.host, server.port, server.tls) from error
        raise _unreachable(server, phase, cause or error) from error


_REACHABLE = "Check host and port, and that a firewall lets this machine connect to them."


def _refused(
    server: SmtpServer, phase: Phase, error: aiosmtplib.SMTPResponseException
) -> SmtpConnectError | SmtpProtocolError:
    if error.code < 200:  # noqa: PLR2004  # aiosmtplib's own -1: not a reply
        return SmtpProtocolError(f"{server} does not speak SMTP ({phase}).", phase=phase, fix=_REACHABLE)
    # aiosmtplib raises the greeting's refusal out of its connect().
    phase = Phase.GREETING if phase is Phase.CONNECT else phase
    reply: Reply = reply_of(error.code, error.message.split("\n"))
    outcome = classify(phase, reply)
    return SmtpConnectError(
        f"{server} does not serve us ({phase}): {reply}.",
        phase=phase,
        reply=reply,
        fix=outcome.advice,
        scope=outcome.scope,
    )


def _unreachable(server: SmtpServer, phase: Phase, cause: BaseException) -> SmtpConnectError | SmtpDisconnected:
    if isinstance(cause, socket.gaierror):
        return SmtpConnectError(
            f"The name {server.host!r} is not known here ({cause.strerror}).",
            phase=phase,
            fix="Check the profile's host and this machine's DNS.",
        )
    if isinstance(cause, aiosmtplib.SMTPServerDisconnected):
        return SmtpDisconnected(f"{server} closed the connection without a greeting.", phase=phase)
    if isinstance(cause, ConnectionRefusedError):
        reason = "connection refused"
    elif isinstance(cause, OSError) and cause.strerror:
        reason = cause.strerror
    else:
        reason = str(cause)
    return SmtpConnectError(f"{server} cannot be reached: {reason}.", phase=phase, fix=_REACHABLE)
