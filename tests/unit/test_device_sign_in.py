"""What the answers of a device sign-in mean."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import an_oauth_profile
from tocsin_schema.errors import TokenError
from tocsin_workers.tokens.device_sign_in import (
    DEFAULT_EXPIRES_IN_SECONDS,
    DEFAULT_INTERVAL_SECONDS,
    MAX_INTERVAL_SECONDS,
    DeviceCode,
    Undecided,
    account_of,
    read_device_code,
    read_sign_in,
    read_undecided,
)
from tocsin_workers.tokens.endpoint import device_endpoint
from tocsin_workers.tokens.refusals import Refusal

PROFILE = an_oauth_profile(provider="custom", scope="mail.send", device_endpoint="https://id.example/{tenantId}/device")
GOOD = {
    "device_code": "d3vice",
    "user_code": "BCDF-GHJK",
    "verification_uri": "https://id.example/device",
    "expires_in": 900,
    "interval": 7,
}


def test_a_device_code_is_read_and_does_not_show():
    code = read_device_code(PROFILE, GOOD)
    assert (code.user_code, code.verification_uri) == ("BCDF-GHJK", "https://id.example/device")
    assert (code.expires_in_seconds, code.interval_seconds) == (900, 7)
    assert code.device_code.get_secret_value() == "d3vice"
    assert "d3vice" not in repr(code)


@pytest.mark.parametrize(
    ("told", "interval"),
    [("3", 3), (0, 1), (-5, 1), (10**9, MAX_INTERVAL_SECONDS), (float("inf"), MAX_INTERVAL_SECONDS)]
    + [(wrong, DEFAULT_INTERVAL_SECONDS) for wrong in (None, "soon", [], float("nan"))],
)
def test_times_are_bounded_and_have_defaults(told: object, interval: float):
    assert read_device_code(PROFILE, {**GOOD, "interval": told}).interval_seconds == interval


def test_an_endpoint_that_does_not_tell_times_gets_the_usual_ones():
    code = read_device_code(PROFILE, {name: GOOD[name] for name in ("device_code", "user_code", "verification_uri")})
    assert code.expires_in_seconds == DEFAULT_EXPIRES_IN_SECONDS
    assert code.interval_seconds == DEFAULT_INTERVAL_SECONDS


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device_code", None),
        ("device_code", ""),
        ("device_code", {"a": 1}),
        ("device_code", "d" * 20_000),
        ("user_code", "\x1b[2J"),
        ("user_code", "A\u202eB"),
        ("user_code", "A" * 65),
        ("user_code", " "),
        ("verification_uri", "http://id.example/device"),
        ("verification_uri", "javascript:alert(1)"),
        ("verification_uri", "https://id.example/a b"),
        ("verification_uri", "https://ïd.example/"),
        ("verification_uri", "https://id.example/" + "a" * 300),
        ("verification_uri", 7),
    ],
)
def test_what_a_person_could_not_or_should_not_use_is_refused(field: str, value: object):
    with pytest.raises(TokenError, match="nobody could sign in with what came"):
        read_device_code(PROFILE, {**GOOD, field: value})


@given(
    st.dictionaries(st.sampled_from(sorted(GOOD)), st.none() | st.integers() | st.floats() | st.text() | st.binary())
)
def test_no_answer_raises_anything_but_a_token_error(answer: dict[str, object]):
    for content in (answer, {**GOOD, **answer}):
        with contextlib.suppress(TokenError):
            assert isinstance(read_device_code(PROFILE, content), DeviceCode)


@pytest.mark.parametrize(
    ("error", "description", "meaning"),
    [
        ("authorization_pending", "AADSTS70016: pending", Undecided.PENDING),
        ("slow_down", "", Undecided.SLOW_DOWN),
        ("access_denied", "", Undecided.DECLINED),
        ("authorization_declined", "AADSTS70017: declined", Undecided.DECLINED),
        ("expired_token", "", Undecided.EXPIRED),
        ("bad_verification_code", "", Undecided.EXPIRED),
        ("invalid_grant", "AADSTS70020: The provided value for 'device_code' has expired.", Undecided.EXPIRED),
        ("invalid_grant", "AADSTS70019: Verification code expired.", Undecided.EXPIRED),
        ("invalid_grant", "grant request is invalid", None),
        ("invalid_client", "AADSTS7000218: no secret", None),
    ],
)
def test_pending_declined_and_expired_are_told_from_refusals(error: str, description: str, meaning: Undecided | None):
    assert read_undecided(Refusal(error, description)) is meaning


def test_a_sign_in_without_a_refresh_token_names_the_scope():
    with pytest.raises(TokenError, match=r"--scope 'mail\.send offline_access'") as caught:
        read_sign_in(PROFILE, {"access_token": "t", "expires_in": 60})
    assert caught.value.permanent


def test_a_sign_in_keeps_what_the_endpoint_told():
    claims = {"sub": "7", "preferred_username": "alerts@campus.example"}
    id_token = jwt.encode(claims, "k" * 32, algorithm="HS256")
    answer = {"access_token": "t", "refresh_token": "r3fresh", "refresh_expires_in": 3600, "id_token": id_token}
    signed_in = read_sign_in(PROFILE, answer)
    assert signed_in.refresh_token.get_secret_value() == "r3fresh"
    assert signed_in.refresh_lifetime_seconds == 3600
    assert signed_in.account == "alerts@campus.example"
    assert "r3fresh" not in repr(signed_in)


@pytest.mark.parametrize(
    ("claims", "account"),
    [
        ({"preferred_username": "a@x.example", "email": "b@x.example"}, "a@x.example"),
        ({"preferred_username": "", "email": "b@x.example", "upn": "c@x.example"}, "b@x.example"),
        ({"upn": "c@x.example"}, "c@x.example"),
        ({"sub": "7"}, None),
        ({"email": ["b@x.example"]}, None),
        ({"email": "b\x1b[2J@x.example"}, None),
        ({"email": "b" * 400}, None),
    ],
)
def test_the_account_is_the_first_name_that_can_be_shown(claims: dict[str, object], account: str | None):
    assert account_of(jwt.encode(claims, "k" * 32, algorithm="HS256")) == account


@pytest.mark.parametrize("id_token", [None, 7, "", "a.b", "a.b.c", "é.é.é", "eyJhbGciOiJub25lIn0.W10.", "." * 9])
def test_an_id_token_that_is_none_tells_no_account(id_token: object):
    assert account_of(id_token) is None


def test_the_device_endpoint_has_its_tenant_filled_in_and_must_be_https():
    assert device_endpoint(PROFILE) == f"https://id.example/{PROFILE.tenant_id}/device"
    for address in (None, "http://id.example/device"):
        with pytest.raises(TokenError, match="tocsin oauth set campus --device-endpoint URL") as caught:
            device_endpoint(replace(PROFILE, device_endpoint=address))
        assert caught.value.permanent
