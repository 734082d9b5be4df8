"""What a sending profile becomes of a request and the provider's defaults, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from tocsin_console.commands.profile_tokens import is_another_cloud
from tocsin_console.reading.profile_request import (
    ProfileRequest,
    changed_draft,
    check_tokens_stay,
    new_draft,
    password_source,
    with_shared_login,
)
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.installation_settings import SharedLogin
from tocsin_schema.ledger.sending_profile_rules import (
    AskedLimits,
    Auth,
    Limits,
    PasswordSource,
    ProfileDraft,
    Tls,
    check_draft,
    checked_host,
    checked_name,
    limits_to_keep,
    password_must_be_given_again,
)
from tocsin_schema.ledger.sending_profiles import SendingDefaults

M365 = SendingDefaults(
    "microsoft365", "Microsoft 365", "smtp.office365.com", 587, "starttls", "oauth", 50, 3, 30, 10000
)
CUSTOM = SendingDefaults("custom", "Any other server", None, 587, "starttls", "none", 50, 10, None, None)
SHARED = SharedLogin("notices@example.org", UUID(int=1), b"sealed", "smtp.example.org")


def draft(request: ProfileRequest, defaults: SendingDefaults = CUSTOM) -> ProfileDraft:
    return new_draft("news", request, defaults)


def custom(**asked: object) -> ProfileDraft:
    return draft(ProfileRequest(host="smtp.example.org", from_address="news@example.org", **asked))  # pyright: ignore[reportArgumentType]  # the fields are named by the test


def test_what_is_left_out_comes_from_the_provider() -> None:
    made = draft(ProfileRequest(from_address="News@Example.ORG", oauth_profile="m365"), M365)
    assert (made.host, made.port, made.tls, made.auth) == ("smtp.office365.com", 587, Tls.STARTTLS, Auth.OAUTH)
    assert made.from_address == "News@example.org"
    assert made.login == "News@example.org"
    assert made.batch_size == 50


def test_a_provider_without_a_server_needs_one() -> None:
    with pytest.raises(UsageError, match="Give --host"):
        draft(ProfileRequest(from_address="a@example.org"))


def test_a_sender_that_is_two_addresses_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--from: .* is more than one address"):
        draft(ProfileRequest(host="h.example.org", from_address="a@example.org, b@example.org"))


@pytest.mark.parametrize(("tls", "port"), [(Tls.STARTTLS, 587), (Tls.IMPLICIT, 465), (Tls.NONE, 25)])
def test_the_port_follows_the_kind_of_tls_unless_it_is_given(tls: Tls, port: int) -> None:
    assert custom(tls=tls).port == port
    assert custom(tls=tls, port=2525).port == 2525


def test_an_oauth_profile_or_a_password_says_which_authentication_is_meant() -> None:
    assert custom(oauth_profile="sso").auth is Auth.OAUTH
    assert custom(gives_password=True).auth is Auth.BASIC
    assert custom().auth is Auth.NONE


@pytest.mark.parametrize(
    "asked",
    [
        {"oauth_profile": "sso", "gives_password": True},
        {"oauth_profile": "sso", "auth": Auth.BASIC},
        {"gives_password": True, "auth": Auth.OAUTH},
        {"gives_password": True, "auth": Auth.NONE},
    ],
)
def test_contradicting_ways_to_log_in_are_refused(asked: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        custom(**asked)


def test_a_change_leaves_what_was_not_named() -> None:
    before = custom(oauth_profile="sso", batch_size=20, tls=Tls.IMPLICIT)
    assert changed_draft(before, ProfileRequest(batch_size=30)) == replace(before, batch_size=30)


def test_changing_to_a_password_lets_go_of_the_oauth_profile() -> None:
    after = changed_draft(custom(oauth_profile="sso"), ProfileRequest(gives_password=True))
    assert (after.auth, after.oauth_profile) == (Auth.BASIC, None)


def test_oauth_without_an_oauth_profile_is_refused() -> None:
    with pytest.raises(UsageError, match="--oauth"):
        check_draft(custom(auth=Auth.OAUTH), PasswordSource.NOWHERE)


def test_basic_authentication_without_any_password_is_refused_and_both_ways_are_named() -> None:
    with pytest.raises(UsageError, match=r"--password-file.*EmailUsername and EmailPassword"):
        check_draft(custom(auth=Auth.BASIC), PasswordSource.NOWHERE)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "127.5.5.5"])
def test_credentials_without_tls_go_to_this_machine_if_that_is_said(host: str) -> None:
    made = replace(custom(auth=Auth.BASIC, tls=Tls.NONE, allow_plaintext_auth=True), host=host)
    check_draft(made, PasswordSource.OWN)


def test_credentials_without_tls_are_refused_unless_that_is_said() -> None:
    made = replace(custom(auth=Auth.BASIC, tls=Tls.NONE), host="127.0.0.1")
    with pytest.raises(UsageError, match="--allow-plaintext-auth"):
        check_draft(made, PasswordSource.OWN)


@pytest.mark.parametrize("host", ["smtp.example.org", "10.0.0.1", "localhost.example.org", "127.0.0.1.example.org"])
def test_credentials_without_tls_never_go_to_another_machine(host: str) -> None:
    made = replace(custom(auth=Auth.BASIC, tls=Tls.NONE, allow_plaintext_auth=True), host=host)
    with pytest.raises(UsageError, match="not this machine"):
        check_draft(made, PasswordSource.OWN)


def test_mail_without_tls_and_without_credentials_is_allowed() -> None:
    check_draft(custom(auth=Auth.NONE, tls=Tls.NONE), PasswordSource.NOWHERE)


def test_the_installations_password_serves_its_own_host_only() -> None:
    basic = custom(auth=Auth.BASIC)
    assert password_source(basic, has_own=False, shared=SHARED) is PasswordSource.INSTALLATION
    other = replace(basic, host="evil.example.org")
    assert password_source(other, has_own=False, shared=SHARED) is PasswordSource.NOWHERE
    assert password_source(other, has_own=True, shared=SHARED) is PasswordSource.OWN
    assert password_source(custom(), has_own=True, shared=SHARED) is PasswordSource.NOWHERE


def test_the_installations_password_comes_with_its_own_login() -> None:
    basic = custom(auth=Auth.BASIC)
    assert with_shared_login(basic, SHARED, asked_login=None).login == "notices@example.org"
    with pytest.raises(UsageError, match="EmailUsername"):
        with_shared_login(basic, SHARED, asked_login="somebody")


def test_a_stored_password_does_not_follow_to_another_host() -> None:
    before = custom(gives_password=True)
    assert password_must_be_given_again(before, replace(before, host="evil.example.org"))
    assert not password_must_be_given_again(before, replace(before, port=2525))


def test_limits_that_were_not_named_stay_and_none_takes_them_away() -> None:
    found = Limits(3, 30, 10000)
    assert limits_to_keep(AskedLimits(), found=found) == found
    assert limits_to_keep(AskedLimits(messages_per_minute=None), found=found) == Limits(3, None, 10000)
    assert limits_to_keep(AskedLimits(connections=1), found=found) == Limits(1, 30, 10000)


def test_logins_that_differ_in_case_are_one_mailbox() -> None:
    assert custom(login="News@Example.org").mailbox == custom(login="news@example.org").mailbox


@pytest.mark.parametrize("name", ["news", "m365.prod_2-a", "9"])
def test_a_plain_name_is_taken(name: str) -> None:
    assert checked_name(name, "it") == name


@pytest.mark.parametrize("name", ["", "a b", "-x", "ä", "a/b", "a\n", "x" * 65, "{{x}}", "\x1b[0m"])
def test_a_name_that_would_need_quoting_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        checked_name(name, "it")


@pytest.mark.parametrize(
    ("host", "stored"), [("SMTP.Example.org.", "smtp.example.org"), ("::1", "::1"), ("mail_1.local", "mail_1.local")]
)
def test_a_host_is_stored_in_one_form(host: str, stored: str) -> None:
    assert checked_host(host) == stored


@pytest.mark.parametrize("host", ["", "smtp://x", "x:25", "a b", "x\ny", "-x.org", "x" * 300, "[::1]", "a..b"])
def test_what_is_not_a_host_is_refused(host: str) -> None:
    with pytest.raises(UsageError):
        checked_host(host)


def test_access_tokens_do_not_follow_to_another_host_unless_that_is_said() -> None:
    before = draft(ProfileRequest(from_address="a@example.org", oauth_profile="m365"), M365)
    asked = ProfileRequest(host="other.example.org")
    with pytest.raises(UsageError, match=r"would go to other\.example\.org.*--oauth m365"):
        check_tokens_stay(before, changed_draft(before, asked), asked, usual_host=M365.host)
    for allowed in (
        replace(asked, oauth_profile="m365"),
        replace(asked, gives_password=True),
        ProfileRequest(host="SMTP.office365.com"),
        ProfileRequest(port=2525),
    ):
        check_tokens_stay(before, changed_draft(before, allowed), allowed, usual_host=M365.host)
    elsewhere = replace(before, host="other.example.org")
    home = ProfileRequest(host="smtp.office365.com")
    check_tokens_stay(elsewhere, changed_draft(elsewhere, home), home, usual_host=M365.host)


@pytest.mark.parametrize(
    ("mail_service", "token_service", "is_another"),
    [
        ("microsoft365-gcc-high", "microsoft365", True),
        ("google", "microsoft365", True),
        ("microsoft365", "microsoft365", False),
        ("microsoft365", "custom", False),
        ("custom", "microsoft365", False),
    ],
)
def test_tokens_of_another_cloud_are_told_apart(mail_service: str, token_service: str, is_another: bool) -> None:
    assert is_another_cloud(mail_service, token_service) is is_another
