"""AUTH with tokens and passwords, on a connection that aiosmtplib opened (RFC 4954, RFC 7628, XOAUTH2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_workers.classification import Kind, classify
from tocsin_workers.smtp.credentials import (
    BasicCredentials,
    Credentials,
    NoCredentials,
    OAuthCredentials,
    decoded_challenge,
    login,
    oauthbearer,
    plain,
    secrets_of,
    without_secrets,
    xoauth2,
)
from tocsin_workers.smtp.errors import SmtpAuthError, Trouble
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import Reply

if TYPE_CHECKING:
    import aiosmtplib

    from tocsin_workers.smtp.capabilities import Capabilities

MAX_COMMAND = 512
"""Octets of a command line with its CRLF (RFC 5321 section 4.5.3.1.4). Longer responses go after a 334."""

_CONTINUE = 334
_DONE = 235


async def authenticate(
    client: aiosmtplib.SMTP,
    credentials: Credentials,
    offered: Capabilities,
    *,
    host: str,
    port: int,
    timeout: float,  # noqa: ASYNC109  # passed to each step of aiosmtplib, which bounds it
) -> str | None:
    """Log in by the best mechanism that the server offers, and give its name; None where there are no credentials.

    Raises `SmtpAuthError` for a refusal, permanent or not (`classify(Phase.AUTH, error.reply)` tells), and
    aiosmtplib's own errors for a connection that breaks.
    """
    exchange = _Exchange(client, secrets_of(credentials), f"{host}:{port}", timeout)
    match credentials:
        case OAuthCredentials() if "XOAUTH2" in offered.auth:
            # The empty line asks for the 535 that follows the JSON.
            return await exchange.run(b"XOAUTH2", xoauth2(credentials), after_detail=b"")
        case OAuthCredentials() if "OAUTHBEARER" in offered.auth:
            # RFC 7628 section 3.2.3: a lone %x01 in base64.
            blob = oauthbearer(credentials, host=host, port=port)
            return await exchange.run(b"OAUTHBEARER", blob, after_detail=b"AQ==")
        case OAuthCredentials():
            raise _not_offered(offered, f"{host}:{port}", "XOAUTH2 or OAUTHBEARER", "--auth basic")
        case BasicCredentials() if "PLAIN" in offered.auth:
            return await exchange.run(b"PLAIN", plain(credentials), after_detail=b"*")
        case BasicCredentials() if "LOGIN" in offered.auth:
            return await exchange.login(credentials)
        case BasicCredentials():
            raise _not_offered(offered, f"{host}:{port}", "PLAIN or LOGIN", "--auth oauth")
        case NoCredentials():
            return None


def _not_offered(offered: Capabilities, where: str, wanted: str, other: str) -> SmtpAuthError:
    if not offered.auth:
        return SmtpAuthError(
            f"{where} offers no authentication at all.",
            trouble=Trouble.AUTH_NOT_OFFERED,
            fix="Check host, port and --tls, or use --auth none if it knows us by our network address.",
        )
    offers = ", ".join(sorted(offered.auth))
    return SmtpAuthError(
        f"{where} offers neither {wanted.replace(' or ', ' nor ')}, only {offers}.",
        trouble=Trouble.MECHANISM_NOT_OFFERED,
        fix=f"Check the host and port; perhaps the profile needs {other}.",
    )


class _Exchange:
    """One SASL exchange."""

    def __init__(self, client: aiosmtplib.SMTP, secrets: tuple[str, ...], where: str, timeout: float) -> None:
        self._client = client
        self._secrets = secrets
        self._where = where
        self._timeout = timeout

    async def run(self, mechanism: bytes, response: bytes, *, after_detail: bytes) -> str:
        """Send the one response of a mechanism, in the AUTH line where it fits, else after the 334."""
        self._secrets += (response.decode(),)
        command = b"AUTH %b %b" % (mechanism, response)
        if len(command) + 2 <= MAX_COMMAND:
            reply = await self._say(command)
        else:
            reply = await self._say(b"AUTH %b" % mechanism)
            if reply.code == _CONTINUE:
                reply = await self._say(response)
        detail: str | None = None
        if reply.code == _CONTINUE:
            detail = decoded_challenge(reply.text)
            reply = await self._say(after_detail)
        return self._succeeded(mechanism, reply, detail)

    async def login(self, credentials: BasicCredentials) -> str:
        """Send user name and password, each after a 334 (draft-murchison-sasl-login)."""
        reply = await self._say(b"AUTH LOGIN")
        for answer in (login(credentials.user), login(credentials.password)):
            if reply.code == _CONTINUE:
                reply = await self._say(answer)
        return self._succeeded(b"LOGIN", reply, None)

    async def _say(self, line: bytes) -> Reply:
        response = await self._client.execute_command(line, timeout=self._timeout)
        lines = without_secrets(response.message, self._secrets).split("\n")
        return reply_of(response.code, lines)

    def _succeeded(self, mechanism: bytes, reply: Reply, detail: str | None) -> str:
        if reply.code == _DONE or reply.accepted:
            return mechanism.decode()
        outcome = classify(Phase.AUTH, reply)
        refused = "refused the credentials" if outcome.kind is Kind.NOT_AUTHENTICATED else "did not log us in"
        said = f"{reply} ({without_secrets(detail, self._secrets)})" if detail else str(reply)
        raise SmtpAuthError(
            f"{self._where} {refused}: {said}.",
            reply=reply,
            detail=None if detail is None else without_secrets(detail, self._secrets),
            mechanism=mechanism.decode(),
            fix=outcome.advice,
            scope=outcome.scope,
        )


def reply_of(code: int, lines: list[str]) -> Reply:
    """Make our reply of aiosmtplib's, which keeps undecodable octets as lone surrogates."""
    return Reply.of(code, [line.encode("utf-8", "replace").decode("utf-8") for line in lines])
