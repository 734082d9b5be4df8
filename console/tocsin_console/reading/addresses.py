"""Reading the mail addresses that a command is given."""

from __future__ import annotations

from tocsin_schema.contract.addresses import parse_address
from tocsin_schema.errors import AddressError, UsageError


def read_address(text: str, flag: str) -> str:
    """Read one mail address; give it in the form in which it is stored. Raises UsageError."""
    try:
        return parse_address(text).address
    except AddressError as error:
        raise UsageError(f"{flag}: {error.problem}", fix=error.fix) from None
