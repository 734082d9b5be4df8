"""`tocsin oauth`: how to get access tokens."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from tocsin_console.commands import oauth_acquire, oauth_check
from tocsin_console.commands.oauth_options import (
    CaFile,
    Mailbox,
    Name,
    OAuthOptions,
    SecretExpires,
    SecretFile,
    read_request,
    read_secret_expiry,
)
from tocsin_console.commands.oauth_showing import (
    OAuthLine,
    OAuthPicture,
    as_facts,
    as_json_object,
    as_row,
    headings,
    picture_as_json_object,
)
from tocsin_console.commands.oauth_writing import (
    Change,
    Plan,
    Proofs,
    needs_next_step,
    plan_change,
    plan_new,
    read_client_secret,
    read_proofs,
    seal_client_secret,
    tell_next_step,
    tell_to_sign_in,
    tell_what_is_stored,
    tell_who_goes_on,
    warn_of_ends,
    write_change,
    write_new,
)
from tocsin_console.commands.option_groups import with_option_groups
from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.output import examples, listed, print_facts, print_json, print_table, say
from tocsin_console.reading.oauth_request import check_takes_secret
from tocsin_console.reading.oauth_rules import check_nobody_changed_it
from tocsin_console.reading.session import Session, in_session, open_ledger
from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger import oauth_profiles, sending_profiles
from tocsin_schema.ledger.access_tokens import list_tokens_of_profile
from tocsin_schema.ledger.oauth_profiles import OAuthProfile
from tocsin_schema.ledger.oauth_providers import OAuthProvider
from tocsin_schema.ledger.pausing import resume_users_of_oauth_profile
from tocsin_schema.ledger.refresh_tokens import list_refresh_tokens
from tocsin_schema.sealing import Sealer

app = typer.Typer(help="OAuth profiles: how to get access tokens.", no_args_is_help=True)


@app.command(
    "add",
    epilog=examples(
        "tocsin oauth add m365 --provider microsoft365 --tenant-id 8f7c1a52-3b0d-4f6e-9a41-0c2d5e7b9a10 \\",
        "       --client-id 2b1de1f4-7a6c-4a53-8f0e-5f1f8c2f7c11 --client-secret-file secret.txt \\",
        "       --secret-expires 2027-03-01",
        "tocsin oauth add m365 --provider microsoft365 --tenant-id 8f7c1a52-3b0d-4f6e-9a41-0c2d5e7b9a10 \\",
        "       --client-id 2b1de1f4-7a6c-4a53-8f0e-5f1f8c2f7c11 --certificate-file mail.pfx",
        "tocsin oauth add person --provider microsoft365 --grant device_code \\",
        "       --tenant-id 8f7c1a52-3b0d-4f6e-9a41-0c2d5e7b9a10 --client-id 2b1de1f4-7a6c-4a53-8f0e-5f1f8c2f7c11",
        "tocsin oauth add workspace --provider google --service-account-file key.json",
        "tocsin oauth add sso --provider custom --token-endpoint https://sso.example.org/token \\",
        "       --client-id tocsin --client-secret-file - < secret.txt",
    ),
)
@with_option_groups
def add(
    name: Name,
    *,
    provider: Annotated[OAuthProvider, typer.Option(help="Whose token endpoint it is.")],
    options: OAuthOptions,
    user: Mailbox = None,
    ca_file: CaFile = None,
) -> None:
    """Add an OAuth profile. What is left out comes from the provider's defaults.

    Secrets and keys are stored sealed and never shown again. A certificate comes as PEM or PFX, with its key in the
    same file or beside it. --user is the mailbox that a refresh token is for.
    """
    request = read_request(options, ca_file=ca_file)

    async def check(session: Session) -> Plan:
        return await plan_new(session, name, provider, request, mailbox=user)

    with open_ledger() as ledger:
        plan = ledger.visit(check)
        _check_user_is_used(plan, user)
        proofs = read_proofs(plan, options, request.service_account)

        async def write(session: Session) -> None:
            await write_new(session.connection, plan, proofs)

        ledger.visit(write)
    say(f"OAuth profile {name!r} added. Use it with `tocsin profile add … --auth oauth --oauth {name}`.")
    tell_what_is_stored(plan)
    warn_of_ends(plan.profile, proofs)
    tell_next_step(plan.profile)


@app.command("list", epilog=examples("tocsin oauth list", "tocsin oauth list --json"))
def list_profiles(as_json: JsonFlag = False) -> None:
    """List the OAuth profiles, what each proves itself with, and when that ends."""

    async def work(session: Session) -> list[OAuthLine]:
        return [
            OAuthLine(profile, await list_refresh_tokens(session.connection, profile.id))
            for profile in await oauth_profiles.list_profiles(session.connection)
        ]

    lines = in_session(work)
    if as_json:
        for line in lines:
            print_json(as_json_object(line))
        return
    now = datetime.now(UTC)
    print_table(headings(), [as_row(line, now=now) for line in lines])


@app.command("show", epilog=examples("tocsin oauth show m365", "tocsin oauth show m365 --json"))
def show(name: Name, as_json: JsonFlag = False) -> None:
    """Show an OAuth profile, its sign-ins and tokens, and who uses it; of secrets, only since when they are set."""

    async def work(session: Session) -> OAuthPicture:
        profile = await oauth_profiles.get_by_name(session.connection, name)
        return OAuthPicture(
            profile,
            await list_refresh_tokens(session.connection, profile.id),
            await list_tokens_of_profile(session.connection, profile.id),
            [
                user.name
                for user in await sending_profiles.read_profiles(session.connection)
                if user.oauth_profile_id == profile.id
            ],
        )

    picture = in_session(work)
    if as_json:
        print_json(picture_as_json_object(picture))
        return
    print_facts(as_facts(picture, now=datetime.now(UTC)))


@app.command(
    "set",
    epilog=examples(
        "tocsin oauth set m365 --client-id 2b1de1f4-7a6c-4a53-8f0e-5f1f8c2f7c11",
        "tocsin oauth set m365 --certificate-file new.pem --private-key-file new.key",
        "tocsin oauth set m365 --secret-expires 2027-03-01",
        "tocsin oauth set workspace --service-account-file new-key.json",
    ),
)
@with_option_groups
def change(
    name: Name,
    *,
    options: OAuthOptions,
    user: Mailbox = None,
    ca_file: CaFile = None,
    no_ca_file: Annotated[bool, typer.Option("--no-ca-file", help="Trust the system's authorities again.")] = False,
) -> None:
    """Change an OAuth profile. What is left out stays, an empty text takes away; its tokens are asked for anew.

    A stored secret or key never goes to another host: with an endpoint there, give it again. Sign-ins do not go to
    another endpoint or client either: they are forgotten. --secret-expires none takes the date away.
    """
    if ca_file is not None and no_ca_file:
        raise UsageError("--ca-file and --no-ca-file exclude each other.", fix="Give one of them.")
    request = read_request(options, ca_file=ca_file, forget_ca=no_ca_file)
    if not request.is_anything:
        raise UsageError("Nothing to change was given.", fix="See `tocsin oauth set --help`.")

    async def check(session: Session) -> Plan:
        return await plan_change(session, name, request, mailbox=user)

    with open_ledger() as ledger:
        plan = ledger.visit(check)
        _check_user_is_used(plan, user)
        proofs = read_proofs(plan, options, request.service_account)

        async def write(session: Session) -> Change:
            return await write_change(session.connection, plan, proofs, request)

        done = ledger.visit(write)
    say(f"OAuth profile {name!r} changed.")
    tell_what_is_stored(plan)
    warn_of_ends(plan.profile, proofs)
    if done.forgotten:
        say(f"The sign-ins for {listed(done.forgotten)} were another issuer's and are forgotten.")
        tell_to_sign_in(plan.profile, done.forgotten)
    elif needs_next_step(plan):
        tell_next_step(plan.profile, done.mailboxes)
    tell_who_goes_on(done.resumed)


@app.command(
    "replace-secret",
    epilog=examples(
        "tocsin oauth replace-secret m365",
        "tocsin oauth replace-secret m365 --client-secret-file - --secret-expires 2028-11-20 < secret.txt",
    ),
)
def replace_secret(name: Name, client_secret_file: SecretFile = None, secret_expires: SecretExpires = None) -> None:
    """Store another client secret, from a file, standard input or a prompt; ask for tokens with it from now on."""
    expires_at = read_secret_expiry(secret_expires)

    async def check(session: Session) -> tuple[OAuthProfile, Sealer]:
        profile = await oauth_profiles.get_by_name(session.connection, name)
        check_takes_secret(profile)
        return profile, await session.sealer()

    with open_ledger() as ledger:
        before, sealer = ledger.visit(check)
        secret = read_client_secret(client_secret_file)

        async def write(session: Session) -> list[str]:
            profile = await oauth_profiles.lock(session.connection, name)
            check_nobody_changed_it(before, profile)
            sealed = seal_client_secret(sealer, profile.id, secret)
            await oauth_profiles.replace_client_secret(
                session.connection, profile, sealed_client_secret=sealed, expires_at=expires_at
            )
            return await resume_users_of_oauth_profile(session.connection, profile.id)

        resumed = ledger.visit(write)
    say(f"The client secret of OAuth profile {name!r} is replaced.")
    if expires_at is None and before.secret_expires_at is not None:
        say("When the new one ends is not known. Say it, to be warned: --secret-expires DATE.")
    warn_of_ends(replace(before, secret_expires_at=expires_at), Proofs(client_secret=secret))
    tell_who_goes_on(resumed)


app.command("acquire", epilog=oauth_acquire.EPILOG)(oauth_acquire.acquire)
app.command("check", epilog=oauth_check.EPILOG)(oauth_check.check)


@app.command("remove", epilog=examples("tocsin oauth remove m365"))
def remove(name: Name) -> None:
    """Remove an OAuth profile that no sending profile uses, with its tokens and sign-ins."""

    async def work(session: Session) -> None:
        profile = await oauth_profiles.get_by_name(session.connection, name)
        await oauth_profiles.remove(session.connection, profile)

    in_session(work)
    say(f"OAuth profile {name!r} removed.")


def _check_user_is_used(plan: Plan, user: str | None) -> None:
    """Refuse a mailbox that nothing given is for. Raises UsageError."""
    if user is not None and plan.mailbox is None:
        raise UsageError(
            "--user says which mailbox a refresh token is for, and there is none.",
            fix="Leave it out, or give --refresh-token-file; `tocsin oauth acquire NAME --user MAILBOX` signs in.",
            scope=Scope.OAUTH_PROFILE,
        )
