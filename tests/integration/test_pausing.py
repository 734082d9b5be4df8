"""Pauses in the ledger: their causes, who ends them, and the probes that try refused credentials again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.servers.ledger_rows import add_job, add_profile
from tocsin_schema.ledger import oauth_profiles, pausing, sending, sweeping
from tocsin_schema.ledger.actors import Actor, ActorKind
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.oauth_profiles import NewOAuthProfile, SealedSecrets
from tocsin_schema.ledger.pausing import PauseCause, Probe

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.ledger.sending import SenderProfile

LATER = Probe(in_seconds=60, count=1)
NOW = Probe(in_seconds=0, count=1)


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with connect(database_url) as one:
        await one.set_autocommit(True)
        yield one


@pytest.fixture
async def profile_id(connection: Connection) -> UUID:
    """A sending profile with due mail."""
    profile = await add_profile(connection)
    await add_job(connection, profile, recipients=2, batch_size=2)
    return profile.id


async def refuse(connection: Connection, profile_id: UUID, probe: Probe = NOW) -> None:
    assert await pausing.pause_profile(connection, profile_id, "535 refused", cause=PauseCause.CREDENTIALS, probe=probe)


async def state(connection: Connection, profile_id: UUID) -> SenderProfile:
    profile = await sending.read_sender_profile(connection, profile_id)
    assert profile is not None
    return profile


async def is_woken(connection: Connection, profile_id: UUID) -> bool:
    return profile_id in [woken for woken, _ in await sweeping.profiles_to_wake(connection, patience_seconds=10)]


async def oauth_profile_of(connection: Connection, profile_id: UUID) -> OAuthProfile:
    new = NewOAuthProfile(
        name=f"oauth-{uuid4().hex[:8]}", provider="custom", grant_type="client_credentials", token_endpoint="https://x"
    )
    oauth_profile = await oauth_profiles.add(connection, new, sealed=SealedSecrets())
    await connection.execute(
        "UPDATE sending_profiles SET auth = 'oauth', oauth_profile_id = %s WHERE id = %s",
        [oauth_profile.id, profile_id],
    )
    return oauth_profile


async def test_a_paused_profile_is_woken_when_its_probe_is_due_and_not_before(
    connection: Connection, profile_id: UUID
) -> None:
    await refuse(connection, profile_id, LATER)
    assert not await is_woken(connection, profile_id)
    assert not await pausing.claim_probe(connection, profile_id)
    await connection.execute("UPDATE sending_profiles SET probe_at = now()")
    assert await is_woken(connection, profile_id)
    assert (await state(connection, profile_id)).probe_is_due


async def test_one_worker_of_many_gets_to_probe(connection: Connection, profile_id: UUID) -> None:
    await refuse(connection, profile_id)
    assert [await pausing.claim_probe(connection, profile_id) for _ in range(3)] == [True, False, False]


async def test_a_failed_probe_keeps_the_newest_reason_and_comes_later(connection: Connection, profile_id: UUID) -> None:
    await refuse(connection, profile_id)
    await pausing.postpone_probe(connection, profile_id, "mailbox disabled", Probe(120, 2))
    after = await state(connection, profile_id)
    assert (after.paused_reason, after.probes, after.probe_is_due) == ("mailbox disabled", 2, False)


async def test_a_probe_that_succeeds_ends_the_pause_unless_a_person_has_paused_meanwhile(
    connection: Connection, profile_id: UUID
) -> None:
    await refuse(connection, profile_id)
    assert await pausing.resume_probed_profile(connection, profile_id)
    assert (await state(connection, profile_id)).paused_reason is None
    await refuse(connection, profile_id)
    assert await pausing.pause_profile(connection, profile_id, "moving house", cause=PauseCause.BY_HAND)
    assert not await pausing.claim_probe(connection, profile_id)
    assert not await pausing.resume_probed_profile(connection, profile_id)
    assert (await state(connection, profile_id)).paused_reason == "moving house"


async def test_who_paused_by_hand_is_kept_for_as_long_as_the_pause(connection: Connection, profile_id: UUID) -> None:
    async def person() -> tuple[str | None, str | None]:
        cursor = await connection.execute("SELECT paused_by_kind, paused_by FROM sending_profiles")
        [row] = await cursor.fetchall()
        return row

    async def pause_by_hand(name: str) -> bool:
        person = Actor(ActorKind.LOGIN, name)
        return await pausing.pause_profile(connection, profile_id, "moving", cause=PauseCause.BY_HAND, actor=person)

    await refuse(connection, profile_id)
    assert await person() == (None, None)
    assert await pause_by_hand("ada")
    assert not await pause_by_hand("ben")
    assert not await pausing.pause_profile(connection, profile_id, "535 refused", cause=PauseCause.CREDENTIALS)
    assert await person() == ("login", "ada")
    await pausing.resume_profile(connection, profile_id)
    assert await person() == (None, None)
    assert await pause_by_hand("ada")
    # The release before ends a pause so.
    await connection.execute("UPDATE sending_profiles SET paused_at = NULL, paused_reason = NULL, pause_cause = NULL")
    assert await person() == (None, None)


@pytest.mark.parametrize(
    ("cause", "goes_on"), [(PauseCause.CREDENTIALS, True), (PauseCause.SENDER, False), (PauseCause.BY_HAND, False)]
)
async def test_a_corrected_secret_lets_those_go_on_whose_credentials_were_refused_and_no_others(
    connection: Connection, profile_id: UUID, cause: PauseCause, *, goes_on: bool
) -> None:
    oauth_profile = await oauth_profile_of(connection, profile_id)
    await pausing.pause_profile(connection, profile_id, "x", cause=cause)
    resumed = await pausing.resume_users_of_oauth_profile(connection, oauth_profile.id)
    assert (len(resumed) == 1) is goes_on
    assert ((await state(connection, profile_id)).paused_reason is None) is goes_on


async def test_a_corrected_shared_password_lets_the_profiles_of_its_host_go_on(
    connection: Connection, profile_id: UUID
) -> None:
    await connection.execute("UPDATE sending_profiles SET auth = 'basic', host = 'mail.example'")
    await refuse(connection, profile_id)
    assert await pausing.resume_users_of_shared_login(connection, "other.example") == []
    assert len(await pausing.resume_users_of_shared_login(connection, "mail.example")) == 1
    assert (await state(connection, profile_id)).paused_reason is None


async def test_a_refusal_that_was_seen_before_the_credentials_changed_pauses_nothing(
    connection: Connection, profile_id: UUID
) -> None:
    oauth_profile = await oauth_profile_of(connection, profile_id)
    seen = await state(connection, profile_id)
    await oauth_profiles.replace_client_secret(connection, oauth_profile, sealed_client_secret=b"right")
    late = {"cause": PauseCause.CREDENTIALS, "probe": LATER}
    assert not await pausing.pause_profile(connection, profile_id, "stale", **late, seen_at=seen.read_at)
    seen = await state(connection, profile_id)
    await pausing.resume_profile(connection, profile_id)
    assert not await pausing.pause_profile(connection, profile_id, "stale", **late, seen_at=seen.read_at)
    seen = await state(connection, profile_id)
    assert await pausing.pause_profile(connection, profile_id, "fresh", **late, seen_at=seen.read_at)


async def test_a_new_token_endpoint_or_client_forgets_sign_ins_and_a_new_name_does_not(
    connection: Connection, profile_id: UUID
) -> None:
    oauth_profile = await oauth_profile_of(connection, profile_id)

    async def sign_ins() -> int:
        row = await (await connection.execute("SELECT count(*) FROM refresh_tokens")).fetchone()
        assert row is not None
        return int(row[0])

    insert = "INSERT INTO refresh_tokens (oauth_profile_id, subject, sealed_token) VALUES (%s, 'a@x.example', 'sealed')"
    await connection.execute(insert.encode(), [oauth_profile.id])
    renamed = await oauth_profiles.update(connection, replace(oauth_profile, name="renamed"))
    assert await sign_ins() == 1
    await oauth_profiles.update(connection, replace(renamed, client_id="another"))
    assert await sign_ins() == 0
