"""`tocsin oauth`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.command_line import CommandLine

pytest_plugins = ["tests.acceptance.command_line"]

GUID = "8f7c1a52-3b0d-4f6e-9a41-0c2d5e7b9a10"
SECRET = "s3cr3t~client~value"
SSO = ("--provider", "custom", "--token-endpoint", "https://sso.example.org/token", "--client-id", "tocsin")
M365 = ("--provider", "microsoft365", "--tenant-id", GUID, "--client-id", GUID)


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
        (("--provider", "google", "--client-id", "x"), "service account"),
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


def test_replacing_the_secret_seals_another(tocsin: CommandLine) -> None:
    add(tocsin)
    before = tocsin.rows("SELECT sealed_client_secret FROM oauth_profiles")
    tocsin.ok("oauth", "replace-secret", "sso", "--client-secret-file", "-", stdin=b"another")
    assert tocsin.rows("SELECT sealed_client_secret FROM oauth_profiles") != before


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
