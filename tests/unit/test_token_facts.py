"""What an access token says of itself."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tocsin_workers.tokens.token_facts import MAX_TEXT, MAX_VALUES, TokenFacts, read_token_facts

KEY = "a key of at least 32 octets, as HS256 wants"


def a_token(claims: dict[str, Any]) -> SecretStr:
    return SecretStr(jwt.encode(claims, KEY, algorithm="HS256"))


def with_payload(payload: bytes) -> SecretStr:
    parts = (b'{"alg":"none"}', payload, b"signature")
    return SecretStr(".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts))


def test_an_applications_token_tells_its_roles_and_whose_it_is():
    facts = read_token_facts(
        a_token(
            {
                "aud": "https://outlook.office365.com", "roles": ["SMTP.SendAsApp"], "tid": "t", "appid": "a",
                "oid": "o", "exp": 1_795_000_000,
            }
        )
    )  # fmt: skip
    assert facts is not None
    assert facts == TokenFacts(
        audience=("https://outlook.office365.com",),
        roles=("SMTP.SendAsApp",),
        tenant="t",
        application="a",
        object_id="o",
        expires_at=datetime.fromtimestamp(1_795_000_000, UTC),
    )
    assert not facts.is_delegated


def test_a_persons_token_tells_its_scopes_and_the_person():
    facts = read_token_facts(a_token({"scp": "SMTP.Send  User.Read", "upn": "ada@campus.example", "azp": "a"}))
    assert facts is not None
    assert facts == TokenFacts(scopes=("SMTP.Send", "User.Read"), user="ada@campus.example", application="a")
    assert facts.is_delegated


def test_an_expired_token_of_an_unknown_key_is_read_all_the_same():
    facts = read_token_facts(a_token({"exp": 1, "nbf": 99_999_999_999, "aud": ["x", "y"]}))
    assert facts is not None
    assert facts.audience == ("x", "y")


@pytest.mark.parametrize(
    "text", ["", "ya29.a0AfH6SNotAJwt", "EwB4A8l6BAAU", "a.b.c", "....", "ü.ü.ü", "x" * 100_000, "\ud800.a.b"]
)
def test_what_is_no_jwt_tells_nothing(text: str):
    assert read_token_facts(SecretStr(text)) is None


@pytest.mark.parametrize("payload", [b"[]", b"5", b"{", b"\xff", b"[" * 5000, b'{"exp":' + b"9" * 5000 + b"}"])
def test_a_jwt_of_nonsense_tells_nothing(payload: bytes):
    assert read_token_facts(with_payload(payload)) is None


@pytest.mark.parametrize("exp", ["1e999", "-1e300", "NaN", "true", '"soon"', "9" * 40])
def test_an_impossible_expiry_is_left_out(exp: str):
    facts = read_token_facts(with_payload(f'{{"exp": {exp}, "tid": "t"}}'.encode()))
    assert facts == TokenFacts(tenant="t")


def test_claims_are_bounded_and_cannot_steer_a_terminal():
    facts = read_token_facts(a_token({"tid": "\x1b[2J" + "t" * 5000, "roles": ["r"] * 200}))
    assert facts is not None
    assert facts.tenant is not None
    assert facts.tenant.isprintable()
    assert len(facts.tenant) == MAX_TEXT
    assert len(facts.roles) == MAX_VALUES


def test_no_piece_of_the_token_shows_in_the_facts():
    token = a_token({"tid": "t", "secret-claim": "do-not-show"})
    assert "do-not-show" not in repr(read_token_facts(token))
    assert token.get_secret_value() not in repr(read_token_facts(token))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
CLAIMS = ["aud", "roles", "scp", "scope", "tid", "appid", "azp", "oid", "upn", "exp", "iat"]


@given(st.dictionaries(st.sampled_from(CLAIMS), json_values))
def test_claims_of_any_type_are_taken_or_left(claims: dict[str, Any]):
    facts = read_token_facts(with_payload(json.dumps(claims).encode()))
    assert facts is not None
    assert all(isinstance(value, str) for value in (*facts.audience, *facts.roles, *facts.scopes))
