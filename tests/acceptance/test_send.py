"""`tocsin send` with everything running: whole jobs from a file, and what the command says became of them."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.installation import Installation

ALERT = ("send", "--profile", "alerts")
#: A year in which a job may still be scheduled.
LATER = datetime.now(UTC).year + 2
INLINE = ("--subject", "Hello", "--text-file", "-")


def unique(local_part: str) -> str:
    return f"{local_part}-{uuid.uuid4().hex[:8]}@campus.example"


def test_a_file_is_sent_to_the_last_row_and_the_command_waits_for_it(installation: Installation) -> None:
    run = uuid.uuid4().hex[:8]
    addresses = [f"{run}-{number}@campus.example" for number in range(1500)]
    csv = installation.directory / f"{run}.csv"
    csv.write_text("address,name\n" + "".join(f"{address},N{n}\n" for n, address in enumerate(addresses)))
    text = installation.directory / "hello.txt"
    text.write_text("Dear {{ recipient.name }}")
    ended = installation.run(
        *ALERT, "--subject", "Hello {{ recipient.name }}", "--text-file", str(text), "--recipients", str(csv),
        "--wait", "--timeout", "60", "--json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert (answer["parts"], answer["mode"], answer["job"]["state"]) == (2, "individual", "finished")
    assert answer["job"]["recipients"] == {"sent": 1500}
    received = [address for message in installation.received() for address in message.recipients]
    assert sorted(address for address in received if address.startswith(run)) == sorted(addresses)


def test_not_everyone_sent_to_is_exit_code_3_and_the_others_are_sent_to(installation: Installation) -> None:
    good = unique("good")
    text = installation.directory / "plain.txt"
    text.write_text("Hello")
    ended = installation.run(
        *ALERT, "--subject", "Hello", "--text-file", str(text), "--recipients", "-", "--wait", "--json",
        "--source", good, "--key", "1",
        given=f"address\nnonsense\nrefused@campus.example\n{good}\n{good}\n",
    )  # fmt: skip
    assert ended.returncode == 3, ended.stderr
    answer = json.loads(ended.stdout)
    assert (answer["recipients"], answer["duplicates"], answer["invalid"]) == (3, 1, 1)
    assert answer["job"]["recipients"] == {"sent": 1, "failed": 2}
    assert len(installation.received_by(good)) == 1
    assert "tocsin job recipients" in ended.stderr


def test_the_same_command_again_sends_nobody_a_second_message(installation: Installation) -> None:
    address = unique("once")
    arguments = (*ALERT, *INLINE, "--to", address, "--source", "test", "--key", address, "--wait")
    first = installation.run(*arguments, given="Text")
    again = installation.run(*arguments, given="Text")
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "published before" in again.stderr
    assert len(installation.received_by(address)) == 1

    other = installation.run(*arguments, given="Other text")
    assert other.returncode == 1
    assert "published before with other content" in other.stderr
    more = installation.run(*arguments, "--to", unique("more"), given="Text")
    assert more.returncode == 1
    assert "other recipients" in more.stderr


def test_waiting_ends_with_its_time_and_the_job_goes_on(installation: Installation) -> None:
    ended = installation.run(
        *ALERT, *INLINE, "--to", unique("later"),
        "--send-after", f"{LATER}-01-01T00:00:00Z", "--wait", "--timeout", "3", "--json", given="Text",
    )  # fmt: skip
    assert ended.returncode == 1
    answer = json.loads(ended.stdout)
    assert answer["job"]["state"] == "scheduled"
    assert "not finished" in ended.stderr


@pytest.mark.parametrize("installation", ["rabbitmq"], indirect=True, scope="session")
def test_a_job_goes_to_rabbitmq_while_the_ledger_is_away(installation: Installation) -> None:
    address = unique("away")
    ended = installation.run(
        *ALERT, *INLINE, "--to", address, "--json",
        given="Text", TOCSIN_DATABASE_URL="postgresql://tocsin:sesame@127.0.0.1:1/tocsin",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "not checked" in ended.stderr
    assert "sesame" not in ended.stderr
    installation.wait_for_job(json.loads(ended.stdout)["id"])
    assert len(installation.received_by(address)) == 1


@pytest.mark.parametrize("installation", ["rabbitmq"], indirect=True, scope="session")
def test_a_machine_without_a_ledger_publishes_to_rabbitmq(installation: Installation) -> None:
    address = unique("producer")
    ended = installation.run(
        *ALERT, *INLINE, "--to", address, "--json",
        given="Text", TOCSIN_DATABASE_URL="", TOCSIN_DATA_DIR=str(installation.directory / "elsewhere"),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "There is no ledger here" in ended.stderr
    installation.wait_for_job(json.loads(ended.stdout)["id"])
    assert len(installation.received_by(address)) == 1
