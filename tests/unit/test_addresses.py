"""Exactly one address, in canonical form, or a reason in plain words."""

from __future__ import annotations

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.contract import addresses
from tocsin_schema.contract.addresses import parse_address
from tocsin_schema.errors import AddressError


def test_the_domain_is_lowered_and_the_local_part_stands_as_given():
    found = parse_address("Ada.Lovelace+News@Example.ORG")
    assert found.address == "Ada.Lovelace+News@example.org"
    assert found.key == parse_address("Ada.Lovelace+News@EXAMPLE.org").key
    assert found.key != parse_address("ada.lovelace+news@example.org").key


def test_dots_and_tags_in_a_local_part_make_another_address():
    keys = {parse_address(text).key for text in ("ab@x.org", "a.b@x.org", "a+b@x.org")}
    assert len(keys) == 3


def test_a_mailbox_name_that_the_library_would_lower_stands_as_given():
    assert parse_address("Postmaster@exämple.org").address == "Postmaster@xn--exmple-cua.org"


@pytest.mark.parametrize("text", ["a@exämple.org", "a@EXÄMPLE.org", "a@xn--exmple-cua.org"])
def test_an_international_domain_is_compared_and_sent_as_a_labels(text):
    found = parse_address(text)
    assert found.address == "a@xn--exmple-cua.org"
    assert not found.needs_smtputf8


def test_a_local_part_beyond_ascii_needs_smtputf8():
    found = parse_address("jürgen@example.org")
    assert found.needs_smtputf8
    assert found.address == parse_address("ju\u0308rgen@example.org").address


@pytest.mark.parametrize(
    "text",
    [
        "a@localhost",
        "a@mail.LOCALHOST",
        "a@dept.test",
        "a@no.invalid",
        "a@exchange.local",
        "a@example.org",
        "a@mailhost",
    ],
)
def test_names_of_in_house_systems_and_tests_are_accepted(text):
    assert parse_address(text).address == text.lower()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("ada", "has no @"),
        ("a@x.org, b@x.org", "more than one"),
        ("a@x.org;b@x.org", "more than one"),
        ("a@b@x.org", "has two @"),
        ("a@x.org b@x.org", "more than one"),
        ("Ada <a@x.org>", "display name"),
        ('"a b"@x.org', "quoted"),
        ("a(work)@x.org", "comment"),
        (" a@x.org", "space"),
        ("a@x.org\r\nBcc: b@x.org", "line break"),
        ("a@[192.0.2.1]", "IP address"),
        ("a@192.0.2.1", "IP address"),
        ("a..b@x.org", "periods"),
        ("a@-x.org", "hyphen"),
        ("a@x_y.org", "'_'"),
        ("a@hidden.onion", "reserved"),
        ("@x.org", "before the @"),
        ("a@", "after the @"),
        ("a" * 250 + "@x.org", "254 octets"),
        ("ü" * 126 + "@x.org", "long"),
        ("a@\ud800.org", "not valid"),
        ("a\0@x.org", "not valid"),
    ],
)
def test_what_is_not_exactly_one_address_is_refused_with_a_plain_reason(text, reason):
    with pytest.raises(AddressError, match=reason):
        parse_address(text)


_ATOM = st.text("abcXYZ019!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=30)
_LABEL = st.text("abcXYZ019-", min_size=1, max_size=20)
_PLAUSIBLE = st.builds(
    lambda local, labels: f"{'.'.join(local)}@{'.'.join(labels)}",
    st.lists(_ATOM, min_size=1, max_size=4),
    st.lists(
        st.one_of(_LABEL, st.sampled_from(["org", "test", "arpa", "onion", "localhost", "xn--a"])),
        min_size=1,
        max_size=6,
    ),
)


@given(st.one_of(_PLAUSIBLE, st.text(max_size=60)))
def test_the_fast_path_accepts_only_what_the_library_accepts_and_gives_the_same(text):
    plain = addresses._PLAIN.fullmatch(text)
    if plain is None or len(text) > addresses.MAX_ADDRESS_OCTETS:
        return
    domain = text.rpartition("@")[2]
    if addresses._IN_HOUSE.search(domain):
        text = f"{text}.example"
    found = validate_email(text, check_deliverability=False, allow_smtputf8=False)
    mine = parse_address(text)
    assert found.ascii_domain == mine.domain
    # The library lowers names like Postmaster; we leave every local part as it stands.
    assert found.local_part.lower() == mine.address.rpartition("@")[0].lower()


@given(st.one_of(_PLAUSIBLE, st.text(max_size=300), st.text('a@.-,ü\r\n<>"( [', max_size=40)))
def test_any_text_gives_an_address_or_an_address_error(text):
    try:
        found = parse_address(text)
    except AddressError:
        return
    assert parse_address(found.address) == found
    assert found.domain.isascii()
    assert len(found.address.encode()) <= 254


@given(_PLAUSIBLE)
def test_what_the_library_accepts_is_not_refused(text):
    try:
        validate_email(text, check_deliverability=False)
    except EmailNotValidError:
        return
    parse_address(text)
