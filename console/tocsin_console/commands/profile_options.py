"""The options that tell a sending profile, for the commands that make and change one."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from tocsin_console.reading.inputs import read_ca_file, read_limit
from tocsin_console.reading.profile_request import ProfileRequest
from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.oauth_providers import OAuthProvider
from tocsin_schema.ledger.sending_profile_rules import (
    UNSAID,
    AskedLimits,
    AskedTenant,
    Auth,
    Copies,
    ProfilePipelining,
    Tls,
    Unsaid,
    checked_name,
)


class Provider(StrEnum):
    """Whose mail service it is, which says what a profile begins with."""

    MICROSOFT365 = "microsoft365"
    MICROSOFT365_GCC_HIGH = "microsoft365-gcc-high"
    MICROSOFT365_DOD = "microsoft365-dod"
    MICROSOFT365_CHINA = "microsoft365-china"
    GOOGLE = "google"
    SES = "ses"
    CUSTOM = "custom"

    @property
    def oauth(self) -> OAuthProvider:
        """Whose tokens it takes. Raises UsageError where it takes none."""
        if self is Provider.SES:
            raise UsageError(
                "Amazon SES takes no OAuth tokens.", fix="Give --user and --password-file.", scope=Scope.PROFILE
            )
        return OAuthProvider(self.value)


Name = Annotated[str, typer.Argument(metavar="NAME", help="The sending profile's name.")]
PasswordFile = Annotated[str | None, typer.Option(metavar="F|-", help="File with the password; - is standard input.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """How and as whom to send, as given on the command line. What is None was not said."""

    host: Annotated[str | None, typer.Option(metavar="H", help="The mail server.")] = None
    port: Annotated[int | None, typer.Option(min=1, max=65535, metavar="N", help="Its port.")] = None
    tls: Annotated[Tls | None, typer.Option(help="When TLS begins.")] = None
    auth: Annotated[Auth | None, typer.Option(help="How to log in.")] = None
    oauth: Annotated[
        str | None, typer.Option("--oauth", metavar="NAME", help="The OAuth profile that gives tokens.")
    ] = None
    user: Annotated[str | None, typer.Option(metavar="U", help="Whom to log in as; the From address by default.")] = (
        None
    )
    password_file: PasswordFile = None
    ca_file: Annotated[
        str | None,
        typer.Option(metavar="F", help="Certificates (PEM) of the authorities that the server is checked by."),
    ] = None
    batch_size: Annotated[int | None, typer.Option(min=1, max=1000, metavar="N", help="Recipients in a batch.")] = None
    connections: Annotated[str | None, typer.Option(metavar="N|none", help="Connections at the same time.")] = None
    per_minute: Annotated[str | None, typer.Option(metavar="N|none", help="Messages a minute.")] = None
    per_day: Annotated[
        str | None,
        typer.Option(
            metavar="N|none",
            help="Recipients in any 24 hours, retries counted; then the mailbox rests until there is room.",
        ),
    ] = None
    tenant: Annotated[
        str | None,
        typer.Option(metavar="NAME|none", help="The organisation at the provider that the mailbox belongs to."),
    ] = None
    tenant_per_day: Annotated[
        str | None,
        typer.Option(metavar="N|none", help="Recipients outside of InternalDomains in any 24 hours, for all of it."),
    ] = None
    pipelining: Annotated[
        ProfilePipelining | None,
        typer.Option(help="How many SMTP commands may be under way at once; a server that breaks on it gets fewer."),
    ] = None
    copies: Annotated[Copies | None, typer.Option(help="What email copies keep of the content.")] = None
    allow_plaintext_auth: Annotated[
        bool | None,
        typer.Option(
            "--allow-plaintext-auth/--no-plaintext-auth",
            help="Log in without TLS, to a server on this machine only.",
            show_default=False,
        ),
    ] = None


def read_request(
    options: ProfileOptions, *, from_address: str | None, oauth_profile: str | None, forget_ca: bool = False
) -> ProfileRequest:
    """Read what was asked for, and the CA file. Raises UsageError."""
    return ProfileRequest(
        host=options.host,
        port=options.port,
        tls=options.tls,
        from_address=from_address,
        auth=options.auth,
        oauth_profile=oauth_profile,
        login=options.user,
        ca_pem=None if options.ca_file is None else read_ca_file(options.ca_file),
        forget_ca=forget_ca,
        allow_plaintext_auth=options.allow_plaintext_auth,
        batch_size=options.batch_size,
        copies=options.copies,
        pipelining=options.pipelining,
        tenant=AskedTenant(
            name=_tenant(options.tenant),
            external_recipients_per_day=_limit(options.tenant_per_day, "--tenant-per-day"),
        ),
        limits=AskedLimits(
            connections=_limit(options.connections, "--connections"),
            messages_per_minute=_limit(options.per_minute, "--per-minute"),
            recipients_per_day=_limit(options.per_day, "--per-day"),
        ),
        gives_password=options.password_file is not None,
    )


def _tenant(text: str | None) -> str | Unsaid | None:
    if text is None:
        return UNSAID
    return None if text.strip().lower() == "none" else checked_name(text, "a tenant")


def _limit(text: str | None, flag: str) -> int | Unsaid | None:
    return UNSAID if text is None else read_limit(text, flag)
