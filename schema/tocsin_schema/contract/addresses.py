"""Mail addresses: exactly one, in the form in which it goes to a server and is compared.

Two addresses are the same where their domains agree (lower case, A-labels) and their local parts agree as
they stand: case, dots and tags in a local part are the receiving site's business (RFC 5321 section 2.4).
"""

from __future__ import annotations

import re
import unicodedata

from email_validator import EmailNotValidError, validate_email
from msgspec import Struct

from tocsin_schema.errors import AddressError

MAX_ADDRESS_OCTETS = 254
"""RFC 5321 section 4.5.3.1.3: a path of 256 octets, less its angle brackets."""

_LABEL = r"(?!..--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
# A subset of what email-validator accepts, forty times as fast; a property test holds the two together.
_PLAIN = re.compile(
    rf"(?=[^@]{{1,64}}@)({_ATOM}(?:\.{_ATOM})*)"
    rf"@((?:{_LABEL}\.)+(?!(?:arpa|onion)\Z)[a-z]{{2,63}})",
    re.IGNORECASE | re.ASCII,
)

# Reserved names (RFC 6761, 6762) that in-house systems and tests really use; email-validator refuses them.
_IN_HOUSE = re.compile(r"(?:\A|\.)(invalid|local|localhost|test)\Z", re.IGNORECASE | re.ASCII)

_COMMON_MISTAKES = (
    (re.compile(r"[\r\n]"), "contains a line break"),
    (re.compile(r"[,;]|@.*\s.*@", re.DOTALL), "is more than one address"),
    (re.compile(r"@.*@", re.DOTALL), "has two @"),
    (re.compile(r"[<>]"), "has a display name or angle brackets; only the bare address belongs here"),
    (re.compile(r'"'), "has a quoted local part, which Tocsin does not send to"),
    (re.compile(r"[()]"), "contains a comment"),
    (re.compile(r"\s"), "contains a space"),
    (re.compile(r"@\["), "has an IP address as its domain"),
)


class Address(Struct, frozen=True):
    """One valid address, in canonical form: `address` is what SMTP and headers carry."""

    address: str
    """The local part as given (NFC, RFC 6532 section 3.1) with the domain in lower case and A-labels."""
    needs_smtputf8: bool = False
    """Whether the local part is not ASCII, so that the server must offer SMTPUTF8 (RFC 6531)."""

    @property
    def key(self) -> str:
        """What two addresses are compared by. The canonical form is already that."""
        return self.address

    @property
    def domain(self) -> str:
        """The domain, in lower case and A-labels."""
        return self.address.rpartition("@")[2]

    def __str__(self) -> str:
        return self.address


def parse_address(text: str) -> Address:
    """Return the one address that `text` is. Raises AddressError with a reason in plain words.

    Nothing is looked up in the DNS. Reserved in-house names (`.test`, `.local`, `localhost`, `.invalid`) and
    domains without a dot are accepted; quoted local parts and IP literals are not.
    """
    plain = _PLAIN.fullmatch(text)
    if plain is not None and len(text) <= MAX_ADDRESS_OCTETS:
        local, domain = plain.groups()
        return Address(f"{local}@{domain.lower()}")
    return _parse_unusual(text)


def _parse_unusual(text: str) -> Address:
    problem = _common_mistake(text)
    if problem is not None:
        raise _refused(text, problem)
    local, _, domain = text.rpartition("@")
    in_house = _IN_HOUSE.search(domain)
    # The library knows no switch for these, so it is shown a name of the same shape that is not reserved.
    shown = domain if in_house is None else f"{domain[: in_house.start(1)]}x{domain[in_house.start(1) + 1 :]}"
    try:
        found = validate_email(
            f"{local}@{shown}",
            check_deliverability=False,
            globally_deliverable=False,
            test_environment=False,
            allow_smtputf8=True,
            allow_display_name=False,
            allow_quoted_local=False,
            allow_domain_literal=False,
            allow_empty_local=False,
            strict=False,
        )
    except (EmailNotValidError, ValueError) as error:
        raise _refused(text, f"is not valid: {_plain_reason(error)}") from None
    canonical = unicodedata.normalize("NFC", local)
    ascii_domain = found.ascii_domain if in_house is None else _restored(found.ascii_domain, in_house.group(1))
    if ascii_domain.rpartition(".")[2].isdigit():
        raise _refused(text, "has an IP address as its domain")
    address = f"{canonical}@{ascii_domain}"
    if len(address.encode()) > MAX_ADDRESS_OCTETS:
        raise _refused(text, f"is longer than {MAX_ADDRESS_OCTETS} octets")
    return Address(address, needs_smtputf8=not canonical.isascii())


def _common_mistake(text: str) -> str | None:
    if not text or text.isspace():
        return "is empty"
    if len(text) > MAX_ADDRESS_OCTETS:
        return f"is longer than {MAX_ADDRESS_OCTETS} octets"
    for pattern, problem in _COMMON_MISTAKES:
        if pattern.search(text):
            return problem
    return None if "@" in text else "has no @"


def _restored(shown: str, reserved: str) -> str:
    return shown[: len(shown) - len(reserved)] + reserved.lower()


def _plain_reason(error: Exception) -> str:
    reason = str(error)
    return f"{reason[:1].lower()}{reason[1:].rstrip('.')}"


def _refused(text: str, problem: str) -> AddressError:
    return AddressError(
        f"The address {shorten(text)!r} {problem}.", fix="Give exactly one address, as in name@example.org."
    )


def shorten(text: str, limit: int = 80) -> str:
    """Return `text`, cut to `limit` characters with an ellipsis, for messages and logs."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
