"""The options that tell an OAuth profile, for every command that makes or changes one."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Annotated

import typer

from tocsin_console.reading.credential_ends import read_end_date
from tocsin_console.reading.inputs import read_ca_file
from tocsin_console.reading.oauth_files import read_service_account_file
from tocsin_console.reading.oauth_request import ClientAuth, OAuthRequest
from tocsin_console.reading.oauth_rules import Proof
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.oauth_providers import GrantType

Name = Annotated[str, typer.Argument(metavar="NAME", help="The OAuth profile's name.")]
SecretFile = Annotated[
    str | None,
    typer.Option("--client-secret-file", metavar="F|-", help="File with the client secret; - is standard input."),
]
SecretExpires = Annotated[
    str | None,
    typer.Option(metavar="DATE", help="When the client secret ends, as the provider said: 2027-03-01, or a time."),
]
Mailbox = Annotated[str | None, typer.Option("--user", metavar="MAILBOX", help="The mailbox that it is about.")]
CaFile = Annotated[
    str | None, typer.Option(metavar="F", help="Certificates (PEM) of the authorities that the endpoint is checked by.")
]

_NO_DATE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthOptions:
    """How to get a token, as given on the command line. Files are named here and read later."""

    grant: Annotated[GrantType | None, typer.Option(help="How to ask for a token.", show_default=False)] = None
    token_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="https URL of the token endpoint; may hold {tenantId}.")
    ] = None
    scope: Annotated[str | None, typer.Option("--scope", metavar="S", help="What the token shall be good for.")] = None
    tenant_id: Annotated[str | None, typer.Option(metavar="T", help="Microsoft 365: the directory (tenant) id.")] = None
    client_id: Annotated[str | None, typer.Option(metavar="C", help="The application's client id.")] = None
    client_secret_file: SecretFile = None
    secret_expires: SecretExpires = None
    client_auth: Annotated[
        ClientAuth | None,
        typer.Option(help="custom: where the client secret goes, into the body or a Basic header.", show_default=False),
    ] = None
    certificate_file: Annotated[
        str | None, typer.Option(metavar="F", help="Certificate (PEM), or certificate and key in one (PEM or PFX).")
    ] = None
    private_key_file: Annotated[
        str | None, typer.Option(metavar="F", help="The private key, where it is in a file of its own.")
    ] = None
    certificate_password_file: Annotated[
        str | None, typer.Option(metavar="F|-", help="File with the PFX's or the key's password; - is standard input.")
    ] = None
    service_account_file: Annotated[
        str | None, typer.Option(metavar="F", help="Google: the service account's key file (JSON).")
    ] = None
    key_id: Annotated[
        str | None, typer.Option(metavar="K", help="jwt_bearer: the id (kid) by which the provider knows the key.")
    ] = None
    refresh_token_file: Annotated[
        str | None, typer.Option(metavar="F|-", help="refresh_token: file with one; - is standard input.")
    ] = None
    device_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="custom, device_code: https URL that gives the codes.")
    ] = None
    token_file: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="workload_identity: the token's path on the workers; Azure's by default."),
    ] = None

    @property
    def flags(self) -> list[str]:
        """Which were given."""
        given = (field.name for field in fields(self) if getattr(self, field.name) is not None)
        return [f"--{name.replace('_', '-')}" for name in given]

    @property
    def gives(self) -> frozenset[Proof]:
        """Which secrets come along."""
        key = self.certificate_file or self.private_key_file or self.service_account_file
        given = {
            Proof.CLIENT_SECRET: self.client_secret_file,
            Proof.PRIVATE_KEY: key,
            Proof.REFRESH_TOKEN: self.refresh_token_file,
        }
        return frozenset(proof for proof, source in given.items() if source is not None)


def read_request(options: OAuthOptions, *, ca_file: str | None, forget_ca: bool = False) -> OAuthRequest:
    """Read what was asked for, and the files in which nothing is that a person types. Raises UsageError."""
    _check_key_options(options)
    account = options.service_account_file
    forget_expiry = options.secret_expires == _NO_DATE
    return OAuthRequest(
        grant=options.grant,
        token_endpoint=options.token_endpoint,
        scope=options.scope,
        tenant_id=options.tenant_id,
        client_id=options.client_id,
        client_auth=options.client_auth,
        device_endpoint=options.device_endpoint,
        token_file=options.token_file,
        key_id=options.key_id,
        ca_pem=None if ca_file is None else read_ca_file(ca_file),
        forget_ca=forget_ca,
        secret_expires_at=None if forget_expiry else read_secret_expiry(options.secret_expires),
        forget_secret_expiry=forget_expiry,
        service_account=None if account is None else read_service_account_file(account),
        gives=options.gives,
    )


def read_secret_expiry(text: str | None) -> datetime | None:
    """Read the date of `--secret-expires`. Raises UsageError."""
    return None if text is None else read_end_date(text, "--secret-expires", now=datetime.now(UTC))


def _check_key_options(options: OAuthOptions) -> None:
    given = [
        flag
        for flag, value in (
            ("--client-id", options.client_id),
            ("--certificate-file", options.certificate_file),
            ("--private-key-file", options.private_key_file),
            ("--key-id", options.key_id),
        )
        if value is not None
    ]
    if options.service_account_file is not None and given:
        raise UsageError(f"The service account's file says what {given[0]} says.", fix=f"Leave {given[0]} out.")
    has_file = options.certificate_file is not None or options.private_key_file is not None
    if options.certificate_password_file is not None and not has_file:
        raise UsageError(
            "--certificate-password-file is of no use without the file that it opens.", fix="Give --certificate-file."
        )
