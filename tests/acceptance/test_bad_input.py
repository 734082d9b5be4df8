"""Bad input gets a clear error and loses nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from tests.servers.installation import Installation


def part(**fields: Any) -> bytes:
    return json.dumps(
        {
            "id": str(uuid.uuid4()),
            "profile": "alerts",
            "content": {"subject": "Hello", "text": "Hello"},
            "recipients": [{"address": "someone@campus.example"}],
            **fields,
        }
    ).encode()


REFUSED = {
    "broken JSON": (b'{"profile": "alerts", ', "not_json"),
    "bytes that are not UTF-8": (b'{"profile": "\xff\xfe"}', "not_utf8"),
    "NUL": (part(event="a\0b"), "nul"),
    "an unknown field": (part(recipient=[]), "unknown_field"),
    "an unknown profile": (part(profile="nobody"), "unknown_profile"),
    "an undefined tag": (part(content={"subject": "{{ data.incdent }}", "text": "x"}), "bad_template"),
    "a personal tag in a shared message": (
        part(content={"subject": "Dear {{ recipient.name }}", "text": "x"}),
        "recipient_tag_in_shared",
    ),
    "a line break in a rendered header": (
        part(content={"subject": "{{ data.s }}", "text": "x"}, data={"s": "Hi\r\nBcc: victim@campus.example"}),
        "bad_template",
    ),
    "two addresses in Reply-To": (part(reply_to="a@campus.example, b@campus.example"), "bad_address"),
    "an empty recipient list": (part(recipients=[]), "no_recipients"),
    "1,001 recipients in a part": (
        part(recipients=[{"address": f"r{number}@campus.example"} for number in range(1001)]),
        "too_many_recipients",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_part_that_cannot_be_understood_becomes_a_dead_letter_with_its_bytes(
    installation: Installation, case: str
) -> None:
    body, code = REFUSED[case]
    before = len(installation.query("SELECT 1 FROM jobs"))
    installation.publish(body)
    installation.wait_until(
        lambda: bool(installation.query("SELECT 1 FROM dead_letters WHERE code = %s AND body = %s", code, body)),
        f"a dead letter for {case}",
    )
    letter = installation.wait_for_dead_letter(code)
    assert letter["reason"]
    assert len(installation.query("SELECT 1 FROM jobs")) == before
    assert installation.run("dead-letter", "show", str(letter["id"])).returncode == 0
    assert "Traceback" not in installation.log.read_text()


def test_a_dead_letter_is_put_back_once_its_cause_is_gone(installation: Installation) -> None:
    name = f"later-{uuid.uuid4().hex[:8]}"
    job = installation.job(recipients=[{"address": f"{name}@campus.example"}], template=name)
    del job["content"]
    installation.publish(job)
    letter = installation.wait_for_dead_letter("unknown_template")
    assert name in letter["reason"]
    installation.add_template(name, subject="At last", text="Here it is.")
    installation.tocsin("dead-letter", "requeue", str(letter["id"]))
    assert installation.wait_for_job(job["id"])["recipients"] == {"sent": 1}
    assert installation.read("dead-letter", "show", str(letter["id"]))["state"] == "requeued"


def test_malformed_addresses_fail_alone_and_keep_their_reason(installation: Installation) -> None:
    name = uuid.uuid4().hex[:8]
    addresses = [f"{name}@campus.example", "no-at-sign", "a@campus.example, b@campus.example", "x@y@campus.example"]
    job = installation.job(recipients=[{"address": address} for address in addresses])
    installation.publish(job)
    shown = installation.wait_for_job(job["id"])
    assert shown["recipients"] == {"sent": 1, "failed": 3}
    failed = installation.read_lines("job", "recipients", job["id"], "--state", "failed")
    assert [one["address"] for one in failed] == addresses[1:]
    assert all(one["reason"] for one in failed)
    assert "more than one address" in failed[1]["reason"]


def test_a_line_break_in_one_recipients_data_fails_only_that_recipient(installation: Installation) -> None:
    name = uuid.uuid4().hex[:8]
    job = installation.job(
        mode="individual",
        content={"subject": "Room {{ recipient.room }}", "text": "Hello"},
        recipients=[
            {"address": f"{name}-1@campus.example", "data": {"room": "12"}},
            {"address": f"{name}-2@campus.example", "data": {"room": "13\r\nBcc: victim@campus.example"}},
            {"address": f"{name}-3@campus.example", "data": {}},
        ],
    )
    installation.publish(job)
    shown = installation.wait_for_job(job["id"])
    assert shown["recipients"] == {"sent": 1, "failed": 2}
    broken, missing = installation.read_lines("job", "recipients", job["id"], "--state", "failed")
    assert "line break" in broken["reason"]
    assert "room" in missing["reason"]
    assert not installation.received_by("victim@campus.example")


def test_without_postgres_a_command_says_so_and_shows_no_password(installation: Installation) -> None:
    url = "postgresql://operator:hunter2hunter2@127.0.0.1:9/tocsin"
    ended = installation.run("job", "list", TOCSIN_DATABASE_URL=url)
    assert ended.returncode == 1
    assert ended.stderr.startswith("tocsin: Postgres at 127.0.0.1:9/tocsin cannot be reached")
    assert "hunter2" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_rabbitmq_sending_says_so_and_shows_no_password(installation: Installation) -> None:
    ended = installation.run(
        "send", "--profile", "alerts", "--subject", "x", "--text-file", "-", "--to", "a@campus.example",
        given="Hello", TOCSIN_BROKER_URL="amqp://operator:hunter2hunter2@127.0.0.1:9/",
    )  # fmt: skip
    assert ended.returncode == 1
    assert "127.0.0.1:9" in ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("installation", ["rabbitmq"], indirect=True, scope="session")
def test_a_wrong_rabbitmq_password_is_named_as_such(installation: Installation) -> None:
    assert installation.broker_url is not None
    scheme, _, rest = installation.broker_url.partition("://")
    ended = installation.run(
        "send", "--profile", "alerts", "--subject", "x", "--text-file", "-", "--to", "a@campus.example",
        given="Hello", TOCSIN_BROKER_URL=f"{scheme}://guest:wrong-password@{rest.partition('@')[2]}",
    )  # fmt: skip
    assert ended.returncode == 1
    assert "user name or password" in ended.stderr
    assert "wrong-password" not in ended.stderr


def test_a_csv_without_its_address_column_is_refused_with_line_and_column(installation: Installation) -> None:
    ended = installation.run(
        "send", "--profile", "alerts", "--subject", "x", "--text-file", "/dev/null", "--recipients", "-",
        given="email,name\nada@campus.example,Ada\n",
    )  # fmt: skip
    assert ended.returncode == 2
    assert "line 1" in ended.stderr
    assert "address" in ended.stderr


def test_a_wrong_master_key_is_named_by_every_command_that_needs_it_and_changes_nothing(
    installation: Installation,
) -> None:
    name = f"stranger-{uuid.uuid4().hex[:8]}"
    other_key = installation.directory / f"{name}.key"
    assert installation.run("key", "init", TOCSIN_MASTER_KEY_FILE=str(other_key)).returncode == 0
    ended = installation.run(
        "profile", "add", name, "--provider", "custom", "--host", "localhost", "--from", f"{name}@campus.example",
        "--auth", "basic", "--password-file", "-", given="its-password", TOCSIN_MASTER_KEY_FILE=str(other_key),
    )  # fmt: skip
    assert ended.returncode == 1
    assert "master key is not the one" in ended.stderr
    assert installation.query("SELECT 1 FROM sending_profiles WHERE name = %s", name) == []


def test_a_worker_with_a_wrong_master_key_takes_no_work_and_says_why(installation: Installation) -> None:
    other_key = installation.directory / f"{uuid.uuid4().hex}.key"
    assert installation.run("key", "init", TOCSIN_MASTER_KEY_FILE=str(other_key)).returncode == 0
    with subprocess.Popen(
        [sys.executable, "-m", "tocsin_workers.process", "--role", "all", "--parent", str(os.getpid())],
        env={**installation.environment, "TOCSIN_MASTER_KEY_FILE": str(other_key)},
        stderr=subprocess.PIPE, text=True,
    ) as worker:  # fmt: skip
        assert worker.stderr is not None
        said = next(line for line in worker.stderr if "worker waits" in line)
        worker.terminate()
        worker.communicate(timeout=PATIENCE_SECONDS)
    assert "master key is not the one" in said
    assert installation.query("SELECT 1 FROM workers WHERE pid = %s", worker.pid) == []
    job = installation.job()
    installation.publish(job)
    assert installation.wait_for_job(job["id"])["recipients"] == {"sent": 1}


def test_a_worker_without_its_message_broker_waits_and_says_why_in_one_line(installation: Installation) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tocsin_workers.process", "--role", "all", "--parent", str(os.getpid())],
        env={
            **installation.environment,
            "TOCSIN_BROKER_URL": "amqp://operator:hunter2hunter2@127.0.0.1:9/",
            "TOCSIN_LOG_FORMAT": "console",
        },
        stderr=subprocess.PIPE, text=True,
    ) as worker:  # fmt: skip
        assert worker.stderr is not None
        said: list[str] = []
        for line in worker.stderr:
            said.append(line)
            if "worker waits for the message broker" in line:
                break
        worker.kill()
        worker.communicate(timeout=PATIENCE_SECONDS)
    assert "127.0.0.1:9 cannot be reached" in said[-1]
    assert "Traceback" not in "".join(said)
    assert "hunter2" not in "".join(said)
