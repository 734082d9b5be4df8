"""The scopes that fixes name are those that the ledger's templates ask for."""

from __future__ import annotations

import psycopg

from tocsin_schema.ledger.oauth_providers import OAuthProvider, usual_scope


async def test_the_scopes_that_fixes_name_are_those_of_the_ledgers_templates(ledger_url: str):
    async with await psycopg.AsyncConnection.connect(ledger_url) as connection:
        rows = await (
            await connection.execute("SELECT provider, scope, delegated_scope FROM oauth_profile_defaults")
        ).fetchall()
    expected = [
        (provider, usual_scope(provider, acts_for_person=False), usual_scope(provider, acts_for_person=True))
        for provider in OAuthProvider
    ]
    assert sorted(rows) == sorted(expected)
