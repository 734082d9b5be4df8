"""What a token endpoint's address, answers and refusals mean."""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import TENANT, an_oauth_profile
from tocsin_schema.errors import TokenError
from tocsin_workers.tokens.endpoint import token_endpoint
from tocsin_workers.tokens.grants import grant_of, subject_of
from tocsin_workers.tokens.grants.seam import read_token_answer
from tocsin_workers.tokens.refusals import (
    Refusal,
    cause_of,
    not_an_answer,
    read_refusal,
    read_retry_after,
    reason_of,
    refused,
    too_late,
    unavailable,
    unreachable,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECRET = "s3cret~Value/with+signs"
PROFILE = an_oauth_profile()
MACHINE = replace(PROFILE, grant_type="managed_identity", client_id=None, secret_set_at=None)


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


def raised(error: Exception, behind: BaseException) -> Exception:
    """Give an error as an HTTP client raises it: the reason stands two steps behind."""
    wrapped = OSError("All connection attempts failed")
    wrapped.__cause__ = behind
    error.__cause__ = wrapped
    return error


def untrusted(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, f"[SSL: CERTIFICATE_VERIFY_FAILED] {message} (_ssl.c:1006)")
    error.verify_code, error.verify_message = code, message
    return error


REFUSED = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")
SET_ENDPOINT = "`tocsin oauth set campus --token-endpoint URL`"


@pytest.mark.parametrize(
    ("behind", "reason", "fix"),
    [
        (REFUSED, "connection refused", SET_ENDPOINT),
        (ExceptionGroup("several", [REFUSED, REFUSED]), "connection refused", SET_ENDPOINT),
        (socket.gaierror(-2, "Name or service not known"), "its name is not known here (Name or", SET_ENDPOINT),
        (OSError(113, "No route to host"), "No route to host", SET_ENDPOINT),
        (untrusted(62, "Hostname mismatch, not valid for 'x'."), "its certificate is for another name", SET_ENDPOINT),
        (untrusted(10, "certificate has expired"), "its certificate has expired", "renewed"),
        (
            untrusted(19, "self-signed certificate in certificate chain"),
            "its certificate is not signed by an authority that we trust",
            "`tocsin oauth set campus --ca-file FILE`",
        ),
        (ssl.SSLError(1, "wrong version number"), "TLS failed", SET_ENDPOINT),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_endpoint_out_of_reach_is_told_in_plain_words_with_the_command(behind: BaseException, reason: str, fix: str):
    told = unreachable(PROFILE, reason_of(raised(httpx.ConnectError("All connection attempts failed"), behind)))
    assert f"login.microsoftonline.com cannot be reached: {reason}" in told.problem
    assert fix in str(told.fix)
    assert not told.permanent
    assert "_ssl.c" not in str(told)
    assert "attempts failed" not in str(told)


def test_what_has_no_reason_behind_it_is_told_as_it_is():
    assert reason_of(httpx.RemoteProtocolError("Server disconnected")) == "Server disconnected"
    assert reason_of(httpx.ReadError("")) == "ReadError"


def test_an_answer_that_is_not_oauths_names_the_command_that_corrects_the_address():
    assert SET_ENDPOINT in str(not_an_answer(PROFILE, 404).fix)


@pytest.mark.parametrize(
    "told",
    [
        not_an_answer(MACHINE, 403),
        unavailable(MACHINE, 404, None),
        unreachable(MACHINE, "connection refused"),
        too_late(MACHINE, 8),
    ],
    ids=["forbidden", "not found", "nobody there", "silence"],
)
def test_a_machine_without_an_identity_is_told_to_choose_another_grant_or_to_get_one(told: TokenError):
    assert "Identity, System assigned" in str(told.fix)
    assert "`tocsin oauth set campus --grant workload_identity --client-id ID`" in str(told.fix)


def test_the_address_that_was_asked_for_a_machines_identity_is_named():
    told = not_an_answer(MACHINE, 403)
    assert "this machine seems to have no managed identity: 169.254.169.254" in told.problem
    assert told.permanent
    assert cause_of(MACHINE, "", told.problem) == "no_identity"
    assert "127.0.0.1:41 does not answer" in not_an_answer(MACHINE, 403, asked="127.0.0.1:41").problem


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
