"""`tocsin setting`, `tocsin key` and `tocsin migrate`."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.command_line import CommandLine
from tocsin_console.reading.session import ensure_master_key
from tocsin_schema.errors import SealError
from tocsin_schema.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


PASSWORD = "correct-horse-battery"


def test_migrate_tells_what_it_applied_and_check_tells_what_is_pending(
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
    empty_database_url: str,
) -> None:
    tocsin = CommandLine(monkeypatch, capsysbinary, tmp_path, empty_database_url)
    pending = tocsin("migrate", "--check")
    assert pending.code == 3
    assert "pending 0001_installation" in pending.out
    assert "applied 0001_installation" in tocsin.ok("migrate").out
    again = tocsin.ok("migrate")
    assert again.out == ""
    assert "fits this release" in again.errors
    assert tocsin("migrate", "--check").code == 0


def test_a_ledger_that_was_never_migrated_is_met_with_the_command_that_does_it(
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
    empty_database_url: str,
) -> None:
    tocsin = CommandLine(monkeypatch, capsysbinary, tmp_path, empty_database_url)
    outcome = tocsin("job", "list")
    assert outcome.code == 1
    assert "tocsin migrate" in outcome.errors


def test_key_init_writes_a_file_for_its_owner_only_and_never_overwrites_it(tocsin: CommandLine) -> None:
    file = tocsin.data_dir / "master.key"
    before = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = tocsin("key", "init")
    assert again.code == 1
    assert str(file) in again.errors
    assert file.read_bytes() == before
    assert before.split()[1].decode() not in again.errors + again.out


def test_every_setting_is_listed_with_its_default(tocsin: CommandLine) -> None:
    listed = {line["key"]: line for line in tocsin.ok("setting", "list", "--json").lines}
    assert listed["RetryFirstDelaySeconds"]["value"] == 30
    assert listed["RetryFirstDelaySeconds"]["is_set"] is False
    assert listed["DatabaseUniqueID"]["value"]
    assert listed["EmailPassword"] == {**listed["EmailPassword"], "value": None, "is_set": False}
    assert "RetryFirstDelaySeconds\t30\tdefault" in tocsin.ok("setting", "list").out


def test_a_setting_that_was_set_is_shown(tocsin: CommandLine) -> None:
    tocsin.ok("setting", "set", "RetryFirstDelaySeconds", "60")
    shown = tocsin.ok("setting", "get", "RetryFirstDelaySeconds", "--json").json
    assert (shown["value"], shown["is_set"]) == (60, True)
    tocsin.ok("setting", "set", "EmailUsername", "--value-file", "-", stdin=b"notices@example.org\n")
    assert "notices@example.org" in tocsin.ok("setting", "get", "EmailUsername").out


def test_an_unknown_setting_a_bad_value_and_the_read_only_one_are_refused(tocsin: CommandLine) -> None:
    unknown = tocsin("setting", "set", "RetryFirst", "60")
    assert unknown.code == 2
    assert "RetryFirstDelaySeconds" in unknown.errors
    assert tocsin("setting", "get", "RetryFirst").code == 2
    bad = tocsin("setting", "set", "UrgentExpiryHours", "0")
    assert bad.code == 2
    assert "1 to 8784" in bad.errors
    fixed = tocsin("setting", "set", "DatabaseUniqueID", "x")
    assert fixed.code == 2
    assert "read-only" in fixed.errors


def test_a_first_delay_longer_than_the_longest_is_refused(tocsin: CommandLine) -> None:
    outcome = tocsin("setting", "set", "RetryFirstDelaySeconds", "4000")
    assert outcome.code == 2
    assert "RetryMaximumDelaySeconds" in outcome.errors


def test_the_email_password_is_sealed_bound_to_its_host_and_never_shown(tocsin: CommandLine) -> None:
    tocsin.ok(
        "setting",
        "set",
        "EmailPassword",
        "--host",
        "SMTP.example.org",
        "--value-file",
        "-",
        stdin=PASSWORD.encode() + b"\n",
    )
    ((value, sealed, host),) = tocsin.rows(
        "SELECT value, sealed_value, bound_to FROM settings WHERE key = 'EmailPassword'"
    )
    assert (value, host) == (None, "smtp.example.org")
    assert PASSWORD.encode() not in bytes(sealed)
    for command in (("get", "EmailPassword"), ("get", "EmailPassword", "--json"), ("list",), ("list", "--json")):
        outcome = tocsin.ok("setting", *command)
        assert PASSWORD not in outcome.out + outcome.errors
    assert "set (never shown)" in tocsin.ok("setting", "get", "EmailPassword").out


def test_the_email_password_needs_a_host_and_is_not_taken_from_the_arguments(tocsin: CommandLine) -> None:
    no_host = tocsin("setting", "set", "EmailPassword", "--value-file", "-", stdin=PASSWORD.encode())
    assert no_host.code == 2
    assert "--host" in no_host.errors
    argument = tocsin("setting", "set", "EmailPassword", PASSWORD, "--host", "smtp.example.org")
    assert argument.code == 2
    assert "--value-file" in argument.errors
    assert PASSWORD not in argument.errors


def test_without_a_terminal_or_a_file_a_secret_is_asked_for_by_flag(tocsin: CommandLine) -> None:
    outcome = tocsin("setting", "set", "EmailPassword", "--host", "smtp.example.org")
    assert outcome.code == 2
    assert "--value-file" in outcome.errors


def test_a_missing_master_key_is_named_with_the_command_that_makes_one(tocsin: CommandLine) -> None:
    (tocsin.data_dir / "master.key").unlink()
    outcome = tocsin("setting", "set", "EmailPassword", "--host", "h.example.org", "--value-file", "-", stdin=b"x")
    assert outcome.code == 1
    assert "tocsin key init" in outcome.errors


def test_a_secrets_host_is_said_once_and_every_column_has_a_heading(tocsin: CommandLine) -> None:
    tocsin.ok("setting", "set", "EmailPassword", "--host", "smtp.example.org", "--value-file", "-", stdin=b"x")
    assert tocsin.ok("setting", "get", "EmailPassword").out.count("smtp.example.org") == 1
    assert tocsin.ok("setting", "list").out.splitlines()[0] == "SETTING\tVALUE\tORIGIN\tMEANING"


def test_no_second_master_key_is_made_for_a_ledger_that_has_seen_one(tocsin: CommandLine) -> None:
    here = tocsin.data_dir / "typo.key"
    elsewhere = Settings(master_key_file=here)
    ensure_master_key(elsewhere, tocsin.database_url)
    assert here.exists()
    here.unlink()
    tocsin.ok("setting", "set", "EmailPassword", "--host", "smtp.example.org", "--value-file", "-", stdin=b"x")
    with pytest.raises(SealError, match=r"typo.key does not exist.*TOCSIN_MASTER_KEY_FILE"):
        ensure_master_key(elsewhere, tocsin.database_url)
    assert not here.exists()


def test_another_share_for_urgent_jobs_reaches_mailboxes_that_were_kept_for_them(tocsin: CommandLine) -> None:
    flags = ("--provider", "custom", "--host", "127.0.0.1", "--auth", "none", "--from", "a@example.org")
    tocsin.ok("profile", "add", "a", *flags, "--tenant", "acme")
    for table in ("mailboxes", "tenants"):
        tocsin.rows(
            f"UPDATE {table} SET kept_for_urgent_until = now() + interval '1 hour', kept_for_urgent_reason = 'kept'"
        )
    assert "only urgent jobs" in tocsin.ok("profile", "show", "a").out
    tocsin.ok("setting", "set", "UrgentSharePercent", "0")
    assert "only urgent jobs" not in tocsin.ok("profile", "show", "a").out


def test_internal_domains_are_told_as_they_are_stored_and_need_a_dot(tocsin: CommandLine) -> None:
    stored = tocsin.ok("setting", "set", "InternalDomains", "Example.org,b.org").errors
    assert "InternalDomains is set to b.org, example.org." in stored
    refused = tocsin("setting", "set", "InternalDomains", "org")
    assert (refused.code, "would make all of .org internal" in refused.errors) == (2, True)
    assert "InternalDomains is taken back." in tocsin.ok("setting", "set", "InternalDomains", "none").errors
