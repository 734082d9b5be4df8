"""`tocsin profile`: how and as whom to send."""

import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from tocsin_console.commands import profile_check, profile_pausing
from tocsin_console.commands.oauth_options import OAuthOptions
from tocsin_console.commands.oauth_writing import (
    Plan,
    plan_new,
    read_proofs,
    tell_next_step,
    tell_what_is_stored,
    tell_who_goes_on,
    warn_of_ends,
    write_new,
)
from tocsin_console.commands.option_groups import with_option_groups
from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.commands.profile_options import Name, PasswordFile, ProfileOptions, Provider, read_request
from tocsin_console.commands.profile_showing import (
    as_facts,
    as_json_object,
    as_row,
    headings,
    state_of,
    tenant_limit_line,
    told_of_pause,
)
from tocsin_console.commands.profile_tokens import (
    TokensUsed,
    asked_oauth_profile,
    left_alone_by,
    tell_what_it_lacks,
    tokens_used_by,
)
from tocsin_console.output import examples, listed, print_facts, print_json, print_table, print_whole_states, say
from tocsin_console.reading.inputs import read_secret
from tocsin_console.reading.profile_request import (
    ProfileRequest,
    changed_draft,
    check_tokens_stay,
    new_draft,
    password_source,
    with_shared_login,
)
from tocsin_console.reading.session import Session, in_session, open_ledger
from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger import pausing, sending_profiles
from tocsin_schema.ledger.estimates import MailboxBudget, read_mailboxes
from tocsin_schema.ledger.installation_settings import SharedLogin, read_shared_login
from tocsin_schema.ledger.oauth_profiles import OAuthProfile
from tocsin_schema.ledger.sending_profile_rules import (
    Auth,
    PasswordSource,
    ProfileDraft,
    check_draft,
    password_must_be_given_again,
)
from tocsin_schema.ledger.sending_profiles import SendingDefaults, SendingProfile
from tocsin_schema.sealing import Sealer

app = typer.Typer(help="Sending profiles: how and as whom to send.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A sending profile that can be, and what it takes to write it. `oauth` is made along with it, where asked for."""

    draft: ProfileDraft
    defaults: SendingDefaults
    sealer: Sealer | None
    oauth: Plan | None


@dataclass(frozen=True, slots=True)
class _Written:
    """A sending profile as it was written, with whom it shares its mailbox, and where its tokens come from."""

    profile: SendingProfile
    others: list[str]
    tokens: TokensUsed | None
    tenant_limit: str | None
    """What others have to know of a tenant's limit that was changed with it."""


@app.command(
    "add",
    epilog=examples(
        "tocsin profile add news --provider microsoft365 --from news@example.org --oauth m365",
        "tocsin profile add news --provider microsoft365 --from news@example.org \\",
        "       --tenant-id 8f7c1a52-3b0d-4f6e-9a41-0c2d5e7b9a10 \\",
        "       --client-id 2b1de1f4-7a6c-4a53-8f0e-5f1f8c2f7c11 --client-secret-file secret.txt",
        "tocsin profile add ses --provider ses --host email-smtp.eu-central-1.amazonaws.com \\",
        "       --from news@example.org --user AKIAEXAMPLE --password-file - < password.txt",
        "tocsin profile add relay --provider custom --host relay.example.org --from it@example.org --auth none",
    ),
)
@with_option_groups
def add(
    name: Name,
    *,
    provider: Annotated[Provider, typer.Option(help="Whose mail service it is.")],
    from_address: Annotated[str, typer.Option("--from", metavar="ADDRESS", help="The sender's address.")],
    options: ProfileOptions,
    oauth_options: OAuthOptions,
    endpoint_ca_file: Annotated[
        str | None,
        typer.Option(metavar="F", help="As --ca-file, for the token endpoint of an OAuth profile made here."),
    ] = None,
) -> None:
    """Add a sending profile. What is left out comes from the provider's defaults.

    Limits belong to the mailbox (host and login): all profiles on the same mailbox share them. The
    recipients of any 24 hours are a hard limit: once it is reached, the rest waits and goes out as there is room.

    With options of `tocsin oauth add` (--client-id and so on) in place of --oauth, an OAuth profile of the same name
    is made in the same step.
    """
    oauth = asked_oauth_profile(options, oauth_options, endpoint_ca_file)
    request = read_request(options, from_address=from_address, oauth_profile=options.oauth if oauth is None else name)

    async def check(session: Session) -> _Plan:
        defaults = await sending_profiles.read_defaults(session.connection, provider.value)
        draft = new_draft(name, request, defaults)
        shared = await read_shared_login(session.connection)
        wants_own = draft.auth is Auth.BASIC and (options.password_file is not None or _may_ask(draft, shared))
        draft = _checked(draft, request, has_own=wants_own, shared=shared)
        plan = None
        if oauth is not None:
            instead = f"To use that one, give --oauth {name} and none of {listed(oauth_options.flags)}."
            plan = await plan_new(session, name, provider.oauth, oauth, mailbox=draft.login, if_taken=instead)
        return _Plan(draft, defaults, await session.sealer() if wants_own else None, plan)

    with open_ledger() as ledger:
        plan = ledger.visit(check)
        password = None if plan.sealer is None else _ask_password(options.password_file)
        account = None if oauth is None else oauth.service_account
        proofs = None if plan.oauth is None else read_proofs(plan.oauth, oauth_options, account)

        async def write(session: Session) -> _Written:
            before = await read_mailboxes(session.connection)
            if plan.oauth is not None and proofs is not None:
                await write_new(session.connection, plan.oauth, proofs)
            await sending_profiles.add_profile(
                session.connection,
                plan.draft,
                asked=request.limits,
                defaults=plan.defaults.limits,
                password=password,
                sealer=plan.sealer,
                tenant=request.tenant,
            )
            return await _written(session, name, before)

        written = ledger.visit(write)
    say(f"Sending profile {name!r} added.")
    if plan.oauth is not None and proofs is not None:
        say(f"OAuth profile {name!r}, which gives it tokens, added along with it.")
        tell_what_is_stored(plan.oauth)
        warn_of_ends(plan.oauth.profile, proofs)
        tell_next_step(plan.oauth.profile, [plan.draft.login])
    elif written.tokens is not None:
        tell_what_it_lacks(written.profile, written.tokens)
    _say_shared(written)


@app.command("list", epilog=examples("tocsin profile list", "tocsin profile list --json"))
def list_profiles(as_json: JsonFlag = False) -> None:
    """List the sending profiles."""

    async def work(session: Session) -> list[SendingProfile]:
        return await sending_profiles.read_profiles(session.connection)

    profiles = in_session(work)
    if as_json:
        for profile in profiles:
            others = [p.name for p in profiles if p.mailbox_id == profile.mailbox_id and p.name != profile.name]
            print_json(as_json_object(profile, others))
        return
    print_table(headings(), [as_row(profile) for profile in profiles])
    print_whole_states({profile.name: state_of(profile) for profile in profiles})


@app.command("show", epilog=examples("tocsin profile show news", "tocsin profile show news --json"))
def show(name: Name, as_json: JsonFlag = False) -> None:
    """Show a sending profile, its mailbox's limits, and with whom it shares them.

    A mailbox that has reached its recipients of 24 hours rests, and its state says until when.
    """

    async def work(session: Session) -> tuple[SendingProfile, list[str], SharedLogin | None, list[MailboxBudget]]:
        connection = session.connection
        profile = await sending_profiles.read_profile(connection, name)
        return (
            profile,
            await _others(session, name),
            await read_shared_login(connection),
            await read_mailboxes(connection),
        )

    profile, others, shared, mailboxes = in_session(work)
    if as_json:
        print_json(as_json_object(profile, others))
        return
    source = password_source(profile.draft, has_own=profile.has_password, shared=shared)
    print_facts(as_facts(profile, others, source, mailboxes))


@app.command(
    "set",
    epilog=examples(
        "tocsin profile set news --per-minute 20", "tocsin profile set news --per-day none --batch-size 100"
    ),
)
@with_option_groups
def change(
    name: Name,
    *,
    from_address: Annotated[str | None, typer.Option("--from", metavar="ADDRESS", help="The sender's address.")] = None,
    options: ProfileOptions,
    no_ca_file: Annotated[bool, typer.Option("--no-ca-file", help="Trust the system's authorities again.")] = False,
) -> None:
    """Change a sending profile. What is left out stays.

    Another host or login is another mailbox. Limits hold for every profile on the mailbox, from its next message
    on; with --connections and --per-minute, what was learned of them from the server's replies is forgotten. The
    stored password never goes to another host: with --host, give it again. Neither do access tokens by themselves:
    with a --host that is not the provider's own, say --oauth again.
    """
    if options.ca_file is not None and no_ca_file:
        raise UsageError("--ca-file and --no-ca-file exclude each other.", fix="Give one of them.")
    request = read_request(options, from_address=from_address, oauth_profile=options.oauth, forget_ca=no_ca_file)
    if not request.is_anything:
        raise UsageError("Nothing to change was given.", fix="See `tocsin profile set --help`.")
    password = None if options.password_file is None else _ask_password(options.password_file)

    async def work(session: Session) -> _Written:
        profile = await sending_profiles.lock_profile(session.connection, name)
        before = await read_mailboxes(session.connection)
        draft = changed_draft(profile.draft, request)
        defaults = await sending_profiles.read_defaults(session.connection, profile.provider)
        check_tokens_stay(profile.draft, draft, request, usual_host=defaults.host)
        shared = await read_shared_login(session.connection)
        keeps_own = profile.has_password and draft.auth is Auth.BASIC
        if keeps_own and password is None and password_must_be_given_again(profile.draft, draft):
            raise UsageError(
                f"The stored password was given for {profile.host} and does not go to {draft.host} by itself.",
                fix="Give the password for the new host with --password-file.",
                scope=Scope.PROFILE,
            )
        draft = _checked(draft, request, has_own=keeps_own or password is not None, shared=shared)
        await sending_profiles.change_profile(
            session.connection, profile, draft, asked=request.limits, tenant=request.tenant
        )
        if password is not None:
            sealer = await session.sealer()
            await sending_profiles.write_password(session.connection, profile, password, sealer=sealer)
        elif profile.has_password and not keeps_own:
            await sending_profiles.forget_password(session.connection, profile)
            say("Its stored password is of no use any more and was removed.")
        return await _written(session, name, before)

    written = in_session(work)
    say(f"Sending profile {name!r} changed.")
    if written.tokens is not None and (options.oauth is not None or options.user is not None):
        tell_what_it_lacks(written.profile, written.tokens)
    limited = request.limits.is_anything or request.tenant.is_anything
    if options.host is not None or options.user is not None or limited:
        _say_shared(written)


@app.command(
    "replace-password",
    epilog=examples(
        "tocsin profile replace-password ses", "tocsin profile replace-password ses --password-file - < password.txt"
    ),
)
def replace_password(name: Name, password_file: PasswordFile = None) -> None:
    """Store another password, from a file, standard input or a prompt.

    A profile that is paused because its credentials were refused goes on; one that a person paused stays paused.
    """

    async def check(session: Session) -> tuple[SendingProfile, Sealer]:
        profile = await sending_profiles.read_profile(session.connection, name)
        return _uses_password(profile), await session.sealer()

    with open_ledger() as ledger:
        before, sealer = ledger.visit(check)
        password = _ask_password(password_file)

        async def write(session: Session) -> tuple[SendingProfile, list[str]]:
            profile = _uses_password(await sending_profiles.lock_profile(session.connection, name))
            if profile.id != before.id or password_must_be_given_again(before.draft, profile.draft):
                raise UsageError(
                    f"Somebody else changed the sending profile {name!r} meanwhile; it now sends through "
                    f"{profile.host}, not {before.host}.",
                    fix="Nothing was stored. Look at it, and give the password for its mail server again.",
                    scope=Scope.PROFILE,
                )
            await sending_profiles.write_password(session.connection, profile, password, sealer=sealer)
            return profile, await pausing.resume_refused_profile(session.connection, profile.id)

        was, resumed = ledger.visit(write)
    say(f"The password of sending profile {name!r} is replaced.")
    tell_who_goes_on(resumed)
    if was.paused_reason is not None and not resumed:
        why = told_of_pause(was.paused_reason, by=was.paused_by, since=was.paused_at)
        say(f"It stays paused: {why}. To let it go on: `tocsin profile resume {name}`.")


app.command("check", epilog=profile_check.EPILOG)(profile_check.check)


app.command("pause", epilog=profile_pausing.PAUSE_EXAMPLES)(profile_pausing.pause)
app.command("resume", epilog=profile_pausing.RESUME_EXAMPLES)(profile_pausing.resume)


@app.command("remove", epilog=examples("tocsin profile remove news"))
def remove(name: Name) -> None:
    """Remove a sending profile that no unfinished job uses."""

    async def work(session: Session) -> OAuthProfile | None:
        profile = await sending_profiles.read_profile(session.connection, name)
        await sending_profiles.remove_profile(session.connection, name)
        return await left_alone_by(session, profile)

    left = in_session(work)
    say(f"Sending profile {name!r} removed.")
    if left is not None:
        say(f"OAuth profile {left.name!r} stays, used by nobody now. To remove it: `tocsin oauth remove {left.name}`.")


def _checked(
    draft: ProfileDraft, request: ProfileRequest, *, has_own: bool, shared: SharedLogin | None
) -> ProfileDraft:
    """Give the draft as it will be written, or raise UsageError where it cannot be."""
    source = password_source(draft, has_own=has_own, shared=shared)
    check_draft(draft, source)
    if source is PasswordSource.INSTALLATION and shared is not None:
        draft = with_shared_login(draft, shared, asked_login=request.login)
        say(f"It has no password of its own and uses EmailUsername and EmailPassword ({shared.username}).")
    return draft


def _uses_password(profile: SendingProfile) -> SendingProfile:
    """Give the profile back if it logs in with a password, or raise UsageError."""
    if profile.draft.auth is Auth.BASIC:
        return profile
    raise UsageError(
        f"The sending profile {profile.name!r} does not log in with a password (auth: {profile.auth}).",
        fix=f"Use `tocsin profile set {profile.name} --password-file F` to make it do so.",
        scope=Scope.PROFILE,
    )


def _may_ask(draft: ProfileDraft, shared: SharedLogin | None) -> bool:
    """Whether a prompt is the only way to a password, and there is a terminal for it."""
    known = password_source(draft, has_own=False, shared=shared) is not PasswordSource.NOWHERE
    return not known and sys.stdin.isatty()


def _ask_password(source: str | None) -> str:
    return read_secret(source, "The password", flag="--password-file")


async def _written(session: Session, name: str, before: list[MailboxBudget]) -> _Written:
    profile = await sending_profiles.read_profile(session.connection, name)
    tenant_limit = tenant_limit_line(profile, before)
    return _Written(profile, await _others(session, name), await tokens_used_by(session, profile), tenant_limit)


async def _others(session: Session, name: str) -> list[str]:
    profile = await sending_profiles.read_profile(session.connection, name)
    names = await sending_profiles.profiles_of_mailbox(session.connection, profile.mailbox_id)
    return [other for other in names if other != name]


def _say_shared(written: _Written) -> None:
    if written.others:
        say(f"It shares its mailbox, and the mailbox's limits, with: {listed(written.others)}.")
    if written.tenant_limit is not None:
        say(written.tenant_limit)
