"""Who did something to a job, an address or the whole installation: what is written down beside it."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from enum import StrEnum

#: Characters of a name that are kept; longer ones are no names that anybody knows.
LONGEST_NAME = 100

_ROOT = 0


class ActorKind(StrEnum):
    """How somebody proved who they are."""

    LOGIN = "login"
    """A login name of the machine on which the command was run."""
    API_KEY = "api_key"


@dataclass(frozen=True, slots=True)
class Actor:
    """A person or a program that acts: a login name, or the name of an API key (never the key)."""

    kind: ActorKind
    name: str


def login_of_this_process() -> Actor:
    """Give the login under which this process runs: the account's name, and whoever became root by sudo."""
    name = _account_name(os.getuid())
    if os.getuid() == _ROOT and (person := os.environ.get("SUDO_USER")):
        name = f"{person} (as {name})"
    printable = "".join(character for character in name if character.isprintable())
    return Actor(ActorKind.LOGIN, printable[:LONGEST_NAME])


def _account_name(user_id: int) -> str:
    """Give the name of an account, not what the environment says of it; its number where it has no name."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"user {user_id}"
