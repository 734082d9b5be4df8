"""The names and help lines of all commands, and how a command's module is imported once it is called.

`tocsin --help` lists everything without importing any of it: what sends and gets tokens brings libraries that take
longer to load than most commands take to run.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Entry:
    """A command, or a group of them: its name, its module, and its help line as the module has it."""

    name: str
    module: str
    help: str
    is_group: bool = False


# In the order of the documentation.
ENTRIES = (
    Entry(
        "up",
        "up",
        "Run everything on this machine: the embedded Postgres (unless there is another one) and the workers.",
    ),
    Entry("down", "up", "End what `tocsin up` started on this machine, in good order."),
    Entry("demo", "demo", "Send two bulk jobs to a local mail server and compare the ledger with what arrived."),
    Entry("status", "status", "Tell whether mail is going out, and if not, why."),
    Entry("migrate", "migrate", "Bring the ledger to this release's schema."),
    Entry("worker", "worker", "Run worker processes until Ctrl-C or SIGTERM; a process that dies is replaced."),
    Entry(
        "sweep",
        "sweep",
        "Let the sweeper look now: take back what dead workers held, end what is over, wake who has work.",
    ),
    Entry("pause", "halt", "Halt all sending of all profiles at once: the emergency brake."),
    Entry("resume", "halt", "Let sending go on that `tocsin pause`, or a restored ledger, has halted."),
    Entry("oauth", "oauth", "OAuth profiles: how to get access tokens.", is_group=True),
    Entry("profile", "profile", "Sending profiles: how and as whom to send.", is_group=True),
    Entry("template", "template", "Templates of mail, and their versions.", is_group=True),
    Entry("send", "send", "Send a message to many: publish a job, whole, once everything about it is checked."),
    Entry("job", "job", "Jobs, and what became of every recipient.", is_group=True),
    Entry("copy", "copy", "Email copies: every message that a provider accepted.", is_group=True),
    Entry("dead-letter", "dead_letter", "Dead letters: parts of jobs that intake had to refuse.", is_group=True),
    Entry("suppression", "suppression", "Suppressions: addresses that are not written to any more.", is_group=True),
    Entry("key", "key", "The master key that seals stored secrets.", is_group=True),
    Entry("setting", "setting", "Settings of the whole installation.", is_group=True),
)

_PREFIX_OF_THE_LIBRARY = "Value error, "


class LazyGroup(TyperGroup):
    """The group of all commands. Until one is called, a stand-in with its help line is all there is of it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for entry in ENTRIES:
            self.add_command(TyperCommand(entry.name, help=entry.help, rich_markup_mode=self.rich_markup_mode))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that is called, and import it."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found if name is None else load(name), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what is wrong with an option is said in plain words."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix(_PREFIX_OF_THE_LIBRARY)
            raise


def load(name: str) -> Any:
    """Import a command's module and give the command, or the group of that name."""
    [entry] = [entry for entry in ENTRIES if entry.name == name]
    module = import_module(f"tocsin_console.commands.{entry.module}")
    parent = new_app()
    parent.add_typer(module.app, name=entry.name if entry.is_group else None)
    return _members(parent)[name]


def new_app(*, group: type[TyperGroup] = TyperGroup) -> typer.Typer:
    """Make an app with the settings that hold for all commands."""
    return typer.Typer(
        name="tocsin",
        cls=group,
        help="Bulk notification mail that loses nothing and shows who got what.",
        epilog="Every command says more with --help.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        # Help and usage errors stay plain text, which reads the same in a terminal, a log and a script.
        rich_markup_mode=None,
    )


def _members(app: typer.Typer) -> Any:
    group: Any = typer.main.get_command(app)
    return group.commands
