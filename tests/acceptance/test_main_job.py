"""The main job: a job in, authenticated mail out, every recipient accounted for."""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

import pika
import pytest

from tests.servers.installation import CLIENT_ID, CLIENT_SECRET, TENANT_ID
from tocsin_console.demo.token_endpoint import read_token_requests

if TYPE_CHECKING:
    from tests.servers.installation import Installation

_numbers = count(1)


def some_addresses(number: int) -> list[str]:
    run = next(_numbers)
    return [f"r{run}-{index}@campus.example" for index in range(number)]


def as_recipients(addresses: list[str]) -> list[dict[str, object]]:
    return [{"address": address} for address in addresses]


@pytest.mark.parametrize("installation", ["rabbitmq"], indirect=True, scope="session")
def test_plain_json_from_any_amqp_client_is_delivered(installation: Installation) -> None:
    assert installation.broker_url is not None
    [address] = some_addresses(1)
    job = installation.job(recipients=[{"address": address}])
    connection = pika.BlockingConnection(pika.URLParameters(installation.broker_url))
    connection.channel().basic_publish(
        exchange="tocsin.intake",
        routing_key="urgent",
        body=json.dumps(job).encode(),
        properties=pika.BasicProperties(content_type="application/json", delivery_mode=2),
    )
    connection.close()
    shown = installation.wait_for_job(job["id"])
    assert shown["recipients"] == {"sent": 1}
    [message] = installation.received_by(address)
    assert message.tls
    assert message.user == "alerts@campus.example"


def test_a_job_that_is_published_three_times_is_sent_once(installation: Installation) -> None:
    addresses = some_addresses(120)
    job = installation.job(recipients=as_recipients(addresses))
    for _ in range(3):
        installation.publish(job)
    shown = installation.wait_for_job(job["id"])
    assert shown["recipients"] == {"sent": 120}
    assert all(len(installation.received_by(address)) == 1 for address in addresses)


def test_parts_out_of_order_and_one_of_them_doubled_are_sent_once_and_whole(installation: Installation) -> None:
    chunks = [some_addresses(70) for _ in range(4)]
    job = installation.job(mode="individual")
    for number, last in ((3, False), (4, True), (2, False), (2, False), (1, False)):
        installation.publish(
            {**job, "part": {"number": number, "last": last}, "recipients": as_recipients(chunks[number - 1])}
        )
    shown = installation.wait_for_job(job["id"])
    assert shown["total"] == 280
    assert shown["recipients"] == {"sent": 280}
    assert all(len(installation.received_by(address)) == 1 for chunk in chunks for address in chunk)


def test_attachments_of_part_1_go_with_every_message_whichever_part_comes_first(installation: Installation) -> None:
    first, second = some_addresses(2)
    job = installation.job(mode="individual")
    attachment = {"filename": "map.txt", "content_type": "text/plain", "content": "SGVsbG8="}
    installation.publish({**job, "part": {"number": 2, "last": True}, "recipients": [{"address": second}]})
    installation.wait_until(
        lambda: bool(installation.query("SELECT 1 FROM job_ids WHERE id = %s", job["id"])), "part 2 is taken in"
    )
    installation.publish(
        {
            **job,
            "part": {"number": 1, "last": False},
            "recipients": [{"address": first}],
            "attachments": [attachment],
        }
    )
    installation.wait_for_job(job["id"])
    for copy in installation.read_lines("copy", "list", "--job", job["id"]):
        raw = installation.tocsin("copy", "show", str(copy["id"]), "--raw")
        assert "map.txt" in raw
        assert "SGVsbG8=" in raw


def test_the_same_id_with_other_content_is_refused_and_shown(installation: Installation) -> None:
    [address] = some_addresses(1)
    job = installation.job(recipients=[{"address": address}])
    installation.publish(job)
    installation.wait_for_job(job["id"])
    installation.publish({**job, "content": {"subject": "Something else", "text": "…"}})
    letter = installation.wait_for_dead_letter("other_content")
    assert letter["job"] == job["id"]
    assert "known already" in letter["reason"]
    assert len(installation.received_by(address)) == 1


def test_one_refused_recipient_does_not_sink_its_batch(installation: Installation) -> None:
    addresses = [*some_addresses(49), "refused@campus.example"]
    job = installation.job(recipients=as_recipients(addresses))
    installation.publish(job)
    shown = installation.wait_for_job(job["id"])
    assert shown["recipients"] == {"sent": 49, "failed": 1}
    [failed] = installation.read_lines("job", "recipients", job["id"], "--state", "failed")
    assert failed["address"] == "refused@campus.example"
    assert (failed["code"], failed["enhanced_code"]) == (550, "5.1.1")
    assert "No such user here" in failed["reply"]


def test_a_deferred_recipient_is_sent_to_on_the_retry_and_alone(installation: Installation) -> None:
    addresses = [*some_addresses(9), "greylisted@campus.example"]
    job = installation.job(recipients=as_recipients(addresses))
    installation.publish(job)
    shown = installation.wait_for_job(job["id"])
    assert shown["recipients"] == {"sent": 10}
    [deferred] = [
        one for one in installation.read_lines("job", "recipients", job["id"])
        if one["address"] == "greylisted@campus.example"
    ]  # fmt: skip
    assert deferred["attempts"] in (1, 2)
    of_job = [message for message in installation.received() if uuid.UUID(job["id"]).hex in str(message.message_id)]
    assert sorted(len(message.recipients) for message in of_job) in ([1, 9], [10])


def test_every_message_has_a_copy_whose_content_made_again_gives_the_stored_hash(installation: Installation) -> None:
    run = next(_numbers)
    installation.add_template(
        f"letter{run}",
        subject="Grüße an {{ recipient.name }}",
        text="Liebe(r) {{ recipient.name }},\n.\nRaum {{ recipient.room }}: {{ data.what }}\n",
        from_name="Campus Sicherheit",
        reply_to="desk+{{ data.desk }}@campus.example",
    )
    addresses = some_addresses(3)
    job = installation.job(
        content=None, template=f"letter{run}", mode="individual", data={"what": "zu", "desk": "7"},
        recipients=[{"address": a, "name": f"Zoë {i}", "data": {"room": i}} for i, a in enumerate(addresses)],
    )  # fmt: skip
    del job["content"]
    installation.publish(job)
    installation.wait_for_job(job["id"])
    copies = installation.read_lines("copy", "list", "--job", job["id"])
    assert len(copies) == 3
    received = {message.message_id: message for message in installation.received()}
    for place, copy in enumerate(sorted(copies, key=lambda one: one["recipients"])):
        assert copy["profile"] == "alerts"
        assert copy["from"] == "alerts@campus.example"
        assert copy["reply_to"] == "desk+7@campus.example"
        assert copy["subject"] == f"Grüße an Zoë {place}"
        assert copy["recipients"] == [addresses[place]]
        assert copy["reply"]
        ended = installation.run("copy", "show", str(copy["id"]), "--raw")
        raw = ended.stdout.encode()
        assert len(raw) == copy["size"] or "\r\n" not in ended.stdout
        arrived = received[copy["message_id"]]
        assert arrived.sha256 == copy["sha256"]
        assert arrived.size == copy["size"]


def test_one_token_request_serves_all_worker_processes(installation: Installation) -> None:
    before = installation.token_requests()
    installation.tocsin("oauth", "replace-secret", "campus", "--client-secret-file", "-", given=CLIENT_SECRET)
    job = installation.job(mode="individual", recipients=as_recipients(some_addresses(300)))
    installation.publish(job)
    installation.wait_for_job(job["id"])
    assert installation.token_requests() - before <= 1


def test_the_bytes_of_a_shared_message_are_kept_in_full_where_the_profile_says_so(installation: Installation) -> None:
    name = f"full{next(_numbers)}"
    installation.add_profile(name, "--copies", "full")
    job = installation.job(profile=name, recipients=as_recipients(some_addresses(2)))
    installation.publish(job)
    installation.wait_for_job(job["id"])
    [(content, digest)] = installation.query(
        "SELECT c.content, c.sha256 FROM email_copies c JOIN jobs j ON j.number = c.job_number WHERE j.id = %s",
        job["id"],
    )
    assert hashlib.sha256(content).digest() == digest


def test_microsoft_365_signs_in_through_its_own_library_with_the_tenant_filled_in(installation: Installation) -> None:
    name = f"m365-{uuid.uuid4().hex[:8]}"
    installation.tocsin(
        "oauth", "add", name, "--provider", "microsoft365", "--tenant-id", TENANT_ID, "--client-id", CLIENT_ID,
        "--token-endpoint", installation.servers.token_endpoint, "--client-secret-file", "-",
        "--ca-file", str(installation.servers.ca_file), given=CLIENT_SECRET,
    )  # fmt: skip
    installation.add_profile(name, "--oauth", name, "--from", f"{name}@campus.example")
    job = installation.job(profile=name)
    installation.publish(job)
    assert installation.wait_for_job(job["id"])["recipients"] == {"sent": 1}
    newest = read_token_requests(installation.servers.token_requests_file)[-1]
    assert (newest.tenant, newest.scope) == (TENANT_ID, "https://outlook.office365.com/.default")


def test_a_late_part_lets_an_incomplete_job_go_on_with_everybody(installation: Installation) -> None:
    first, second = some_addresses(2)
    job = installation.job(mode="individual")
    installation.publish({**job, "part": {"number": 2, "last": True}, "recipients": [{"address": second}]})
    installation.wait_for_job(job["id"], state="receiving")
    shown = installation.read("job", "show", job["id"])
    assert (shown["state"], shown["recipients"]) == ("receiving", {"pending": 1})
    installation.query("UPDATE jobs SET expires_at = now() WHERE id = %s RETURNING 1", job["id"])
    installation.wait_for_job(job["id"])
    assert installation.read("job", "show", job["id"])["recipients"] == {"expired": 1}
    installation.publish({**job, "part": {"number": 1, "last": False}, "recipients": [{"address": first}]})
    installation.wait_until(lambda: bool(installation.received_by(second)), "everybody is sent to")
    assert installation.wait_for_job(job["id"])["recipients"] == {"sent": 2}


def test_a_job_whose_messages_cannot_be_made_any_more_fails_with_words_and_holds_up_no_other(
    installation: Installation,
) -> None:
    bad, good = installation.job(mode="individual"), installation.job()
    name = f"slow-{uuid.uuid4().hex[:8]}"
    installation.add_profile(name)
    installation.tocsin("profile", "pause", name)
    for job in (bad, good):
        job["profile"] = name
        installation.publish(job)
        installation.wait_for_job(job["id"], state="running")
    # As after an upgrade of the template language.
    installation.query(
        "UPDATE message_contents SET subject = '{%% gone %%}' WHERE job_number ="
        " (SELECT job_number FROM job_ids WHERE id = %s) RETURNING 1",
        bad["id"],
    )
    installation.tocsin("profile", "resume", name)
    assert installation.wait_for_job(good["id"])["recipients"] == {"sent": 1}
    assert installation.wait_for_job(bad["id"])["recipients"] == {"failed": 1}
    [failed] = installation.read_lines("job", "recipients", bad["id"], "--state", "failed")
    assert "cannot be made" in failed["reason"]


def test_a_late_part_of_a_job_with_a_time_of_its_own_is_not_sent_any_more(installation: Installation) -> None:
    first, second = some_addresses(2)
    soon = datetime.now(UTC) + timedelta(seconds=10)
    job = installation.job(mode="individual", expires_at=soon.isoformat())
    installation.publish({**job, "part": {"number": 1, "last": False}, "recipients": [{"address": first}]})
    installation.wait_for_job(job["id"])
    installation.publish({**job, "part": {"number": 2, "last": True}, "recipients": [{"address": second}]})
    installation.wait_until(
        lambda: installation.read("job", "show", job["id"])["recipients"] == {"sent": 1, "expired": 1},
        "the late recipient has expired",
    )
    assert installation.received_by(second) == []
