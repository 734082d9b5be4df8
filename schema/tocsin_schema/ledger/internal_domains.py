"""Which recipients are inside of the organisation: a tenant's cap counts all others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tocsin_schema.contract.addresses import parse_address
from tocsin_schema.errors import AddressError, UsageError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_BETWEEN = re.compile(r"[,\s]+")


def read_domains(text: str) -> frozenset[str]:
    """Read names of domains between commas, into lower case and A-labels. Raises UsageError for what is none."""
    return frozenset(_domain(name) for name in _BETWEEN.split(text.strip()) if name)


def is_internal(address: str, domains: AbstractSet[str]) -> bool:
    """Whether an address in canonical form is of one of the domains, or of a domain below one.

    >>> is_internal("a@mail.example.org", {"example.org"}), is_internal("a@example.org.net", {"example.org"})
    (True, False)
    """
    if not domains:
        return False
    domain = address.rpartition("@")[2]
    while domain:
        if domain in domains:
            return True
        domain = domain.partition(".")[2]
    return False


def _domain(name: str) -> str:
    try:
        return parse_address(f"x@{name}").domain
    except AddressError:
        raise UsageError(
            f"{name[:80]!r} is not the name of a mail domain.", fix="Give names like example.org, between commas."
        ) from None
