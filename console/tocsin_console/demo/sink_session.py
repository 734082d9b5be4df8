"""One connection to the mail sink: aiosmtpd's server, with what real providers do and it does not.

It answers a flight of pipelined commands in one write, takes tokens longer than a line of mail, speaks XOAUTH2
with either provider's way of refusing, and parses addresses itself, since the email package is too slow here.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import re
from collections import defaultdict
from typing import TYPE_CHECKING, AnyStr, Final

from aiosmtpd.smtp import SMTP, Envelope, Session, TLSSetupException

from tocsin_console.demo.sink_script import DROP, AuthFailure, Step

if TYPE_CHECKING:
    from tocsin_console.demo.mail_sink import MailSink

logger = logging.getLogger(__name__)

_LINE_BYTES: Final = 12_288 + 128
"""An AUTH response may have 12,288 octets (RFC 4954 section 4), and its command some more."""
_BODY_LINE_BYTES: Final = 998
"""RFC 5322 section 2.1.1, without CR LF."""
_BARE_LINE_END: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_PATH: Final = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^<>\s"])*)>(?: +(.*))?$')
_XOAUTH2: Final = re.compile(rb"user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01\x01")
_MAIL_PARAMETERS: Final = frozenset({"SIZE", "BODY", "SMTPUTF8", "AUTH"})
_GOOGLE_SAYS_WHY: Final = b'{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}'
_ENDS_WITH_FLUSH: Final = (b"221", b"421", b"502")
"""Replies after which aiosmtpd closes the connection, so that they cannot wait for the end of a flight."""


def parse_xoauth2(response: bytes) -> tuple[str, str] | None:
    """Take the user and the token out of an XOAUTH2 response; None where it is malformed."""
    match = _XOAUTH2.fullmatch(response)
    if match is None:
        return None
    user, token = match.groups()
    try:
        return user.decode(), token.decode("ascii")
    except UnicodeDecodeError:
        return None


def parse_path(argument: str) -> tuple[str, list[str]] | None:
    """Take address and parameters out of what follows `FROM:` or `TO:`; None where it is malformed."""
    match = _PATH.match(argument.strip())
    if match is None:
        return None
    return match[1], (match[2] or "").upper().split()


class SinkSession(SMTP):
    """The protocol of one connection; what concerns the whole server is asked of the sink."""

    line_length_limit = _LINE_BYTES

    def __init__(self, sink: MailSink, number: int) -> None:
        options = sink.options
        super().__init__(
            _Hooks(self, sink),
            data_size_limit=options.size_limit,
            enable_SMTPUTF8=True,
            hostname="localhost",
            ident="Tocsin mail sink",
            tls_context=None if options.implicit_tls else options.tls,
            require_starttls=options.tls is not None and not options.implicit_tls,
            loop=asyncio.get_running_loop(),
        )
        # aiosmtpd keeps these in its class, where each EHLO makes them grow.
        self.command_size_limits = defaultdict(lambda: _LINE_BYTES)
        self._auth_required = options.auth_required
        self._sink = sink
        self._waiting: list[bytes] = []
        self.number = number
        self.user: str | None = None

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS protects this connection."""
        return self._sink.options.implicit_tls or self._tls_protocol is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or go on after STARTTLS, for which aiosmtpd calls this a second time."""
        if self._original_transport is None:
            self._sink.opened(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the session."""
        self._sink.closed(self)
        super().connection_lost(error)

    def abort(self) -> None:
        """Break the connection."""
        transport = self._original_transport or self.transport
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()

    async def ended(self) -> None:
        """Wait until nothing of this session runs any more."""
        if self._handler_coroutine is not None:
            await asyncio.wait([self._handler_coroutine])

    async def push(self, status: AnyStr) -> None:
        """Send a reply: under TLS together with those of the same flight of commands."""
        reply = status.encode() if isinstance(status, str) else status
        self._waiting.append(reply + b"\r\n")
        if self._tls_protocol is None or reply.startswith(_ENDS_WITH_FLUSH):
            self._flush()
        elif len(self._waiting) == 1:
            # Commands that are there already are worked through before the loop comes to this.
            asyncio.get_running_loop().call_soon(self._flush)

    async def push_planned(self, reply: str) -> None:
        """Send a planned reply; break the connection for `DROP`, and close it after a 421. Then never return."""
        if reply != DROP:
            await self.push(reply)
            if not reply.startswith("421"):
                return
        if self.transport is not None:
            self.transport.close()
        await asyncio.Event().wait()  # until aiosmtpd cancels the session with its connection

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802  # aiosmtpd finds commands by name
        """Say what this server can do."""
        if not hostname:
            await self.push("501 5.5.4 Syntax: EHLO hostname")
            return
        session = self._session()
        self._set_rset_state()
        session.extended_smtp = True
        session.host_name = hostname
        options = self._sink.options
        lines = ["localhost", f"SIZE {options.size_limit}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        if options.pipelining:
            lines.append("PIPELINING")
        if options.tls is not None and not self.is_encrypted:
            lines.append("STARTTLS")
        if self.is_encrypted or options.tls is None:
            lines.append(f"AUTH {' '.join(options.mechanisms)}")
        for line in lines[:-1]:
            await self.push(f"250-{line}")
        await self.push(f"250 {lines[-1]}")

    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802  # aiosmtpd finds commands by name
        """Go over to TLS, and end where the client left in the middle of it, which aiosmtpd overlooks."""
        await super().smtp_STARTTLS(arg)
        if self._tls_protocol is not None and self._session().ssl is None:
            self.connection_lost(None)

    async def smtp_AUTH(self, arg: str) -> None:  # noqa: N802  # aiosmtpd finds commands by name
        """Check a token or a password."""
        if await self.check_helo_needed("EHLO"):
            return
        if self._sink.options.tls is not None and not self.is_encrypted:
            await self.push("538 5.7.11 Encryption required")
            return
        if self.user is not None:
            await self.push("503 5.5.1 Already authenticated")
            return
        if (planned := self._sink.script.take(Step.AUTH)) is not None:
            await self.push_planned(planned)
            return
        mechanism, _, initial = (arg or "").partition(" ")
        if mechanism.upper() not in self._sink.options.mechanisms:
            await self.push("504 5.5.4 Unrecognized authentication type")
            return
        match mechanism.upper():
            case "XOAUTH2":
                user = await self._check_token(initial)
            case "PLAIN":
                user = await self._check_plain(initial)
            case _:
                user = await self._check_login(initial)
        if user is not None:
            self.user = user
            self._session().authenticated = True
            await self.push("235 2.7.0 Authentication successful")

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802  # aiosmtpd finds commands by name
        """Begin a message."""
        if await self.check_helo_needed() or await self.check_auth_needed("MAIL"):
            return
        envelope = self._envelope()
        if envelope.mail_from is not None:
            await self.push("503 5.5.1 Nested MAIL command")
            return
        path = parse_path(arg[5:]) if arg and arg[:5].upper() == "FROM:" else None
        if path is None:
            await self.push("501 5.1.7 Bad sender address syntax")
            return
        sender, parameters = path
        names = {parameter.partition("=")[0] for parameter in parameters}
        sizes = [parameter[5:] for parameter in parameters if parameter.startswith("SIZE=")]
        if unknown := names - _MAIL_PARAMETERS:
            await self.push(f"555 5.5.4 Unsupported parameter {min(unknown)}")
        elif any(not size.isdecimal() or int(size) > self._sink.options.size_limit for size in sizes):
            await self.push("552 5.3.4 Message too big")
        elif not sender.isascii() and "SMTPUTF8" not in names:
            await self.push("553 5.6.7 Address needs SMTPUTF8")
        elif (planned := self._sink.script.take(Step.MAIL)) is not None:
            await self.push_planned(planned)
        else:
            envelope.mail_from = sender
            envelope.smtp_utf8 = "SMTPUTF8" in names
            await self.push("250 2.1.0 Sender OK")

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802  # aiosmtpd finds commands by name
        """Take or refuse a recipient, as the script says."""
        envelope = self._envelope()
        if envelope.mail_from is None:
            await self.push("503 5.5.1 Need MAIL command")
            return
        path = parse_path(arg[3:]) if arg and arg[:3].upper() == "TO:" else None
        if path is None or "@" not in path[0]:
            await self.push("501 5.1.3 Bad recipient address syntax")
            return
        address, parameters = path
        if parameters:
            await self.push("555 5.5.4 Unsupported parameter")
        elif not address.isascii() and not envelope.smtp_utf8:
            await self.push("553 5.6.7 Address needs SMTPUTF8")
        elif len(envelope.rcpt_tos) >= self._sink.options.max_recipients:
            await self.push("452 4.5.3 Too many recipients")
        else:
            reply = self._sink.recipients.reply_to(address)
            if reply.startswith("2"):
                envelope.rcpt_tos.append(address)
            await self.push_planned(reply)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802  # aiosmtpd finds commands by name
        """Take the message."""
        if self._envelope().rcpt_tos and (planned := self._sink.script.take(Step.DATA)) is not None:
            self._set_post_data_state()
            await self.push_planned(planned)
            return
        await super().smtp_DATA(arg)

    async def _check_token(self, initial: str) -> str | None:
        response = await self._response(initial, b"")
        if response is None:
            return None
        credentials = parse_xoauth2(response)
        if credentials is None:
            await self.push("501 5.5.2 Invalid XOAUTH2 response")
            return None
        user, token = credentials
        if self._sink.options.check_token(token):
            return user
        match self._sink.options.auth_failure:
            case AuthFailure.MICROSOFT:
                await self.push("535 5.7.3 Authentication unsuccessful")
            case AuthFailure.GOOGLE:
                await self.push(b"334 " + base64.b64encode(_GOOGLE_SAYS_WHY))
                await self._reader.readline()
                await self.push("535-5.7.8 Username and Password not accepted. For more information, go to")
                await self.push("535 5.7.8  https://support.google.com/mail/?p=BadCredentials - gsmtp")
        return None

    async def _check_plain(self, initial: str) -> str | None:
        response = await self._response(initial, b"")
        if response is None:
            return None
        if response.count(b"\0") != 2:  # noqa: PLR2004  # RFC 4616: authzid NUL authcid NUL password
            await self.push("501 5.5.2 Invalid PLAIN response")
            return None
        _, user, password = response.split(b"\0")
        return await self._check_password(user, password)

    async def _check_login(self, initial: str) -> str | None:
        user = await self._response(initial, b"Username:")
        if user is None:
            return None
        password = await self._response("", b"Password:")
        return None if password is None else await self._check_password(user, password)

    async def _check_password(self, user: bytes, password: bytes) -> str | None:
        name = user.decode(errors="replace")
        expected = self._sink.options.passwords.get(name)
        if expected is not None and hmac.compare_digest(expected.encode(), password):
            return name
        await self.push("535 5.7.8 Username and password not accepted")
        return None

    async def _response(self, initial: str, challenge: bytes) -> bytes | None:
        """Read the client's response, here already or after a challenge; None where it was not one."""
        text = initial.encode()
        if not text:
            await self.push(b"334 " + base64.b64encode(challenge))
            try:
                text = (await self._reader.readline()).strip()
            except ValueError:
                await self.push("500 5.5.6 Authentication exchange line is too long")
                return None
        if text == b"*":
            await self.push("501 5.7.0 Authentication cancelled")
            return None
        try:
            return b"" if text == b"=" else base64.b64decode(text, validate=True)
        except binascii.Error:
            await self.push("501 5.5.2 Cannot decode base64")
            return None

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write(b"".join(self._waiting))
            self._waiting.clear()

    def _session(self) -> Session:
        assert self.session is not None
        return self.session

    def _envelope(self) -> Envelope:
        assert self.envelope is not None
        return self.envelope


class _Hooks:
    """What aiosmtpd calls besides the commands."""

    def __init__(self, session: SinkSession, sink: MailSink) -> None:
        self._session = session
        self._sink = sink

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  # its name
        """Judge and record a message after its dot."""
        content = envelope.original_content or b""
        if _BARE_LINE_END.search(content):
            return "550 5.6.11 Bare carriage return or line feed"
        if max(map(len, content.split(b"\r\n"))) > _BODY_LINE_BYTES:
            return "500 5.6.0 Line longer than 998 octets"
        planned = self._sink.script.take(Step.DOT)
        usual = ""
        if planned is None or planned == DROP or planned.startswith("2"):
            usual = self._sink.record(self._session, envelope, content)
        if planned is not None and (planned == DROP or planned.startswith("421")):
            await self._session.push_planned(planned)
        return usual if planned is None else planned

    async def handle_exception(self, error: Exception) -> str:
        """Say that the sink is at fault, unless the client does not like our certificate."""
        if isinstance(error, TLSSetupException):
            logger.info("A client broke off TLS: %s", error.__cause__)
            return "421 4.7.0 TLS failed"
        logger.error("The mail sink failed.", exc_info=error)
        return "451 4.3.0 The mail sink failed"
