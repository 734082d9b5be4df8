from __future__ import annotations

import psycopg
import pytest
from psycopg import errors
from psycopg_pool import PoolTimeout

from tocsin_schema.errors import LedgerError, Scope
from tocsin_schema.ledger.connection import describe

PASSWORD = "s3cret"
URL = f"postgresql://tocsin:{PASSWORD}@db.example:6432/mail"


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (psycopg.OperationalError('FATAL:  password authentication failed for user "x"'), "refuses the user name or"),
        (errors.InvalidPassword("FATAL: no"), "refuses the user name or password"),
        (psycopg.OperationalError('FATAL:  database "mail" does not exist'), "has no such database"),
        (errors.UndefinedTable('relation "jobs" does not exist'), "is not set up for this release"),
        (errors.UndefinedColumn('column "x" does not exist'), "is not set up for this release"),
        (errors.InsufficientPrivilege("permission denied for schema public"), "permission denied for schema public"),
        (errors.DeadlockDetected("deadlock detected"), "Two changes met in the ledger"),
        (errors.SerializationFailure("could not serialize access"), "Two changes met in the ledger"),
        (PoolTimeout("couldn't get a connection after 30.00 sec"), "cannot be reached: couldn't get a connection"),
    ],
)
def test_a_failure_is_told_with_its_place_and_without_the_password(
    error: psycopg.Error | PoolTimeout, problem: str
) -> None:
    told = describe(error, URL)
    assert isinstance(told, LedgerError)
    assert told.scope is Scope.LEDGER
    assert problem in told.problem
    assert "db.example:6432/mail" in told.problem
    assert told.fix
    assert PASSWORD not in str(told) + repr(told)


@pytest.mark.parametrize("error", [errors.DeadlockDetected("x"), errors.SerializationFailure("x")])
def test_who_met_another_change_is_told_to_do_it_again_and_not_to_look_at_the_server(error: psycopg.Error) -> None:
    told = describe(error, URL)
    assert told.fix == "Do it again."
    assert "cannot be reached" not in str(told)


def test_of_libpqs_many_lines_the_first_reason_is_told() -> None:
    error = psycopg.OperationalError(
        'connection failed: connection to server at "10.0.0.1", port 5432 failed: Connection refused\n'
        "\tIs the server running on that host and accepting TCP/IP connections?\n"
    )
    assert describe(error, URL).problem.endswith("Connection refused.")


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://tocsin:{PASSWORD}%ZZ@h/d",
        f"postgresql://tocsin:geh/{PASSWORD}@h/d",
        f"postgresql://tocsin:geh@{PASSWORD}@h/d",
        f"postgresql://tocsin:{PASSWORD}/geh@h/d",
    ],
)
def test_a_url_that_cannot_be_read_or_is_misread_is_not_shown_nor_what_libpq_says_of_it(url: str) -> None:
    libpqs = psycopg.OperationalError(f'invalid integer value "{PASSWORD}" for connection option "port"')
    told = describe(libpqs, url)
    assert told.problem == "The address of Postgres cannot be read."
    assert "/ as %2F" in str(told)
    assert PASSWORD not in str(told)
    assert "geh" not in str(told)
