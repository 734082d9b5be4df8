"""What the ledger itself refuses, whoever writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import errors

from tests.servers.ledger_rows import add_job, add_profile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tocsin_schema.ledger.connection import Connection


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as one:
        yield one


# -- The installation's own number


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE settings SET value = gen_random_uuid()::text WHERE key = 'DatabaseUniqueID'",
        "UPDATE settings SET read_only = false WHERE key = 'DatabaseUniqueID'",
        "DELETE FROM settings",
        (
            "INSERT INTO settings (key, value) VALUES ('DatabaseUniqueID', 'x')"
            " ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value"
        ),
    ],
    ids=["changed", "made writable", "deleted", "written over"],
)
async def test_the_database_unique_id_stays(connection: Connection, change: str) -> None:
    with pytest.raises(errors.RestrictViolation, match="setting DatabaseUniqueID is read-only"):
        await connection.execute(change.encode())


async def test_other_settings_can_be_changed_and_deleted(connection: Connection) -> None:
    await connection.execute("INSERT INTO settings (key, value) VALUES ('EmailUsername', 'a')")
    assert (await connection.execute("UPDATE settings SET value = 'b' WHERE key = 'EmailUsername'")).rowcount == 1
    assert (await connection.execute("DELETE FROM settings WHERE key = 'EmailUsername'")).rowcount == 1


# -- Templates


async def versions(connection: Connection) -> list[tuple[object, ...]]:
    rows = await connection.execute("SELECT version, subject FROM email_template_versions ORDER BY version")
    return await rows.fetchall()


async def test_every_version_of_a_template_is_kept(connection: Connection) -> None:
    await connection.execute("INSERT INTO email_templates (name, subject, text_body) VALUES ('t', 'one', 'body')")
    await connection.execute("UPDATE email_templates SET version = version + 1, subject = 'two'")
    assert await versions(connection) == [(1, "one"), (2, "two")]


async def test_a_version_cannot_be_written_twice(connection: Connection) -> None:
    await connection.execute("INSERT INTO email_templates (name, subject, text_body) VALUES ('t', 'one', 'body')")
    with pytest.raises(errors.UniqueViolation):
        await connection.execute("UPDATE email_templates SET version = version, subject = 'other'")
    assert await versions(connection) == [(1, "one")]


# -- States


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE batches SET state = 'leased'",
        "UPDATE batches SET leased_by = gen_random_uuid()",
        "UPDATE batches SET state = 'done', leased_by = gen_random_uuid()",
        "UPDATE batches SET state = 'sent'",
        "UPDATE batches SET sent = '1'",
        "UPDATE batches SET in_flight = '111'",
        "UPDATE batches SET failed = 2, unknown = 1",
        "UPDATE batches SET size = 0, sent = '', in_flight = ''",
        "UPDATE jobs SET state = 'finished'",
        "UPDATE jobs SET state = 'waiting'",
        "UPDATE jobs SET rank = 3",
        "UPDATE jobs SET mode = 'both'",
        "UPDATE jobs SET on_unknown = 'guess'",
        "UPDATE jobs SET last_part = 0",
        (
            "INSERT INTO recipient_exceptions (job_number, ordinal, batch_number, state, attempts, reason)"
            " SELECT number, 0, 0, 'pending', 1, 'deferred without a time' FROM jobs"
        ),
        (
            "INSERT INTO recipient_exceptions (job_number, ordinal, batch_number, state, attempts, reason, due_at)"
            " SELECT number, 0, 0, 'failed', 1, 'failed, and due again', now() FROM jobs"
        ),
        (
            "INSERT INTO recipient_exceptions (job_number, ordinal, batch_number, state, attempts, reason)"
            " SELECT number, 0, 0, 'sent', 1, 'sent is no exception' FROM jobs"
        ),
        (
            "INSERT INTO job_parts (job_number, number, digest, recipients, duplicates)"
            " SELECT number, 1, '', 1001, 0 FROM jobs"
        ),
        "UPDATE sending_profiles SET auth = 'oauth'",
        "UPDATE sending_profiles SET paused_at = now()",
        "UPDATE sending_profiles SET pause_cause = 'credentials'",
        "UPDATE sending_profiles SET probe_at = now()",
        "UPDATE sending_profiles SET paused_by_kind = 'login', paused_by = 'nobody paused it'",
        "UPDATE sending_profiles SET batch_size = 1001",
        "UPDATE sending_profiles SET port = 0",
        "UPDATE mailboxes SET connections = 0",
        "UPDATE mailboxes SET messages_per_minute = 0",
        "INSERT INTO settings (key, value, sealed_value) VALUES ('EmailPassword', 'clear', 'sealed')",
        "INSERT INTO email_templates (name, subject) VALUES ('t', 'a template without a body')",
        "INSERT INTO wakeups (profile_id, rank) SELECT id, 3 FROM sending_profiles",
    ],
)
async def test_a_state_that_cannot_be_is_refused(connection: Connection, change: str) -> None:
    await add_job(connection, await add_profile(connection), recipients=2, batch_size=2)
    with pytest.raises(errors.CheckViolation):
        await connection.execute(change.encode())


COPY_OF_A_MESSAGE = (
    "INSERT INTO email_copies (job_number, batch_number, lease_epoch, first_index, recipients, profile, from_address,"
    " visible_to, subject, message_id, dated_at, accepted_at, reply_code, reply, size, sha256)"
    " SELECT number, 0, 1, 0, '11', 'p', 'a@b.example', 'a@b.example', 's', '<m@b.example>', now(), now(), 250, 'ok',"
    " 1, %s FROM jobs"
)


async def test_a_message_is_copied_once(connection: Connection) -> None:
    await add_job(connection, await add_profile(connection), recipients=2)
    with pytest.raises(errors.CheckViolation):
        await connection.execute(COPY_OF_A_MESSAGE, [bytes(31)])
    await connection.execute(COPY_OF_A_MESSAGE, [bytes(32)])
    with pytest.raises(errors.UniqueViolation):
        await connection.execute(COPY_OF_A_MESSAGE, [bytes(32)])


@pytest.mark.parametrize(
    "twin",
    [
        "INSERT INTO mailboxes (host, login) SELECT host, login FROM mailboxes",
        "INSERT INTO recipients SELECT * FROM recipients",
        (
            "INSERT INTO job_ids (id, job_number, digest)"
            " SELECT gen_random_uuid(), n, '' FROM (VALUES (1), (1)) AS same (n)"
        ),
    ],
    ids=["mailbox", "recipient", "job number"],
)
async def test_what_is_unique_stays_so(connection: Connection, twin: str) -> None:
    await add_job(connection, await add_profile(connection))
    with pytest.raises(errors.UniqueViolation):
        await connection.execute(twin.encode())


async def test_an_identical_dead_letter_is_kept_once_until_it_is_settled(connection: Connection) -> None:
    letter = (
        "INSERT INTO dead_letters (queue, code, reason, body, digest, details) VALUES ('q', 'c', 'r', '', '', '{}')"
    )
    await connection.execute(letter.encode())
    with pytest.raises(errors.UniqueViolation):
        await connection.execute(letter.encode())
    await connection.execute("UPDATE dead_letters SET state = 'discarded', settled_at = now()")
    await connection.execute(letter.encode())


# -- Keys


async def test_job_numbers_are_unique_and_carry_the_time(connection: Connection) -> None:
    rows = await connection.execute(
        "SELECT next_job_number() AS number, clock_timestamp() AS at FROM generate_series(1, 4000)"
    )
    numbers = await rows.fetchall()
    assert len({number for number, _ in numbers}) == 4000
    for number, at in (numbers[0], numbers[-1]):
        assert abs((number >> 12) - at.timestamp() * 1000) < 1000


async def test_a_row_of_a_month_that_has_no_partition_is_refused(connection: Connection) -> None:
    with pytest.raises(errors.CheckViolation, match="no partition"):
        await connection.execute(
            "INSERT INTO job_parts (job_number, number, digest, recipients, duplicates)"
            " VALUES (job_number_at(now() + interval '1 year'), 1, '', 1, 0)"
        )
