"""How steps are told: short texts for a person. Pure."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_workers.smtp.capabilities import Capabilities
    from tocsin_workers.tokens.token_facts import TokenFacts


def offers(capabilities: Capabilities) -> str:
    """List what EHLO brought, as far as it matters to us."""
    size = "SIZE" if capabilities.size_limit is None else f"SIZE {capabilities.size_limit}"
    offers = (
        (capabilities.size, size),
        (capabilities.pipelining, "PIPELINING"),
        (capabilities.eight_bit_mime, "8BITMIME"),
        (capabilities.smtputf8, "SMTPUTF8"),
        (capabilities.enhanced_status_codes, "ENHANCEDSTATUSCODES"),
        (capabilities.chunking, "CHUNKING"),
        (capabilities.dsn, "DSN"),
        (bool(capabilities.auth), f"AUTH {' '.join(sorted(capabilities.auth))}"),
    )
    return ", ".join(name for is_offered, name in offers if is_offered) or "no extensions"


def claims(facts: TokenFacts | None) -> str:
    """List what a token says of itself."""
    if facts is None:
        return "it is no JWT, so its contents cannot be shown"
    told = (
        ("audience", ", ".join(facts.audience)),
        ("roles", ", ".join(facts.roles)),
        ("scopes", ", ".join(facts.scopes)),
        ("tenant", facts.tenant),
        ("application", facts.application),
        ("object id", facts.object_id),
        ("user", facts.user),
    )
    return "; ".join(f"{what} {value}" for what, value in told if value) or "it says nothing of itself"


def moment(at: datetime) -> str:
    """Write a time as RFC 3339 in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
