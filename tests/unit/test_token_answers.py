"""What a token endpoint's address, answers and refusals mean."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import TENANT, an_oauth_profile
from tocsin_schema.errors import TokenError
from tocsin_workers.tokens.endpoint import token_endpoint
from tocsin_workers.tokens.grants import grant_of, subject_of
from tocsin_workers.tokens.grants.seam import read_token_answer
from tocsin_workers.tokens.refusals import Refusal, read_refusal, read_retry_after, refused, unreachable

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECRET = "s3cret~Value/with+signs"
PROFILE = an_oauth_profile()


def test_the_tenant_id_is_filled_in():
    assert token_endpoint(PROFILE) == f"https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token"
    plain = replace(PROFILE, token_endpoint="https://id.example/token", tenant_id=None)
    assert token_endpoint(plain) == "https://id.example/token"


def test_a_missing_tenant_id_names_the_command_that_sets_it():
    with pytest.raises(TokenError, match="tocsin oauth set campus --tenant-id") as caught:
        token_endpoint(replace(PROFILE, tenant_id=None))
    assert caught.value.permanent


@pytest.mark.parametrize("tenant_id", ["../evil", "a/b", "a b", "a@b", "a?b", "{tenantId}", "é", "x" * 200])
def test_a_tenant_id_cannot_lead_elsewhere(tenant_id: str):
    with pytest.raises(TokenError, match="tenant id is malformed"):
        token_endpoint(replace(PROFILE, tenant_id=tenant_id))


@pytest.mark.parametrize(
    "address",
    [
        "http://id.example/token",
        "id.example/token",
        "https://",
        "https://u:p@id.example/",
        "https://id/{other}",
        "https://[/",
        "https://id:port/",
    ],
)
def test_an_address_that_is_not_https_is_refused(address: str):
    with pytest.raises(TokenError, match="not an https address") as caught:
        token_endpoint(replace(PROFILE, token_endpoint=address))
    assert caught.value.permanent


def test_a_refusal_says_in_plain_words_what_is_wrong_who_says_so_and_how_to_mend_it():
    description = "AADSTS7000222: The provided client secret keys are expired."
    told = refused(PROFILE, Refusal("invalid_client", description), (SECRET,))
    assert told.permanent
    assert (told.code, told.cause) == ("AADSTS7000222", "secret_expired")
    assert told.problem == (
        "OAuth profile campus: the client secret has expired (login.microsoftonline.com says invalid_client:"
        " AADSTS7000222: The provided client secret keys are expired)."
    )
    assert "`tocsin oauth replace-secret campus`" in str(told.fix)


def test_without_a_code_of_microsofts_the_oauth_error_is_the_code():
    assert refused(PROFILE, Refusal("invalid_scope", ""), ()).code == "invalid_scope"


def test_a_refusal_by_which_the_endpoint_blames_itself_is_not_permanent_and_asks_nobody_to_do_anything():
    for refusal in (
        Refusal("temporarily_unavailable", ""),
        Refusal("invalid_request", "AADSTS90033: A transient error."),
    ):
        told = refused(PROFILE, refusal, (SECRET,))
        assert (told.permanent, told.fix) == (False, None)


def test_trace_ids_are_dropped_and_the_code_is_kept():
    description = (
        "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 0f-aa\r\nCorrelation ID: 1e-bb\r\nTimestamp: 2026"
    )
    told = str(refused(PROFILE, Refusal("invalid_client", description), (SECRET,)))
    assert "AADSTS7000215: Invalid client secret provided" in told
    assert not any(trace in told for trace in ("0f-aa", "1e-bb", "2026", "\r", "\n"))


@pytest.mark.parametrize("echo", [SECRET, "s3cret~Value%2Fwith%2Bsigns"])
def test_an_echoed_secret_is_masked(echo: str):
    told = str(refused(PROFILE, Refusal(f"bad_{echo}", f"your secret {echo} is wrong"), (SECRET,)))
    assert echo not in told
    assert "s3cret" not in told


@given(error=st.text(), description=st.text())
def test_any_refusal_becomes_one_bounded_printable_line(error: str, description: str):
    told = str(refused(PROFILE, read_refusal({"error": error, "error_description": description}), (SECRET,)))
    assert told.isprintable()
    assert len(told) < 1000


def test_an_untrusted_certificate_names_the_option_for_ones_own():
    told = unreachable(PROFILE, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")
    assert "--ca-file" in str(told)
    assert not told.permanent


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 7 ", 7),
        ("-5", None),
        ("soon", None),
        ("999999999", 3600),
        ("Sat, 21 Nov 2026 12:01:00 GMT", 60),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(value: str | None, seconds: float | None):
    assert read_retry_after(value, now=NOW) == seconds


@given(st.text())
def test_any_retry_after_is_read_or_passed_over(value: str):
    wait = read_retry_after(value, now=NOW)
    assert wait is None or 0 <= wait <= 3600


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [(3599, 3599), ("3599", 3599), (None, 300), (1e12, 86400), (30.5, 30.5)],
)
def test_a_tokens_life_is_read_and_bounded(expires_in: object, lifetime: float):
    answer = {"access_token": "abc", "token_type": "Bearer", "expires_in": expires_in}
    obtained = read_token_answer(PROFILE, answer)
    assert obtained.lifetime_seconds == lifetime
    assert "abc" not in repr(obtained)


@pytest.mark.parametrize("expires_in", [0, -1, "soon", "nan", [], {}])
def test_a_token_without_life_is_refused(expires_in: object):
    with pytest.raises(TokenError, match="has no life left"):
        read_token_answer(PROFILE, {"access_token": "abc", "expires_in": expires_in})


@pytest.mark.parametrize("token", [None, "", 7, ["abc"], "a\x01b", "a\r\nb", "ä", "a" * 20_000])
def test_a_token_that_could_break_out_of_a_command_is_refused(token: object):
    with pytest.raises(TokenError) as caught:
        read_token_answer(PROFILE, {"access_token": token, "expires_in": 60})
    assert not isinstance(token, str) or not token or token not in str(caught.value)


def test_a_token_of_another_kind_is_refused():
    with pytest.raises(TokenError, match="not a bearer token"):
        read_token_answer(PROFILE, {"access_token": "abc", "token_type": "mac"})


def test_a_grant_that_the_provider_lacks_is_told_with_those_that_it_has():
    with pytest.raises(TokenError, match="managed_identity of provider custom is not supported") as caught:
        grant_of(replace(PROFILE, provider="custom", grant_type="managed_identity"))
    assert caught.value.permanent
    assert "client_credentials, jwt_bearer, device_code, refresh_token" in str(caught.value.fix)


def test_an_applications_token_is_shared_by_its_mailboxes():
    assert subject_of(PROFILE, "a@campus.example") == subject_of(PROFILE, "b@campus.example") == ""
