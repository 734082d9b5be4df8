"""Credentials and SASL."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest

from tocsin_workers.smtp.credentials import (
    BasicCredentials,
    NoCredentials,
    OAuthCredentials,
    decoded_challenge,
    oauthbearer,
    plain,
    secrets_of,
    without_secrets,
    xoauth2,
)

OAUTH = OAuthCredentials("me@x.test", "token-1")
BASIC = BasicCredentials("me", "pass-word-1")


def test_xoauth2_is_as_microsoft_and_google_write_it():
    assert b64decode(xoauth2(OAUTH)) == b"user=me@x.test\x01auth=Bearer token-1\x01\x01"


def test_oauthbearer_is_as_rfc_7628_writes_it():
    blob = oauthbearer(OAuthCredentials("m,e=@x", "t"), host="mail.x", port=587)
    assert b64decode(blob) == b"n,a=m=2Ce=3D@x,\x01host=mail.x\x01port=587\x01auth=Bearer t\x01\x01"


def test_plain_is_as_rfc_4616_writes_it():
    assert b64decode(plain(BASIC)) == b"\0me\0pass-word-1"


@pytest.mark.parametrize("credentials", [OAUTH, BASIC])
def test_a_repr_shows_the_user_and_no_secret(credentials):
    shown = f"{credentials!r} {credentials} {[credentials]}"
    assert "me" in shown
    for secret in secrets_of(credentials):
        assert secret not in shown


def test_an_echoed_secret_is_masked_in_every_form():
    said = f"cannot read {plain(BASIC).decode()} nor {BASIC.password}"
    assert without_secrets(said, secrets_of(BASIC)) == "cannot read ******** nor ********"
    assert secrets_of(NoCredentials()) == ()


def test_a_piece_of_an_echoed_secret_is_masked_too():
    credentials = OAuthCredentials("me@x.test", "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.payload")
    blob = xoauth2(credentials).decode()
    said = f"500 5.5.2 unrecognized command: AUTH XOAUTH2 {blob[:40]}... at session 4711.smtp.example.test"
    assert without_secrets(said, secrets_of(credentials)) == (
        "500 5.5.2 unrecognized command: AUTH XOAUTH2 ******** at session 4711.smtp.example.test"
    )


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (b64encode(b'{"status":"401"}').decode(), '{"status":"401"}'),
        (b64encode(b"\x1b[2J\xff").decode(), "\ufffd[2J\ufffd"),
        ("", None),
        ("not base64!", None),
        ("A", None),
        ("A" * 20000, None),
    ],
)
def test_a_challenge_is_decoded_or_dropped(text, detail):
    assert decoded_challenge(text) == detail
