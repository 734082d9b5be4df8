"""`tocsin setting`: settings of the whole installation, kept in the ledger."""

from typing import Annotated

import typer

from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.output import examples, listed, print_facts, print_json, print_table, say
from tocsin_console.reading.inputs import read_secret, read_text
from tocsin_console.reading.session import Session, in_session, open_ledger
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.installation_settings import (
    DEFINITIONS,
    Definition,
    Kind,
    StoredSetting,
    definition_of,
    read_stored,
    write_email_password,
    write_value,
)
from tocsin_schema.ledger.pausing import resume_users_of_shared_login
from tocsin_schema.ledger.sending_profile_rules import checked_host
from tocsin_schema.sealing import Sealer

app = typer.Typer(help="Settings of the whole installation.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(metavar="KEY", help="The setting's name, as `tocsin setting list` shows it.")]


@app.command("list", epilog=examples("tocsin setting list", "tocsin setting list --json"))
def list_settings(as_json: JsonFlag = False) -> None:
    """List every setting with its value, or its default where none is set."""
    stored = in_session(_read)
    if as_json:
        for definition in DEFINITIONS.values():
            print_json(_as_json(definition, stored.get(definition.key)))
        return
    print_table(
        ("SETTING", "VALUE", "ORIGIN", "MEANING"),
        [(d.key, _value(d, stored.get(d.key)), _origin(d, stored.get(d.key)), d.meaning) for d in DEFINITIONS.values()],
    )


@app.command("get", epilog=examples("tocsin setting get RetryFirstDelaySeconds", "tocsin setting get EmailPassword"))
def get(key: Key, as_json: JsonFlag = False) -> None:
    """Show one setting; of a secret, only whether it is set."""
    definition = definition_of(key)
    setting = in_session(_read).get(key)
    if as_json:
        print_json(_as_json(definition, setting))
        return
    print_facts(
        [
            (definition.key, _value(definition, setting)),
            ("Origin", _origin(definition, setting)),
            ("Meaning", definition.meaning),
        ]
    )


@app.command(
    "set",
    epilog=examples(
        "tocsin setting set RetryFirstDelaySeconds 60",
        "tocsin setting set EmailUsername notices@example.org",
        "tocsin setting set EmailPassword --host smtp.example.org",
        "tocsin setting set EmailPassword --host smtp.example.org --value-file - < password.txt",
    ),
)
def change(
    key: Key,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="The value; of a secret, never here.", show_default=False)
    ] = None,
    value_file: Annotated[
        str | None, typer.Option(metavar="F|-", help="Take the value from a file; - is standard input.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="H", help="EmailPassword: the one mail host that it may be sent to.")
    ] = None,
) -> None:
    """Change a setting. A secret comes from a file, standard input or a prompt, and is stored sealed."""
    definition = definition_of(key)
    if definition.kind is Kind.SECRET:
        _change_secret(definition, value, value_file, host)
        return
    if host is not None:
        raise UsageError(f"--host is of no use for {key}.", fix="Leave it out.")
    if (value is None) == (value_file is None):
        raise UsageError(f"{key} needs one value.", fix=f"Write `tocsin setting set {key} VALUE`, or --value-file F.")
    text = value if value is not None else read_text(value_file or "-", f"The value of {key}").rstrip("\r\n")

    async def work(session: Session) -> str:
        return await write_value(session.connection, key, text)

    stored = in_session(work)
    if definition.kind is Kind.DOMAINS:
        say(f"{key} is set to {stored}." if stored else f"{key} is taken back.")
    else:
        say(f"{key} is set.")


def _change_secret(definition: Definition, value: str | None, value_file: str | None, host: str | None) -> None:
    if value is not None:
        raise UsageError(
            f"{definition.key} is a secret and does not belong among the arguments, where others can read it.",
            fix="Leave it out to be asked for it, or give --value-file F, or --value-file - for standard input. "
            "The value just given may now be in your shell's history.",
        )
    if host is None:
        raise UsageError(
            f"{definition.key} is only ever sent to one mail host.", fix="Name that host with --host smtp.example.org."
        )
    only_host = checked_host(host)

    async def check(session: Session) -> Sealer:
        return await session.sealer()

    with open_ledger() as ledger:
        sealer = ledger.visit(check)
        secret = read_secret(value_file, f"The value of {definition.key}", flag="--value-file")

        async def write(session: Session) -> list[str]:
            await write_email_password(session.connection, sealer, secret, host=only_host)
            return await resume_users_of_shared_login(session.connection, only_host)

        resumed = ledger.visit(write)
    say(f"{definition.key} is set, for {only_host} only.")
    if resumed:
        say(f"Paused until now, and going on: {listed(resumed)}.")


async def _read(session: Session) -> dict[str, StoredSetting]:
    return await read_stored(session.connection)


def _value(definition: Definition, setting: StoredSetting | None) -> str | None:
    if definition.kind is Kind.SECRET:
        return "set (never shown)" if setting is not None and setting.is_sealed else "not set"
    if setting is not None and setting.value is not None:
        return setting.value
    return None if definition.default is None else str(definition.default)


def _origin(definition: Definition, setting: StoredSetting | None) -> str:
    if definition.kind is Kind.FIXED:
        return "read-only"
    if setting is not None and (setting.is_sealed or setting.value is not None):
        return f"for {setting.bound_to} only" if setting.bound_to else "set"
    return "default" if definition.default is not None else "not set"


def _as_json(definition: Definition, setting: StoredSetting | None) -> dict[str, object]:
    is_secret = definition.kind is Kind.SECRET
    stored = None if setting is None else setting.value
    value: object = stored if stored is not None else definition.default
    if definition.kind is Kind.NUMBER and stored is not None:
        value = int(stored)
    return {
        "key": definition.key,
        "kind": definition.kind.value,
        "value": None if is_secret else value,
        "is_set": setting is not None and (setting.is_sealed or setting.value is not None),
        "default": definition.default,
        "host": None if setting is None else setting.bound_to,
        "meaning": definition.meaning,
    }
