"""Options that several commands share are said once, and contradicting ones are refused."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest
import typer.main

from tocsin_console.commands import oauth, profile
from tocsin_console.commands.oauth_options import OAuthOptions, read_request
from tocsin_console.commands.profile_options import Provider
from tocsin_console.reading.oauth_rules import Proof
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.oauth_providers import OAuthProvider


def test_every_command_about_tokens_takes_the_same_options() -> None:
    shared = {field.name for field in fields(OAuthOptions)}
    for command in (oauth.add, oauth.change, profile.add):
        assert shared <= set(inspect.signature(command).parameters)


def test_files_say_which_secrets_come_along() -> None:
    options = OAuthOptions(client_secret_file="-", certificate_file="x")
    assert options.gives == {Proof.CLIENT_SECRET, Proof.PRIVATE_KEY}


def test_options_that_were_given_are_known_by_their_flags() -> None:
    assert OAuthOptions().flags == []
    assert OAuthOptions(client_id="x", scope="").flags == ["--scope", "--client-id"]
    add: Any = typer.main.get_command(oauth.app).commands["add"]  # pyright: ignore[reportAttributeAccessIssue]  # a group
    every: dict[str, Any] = {field.name: "x" for field in fields(OAuthOptions)}
    assert set(OAuthOptions(**every).flags) <= {flag for parameter in add.params for flag in parameter.opts}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"service_account_file": "sa.json", "client_id": "x"}, "--client-id"),
        ({"service_account_file": "sa.json", "private_key_file": "x"}, "--private-key-file"),
        ({"certificate_password_file": "-"}, "--certificate-file"),
        ({"secret_expires": "soon"}, "--secret-expires"),
        ({"service_account_file": "/nowhere/sa.json"}, "cannot be read"),
        ({"service_account_file": "\0"}, "cannot be read"),
        ({"service_account_file": "/dev/zero"}, "longer than"),
    ],
)
def test_options_that_contradict_or_lead_nowhere_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_request(OAuthOptions(**options), ca_file=None)


def test_the_date_of_a_secrets_end_can_be_taken_away() -> None:
    assert read_request(OAuthOptions(secret_expires="none"), ca_file=None).forget_secret_expiry


def test_every_mail_service_but_amazons_has_tokens() -> None:
    assert {p.oauth for p in Provider if p is not Provider.SES} == set(OAuthProvider)
    with pytest.raises(UsageError, match="--password-file"):
        _ = Provider.SES.oauth
