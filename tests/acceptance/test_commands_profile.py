"""`tocsin profile`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.acceptance.command_line import seed_job
from tocsin_schema.ledger.actors import login_of_this_process

if TYPE_CHECKING:
    from tests.acceptance.command_line import CommandLine


PASSWORD = "tr0ub4dor~and~three"
CUSTOM = ("--provider", "custom", "--host", "smtp.example.org", "--from", "news@example.org")
SSO = ("--provider", "custom", "--token-endpoint", "https://sso.example.org/token", "--client-id", "tocsin")


def add_oauth(tocsin: CommandLine) -> None:
    tocsin.ok("oauth", "add", "sso", *SSO, "--client-secret-file", "-", stdin=b"x")


def shown(tocsin: CommandLine, name: str) -> dict[str, Any]:
    return tocsin.ok("profile", "show", name, "--json").json


def test_a_microsoft_profile_begins_with_the_limits_that_microsoft_publishes(tocsin: CommandLine) -> None:
    add_oauth(tocsin)
    tocsin.ok("profile", "add", "m", "--provider", "microsoft365", "--from", "news@example.org", "--oauth", "sso")
    profile = shown(tocsin, "m")
    assert (profile["host"], profile["port"], profile["tls"]) == ("smtp.office365.com", 587, "starttls")
    assert (profile["auth"], profile["oauth"], profile["user"]) == ("oauth", "sso", "news@example.org")
    assert profile["limits"] == {"connections": 3, "per_minute": 30, "per_day": 10000}
    assert profile["copies"] == "reference"


M365 = ("--provider", "microsoft365", "--from", "news@example.org")
GUID = "8f7c1a52-3b0d-4f6e-9a41-0c2d5e7b9a10"
IDS = ("--tenant-id", GUID, "--client-id", GUID)


def test_one_step_makes_the_oauth_profile_too(tocsin: CommandLine) -> None:
    told = tocsin.ok("profile", "add", "news", *M365, *IDS, "--client-secret-file", "-", stdin=b"x").errors
    assert "OAuth profile 'news'" in told
    assert (shown(tocsin, "news")["oauth"], shown(tocsin, "news")["auth"]) == ("news", "oauth")
    oauth = tocsin.ok("oauth", "show", "news", "--json").json
    assert (oauth["provider"], oauth["secret_is_set"], oauth["used_by"]) == ("microsoft365", True, ["news"])


def test_the_login_is_whom_a_refresh_token_is_for(tocsin: CommandLine) -> None:
    flags = ("--token-endpoint", "https://sso.example.org/token", "--client-id", "c", "--refresh-token-file", "-")
    tocsin.ok("profile", "add", "news", *CUSTOM, "--user", "Shared@example.org", *flags, stdin=b"x")
    assert tocsin.rows("SELECT subject FROM refresh_tokens") == [("shared@example.org",)]
    told = tocsin.ok(
        "profile", "add", "gov", *M365[2:], "--provider", "microsoft365-dod", *IDS, "--grant", "device_code"
    )
    assert "tocsin oauth acquire gov --user news@example.org" in told.errors


def test_one_step_writes_both_profiles_or_neither(tocsin: CommandLine) -> None:
    add_oauth(tocsin)
    tocsin.ok("profile", "add", "taken", *CUSTOM)
    secret = ("--client-secret-file", "-")
    for name, flags, told in [
        ("taken", (*M365, *IDS, *secret), "already"),
        ("sso", (*M365, *IDS, *secret), "already"),
        ("x", (*M365, *IDS, *secret, "--oauth", "sso"), "--oauth"),
        ("x", (*M365, "--client-id", "contoso", "--tenant-id", GUID, *secret), "GUID"),
        ("x", (*M365[2:], "--provider", "ses", *IDS, *secret), "SES"),
        ("x", (*M365, *IDS, "--auth", "basic", *secret), "--auth"),
        ("x", (*M365, *IDS, "--password-file", "-"), "not both"),
        ("x", (*M365[2:], "--provider", "google", "--client-id", "c", *secret), "--service-account-file"),
    ]:
        outcome = tocsin("profile", "add", name, *flags, stdin=b"x")
        assert outcome.code == 2, flags
        assert told in outcome.errors, flags
    assert tocsin.rows("SELECT name FROM oauth_profiles") == [("sso",)]
    assert tocsin.rows("SELECT name FROM sending_profiles") == [("taken",)]


def test_a_password_is_sealed_and_no_command_shows_it(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "news", *CUSTOM, "--password-file", "-", stdin=PASSWORD.encode())
    ((sealed,),) = tocsin.rows("SELECT sealed_password FROM sending_profiles")
    assert PASSWORD.encode() not in bytes(sealed)
    for command in (("show", "news"), ("show", "news", "--json"), ("list",), ("list", "--json")):
        assert PASSWORD not in tocsin.ok("profile", *command).out
    assert shown(tocsin, "news")["auth"] == "basic"
    assert "its own, set (never shown)" in tocsin.ok("profile", "show", "news").out


def test_what_cannot_be_is_refused_and_nothing_is_written(tocsin: CommandLine) -> None:
    add_oauth(tocsin)
    for flags, told in [
        ((*CUSTOM, "--auth", "oauth"), "--oauth"),
        ((*CUSTOM, "--oauth", "nowhere"), "'nowhere'"),
        ((*CUSTOM, "--auth", "basic"), "EmailUsername"),
        ((*CUSTOM, "--tls", "none", "--oauth", "sso"), "TLS"),
        ((*CUSTOM, "--tls", "none", "--oauth", "sso", "--allow-plaintext-auth"), "this machine"),
        ((*CUSTOM, "--per-minute", "0"), "--per-minute"),
        (("--provider", "custom", "--from", "news@example.org"), "--host"),
        ((*CUSTOM[:-1], "a@example.org, b@example.org"), "more than one address"),
        (("--provider", "custom", "--host", "smtp://x", "--from", "a@example.org"), "mail server"),
    ]:
        outcome = tocsin("profile", "add", "x", *flags)
        assert outcome.code in (1, 2), flags
        assert told in outcome.errors, flags
    assert tocsin.rows("SELECT name FROM sending_profiles") == []
    assert tocsin.rows("SELECT host FROM mailboxes") == []


def test_a_name_that_is_taken_is_refused(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "news", *CUSTOM)
    outcome = tocsin("profile", "add", "news", *CUSTOM, "--per-minute", "1")
    assert outcome.code == 2
    assert "already a sending profile 'news'" in outcome.errors
    assert shown(tocsin, "news")["limits"] == {"connections": 10, "per_minute": None, "per_day": None}


def test_profiles_on_one_mailbox_share_its_limits(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "a", *CUSTOM, "--per-minute", "30")
    added = tocsin.ok("profile", "add", "b", *CUSTOM, "--user", "NEWS@example.org")
    assert "shares its mailbox" in added.errors
    assert "a" in added.errors
    assert shown(tocsin, "b")["limits_shared_with"] == ["a"]
    assert shown(tocsin, "b")["limits"]["per_minute"] == 30
    tocsin.ok("profile", "set", "b", "--per-minute", "none", "--per-day", "500")
    assert shown(tocsin, "a")["limits"] == {"connections": 10, "per_minute": None, "per_day": 500}


def test_another_host_is_another_mailbox_with_the_same_limits(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "a", *CUSTOM, "--per-minute", "30")
    tocsin.ok("profile", "add", "b", *CUSTOM)
    tocsin.ok("profile", "set", "b", "--host", "other.example.org", "--per-day", "7")
    assert shown(tocsin, "b")["limits"] == {"connections": 10, "per_minute": 30, "per_day": 7}
    assert shown(tocsin, "b")["limits_shared_with"] == []
    assert shown(tocsin, "a")["limits"] == {"connections": 10, "per_minute": 30, "per_day": None}


def test_a_mailbox_that_nobody_uses_any_more_does_not_hand_down_its_limits(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "a", *CUSTOM, "--per-minute", "1")
    tocsin.ok("profile", "remove", "a")
    tocsin.ok("profile", "add", "b", *CUSTOM)
    assert shown(tocsin, "b")["limits"]["per_minute"] is None


def test_a_change_leaves_the_rest(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "news", *CUSTOM, "--batch-size", "20", "--copies", "full")
    before = shown(tocsin, "news")
    tocsin.ok("profile", "set", "news", "--port", "2525")
    after = shown(tocsin, "news")
    assert after["port"] == 2525
    assert {k: v for k, v in after.items() if k not in ("port", "updated_at")} == {
        k: v for k, v in before.items() if k not in ("port", "updated_at")
    }
    assert tocsin("profile", "set", "news").code == 2


def test_the_stored_password_does_not_go_to_another_host(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "news", *CUSTOM, "--password-file", "-", stdin=PASSWORD.encode())
    refused = tocsin("profile", "set", "news", "--host", "evil.example.org")
    assert refused.code == 2
    assert "--password-file" in refused.errors
    tocsin.ok("profile", "set", "news", "--host", "new.example.org", "--password-file", "-", stdin=b"another")
    assert shown(tocsin, "news")["host"] == "new.example.org"


def test_changing_to_oauth_takes_the_password_out_of_the_ledger(tocsin: CommandLine) -> None:
    add_oauth(tocsin)
    tocsin.ok("profile", "add", "news", *CUSTOM, "--password-file", "-", stdin=PASSWORD.encode())
    tocsin.ok("profile", "set", "news", "--oauth", "sso")
    assert tocsin.rows("SELECT auth, sealed_password FROM sending_profiles") == [("oauth", None)]


def test_without_a_password_of_its_own_it_uses_the_installations(tocsin: CommandLine) -> None:
    tocsin.ok("setting", "set", "EmailUsername", "notices@example.org")
    tocsin.ok("setting", "set", "EmailPassword", "--host", "smtp.example.org", "--value-file", "-", stdin=b"x")
    added = tocsin.ok("profile", "add", "news", *CUSTOM, "--auth", "basic")
    assert "EmailUsername and EmailPassword (notices@example.org)" in added.errors
    assert shown(tocsin, "news")["user"] == "notices@example.org"
    assert "EmailPassword of the installation" in tocsin.ok("profile", "show", "news").out
    elsewhere = tocsin(
        "profile", "add", "x", "--provider", "custom", "--host", "other.example.org", "--from", "a@example.org",
        "--auth", "basic",
    )  # fmt: skip
    assert elsewhere.code == 2


def test_a_password_is_replaced_only_where_one_is_used(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "basic", *CUSTOM, "--password-file", "-", stdin=b"one")
    before = tocsin.rows("SELECT sealed_password FROM sending_profiles")
    tocsin.ok("profile", "replace-password", "basic", "--password-file", "-", stdin=b"two")
    assert tocsin.rows("SELECT sealed_password FROM sending_profiles") != before
    tocsin.ok("profile", "add", "none", *CUSTOM)
    assert tocsin("profile", "replace-password", "none", "--password-file", "-", stdin=b"x").code == 2


def test_another_password_ends_a_refusal_of_the_old_one_and_no_other_pause_or_rest(tocsin: CommandLine) -> None:
    def replaced() -> str:
        return tocsin.ok("profile", "replace-password", "news", "--password-file", "-", stdin=b"two").errors

    tocsin.ok("profile", "add", "news", *CUSTOM, "--password-file", "-", stdin=b"one")
    tocsin.rows("UPDATE mailboxes SET parked_until = now() + interval '1 hour', parked_reason = 'too fast'")
    tocsin.ok("profile", "pause", "news", "--reason", "legal hold")
    told = replaced()
    assert "It stays paused: legal hold (by " in told
    assert "`tocsin profile resume news`" in told
    assert "paused: legal hold" in tocsin.ok("profile", "show", "news").out
    tocsin.rows("UPDATE sending_profiles SET pause_cause = 'credentials', paused_by_kind = NULL, paused_by = NULL")
    assert "Paused until now, and going on: news." in replaced()
    assert "too fast" in tocsin.ok("profile", "show", "news").out
    assert "paus" not in replaced()


def test_mail_without_tls_to_this_machine_may_log_in_if_that_is_said(tocsin: CommandLine) -> None:
    flags = ("--provider", "custom", "--host", "127.0.0.1", "--from", "a@example.org", "--tls", "none")
    assert tocsin("profile", "add", "x", *flags, "--password-file", "-", stdin=b"x").code == 2
    tocsin.ok("profile", "add", "x", *flags, "--allow-plaintext-auth", "--password-file", "-", stdin=b"x")
    assert tocsin("profile", "set", "x", "--no-plaintext-auth").code == 2


def test_a_profile_with_unfinished_jobs_is_not_removed(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "news", *CUSTOM)
    seed_job(tocsin, "news", batches=["p"])
    refused = tocsin("profile", "remove", "news")
    assert refused.code == 2
    assert "1 unfinished job" in refused.errors
    tocsin.rows("UPDATE jobs SET state = 'finished', finished_at = now()")
    tocsin.ok("profile", "remove", "news")
    assert tocsin("profile", "show", "news").code == 2


def test_why_a_profile_does_not_send_is_shown(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "news", *CUSTOM)
    assert "ready" in tocsin.ok("profile", "list").out
    tocsin.rows(
        "UPDATE sending_profiles SET paused_at = now(), pause_cause = 'credentials', paused_reason = 'login refused'"
    )
    assert "paused: login refused" in tocsin.ok("profile", "show", "news").out


def test_access_tokens_go_to_another_host_only_where_that_is_said(tocsin: CommandLine) -> None:
    add_oauth(tocsin)
    tocsin.ok("profile", "add", "m", *M365, "--oauth", "sso")
    refused = tocsin("profile", "set", "m", "--host", "other.example.org")
    assert refused.code == 2
    assert "Its access tokens would go to other.example.org." in refused.errors
    assert "--oauth sso" in refused.errors
    tocsin.ok("profile", "set", "m", "--host", "other.example.org", "--oauth", "sso")
    tocsin.ok("profile", "set", "m", "--host", "smtp.office365.com")


def test_an_oauth_profile_made_along_is_named_when_it_is_left_alone(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "news", *M365, *IDS, "--client-secret-file", "-", stdin=b"x")
    assert "tocsin oauth remove news" in tocsin.ok("profile", "remove", "news").errors
    again = tocsin("profile", "add", "news", *M365, *IDS, "--client-secret-file", "-", stdin=b"x")
    assert (again.code, "give --oauth news" in again.errors) == (2, True)


def test_wrong_usage_names_what_was_given_and_ends_with_2(tocsin: CommandLine) -> None:
    for flags, told in [
        ((*M365, "--auth", "basic", *IDS), "--tenant-id is of no use with --auth basic"),
        ((*M365[:-1], "notanaddress"), "--from:"),
    ]:
        outcome = tocsin("profile", "add", "x", *flags)
        assert (outcome.code, told in outcome.errors) == (2, True), outcome.errors


def test_pausing_wants_a_reason_and_resuming_says_where_there_is_nothing_to_resume(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "news", *CUSTOM)
    assert tocsin("profile", "pause", "news", "--reason", " ").code == 2
    assert "is not paused" in tocsin.ok("profile", "resume", "news").errors
    tocsin.ok("profile", "pause", "news", "--reason", "mailbox: being moved")
    listed = tocsin.ok("profile", "list").out.splitlines()
    assert listed[1].endswith("\tpaused")
    assert listed[2].startswith("news: paused: mailbox: being moved (by ")
    assert "goes on" in tocsin.ok("profile", "resume", "news").errors


def test_who_paused_a_profile_since_when_and_why_is_told_also_to_whoever_pauses_it_again(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "news", *CUSTOM)
    assert tocsin.ok("profile", "pause", "news", "--reason", "moving").errors == "Sending profile 'news' is paused.\n"
    profile, [in_status] = shown(tocsin, "news"), tocsin.ok("status", "--json").json["profiles"]
    pause = {"paused_by": login_of_this_process().name, "paused_at": profile["paused_at"], "paused_reason": "moving"}
    for told in (profile, in_status, tocsin.ok("profile", "list", "--json").json):
        assert pause.items() <= told.items()
    words = f"moving (by {pause['paused_by']}, since {profile['paused_at'][:19]}Z)"
    for command in (("profile", "show", "news"), ("profile", "list"), ("status",)):
        assert f"paused: {words}" in tocsin.ok(*command).out
    assert tocsin.ok("profile", "pause", "news", "--reason", "another").errors == (
        f"Sending profile 'news' was paused already: {words}. Nothing was changed.\n"
    )
    assert shown(tocsin, "news") == profile


def test_a_limit_that_mailboxes_of_a_tenant_share_says_with_whom_and_what_it_was(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "a", *CUSTOM, "--tenant", "acme", "--tenant-per-day", "150")
    other = [*CUSTOM]
    other[other.index("--from") + 1] = "b@example.org"
    told = tocsin.ok("profile", "add", "b", *other, "--tenant", "acme", "--tenant-per-day", "300").errors
    assert "The limit of tenant acme is now 300 (was 150); it also holds for: a." in told
    assert "acme, shared with b@example.org at " in tocsin.ok("profile", "show", "a").out


def test_resuming_a_profile_whose_day_is_full_says_what_helps(tocsin: CommandLine) -> None:
    here = ("--provider", "custom", "--host", "127.0.0.1", "--port", "1", "--auth", "none", "--from", "day@example.org")
    tocsin.ok("profile", "add", "day", *here, "--per-day", "40")
    tocsin.rows(
        "INSERT INTO mailbox_usage (mailbox_id, minute, recipients) SELECT id, date_trunc('minute', now()), 24"
        " FROM mailboxes"
    )
    tocsin.rows("UPDATE mailboxes SET parked_until = now() + interval '1 hour', parked_reason = 'full'")
    checked = tocsin("profile", "check", "day").out
    assert "Wait, or raise --per-day (`tocsin profile set day --per-day N`)." in checked
    assert "profile resume" not in checked
    told = tocsin.ok("profile", "resume", "day").errors
    assert "of its 40 recipients of 24 hours only 8 are left for jobs that are not urgent" in told
    assert "`tocsin profile set day --per-day N`" in told
