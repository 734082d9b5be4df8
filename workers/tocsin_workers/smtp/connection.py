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
from tocsin_workers.smtp.errors import (
    SmtpAuthError,
    SmtpConnectError,
    SmtpDeadline,
    SmtpDisconnected,
    SmtpProtocolError,
    Trouble,
)
from tocsin_workers.smtp.phases import Phase, TimedPhase
from tocsin_workers.smtp.pipelining import Pipelining
from tocsin_workers.smtp.session import Observe, Session, unobserved
from tocsin_workers.smtp.stages import Connected, Greeted, LoggedIn, OnStage, Secured, Stage, unwatched
from tocsin_workers.smtp.tls import TlsMode, client_context, no_starttls, tls_error, unverified_context

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
    on_stage: OnStage = unwatched,
) -> Session:
    """Open a session that is ready for transactions.

    `local_hostname` is what we call ourselves in EHLO. `observe` is given the seconds of each phase, here and
    in the session's transactions; `on_stage` is told what has been reached.

    Raises the errors of the package's docstring, and `ConfigurationError` for a `ca_pem` without certificate.
    Whatever happens, also on cancellation, no connection is left behind.
    """
    _refuse_plaintext_credentials(server, credentials)
    # In a thread: building a context takes 50 ms, which the event loop has not got.
    context = None if server.tls is TlsMode.NONE else await asyncio.to_thread(client_context, server.ca_pem)
    connecting = _connecting(server, context, local_hostname, deadlines or Deadlines(), on_stage)
    opening = asyncio.create_task(_open(connecting, credentials, pipelining=pipelining, observe=observe))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await _call_off(opening)
        raise


async def see_certificate(server: SmtpServer, *, local_hostname: str, deadlines: Deadlines) -> bytes:
    """Give the certificate (DER) that a server shows, trusted or not: for a diagnosis, and nothing else is said to it.

    Raises what `open_session` raises.
    """
    seen: list[bytes] = []

    def keep(stage: Stage) -> None:
        if isinstance(stage, Secured):
            seen.append(stage.certificate)

    connecting = _connecting(server, unverified_context(), local_hostname, deadlines, keep)
    try:
        await _connect(connecting)
        if server.tls is TlsMode.STARTTLS:
            await _greet(connecting)
            await _upgrade(connecting)
    finally:
        _abort(connecting.client)
    return seen[0]


async def _call_off(opening: asyncio.Task[Session]) -> None:
    """Cancel until it takes: before Python 3.12 the `wait_for` in aiosmtplib may swallow a cancellation."""
    while not opening.done():
        opening.cancel()
        await asyncio.sleep(0)
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()


async def _open(
    connecting: _Connecting, credentials: Credentials, *, pipelining: Pipelining, observe: Observe
) -> Session:
    client, server = connecting.client, connecting.server
    try:
        started = monotonic()
        await _connect(connecting)
        capabilities = await _greet(connecting)
        started = _lap(observe, TimedPhase.CONNECT, started)
        if server.tls is TlsMode.STARTTLS:
            await _upgrade(connecting)
            capabilities = await _greet(connecting)
            started = _lap(observe, TimedPhase.TLS, started)
        _refuse_foreign_plaintext(client, server, credentials)
        await _log_in(connecting, credentials, capabilities)
        _lap(observe, TimedPhase.AUTH, started)
        transport = _transport_of(client, server)
    except BaseException:
        _abort(client)
        raise
    return Session(
        transport,
        capabilities,
        server=str(server),
        deadlines=connecting.deadlines,
        observe=observe,
        pipelining=pipelining,
    )


@dataclass(frozen=True, slots=True)
class _Connecting:
    """A connection on its way to a session."""

    client: aiosmtplib.SMTP
    server: SmtpServer
    deadlines: Deadlines
    on_stage: OnStage


def _connecting(
    server: SmtpServer, context: ssl.SSLContext | None, local_hostname: str, deadlines: Deadlines, on_stage: OnStage
) -> _Connecting:
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        local_hostname=local_hostname,
        use_tls=server.tls is TlsMode.IMPLICIT,
        start_tls=False,
        tls_context=context,
    )
    return _Connecting(client, server, deadlines, on_stage)


async def _connect(connecting: _Connecting) -> None:
    client, server, deadlines = connecting.client, connecting.server, connecting.deadlines
    started = monotonic()
    with _translated(server, Phase.CONNECT, deadlines):
        try:
            await client.connect(timeout=deadlines.connect)
        except aiosmtplib.SMTPConnectTimeoutError as error:
            # aiosmtplib raises the same for both; only the greeting's has been a timeout of its own before.
            if isinstance(error.__cause__, aiosmtplib.SMTPTimeoutError):
                raise _no_greeting(server, deadlines) from error
            raise
    connecting.on_stage(Connected(_peer_of(client), monotonic() - started))
    if server.tls is TlsMode.IMPLICIT:
        connecting.on_stage(_secured(client))


async def _greet(connecting: _Connecting) -> Capabilities:
    client, deadlines = connecting.client, connecting.deadlines
    with _translated(connecting.server, Phase.EHLO, deadlines):
        try:
            await client.ehlo(timeout=deadlines.command)
        except aiosmtplib.SMTPHeloError as error:
            # A 5yz says that the server does not know EHLO (RFC 5321 section 4.1.1.1).
            if error.code // 100 != 5:  # noqa: PLR2004  # the class of the reply
                raise
            await client.helo(timeout=deadlines.command)
        capabilities = Capabilities.of(client.esmtp_extensions, client.server_auth_methods)
    connecting.on_stage(Greeted(capabilities))
    return capabilities


async def _upgrade(connecting: _Connecting) -> None:
    client, server, deadlines = connecting.client, connecting.server, connecting.deadlines
    if not client.supports_extension("starttls"):
        raise no_starttls(server.host, server.port)
    with _translated(server, Phase.TLS, deadlines):
        await client.starttls(timeout=deadlines.tls)
    connecting.on_stage(_secured(client))


async def _log_in(connecting: _Connecting, credentials: Credentials, capabilities: Capabilities) -> None:
    server, deadlines = connecting.server, connecting.deadlines
    with _translated(server, Phase.AUTH, deadlines):
        mechanism = await authenticate(
            connecting.client,
            credentials,
            capabilities,
            host=server.host,
            port=server.port,
            timeout=deadlines.command,
        )
    connecting.on_stage(LoggedIn(mechanism))


def _secured(client: aiosmtplib.SMTP) -> Secured:
    tls = cast("ssl.SSLObject", client.get_transport_info("ssl_object"))
    return Secured(tls.version() or "TLS", tls.getpeercert(binary_form=True) or b"")


def _peer_of(client: aiosmtplib.SMTP) -> str | None:
    peer = cast("tuple[object, ...] | None", client.get_transport_info("peername"))
    return str(peer[0]) if peer else None


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
    peer = _peer_of(client)
    if peer is None or not _is_loopback(peer):
        raise _plaintext_refused(server, "its name does not lead to a loopback address")


def _plaintext_refused(server: SmtpServer, why: str) -> SmtpAuthError:
    return SmtpAuthError(
        f"Credentials are not sent to {server} without TLS: {why}.",
        trouble=Trouble.PLAINTEXT,
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
        raise _too_late(server, phase, deadlines) from error
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


def _too_late(server: SmtpServer, phase: Phase, deadlines: Deadlines) -> SmtpDeadline:
    return SmtpDeadline(
        f"{server} did not answer within {deadlines.seconds(phase):g} s ({phase}).",
        phase=phase,
        trouble=Trouble.NO_ANSWER if phase is Phase.CONNECT else None,
        fix=_REACHABLE,
    )


def _no_greeting(server: SmtpServer, deadlines: Deadlines) -> SmtpDeadline:
    return SmtpDeadline(
        f"{server} takes the connection and says nothing within {deadlines.connect:g} s.",
        phase=Phase.GREETING,
        trouble=Trouble.NO_GREETING,
        fix=f"{_REACHABLE} Port 465 wants --tls implicit.",
    )


def _refused(
    server: SmtpServer, phase: Phase, error: aiosmtplib.SMTPResponseException
) -> SmtpConnectError | SmtpProtocolError:
    if error.code < 200:  # noqa: PLR2004  # aiosmtplib's own -1: not a reply
        return SmtpProtocolError(
            f"{server} does not speak SMTP ({phase}).", phase=phase, trouble=Trouble.NOT_SMTP, fix=_REACHABLE
        )
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
            trouble=Trouble.UNKNOWN_HOST,
            fix="Check the profile's host and this machine's DNS.",
        )
    if isinstance(cause, aiosmtplib.SMTPServerDisconnected):
        return SmtpDisconnected(f"{server} closed the connection without a greeting.", phase=Phase.GREETING)
    trouble = Trouble.UNREACHABLE
    if isinstance(cause, ConnectionRefusedError):
        reason, trouble = "connection refused", Trouble.CONNECTION_REFUSED
    elif isinstance(cause, OSError) and cause.strerror:
        reason = cause.strerror
    else:
        reason = str(cause)
    return SmtpConnectError(f"{server} cannot be reached: {reason}.", phase=phase, trouble=trouble, fix=_REACHABLE)
