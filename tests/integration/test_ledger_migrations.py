"""Bringing a database to this release's schema, and saying plainly what stands in the way."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import traceback
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from tests.servers.schema_dump import HEADER, dump
from tocsin_console.embedded import EmbeddedPostgres
from tocsin_schema.errors import LedgerError
from tocsin_schema.ledger.migrate import migrate, read_schema_state
from tocsin_schema.ledger.migration_steps import Migration, migrations
from tocsin_schema.ledger.oauth_providers import OAuthProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.postgres import PostgresServer

PASSWORD = "s3cret-of-the-test"


def schema_sql() -> str:
    return resources.files("tocsin_schema.ledger").joinpath("schema.sql").read_text(encoding="utf-8")


def partitions(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), c.reloptions,"
            " (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid),"
            " (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c')"
            " FROM pg_class c WHERE c.relispartition AND c.relkind = 'r' ORDER BY c.relname"
        ).fetchall()


def build_from_schema_sql(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(schema_sql().encode())
    with psycopg.connect(url) as connection:
        connection.execute("SELECT make_partitions(now(), 2)")


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


# -- The two ways to the same schema


def test_migrations_and_schema_sql_build_the_same_database(database_url: str, postgres_server: PostgresServer) -> None:
    other = postgres_server.create_database()
    try:
        build_from_schema_sql(other)
        assert dump(other) == dump(database_url)
        assert partitions(other) == partitions(database_url)
    finally:
        postgres_server.drop_database(other)


def test_schema_sql_is_what_make_schema_writes_today(database_url: str) -> None:
    assert schema_sql() == f"{HEADER}\n{dump(database_url)}", "run `make schema`"


def test_the_dump_sees_a_difference(database_url: str) -> None:
    before = dump(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE jobs ALTER COLUMN rank SET DEFAULT 1")
    assert dump(database_url) != before


def test_every_partitioned_table_has_this_month_and_the_next_two(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        parents = connection.execute(
            "SELECT p.relname, (SELECT count(*) FROM pg_inherits i WHERE i.inhparent = p.oid)"
            " FROM pg_class p WHERE p.relkind = 'p'"
        ).fetchall()
    assert len(parents) == 10
    assert {count for _, count in parents} == {3}


def test_making_partitions_again_makes_none(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT make_partitions(now(), 2)").fetchone() == (0,)
        assert connection.execute("SELECT make_partitions(now(), 3)").fetchone() == (10,)


def test_partitions_meet_without_a_gap_in_any_session_time_zone(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET TIME ZONE 'Pacific/Auckland'")
        connection.execute("SELECT make_partitions(now(), 14)")
        bounds = connection.execute(
            "SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_class c"
            " WHERE c.relispartition AND c.relkind = 'r' AND c.relname LIKE 'jobs\\_%' ORDER BY c.relname"
        ).fetchall()
    edges = [str(bound).split("'")[1::2] for (bound,) in bounds]
    assert len(edges) == 15
    assert all(ends == begins for (_, ends), (begins, _) in pairwise(edges))


# -- Rows that migrations insert


def test_the_ledger_has_its_unique_id_and_the_providers_defaults(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        settings = connection.execute("SELECT key, read_only, length(value) FROM settings").fetchall()
        sending = connection.execute("SELECT provider, batch_size FROM sending_profile_defaults").fetchall()
        oauth = connection.execute("SELECT provider, token_endpoint FROM oauth_profile_defaults").fetchall()
    assert settings == [("DatabaseUniqueID", True, 36)]
    assert {provider for provider, _ in sending} == {*OAuthProvider, "ses"}
    assert {size for _, size in sending} == {50}
    assert {provider for provider, _ in oauth} == set(OAuthProvider)
    assert "{tenantId}" in dict(oauth)["microsoft365"]


def test_two_ledgers_have_different_unique_ids(database_url: str, postgres_server: PostgresServer) -> None:
    other = postgres_server.create_database()
    try:
        asyncio.run(migrate(other))
        assert unique_id(other) != unique_id(database_url)
    finally:
        postgres_server.drop_database(other)


def test_migrating_again_leaves_the_unique_id_alone(database_url: str) -> None:
    before = unique_id(database_url)
    assert asyncio.run(migrate(database_url)) == []
    assert unique_id(database_url) == before


def unique_id(url: str) -> object:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT value FROM settings WHERE key = 'DatabaseUniqueID'").fetchone()


# -- Who applies what


async def test_ten_pods_that_start_together_apply_each_step_once(empty_database_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database_url) for _ in range(10)))
    names = [step.name for step in migrations()]
    assert max(applied, key=len) == names
    assert sorted(applied, key=len)[:-1] == [[]] * 9
    with psycopg.connect(empty_database_url) as connection:
        noted = connection.execute("SELECT name FROM schema_migrations ORDER BY name").fetchall()
    assert [name for (name,) in noted] == names


async def test_an_empty_database_lacks_every_step_and_a_migrated_one_none(empty_database_url: str) -> None:
    assert (await read_schema_state(empty_database_url)).before == tuple(step.name for step in migrations())
    await migrate(empty_database_url)
    lacking = await read_schema_state(empty_database_url)
    assert (lacking.before, lacking.after) == ((), ())


async def test_a_step_that_was_changed_after_it_was_applied_is_refused(database_url: str) -> None:
    name = migrations()[0].name
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE schema_migrations SET digest = 'another' WHERE name = %s", [name])
    for act in (migrate, read_schema_state):
        with pytest.raises(LedgerError, match=f"{name} was applied in another form.*needs a migration of its own"):
            await act(database_url)


async def test_a_ledger_ahead_of_this_release_is_refused_only_where_something_was_taken_away(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO schema_migrations (name, digest) VALUES ('9998_more', '')")
        assert await migrate(database_url) == []
        assert (await read_schema_state(database_url)).before == ()
        connection.execute("INSERT INTO schema_migrations (name, digest) VALUES ('9999_less.after', '')")
    for act in (migrate, read_schema_state):
        with pytest.raises(LedgerError, match=r"newer release.*9999_less\.after.*Use that release"):
            await act(database_url)


async def test_a_step_that_fails_leaves_nothing_behind(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*migrations(), Migration("9999_broken", "SELECT no_such_function()")]
    monkeypatch.setattr("tocsin_schema.ledger.migrate.migrations", lambda: broken)
    with pytest.raises((psycopg.Error, LedgerError)):
        await migrate(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_class WHERE relname = 'jobs'").fetchone() == (0,)


# -- What stands in the way


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:  # bound, so that nobody else gets it, and not listening
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(scope="module")
def guarded_url() -> Iterator[str]:
    """A server that wants a password from everyone but its owner."""
    directory = Path(tempfile.mkdtemp(prefix="tocsin-test-guarded-"))
    directory.chmod(0o711)
    rules = directory / "pg_hba.conf"
    rules.write_text("local all tocsin trust\nlocal all all scram-sha-256\n")
    rules.chmod(0o644)
    embedded = EmbeddedPostgres(directory, settings={"hba_file": str(rules), "fsync": "off"})
    try:
        url = embedded.start()
        with psycopg.connect(url) as connection:
            connection.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")
        yield url
    finally:
        embedded.destroy()
        shutil.rmtree(directory)


def as_guarded(url: str, password: str, *, database: str | None = None) -> str:
    parts = urlsplit(url)
    path = parts.path if database is None else f"/{database}"
    return urlunsplit(parts._replace(netloc=f"guarded:{password}@", path=path))


async def test_no_postgres_is_said_with_its_place_and_without_the_password(closed_port: int) -> None:
    url = f"postgresql://tocsin:{PASSWORD}@127.0.0.1:{closed_port}/mail"
    with pytest.raises(LedgerError) as caught:
        await migrate(url)
    assert f"127.0.0.1:{closed_port}/mail cannot be reached" in str(caught.value)
    assert "refused" in str(caught.value)
    assert "TOCSIN_DATABASE_URL" in (caught.value.fix or "")
    assert PASSWORD not in everything_said(caught.value)


async def test_a_host_that_nobody_knows_is_said_plainly() -> None:
    with pytest.raises(LedgerError, match=r"nowhere\.invalid:5432/mail cannot be reached") as caught:
        await migrate(f"postgresql://tocsin:{PASSWORD}@nowhere.invalid/mail")
    assert PASSWORD not in everything_said(caught.value)


async def test_a_wrong_password_is_said_without_any_password(guarded_url: str) -> None:
    wrong = f"not-{PASSWORD}"
    with pytest.raises(LedgerError, match="refuses the user name or password") as caught:
        await read_schema_state(as_guarded(guarded_url, wrong))
    assert "TOCSIN_DATABASE_URL" in (caught.value.fix or "")
    assert PASSWORD not in everything_said(caught.value)
    assert (await read_schema_state(as_guarded(guarded_url, PASSWORD))).before


async def test_a_database_that_is_not_there_is_said_plainly(guarded_url: str) -> None:
    with pytest.raises(LedgerError, match="has no such database") as caught:
        await migrate(as_guarded(guarded_url, PASSWORD, database="nowhere"))
    assert "Create it" in (caught.value.fix or "")
    assert PASSWORD not in everything_said(caught.value)


async def test_a_user_without_the_right_to_make_tables_is_told_so(guarded_url: str) -> None:
    with pytest.raises(LedgerError, match=r"does not let this user do that.*permission denied") as caught:
        await migrate(as_guarded(guarded_url, PASSWORD))
    assert PASSWORD not in everything_said(caught.value)


async def test_an_unreadable_url_is_said_without_its_password() -> None:
    with pytest.raises(LedgerError) as caught:
        await migrate(f"postgresql://tocsin:{PASSWORD}%ZZ@localhost/mail")
    assert PASSWORD not in everything_said(caught.value)


# -- Steps on a ledger that is in use


def test_pauses_and_token_failures_of_the_release_before_keep_their_meaning(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [step for step in migrations() if step.name < "0006"]
    with monkeypatch.context() as released:
        released.setattr("tocsin_schema.ledger.migrate.migrations", lambda: before)
        asyncio.run(migrate(empty_database_url))
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(
            "WITH o AS (INSERT INTO oauth_profiles (name, provider, grant_type, token_endpoint)"
            " VALUES ('m365', 'microsoft365', 'client_credentials', 'https://x') RETURNING id),"
            " t AS (INSERT INTO access_tokens (oauth_profile_id, subject, failure)"
            " SELECT id, '', E'It was refused.\\nReplace the secret.' FROM o),"
            " m AS (INSERT INTO mailboxes (host, login) VALUES ('h', 'l') RETURNING id)"
            " INSERT INTO sending_profiles (name, provider, host, port, tls, auth, from_address, oauth_profile_id,"
            " login, batch_size, mailbox_id, paused_at, paused_reason)"
            " SELECT name, 'custom', 'h', 25, 'none', 'oauth', 'a@b', o.id, 'l', 50, m.id, at, reason FROM o, m,"
            " (VALUES ('refused', now(), '535 no'), ('held', now(), 'paused by hand'), ('running', NULL, NULL))"
            " AS p (name, at, reason)"
        )
        asyncio.run(migrate(empty_database_url))
        causes = connection.execute("SELECT name, pause_cause FROM sending_profiles ORDER BY name").fetchall()
        failure = connection.execute("SELECT failure, failure_fix FROM access_tokens").fetchall()
        # A worker of that release may still run.
        connection.execute("UPDATE sending_profiles SET paused_at = now(), paused_reason = 'x' WHERE name = 'running'")
    assert causes == [("held", "by_hand"), ("refused", "credentials"), ("running", None)]
    assert failure == [("It was refused.", "Replace the secret.")]
