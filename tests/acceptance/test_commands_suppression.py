"""`tocsin suppression`, and what `tocsin job` shows of who was suppressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.command_line import seed_job
from tocsin_schema.ledger.actors import login_of_this_process

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.command_line import CommandLine, SeededJob

ADA = "Ada@example.org"


def held_for(tocsin: CommandLine) -> list[tuple[str, str | None]]:
    """Give what is suppressed for whom, oldest first."""
    return [(row[0], row[1]) for row in tocsin.rows("SELECT address, source FROM suppressions ORDER BY id")]


@pytest.fixture
def refused(tocsin: CommandLine) -> SeededJob:
    """A job of the source `library` whose second recipient was refused and is suppressed for it."""
    tocsin.ok("profile", "add", "news", "--provider", "custom", "--host", "h.example.org", "--from", "news@example.org")
    job = seed_job(tocsin, "news", batches=["sf"], state="finished", source="library")
    tocsin.rows(
        """INSERT INTO suppressions (address, source, reason, code, enhanced_code, reply, job_number)
           VALUES ('r1@example.org', 'library', '550 5.1.1 no such user', 550, '5.1.1', 'no such user', %s)""",
        job.number,
    )
    return job


def test_an_address_is_suppressed_for_all_or_for_one_source_and_it_is_written_down_by_whom(tocsin: CommandLine):
    told = tocsin.ok("suppression", "add", "Ada@EXAMPLE.org", "bob@example.org", "--reason", "asked for it")
    assert told.errors == "2 addresses suppressed for all sources.\n"
    told = tocsin.ok("suppression", "add", ADA, "--source", "library")
    assert told.errors == "1 address suppressed for source library.\n"
    assert held_for(tocsin) == [(ADA, None), ("bob@example.org", None), (ADA, "library")]
    newest, *_ = tocsin.ok("suppression", "list", "--json").lines
    who = login_of_this_process()
    assert (newest["actor_kind"], newest["actor"]) == ("login", who.name)
    assert (newest["source"], newest["reason"], newest["job"]) == ("library", "added by hand", None)
    assert who.name in tocsin.ok("suppression", "list").out


def test_adding_one_that_is_there_changes_nothing_and_says_so(tocsin: CommandLine):
    tocsin.ok("suppression", "add", ADA, "--reason", "the first reason")
    told = tocsin.ok("suppression", "add", ADA, ADA, "bob@example.org", "--reason", "another reason")
    assert "1 address suppressed for all sources." in told.errors
    assert "1 address was suppressed for all sources before; nothing changed there." in told.errors
    (entry,) = tocsin.ok("suppression", "list", "--address", ADA, "--json").lines
    assert entry["reason"] == "the first reason"


def test_a_file_is_taken_line_by_line_also_from_standard_input(tocsin: CommandLine, tmp_path: Path):
    file = tmp_path / "left.txt"
    file.write_bytes(b"\xef\xbb\xbfada@example.org\r\n\r\n  bob@example.org\t\nada@example.org")
    assert "2 addresses suppressed" in tocsin.ok("suppression", "add", "--file", str(file)).errors
    tocsin.ok("suppression", "add", "carol@example.org", "--file", "-", stdin=b"dora@example.org\n")
    assert {address for address, _ in held_for(tocsin)} == {
        "ada@example.org", "bob@example.org", "carol@example.org", "dora@example.org",
    }  # fmt: skip


def test_a_heading_or_two_addresses_in_a_line_are_told_from_each_other(tocsin: CommandLine):
    for stdin, said in (
        (b"\n Address\nada@example.org\n", "Line 2 of standard input is a heading: Address. Take it out"),
        (b"ada@example.org\naddress\n", "Line 2 of standard input: The address 'address' has no @."),
        (b"ada@lib@example.org\n", "Line 1 of standard input: The address 'ada@lib@example.org' has two @."),
    ):
        outcome = tocsin("suppression", "add", "--file", "-", stdin=stdin)
        assert outcome.code == 2
        assert said in outcome.errors
    assert held_for(tocsin) == []


def test_one_malformed_address_stops_all_and_its_line_is_named(tocsin: CommandLine):
    outcome = tocsin("suppression", "add", "--file", "-", stdin=b"ada@example.org\n\nbob, carol@example.org\n")
    assert outcome.code == 2
    assert "Line 3 of standard input: The address 'bob, carol@example.org' is more than one address." in outcome.errors
    assert tocsin("suppression", "add", ADA, "nobody").code == 2
    assert held_for(tocsin) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "No address is given."),
        ((ADA, "--reason", " "), "--reason is empty"),
        ((ADA, "--reason", "a\x1bb"), "--reason is too long or holds a control character"),
        ((ADA, "--source", "s" * 201), "--source cannot be"),
        (("--file", "/does/not/exist"), "cannot be read from /does/not/exist"),
    ],
    ids=["nobody", "no reason", "control character", "long source", "no file"],
)
def test_what_cannot_be_added_is_said_in_plain_words(tocsin: CommandLine, arguments: tuple[str, ...], said: str):
    outcome = tocsin("suppression", "add", *arguments)
    assert outcome.code == 2
    assert said in outcome.errors
    assert held_for(tocsin) == []


def test_an_entry_tells_of_which_job_and_by_what_reply_it_came(tocsin: CommandLine, refused: SeededJob):
    (entry,) = tocsin.ok("suppression", "list", "--json").lines
    assert (entry["job"], entry["job_number"], entry["actor"]) == (str(refused.id), refused.number, None)
    assert (entry["code"], entry["enhanced_code"], entry["reply"]) == (550, "5.1.1", "no such user")
    out = tocsin.ok("suppression", "list").out
    assert f"job {refused.id}" in out
    assert "550 5.1.1 no such user" in out


def test_entries_are_listed_newest_first_and_by_source_or_address(tocsin: CommandLine, refused: SeededJob):
    tocsin.ok("suppression", "add", ADA)
    tocsin.ok("suppression", "add", ADA, "--source", "")

    def listed(*flags: str) -> list[tuple[str, str | None]]:
        lines = tocsin.ok("suppression", "list", *flags, "--json").lines
        return [(line["address"], line["source"]) for line in lines]

    assert listed() == [(ADA, ""), (ADA, None), ("r1@example.org", "library")]
    assert listed("--limit", "1") == [(ADA, "")]
    assert listed("--source", "library") == [("r1@example.org", "library")]
    assert listed("--source", "") == [(ADA, "")]
    assert listed("--address", "Ada@Example.ORG") == [(ADA, ""), (ADA, None)]
    # The local part is compared as it stands.
    assert listed("--address", "ada@example.org") == []
    table = tocsin.ok("suppression", "list").out
    assert "all sources" in table
    assert "jobs without a source" in table


def test_removing_takes_every_entry_of_an_address_or_that_of_one_source(tocsin: CommandLine):
    for source in ([], ["--source", "library"], ["--source", "registry"]):
        tocsin.ok("suppression", "add", ADA, *source)
    assert tocsin.ok("suppression", "remove", ADA, "--source", "library").errors == "1 suppression removed.\n"
    assert tocsin.ok("suppression", "remove", ADA).errors == "2 suppressions removed.\n"
    assert held_for(tocsin) == []


def test_addresses_of_a_file_are_removed_all_or_none(tocsin: CommandLine):
    tocsin.ok("suppression", "add", ADA, "bob@example.org")
    assert tocsin("suppression", "remove", "--file", "-", stdin=b"Ada@example.org\nnobody@example.org\n").code == 2
    assert len(held_for(tocsin)) == 2
    outcome = tocsin.ok("suppression", "remove", "--file", "-", stdin=b"Ada@example.org\n\nbob@EXAMPLE.org\n")
    assert outcome.errors == "2 suppressions removed.\n"
    assert held_for(tocsin) == []
    assert "No address is given." in tocsin("suppression", "remove").errors


def test_a_list_that_is_cut_short_says_so(tocsin: CommandLine):
    tocsin.ok("suppression", "add", ADA, "bob@example.org")
    for flags in ((), ("--json",)):
        cut = tocsin.ok("suppression", "list", "--limit", "1", *flags)
        assert cut.errors == "1 shown, there are more; --limit shows more.\n"
        whole = tocsin.ok("suppression", "list", "--limit", "2", *flags)
        assert whole.errors == ""
        assert len(whole.out.splitlines()) == len(cut.out.splitlines()) + 1


def test_removing_what_is_not_there_is_an_error_and_removes_nothing(tocsin: CommandLine):
    tocsin.ok("suppression", "add", ADA)
    outcome = tocsin("suppression", "remove", ADA, "bob@example.org")
    assert outcome.code == 2
    assert "bob@example.org is not suppressed. Nothing was removed." in outcome.errors
    outcome = tocsin("suppression", "remove", ADA, "--source", "library")
    assert outcome.code == 2
    assert f"{ADA} is not suppressed for source library." in outcome.errors
    assert f"tocsin suppression list --address {ADA}" in outcome.errors
    assert held_for(tocsin) == [(ADA, None)]


def test_a_job_counts_its_suppressed_recipients_and_tells_why(tocsin: CommandLine, refused: SeededJob):
    reason = "suppressed since 2026-11-03: 550 5.1.1 no such user"
    tocsin.rows("UPDATE recipient_exceptions SET state = 'suppressed', reason = %s, code = NULL, reply = NULL", reason)
    tocsin.rows("UPDATE batches SET failed = 0, suppressed = 1")
    assert tocsin.ok("job", "show", str(refused.id), "--json").json["recipients"] == {"sent": 1, "suppressed": 1}
    arguments = ("job", "recipients", str(refused.id), "--state", "suppressed")
    (line,) = tocsin.ok(*arguments, "--json").lines
    assert (line["address"], line["state"], line["reason"]) == ("r1@example.org", "suppressed", reason)
    assert reason in tocsin.ok(*arguments).out
