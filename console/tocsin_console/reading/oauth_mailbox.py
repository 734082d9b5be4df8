"""Which mailbox a command about an OAuth profile means, where it is not said: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_console.output import listed
from tocsin_console.reading.profile_request import checked_login
from tocsin_schema.errors import Scope, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def mailbox_meant(name: str, user: str | None, mailboxes: Sequence[str]) -> str | None:
    """Give the mailbox: the one said, else the only one of `mailboxes`, None where there is none.

    Raises UsageError where there are several, which it lists.
    """
    if user is not None:
        return checked_login(user)
    if len(mailboxes) > 1:
        raise UsageError(
            f"The OAuth profile {name!r} serves several mailboxes: {listed(mailboxes)}.",
            fix="Say which one is meant with --user MAILBOX.",
            scope=Scope.OAUTH_PROFILE,
        )
    return mailboxes[0] if mailboxes else None
