"""`tocsin profile`: how and as whom to send."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.commands.profile_showing import as_facts, as_json_object, as_row, headings
from tocsin_console.output import examples, listed, print_facts, print_json, print_table, say
from tocsin_console.reading.inputs import read_ca_file, read_limit, read_secret
from tocsin_console.reading.profile_request import (
    ProfileRequest,
    changed_draft,
    new_draft,
    password_source,
    with_shared_login,
)
from tocsin_console.reading.session import Session, in_session, open_ledger
from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger import pausing, sending_profiles
from tocsin_schema.ledger.installation_settings import SharedLogin, read_shared_login
from tocsin_schema.ledger.sending_profile_rules import (
    UNSAID,
    AskedLimits,
    Auth,
    Copies,
    PasswordSource,
    ProfileDraft,
    Tls,
    Unsaid,
    check_draft,
    password_must_be_given_again,
)
from tocsin_schema.ledger.sending_profiles import SendingDefaults, SendingProfile
from tocsin_schema.sealing import Sealer

app = typer.Typer(help="Sending profiles: how and as whom to send.", no_args_is_help=True)


class Provider(StrEnum):
    """Whose mail service it is, which says what a profile begins with."""

    MICROSOFT365 = "microsoft365"
    GOOGLE = "google"
    SES = "ses"
    CUSTOM = "custom"


Name = Annotated[str, typer.Argument(metavar="NAME", help="The sending profile's name.")]
Host = Annotated[str | None, typer.Option(metavar="H", help="The mail server.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, metavar="N", help="Its port.")]
TlsMode = Annotated[Tls | None, typer.Option(help="When TLS begins.")]
AuthMode = Annotated[Auth | None, typer.Option(help="How to log in.")]
OAuthName = Annotated[str | None, typer.Option("--oauth", metavar="NAME", help="The OAuth profile that gives tokens.")]
User = Annotated[str | None, typer.Option(metavar="U", help="Whom to log in as; the From address by default.")]
PasswordFile = Annotated[str | None, typer.Option(metavar="F|-", help="File with the password; - is standard input.")]
CaFile = Annotated[
    str | None, typer.Option(metavar="F", help="Certificates (PEM) of the authorities that the server is checked by.")
]
BatchSize = Annotated[int | None, typer.Option(min=1, max=1000, metavar="N", help="Recipients in a batch.")]
Connections = Annotated[str | None, typer.Option(metavar="N|none", help="Connections at the same time.")]
PerMinute = Annotated[str | None, typer.Option(metavar="N|none", help="Messages a minute.")]
PerDay = Annotated[
    str | None,
    typer.Option(
        metavar="N|none",
        help="Recipients in any 24 hours, retries counted; then the mailbox rests until there is room.",
    ),
]
CopiesMode = Annotated[Copies | None, typer.Option(help="What email copies keep of the content.")]
PlaintextAuth = Annotated[
    bool | None,
    typer.Option(
        "--allow-plaintext-auth/--no-plaintext-auth",
        help="Log in without TLS, to a server on this machine only.",
        show_default=False,
    ),
]


@app.command(
    "add",
    epilog=examples(
        "tocsin profile add news --provider microsoft365 --from news@example.org --oauth m365",
        "tocsin profile add ses --provider ses --host email-smtp.eu-central-1.amazonaws.com \\",
        "       --from news@example.org --user AKIAEXAMPLE --password-file - < password.txt",
        "tocsin profile add relay --provider custom --host relay.example.org --from it@example.org --auth none",
    ),
)
def add(
    name: Name,
    *,
    provider: Annotated[Provider, typer.Option(help="Whose mail service it is.")],
    from_address: Annotated[str, typer.Option("--from", metavar="ADDRESS", help="The sender's address.")],
    host: Host = None,
    port: Port = None,
    tls: TlsMode = None,
    auth: AuthMode = None,
    oauth: OAuthName = None,
    user: User = None,
    password_file: PasswordFile = None,
    ca_file: CaFile = None,
    batch_size: BatchSize = None,
    connections: Connections = None,
    per_minute: PerMinute = None,
    per_day: PerDay = None,
    copies: CopiesMode = None,
    allow_plaintext_auth: PlaintextAuth = None,
) -> None:
    """Add a sending profile. What is left out comes from the provider's defaults.

    Limits belong to the mailbox (host and login): all profiles on the same mailbox share them. The
    recipients of any 24 hours are a hard limit: once it is reached, the rest waits and goes out as there is room.
    """
    request = ProfileRequest(
        host=host,
        port=port,
        tls=tls,
        from_address=from_address,
        auth=auth,
        oauth_profile=oauth,
        login=user,
        ca_pem=None if ca_file is None else read_ca_file(ca_file),
        allow_plaintext_auth=allow_plaintext_auth,
        batch_size=batch_size,
        copies=copies,
        limits=_limits(connections, per_minute, per_day),
        gives_password=password_file is not None,
    )

    async def check(session: Session) -> tuple[ProfileDraft, SendingDefaults, Sealer | None]:
        defaults = await sending_profiles.read_defaults(session.connection, provider.value)
        draft = new_draft(name, request, defaults)
        shared = await read_shared_login(session.connection)
        wants_own = draft.auth is Auth.BASIC and (password_file is not None or _may_ask(draft, shared))
        draft = _checked(draft, request, has_own=wants_own, shared=shared)
        return draft, defaults, await session.sealer() if wants_own else None

    with open_ledger() as ledger:
        draft, defaults, sealer = ledger.visit(check)
        password = None if sealer is None else _ask_password(password_file)

        async def write(session: Session) -> list[str]:
            await sending_profiles.add_profile(
                session.connection,
                draft,
                asked=request.limits,
                defaults=defaults.limits,
                password=password,
                sealer=sealer,
            )
            return await _others(session, name)

        others = ledger.visit(write)
    say(f"Sending profile {name!r} added.")
    _say_shared(others)


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


@app.command("show", epilog=examples("tocsin profile show news", "tocsin profile show news --json"))
def show(name: Name, as_json: JsonFlag = False) -> None:
    """Show a sending profile, its mailbox's limits, and with whom it shares them.

    A mailbox that has reached its recipients of 24 hours rests, and its state says until when.
    """

    async def work(session: Session) -> tuple[SendingProfile, list[str], SharedLogin | None]:
        profile = await sending_profiles.read_profile(session.connection, name)
        return profile, await _others(session, name), await read_shared_login(session.connection)

    profile, others, shared = in_session(work)
    if as_json:
        print_json(as_json_object(profile, others))
        return
    source = password_source(profile.draft, has_own=profile.has_password, shared=shared)
    print_facts(as_facts(profile, others, source))


@app.command(
    "set",
    epilog=examples(
        "tocsin profile set news --per-minute 20", "tocsin profile set news --per-day none --batch-size 100"
    ),
)
def change(
    name: Name,
    *,
    from_address: Annotated[str | None, typer.Option("--from", metavar="ADDRESS", help="The sender's address.")] = None,
    host: Host = None,
    port: Port = None,
    tls: TlsMode = None,
    auth: AuthMode = None,
    oauth: OAuthName = None,
    user: User = None,
    password_file: PasswordFile = None,
    ca_file: CaFile = None,
    no_ca_file: Annotated[bool, typer.Option("--no-ca-file", help="Trust the system's authorities again.")] = False,
    batch_size: BatchSize = None,
    connections: Connections = None,
    per_minute: PerMinute = None,
    per_day: PerDay = None,
    copies: CopiesMode = None,
    allow_plaintext_auth: PlaintextAuth = None,
) -> None:
    """Change a sending profile. What is left out stays.

    Another host or login is another mailbox. Limits hold for every profile on the mailbox, from its next message
    on. The stored password never goes to another host: with --host, give it again.
    """
    if ca_file is not None and no_ca_file:
        raise UsageError("--ca-file and --no-ca-file exclude each other.", fix="Give one of them.")
    request = ProfileRequest(
        host=host,
        port=port,
        tls=tls,
        from_address=from_address,
        auth=auth,
        oauth_profile=oauth,
        login=user,
        ca_pem=None if ca_file is None else read_ca_file(ca_file),
        forget_ca=no_ca_file,
        allow_plaintext_auth=allow_plaintext_auth,
        batch_size=batch_size,
        copies=copies,
        limits=_limits(connections, per_minute, per_day),
        gives_password=password_file is not None,
    )
    if not request.is_anything:
        raise UsageError("Nothing to change was given.", fix="See `tocsin profile set --help`.")
    password = None if password_file is None else _ask_password(password_file)

    async def work(session: Session) -> list[str]:
        profile = await sending_profiles.lock_profile(session.connection, name)
        draft = changed_draft(profile.draft, request)
        shared = await read_shared_login(session.connection)
        keeps_own = profile.has_password and draft.auth is Auth.BASIC
        if keeps_own and password is None and password_must_be_given_again(profile.draft, draft):
            raise UsageError(
                f"The stored password was given for {profile.host} and does not go to {draft.host} by itself.",
                fix="Give the password for the new host with --password-file.",
                scope=Scope.PROFILE,
            )
        draft = _checked(draft, request, has_own=keeps_own or password is not None, shared=shared)
        await sending_profiles.change_profile(session.connection, profile, draft, asked=request.limits)
        if password is not None:
            sealer = await session.sealer()
            await sending_profiles.write_password(session.connection, profile, password, sealer=sealer)
        elif profile.has_password and not keeps_own:
            await sending_profiles.forget_password(session.connection, profile)
            say("Its stored password is of no use any more and was removed.")
        return await _others(session, name)

    others = in_session(work)
    say(f"Sending profile {name!r} changed.")
    if host is not None or user is not None or request.limits.is_anything:
        _say_shared(others)


@app.command(
    "replace-password",
    epilog=examples(
        "tocsin profile replace-password ses", "tocsin profile replace-password ses --password-file - < password.txt"
    ),
)
def replace_password(name: Name, password_file: PasswordFile = None) -> None:
    """Store another password, from a file, standard input or a prompt."""

    async def check(session: Session) -> tuple[SendingProfile, Sealer]:
        profile = await sending_profiles.read_profile(session.connection, name)
        return _uses_password(profile), await session.sealer()

    with open_ledger() as ledger:
        before, sealer = ledger.visit(check)
        password = _ask_password(password_file)

        async def write(session: Session) -> None:
            profile = _uses_password(await sending_profiles.lock_profile(session.connection, name))
            if profile.id != before.id or password_must_be_given_again(before.draft, profile.draft):
                raise UsageError(
                    f"Somebody else changed the sending profile {name!r} meanwhile; it now sends through "
                    f"{profile.host}, not {before.host}.",
                    fix="Nothing was stored. Look at it, and give the password for its mail server again.",
                    scope=Scope.PROFILE,
                )
            await sending_profiles.write_password(session.connection, profile, password, sealer=sealer)
            await pausing.resume_profile(session.connection, profile.id)

        ledger.visit(write)
    say(f"The password of sending profile {name!r} is replaced, and it goes on if it was paused.")


@app.command("pause", epilog=examples('tocsin profile pause news --reason "mailbox is being moved"'))
def pause(
    name: Name,
    reason: Annotated[str, typer.Option(metavar="R", help="Why; `tocsin status` shows it.")] = "paused by hand",
) -> None:
    """Stop sending through a profile. Its mail waits in the ledger; all other profiles go on."""

    async def work(session: Session) -> bool:
        profile = await sending_profiles.read_profile(session.connection, name)
        return await pausing.pause_profile(
            session.connection, profile.id, reason, cause=pausing.PauseCause.BY_HAND
        )

    paused = in_session(work)
    say(f"Sending profile {name!r} is paused." if paused else f"Sending profile {name!r} was paused already.")


@app.command("resume", epilog=examples("tocsin profile resume news"))
def resume(name: Name) -> None:
    """Let a paused profile, and its resting mailbox, go on."""

    async def work(session: Session) -> None:
        profile = await sending_profiles.read_profile(session.connection, name)
        await pausing.resume_profile(session.connection, profile.id)

    in_session(work)
    say(f"Sending profile {name!r} goes on within seconds, if a worker runs.")


@app.command("remove", epilog=examples("tocsin profile remove news"))
def remove(name: Name) -> None:
    """Remove a sending profile that no unfinished job uses."""

    async def work(session: Session) -> None:
        await sending_profiles.remove_profile(session.connection, name)

    in_session(work)
    say(f"Sending profile {name!r} removed.")


def _limits(connections: str | None, per_minute: str | None, per_day: str | None) -> AskedLimits:
    return AskedLimits(
        connections=_limit(connections, "--connections"),
        messages_per_minute=_limit(per_minute, "--per-minute"),
        recipients_per_day=_limit(per_day, "--per-day"),
    )


def _limit(text: str | None, flag: str) -> int | Unsaid | None:
    return UNSAID if text is None else read_limit(text, flag)


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


async def _others(session: Session, name: str) -> list[str]:
    profile = await sending_profiles.read_profile(session.connection, name)
    names = await sending_profiles.profiles_of_mailbox(session.connection, profile.mailbox_id)
    return [other for other in names if other != name]


def _say_shared(others: list[str]) -> None:
    if others:
        say(f"It shares its mailbox, and the mailbox's limits, with: {listed(others)}.")
