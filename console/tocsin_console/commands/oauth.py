"""`tocsin oauth`: how to get access tokens."""

from dataclasses import replace
from typing import Annotated
from uuid import UUID

import typer

from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.output import examples, listed, print_facts, print_json, print_table, say
from tocsin_console.reading.inputs import read_ca_file, read_secret
from tocsin_console.reading.oauth_rules import (
    Grant,
    check_profile,
    checked_grant,
    secret_must_be_given_again,
)
from tocsin_console.reading.session import Session, in_session, open_ledger
from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger import oauth_profiles
from tocsin_schema.ledger.oauth_profiles import CLIENT_SECRET_PURPOSE, NewOAuthProfile, OAuthProfile, SealedSecrets
from tocsin_schema.ledger.pausing import resume_users_of_oauth_profile
from tocsin_schema.ledger.sending_profile_rules import checked_name
from tocsin_schema.sealing import Sealer

app = typer.Typer(help="OAuth profiles: how to get access tokens.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The OAuth profile's name.")]
TokenEndpoint = Annotated[
    str | None, typer.Option(metavar="URL", help="https URL of the token endpoint; may hold {tenantId}.")
]
TokenScope = Annotated[str | None, typer.Option("--scope", metavar="S", help="What the token shall be good for.")]
TenantId = Annotated[str | None, typer.Option(metavar="T", help="Microsoft 365: the directory (tenant) id.")]
ClientId = Annotated[str | None, typer.Option(metavar="C", help="The application's client id.")]
SecretFile = Annotated[
    str | None,
    typer.Option("--client-secret-file", metavar="F|-", help="File with the client secret; - is standard input."),
]
CaFile = Annotated[
    str | None, typer.Option(metavar="F", help="Certificates (PEM) of the authorities that the endpoint is checked by.")
]


@app.command(
    "add",
    epilog=examples(
        "tocsin oauth add m365 --provider microsoft365 --tenant-id 8f7c1a52-3b0d-4f6e-9a41-0c2d5e7b9a10 \\",
        "       --client-id 2b1de1f4-7a6c-4a53-8f0e-5f1f8c2f7c11 --client-secret-file secret.txt",
        "tocsin oauth add sso --provider custom --token-endpoint https://sso.example.org/token \\",
        "       --client-id tocsin --client-secret-file - < secret.txt",
    ),
)
def add(
    name: Name,
    *,
    provider: Annotated[str, typer.Option(metavar="P", help="microsoft365 or custom; google: not yet, and why.")],
    grant: Annotated[Grant | None, typer.Option(help="How to ask for a token.")] = None,
    token_endpoint: TokenEndpoint = None,
    scope: TokenScope = None,
    tenant_id: TenantId = None,
    client_id: ClientId = None,
    client_secret_file: SecretFile = None,
    ca_file: CaFile = None,
) -> None:
    """Add an OAuth profile. What is left out comes from the provider's defaults.

    The client secret is stored sealed and never shown again.
    """
    ca_pem = None if ca_file is None else read_ca_file(ca_file)

    async def check(session: Session) -> tuple[NewOAuthProfile, Sealer]:
        defaults = await oauth_profiles.get_defaults(session.connection, provider)
        profile = NewOAuthProfile(
            name=checked_name(name, "an OAuth profile"),
            provider=provider,
            grant_type=checked_grant(grant, defaults).value,
            token_endpoint=_endpoint(token_endpoint or defaults.token_endpoint),
            scope=scope or defaults.scope,
            tenant_id=tenant_id or None,
            client_id=client_id,
            ca_pem=ca_pem,
        )
        check_profile(
            defaults,
            token_endpoint=profile.token_endpoint,
            tenant_id=profile.tenant_id,
            client_id=profile.client_id,
            scope=profile.scope,
        )
        return profile, await session.sealer()

    with open_ledger() as ledger:
        profile, sealer = ledger.visit(check)
        sealed = _sealed(_ask_secret(client_secret_file), sealer, profile.id)

        async def write(session: Session) -> None:
            await oauth_profiles.add(session.connection, profile, sealed=SealedSecrets(sealed))

        ledger.visit(write)
    say(f"OAuth profile {name!r} added. Use it with `tocsin profile add … --auth oauth --oauth {name}`.")


@app.command("list", epilog=examples("tocsin oauth list --json"))
def list_profiles(as_json: JsonFlag = False) -> None:
    """List the OAuth profiles."""

    async def work(session: Session) -> list[OAuthProfile]:
        return await oauth_profiles.list_profiles(session.connection)

    profiles = in_session(work)
    if as_json:
        for profile in profiles:
            print_json(_as_json(profile))
        return
    print_table(
        ("NAME", "PROVIDER", "GRANT", "TOKEN ENDPOINT", "CLIENT ID", "SECRET SET"),
        [
            (p.name, p.provider, p.grant_type, p.token_endpoint, p.client_id, p.secret_set_at or "not set")
            for p in profiles
        ],
    )


@app.command("show", epilog=examples("tocsin oauth show m365", "tocsin oauth show m365 --json"))
def show(name: Name, as_json: JsonFlag = False) -> None:
    """Show an OAuth profile; of its secret, only since when it is set."""

    async def work(session: Session) -> OAuthProfile:
        return await oauth_profiles.get_by_name(session.connection, name)

    profile = in_session(work)
    if as_json:
        print_json(_as_json(profile))
        return
    print_facts(
        [
            ("Name", profile.name),
            ("Provider", profile.provider),
            ("Grant", profile.grant_type),
            ("Token endpoint", profile.token_endpoint),
            ("Scope", profile.scope),
            ("Tenant id", profile.tenant_id),
            ("Client id", profile.client_id),
            ("Client secret", "not set" if profile.secret_set_at is None else "set (never shown)"),
            ("Secret set at", profile.secret_set_at),
            ("Own CA certificates", "yes" if profile.ca_pem else "no"),
            ("Created", profile.created_at),
            ("Changed", profile.updated_at),
        ]
    )


@app.command("set", epilog=examples("tocsin oauth set m365 --client-id 2b1de1f4-7a6c-4a53-8f0e-5f1f8c2f7c11"))
def change(
    name: Name,
    *,
    token_endpoint: TokenEndpoint = None,
    scope: TokenScope = None,
    tenant_id: TenantId = None,
    client_id: ClientId = None,
    client_secret_file: SecretFile = None,
    ca_file: CaFile = None,
    no_ca_file: Annotated[bool, typer.Option("--no-ca-file", help="Trust the system's authorities again.")] = False,
) -> None:
    """Change an OAuth profile. What is left out stays; tokens it had are asked for anew.

    The stored secret never goes to another host: with a token endpoint there, give it again.
    """
    if (token_endpoint, scope, tenant_id, client_id, client_secret_file, ca_file) == (None,) * 6 and not no_ca_file:
        raise UsageError("Nothing to change was given.", fix="See `tocsin oauth set --help`.")
    if ca_file is not None and no_ca_file:
        raise UsageError("--ca-file and --no-ca-file exclude each other.", fix="Give one of them.")
    ca_pem = None if ca_file is None else read_ca_file(ca_file)
    secret = None if client_secret_file is None else _ask_secret(client_secret_file)

    async def work(session: Session) -> list[str]:
        before = await oauth_profiles.get_by_name(session.connection, name)
        defaults = await oauth_profiles.get_defaults(session.connection, before.provider)
        after = replace(
            before,
            token_endpoint=_endpoint(token_endpoint or before.token_endpoint),
            scope=before.scope if scope is None else scope or None,
            tenant_id=before.tenant_id if tenant_id is None else tenant_id or None,
            client_id=client_id or before.client_id,
            ca_pem=None if no_ca_file else ca_pem or before.ca_pem,
        )
        check_profile(
            defaults,
            token_endpoint=after.token_endpoint,
            tenant_id=after.tenant_id,
            client_id=after.client_id,
            scope=after.scope,
        )
        if secret is None and secret_must_be_given_again(before, after.token_endpoint):
            raise UsageError(
                "The token endpoint is on another host, and the stored secret does not go there by itself.",
                fix="Give the secret for it with --client-secret-file.",
                scope=Scope.OAUTH_PROFILE,
            )
        await oauth_profiles.update(session.connection, after)
        if secret is not None:
            sealed = _sealed(secret, await session.sealer(), after.id)
            await oauth_profiles.replace_client_secret(session.connection, after, sealed_client_secret=sealed)
        return await resume_users_of_oauth_profile(session.connection, after.id)

    resumed = in_session(work)
    say(f"OAuth profile {name!r} changed.")
    _tell_who_goes_on(resumed)


@app.command(
    "replace-secret",
    epilog=examples(
        "tocsin oauth replace-secret m365",
        "tocsin oauth replace-secret m365 --client-secret-file - < secret.txt",
    ),
)
def replace_secret(name: Name, client_secret_file: SecretFile = None) -> None:
    """Store another client secret, from a file, standard input or a prompt; ask for tokens with it from now on."""

    async def check(session: Session) -> tuple[OAuthProfile, Sealer]:
        return await oauth_profiles.get_by_name(session.connection, name), await session.sealer()

    with open_ledger() as ledger:
        before, sealer = ledger.visit(check)
        sealed = _sealed(_ask_secret(client_secret_file), sealer, before.id)

        async def write(session: Session) -> list[str]:
            profile = await oauth_profiles.get_by_name(session.connection, name)
            if profile.id != before.id or secret_must_be_given_again(before, profile.token_endpoint):
                raise UsageError(
                    f"Somebody else changed the OAuth profile {name!r} meanwhile; its token endpoint is now "
                    f"{profile.token_endpoint}, not {before.token_endpoint}.",
                    fix="Nothing was stored. Look at it, and give the secret for its endpoint again.",
                    scope=Scope.OAUTH_PROFILE,
                )
            await oauth_profiles.replace_client_secret(session.connection, profile, sealed_client_secret=sealed)
            return await resume_users_of_oauth_profile(session.connection, profile.id)

        resumed = ledger.visit(write)
    say(f"The client secret of OAuth profile {name!r} is replaced.")
    _tell_who_goes_on(resumed)


@app.command("remove", epilog=examples("tocsin oauth remove m365"))
def remove(name: Name) -> None:
    """Remove an OAuth profile that no sending profile uses, with its tokens."""

    async def work(session: Session) -> None:
        profile = await oauth_profiles.get_by_name(session.connection, name)
        await oauth_profiles.remove(session.connection, profile)

    in_session(work)
    say(f"OAuth profile {name!r} removed.")


def _tell_who_goes_on(resumed: list[str]) -> None:
    if resumed:
        say(f"Paused until now, and going on: {listed(resumed)}.")


def _ask_secret(source: str | None) -> str:
    return read_secret(source, "The client secret", flag="--client-secret-file")


def _sealed(secret: str, sealer: Sealer, profile_id: UUID) -> bytes:
    return sealer.seal(secret, purpose=CLIENT_SECRET_PURPOSE, row_id=str(profile_id))


def _endpoint(url: str | None) -> str:
    if not url:
        raise UsageError(
            "There is no token endpoint, and this provider has no default.",
            fix="Give --token-endpoint URL.",
            scope=Scope.OAUTH_PROFILE,
        )
    return url


def _as_json(profile: OAuthProfile) -> dict[str, object]:
    return {
        "name": profile.name,
        "provider": profile.provider,
        "grant": profile.grant_type,
        "token_endpoint": profile.token_endpoint,
        "scope": profile.scope,
        "tenant_id": profile.tenant_id,
        "client_id": profile.client_id,
        "secret_is_set": profile.secret_set_at is not None,
        "secret_set_at": profile.secret_set_at,
        "has_own_ca": profile.ca_pem is not None,
        "created_at": profile.created_at,
        "updated_at": profile.updated_at,
    }
