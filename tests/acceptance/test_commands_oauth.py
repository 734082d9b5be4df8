"""`tocsin oauth`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.servers.oauth_server_keys import new_key, private_pem, self_signed_certificate

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.command_line import CommandLine


GUID = "8f7c1a52-3b0d-4f6e-9a41-0c2d5e7b9a10"
SECRET = "s3cr3t~client~value"
SSO = ("--provider", "custom", "--token-endpoint", "https://sso.example.org/token", "--client-id", "tocsin")
M365 = ("--provider", "microsoft365", "--tenant-id", GUID, "--client-id", GUID)


NEWS = ("--provider", "custom", "--host", "smtp.example.org", "--from", "news@example.org")


def shown(tocsin: CommandLine, name: str) -> dict[str, Any]:
    return tocsin.ok("oauth", "show", name, "--json").json


def write(directory: Path, name: str, content: str) -> str:
    file = directory / name
    file.write_text(content)
    return str(file)


def add(tocsin: CommandLine, name: str = "sso", flags: tuple[str, ...] = SSO) -> None:
    tocsin.ok("oauth", "add", name, *flags, "--client-secret-file", "-", stdin=SECRET.encode())


def test_a_microsoft_profile_takes_the_rest_from_its_provider(tocsin: CommandLine) -> None:
    add(tocsin, "m365", M365)
    shown = tocsin.ok("oauth", "show", "m365", "--json").json
    assert shown["grant"] == "client_credentials"
    assert shown["token_endpoint"] == "https://login.microsoftonline.com/{tenantId}/oauth2/v2.0/token"
    assert shown["scope"] == "https://outlook.office365.com/.default"
    assert shown["secret_is_set"] is True


def test_the_secret_is_sealed_and_no_command_shows_it(tocsin: CommandLine) -> None:
    add(tocsin)
    ((sealed,),) = tocsin.rows("SELECT sealed_client_secret FROM oauth_profiles")
    assert SECRET.encode() not in bytes(sealed)
    for command in (("show", "sso"), ("show", "sso", "--json"), ("list",), ("list", "--json"), ("add", "sso", *SSO)):
        outcome = tocsin("oauth", *command, stdin=SECRET.encode())
        assert SECRET not in outcome.out + outcome.errors
        assert bytes(sealed).hex() not in outcome.out


def test_a_profile_that_cannot_work_is_refused_and_nothing_is_written(tocsin: CommandLine) -> None:
    for flags, told in [
        (("--provider", "microsoft365", "--tenant-id", "contoso", "--client-id", GUID), "GUID"),
        (("--provider", "microsoft365", "--client-id", GUID), "--tenant-id"),
        (("--provider", "custom", "--client-id", "x"), "--token-endpoint"),
        (("--provider", "custom", "--client-id", "x", "--token-endpoint", "http://sso.example.org"), "https"),
        (("--provider", "google", "--client-id", "x"), "--service-account-file"),
        (("--provider", "microsoft365", "--grant", "managed_identity"), "--client-secret-file"),
        ((*M365, "--grant", "jwt_bearer"), "no grant jwt_bearer"),
        ((*SSO, "--grant", "device_code"), "--device-endpoint"),
        ((*SSO, "--user", "news@example.org"), "--refresh-token-file"),
        ((*SSO, "--secret-expires", "soon"), "--secret-expires"),
        (("--provider", "yahoo", "--client-id", "x"), "microsoft365"),
    ]:
        outcome = tocsin("oauth", "add", "x", *flags, "--client-secret-file", "-", stdin=SECRET.encode())
        assert outcome.code == 2, flags
        assert told in outcome.errors
    assert tocsin.rows("SELECT name FROM oauth_profiles") == []


def test_a_name_that_is_taken_is_refused(tocsin: CommandLine) -> None:
    add(tocsin)
    outcome = tocsin("oauth", "add", "sso", *SSO, "--client-secret-file", "-", stdin=b"x")
    assert outcome.code == 2
    assert "'sso' already" in outcome.errors


def test_an_empty_or_long_secret_is_refused(tocsin: CommandLine) -> None:
    for secret in (b"", b"\n", b"a\nb", b"x" * 70_000, b"\xff"):
        outcome = tocsin("oauth", "add", "x", *SSO, "--client-secret-file", "-", stdin=secret)
        assert outcome.code == 2
        assert "Traceback" not in outcome.errors


def test_a_change_leaves_the_rest_and_another_host_needs_the_secret_again(tocsin: CommandLine) -> None:
    add(tocsin)
    tocsin.ok("oauth", "set", "sso", "--scope", "mail")
    shown = tocsin.ok("oauth", "show", "sso", "--json").json
    assert (shown["scope"], shown["client_id"]) == ("mail", "tocsin")
    moved = ("oauth", "set", "sso", "--token-endpoint", "https://other.example.org/token")
    refused = tocsin(*moved)
    assert refused.code == 2
    assert "--client-secret-file" in refused.errors
    tocsin.ok(*moved, "--client-secret-file", "-", stdin=b"another")
    assert tocsin.ok("oauth", "show", "sso", "--json").json["token_endpoint"] == "https://other.example.org/token"
    assert tocsin("oauth", "set", "sso").code == 2


def test_replacing_the_secret_seals_another_with_an_end_of_its_own(tocsin: CommandLine) -> None:
    add(tocsin, flags=(*SSO, "--secret-expires", "2090-01-01"))
    before = tocsin.rows("SELECT sealed_client_secret FROM oauth_profiles")
    replace = ("oauth", "replace-secret", "sso", "--client-secret-file", "-")
    assert "--secret-expires" in tocsin.ok(*replace, stdin=b"another").errors
    assert tocsin.rows("SELECT sealed_client_secret FROM oauth_profiles") != before
    assert shown(tocsin, "sso")["secret_expires_at"] is None
    expired = tocsin.ok(*replace, "--secret-expires", "2026-01-01", stdin=b"another")
    assert "expired 2026-01-01" in expired.errors
    assert "expired 2026-01-01" in tocsin.ok("oauth", "list").out


def test_a_corrected_secret_lets_go_on_who_was_paused_for_it_and_nobody_else(tocsin: CommandLine) -> None:
    add(tocsin)
    for name, cause in (("refused", "credentials"), ("by-hand", "by_hand")):
        tocsin.ok("profile", "add", name, *NEWS, "--oauth", "sso")
        tocsin.rows(
            "UPDATE sending_profiles SET paused_at = now(), paused_reason = 'x', pause_cause = %s WHERE name = %s",
            cause, name,
        )  # fmt: skip
    done = tocsin.ok("oauth", "replace-secret", "sso", "--client-secret-file", "-", stdin=b"another")
    assert "going on: refused." in done.errors
    assert tocsin.rows("SELECT name FROM sending_profiles WHERE paused_at IS NOT NULL") == [("by-hand",)]


def test_what_needs_no_secret_asks_for_none(tocsin: CommandLine) -> None:
    tocsin.ok("oauth", "add", "machine", "--provider", "microsoft365", "--grant", "managed_identity")
    tocsin.ok("oauth", "add", "pod", *M365, "--grant", "workload_identity", "--token-file", "/var/run/token")
    person = tocsin.ok("oauth", "add", "person", *M365, "--grant", "device_code")
    assert "tocsin oauth acquire person" in person.errors
    assert shown(tocsin, "person")["scope"] == "https://outlook.office.com/SMTP.Send"
    assert shown(tocsin, "pod")["token_file"] == "/var/run/token"
    assert [line["credential"] for line in tocsin.ok("oauth", "list", "--json").lines] == [
        "managed_identity", None, "workload_identity",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "host"),
    [
        ("microsoft365-gcc-high", "https://login.microsoftonline.us/"),
        ("microsoft365-dod", "https://login.microsoftonline.us/"),
        ("microsoft365-china", "https://login.partner.microsoftonline.cn/"),
    ],
)
def test_each_national_cloud_has_its_own_endpoint(tocsin: CommandLine, provider: str, host: str) -> None:
    tocsin.ok("oauth", "add", "x", *M365[2:], "--provider", provider, "--client-secret-file", "-", stdin=b"x")
    assert shown(tocsin, "x")["token_endpoint"].startswith(host)


def test_a_certificate_is_stored_with_its_end_and_its_key_sealed(tocsin: CommandLine, tmp_path: Path) -> None:
    first, second = self_signed_certificate(), self_signed_certificate()
    both = write(tmp_path, "both.pem", first.private_key_pem + first.certificate_pem)
    tocsin.ok("oauth", "add", "m365", *M365, "--certificate-file", both)
    ((sealed, pem),) = tocsin.rows("SELECT sealed_private_key, certificate_pem FROM oauth_profiles")
    assert b"PRIVATE" not in bytes(sealed)
    assert pem == first.certificate_pem
    assert f"{first.not_after.date()} (in " in tocsin.ok("oauth", "list").out
    certificate = write(tmp_path, "cert.pem", second.certificate_pem)
    key = write(tmp_path, "key.pem", second.private_key_pem)
    wrong = tocsin("oauth", "set", "m365", "--certificate-file", certificate, "--private-key-file", both)
    assert "do not belong together" in wrong.errors
    tocsin.ok("oauth", "set", "m365", "--certificate-file", certificate, "--private-key-file", key)
    ((after, pem),) = tocsin.rows("SELECT sealed_private_key, certificate_pem FROM oauth_profiles")
    assert (after != sealed, pem) == (True, second.certificate_pem)
    alone = tocsin("oauth", "add", "x", *M365, "--private-key-file", key)
    assert "--certificate-file" in alone.errors
    refused = tocsin("oauth", "replace-secret", "m365", "--client-secret-file", "-", stdin=b"x")
    assert (refused.code, "certificate" in refused.errors) == (2, True)


def test_a_secret_and_a_certificate_take_each_others_place_and_the_old_one_is_forgotten(
    tocsin: CommandLine, tmp_path: Path
) -> None:
    proof = self_signed_certificate()
    both = write(tmp_path, "both.pem", proof.private_key_pem + proof.certificate_pem)
    stored = (
        "SELECT sealed_client_secret IS NOT NULL, secret_set_at IS NOT NULL, sealed_private_key IS NOT NULL,"
        " certificate_pem IS NOT NULL FROM oauth_profiles"
    )
    add(tocsin, "m365", M365)
    assert "forgotten" in tocsin.ok("oauth", "set", "m365", "--certificate-file", both).errors
    assert tocsin.rows(stored) == [(False, False, True, True)]
    tocsin.ok("oauth", "set", "m365", "--client-secret-file", "-", stdin=b"another")
    assert tocsin.rows(stored) == [(True, True, False, False)]


def test_googles_service_account_comes_in_its_file(tocsin: CommandLine, tmp_path: Path) -> None:
    account = {
        "type": "service_account", "client_email": "sa@p.iam.gserviceaccount.com", "client_id": "4711",
        "private_key_id": "kid1", "private_key": private_pem(new_key()), "token_uri": "https://oauth2.googleapis.com/token",
    }  # fmt: skip
    file = write(tmp_path, "sa.json", json.dumps(account))
    told = tocsin.ok("oauth", "add", "google", "--provider", "google", "--service-account-file", file).errors
    assert "Now have domain-wide delegation granted to client id 4711 for scope https://mail.google.com/" in told
    assert "tocsin oauth check google --user MAILBOX" in told
    profile = shown(tocsin, "google")
    assert (profile["grant"], profile["client_id"]) == ("jwt_bearer", account["client_email"])
    assert (profile["key_id"], profile["delegation_client_id"]) == ("kid1", "4711")
    plain = write(tmp_path, "plain.json", json.dumps({**account, "token_uri": "http://oauth2.googleapis.com/token"}))
    refused = tocsin("oauth", "add", "x", "--provider", "google", "--service-account-file", plain)
    assert (refused.code, "https" in refused.errors) == (2, True)


def test_a_refresh_token_is_sealed_for_its_mailbox_and_forgotten_at_another_client(
    tocsin: CommandLine, tmp_path: Path
) -> None:
    secret = write(tmp_path, "secret", SECRET)
    google = ("--provider", "google", "--client-id", "c", "--client-secret-file", secret, "--refresh-token-file", "-")
    assert "--user" in tocsin("oauth", "add", "g", *google, stdin=b"1//refresh").errors
    tocsin.ok("oauth", "add", "g", *google, "--user", "News@example.org", stdin=b"1//refresh")
    ((subject, sealed),) = tocsin.rows("SELECT subject, sealed_token FROM refresh_tokens")
    assert subject == "news@example.org"
    assert b"1//refresh" not in bytes(sealed)
    more = ("--refresh-token-file", "-", "--user", "other@example.org")
    tocsin.ok("oauth", "set", "g", *more, stdin=b"1//other")
    assert [row["mailbox"] for row in shown(tocsin, "g")["signed_in"]] == ["news@example.org", "other@example.org"]
    assert "sign-ins: 2" in tocsin.ok("oauth", "list").out
    assert "news@example.org, by an account that is not known" in tocsin.ok("oauth", "show", "g").out
    moved = tocsin.ok("oauth", "set", "g", "--client-id", "d")
    assert "news@example.org, other@example.org" in moved.errors
    assert "tocsin oauth set g --refresh-token-file F --user news@example.org" in moved.errors
    assert (shown(tocsin, "g")["sign_ins"], shown(tocsin, "g")["credential"]) == (0, None)


def test_two_secrets_do_not_come_from_one_standard_input(tocsin: CommandLine) -> None:
    flags = ("--refresh-token-file", "-", "--client-secret-file", "-", "--user", "a@example.org")
    outcome = tocsin("oauth", "add", "x", "--provider", "google", "--client-id", "c", *flags, stdin=b"x")
    assert (outcome.code, "Standard input" in outcome.errors) == (2, True)


def test_a_changed_grant_brings_its_scope_and_keeps_the_rest(tocsin: CommandLine) -> None:
    add(tocsin, "m365", M365)
    tocsin.ok("oauth", "set", "m365", "--grant", "managed_identity")
    profile = shown(tocsin, "m365")
    assert (profile["grant"], profile["credential"], profile["client_id"]) == (
        "managed_identity",
        "managed_identity",
        GUID,
    )


def test_show_tells_who_uses_it_and_why_the_last_token_did_not_come(tocsin: CommandLine) -> None:
    add(tocsin)
    tocsin.ok("profile", "add", "news", *NEWS, "--oauth", "sso")
    tocsin.rows(
        """INSERT INTO access_tokens (oauth_profile_id, subject, failure, failure_fix, failure_code, failed_at)
           SELECT id, '', 'the client secret is wrong', 'Store another.', 'invalid_client', now() FROM oauth_profiles"""
    )
    out = tocsin.ok("oauth", "show", "sso").out
    assert "the client secret is wrong" in out
    assert "Store another." in out
    profile = shown(tocsin, "sso")
    assert profile["used_by"] == ["news"]
    assert profile["tokens"][0]["failure_code"] == "invalid_client"


def test_own_certificate_authorities_are_stored_as_text(tocsin: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    add(tocsin, "sso", (*SSO, "--ca-file", str(file)))
    assert tocsin.rows("SELECT ca_pem FROM oauth_profiles") == [(file.read_text(),)]
    tocsin.ok("oauth", "set", "sso", "--no-ca-file")
    assert tocsin.rows("SELECT ca_pem FROM oauth_profiles") == [(None,)]


def test_a_file_that_is_no_certificate_or_holds_a_private_key_is_refused(tocsin: CommandLine, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("hello")
    both = tmp_path / "both.pem"
    trustme.CA().issue_cert("a.example.org").private_key_and_cert_chain_pem.write_to_path(both)
    for file, told in ((wrong, "no certificate"), (both, "private key"), (tmp_path / "none.pem", "none.pem")):
        outcome = tocsin("oauth", "add", "x", *SSO, "--ca-file", str(file), "--client-secret-file", "-", stdin=b"x")
        assert outcome.code == 2
        assert told in outcome.errors


def test_a_profile_in_use_is_not_removed(tocsin: CommandLine) -> None:
    add(tocsin)
    tocsin.ok(
        "profile", "add", "news", "--provider", "custom", "--host", "smtp.example.org", "--from", "news@example.org",
        "--oauth", "sso",
    )  # fmt: skip
    outcome = tocsin("oauth", "remove", "sso")
    assert outcome.code == 2
    assert "news" in outcome.errors
    tocsin.ok("profile", "remove", "news")
    tocsin.ok("oauth", "remove", "sso")
    assert tocsin("oauth", "show", "sso").code == 2


def test_a_grant_that_takes_no_secret_forgets_it_and_says_what_comes_next(tocsin: CommandLine) -> None:
    add(tocsin, "m365", (*M365, "--secret-expires", "2026-01-01"))
    tocsin.ok("profile", "add", "news", *NEWS, "--oauth", "m365")
    told = tocsin.ok("oauth", "set", "m365", "--grant", "device_code").errors
    assert "its client secret is forgotten" in told
    assert "Now sign in: `tocsin oauth acquire m365 --user news@example.org`" in told
    assert "2026-01-01" not in told
    stored = "SELECT sealed_client_secret, secret_set_at, secret_expires_at FROM oauth_profiles"
    assert tocsin.rows(stored) == [(None, None, None)]
