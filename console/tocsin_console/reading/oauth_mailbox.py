"""Which mailbox a command about an OAuth profile means, where it is not said: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_console.output import listed
from tocsin_console.reading.addresses import read_address
from tocsin_schema.errors import Scope, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def mailbox_meant(name: str, user: str | None, mailboxes: Sequence[str]) -> str | None:
    """Give the mailbox: the one said, else the only one of `mailboxes`, None where there is none.

    Raises UsageError where there are several, which it lists, or where what was said is no address.
    """
    if user is not None:
        return checked_mailbox(user)
    if len(mailboxes) > 1:
        raise UsageError(
            f"The OAuth profile {name!r} serves several mailboxes: {listed(mailboxes)}.",
            fix="Say which one is meant with --user MAILBOX.",
            scope=Scope.OAUTH_PROFILE,
        )
    return mailboxes[0] if mailboxes else None


def checked_mailbox(user: str) -> str:
    """Give the mailbox if it is one: who has tokens logs in with an address. Raises UsageError."""
    return read_address(user, "--user")
