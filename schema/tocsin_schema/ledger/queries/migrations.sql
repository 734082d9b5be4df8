-- name: lock_migrations
-- Held to the end of the transaction, so that pods that start together take turns.
SELECT pg_advisory_xact_lock(hashtext('tocsin.migrations'));

-- name: create_schema_migrations
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       text PRIMARY KEY,
    digest     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: has_schema_migrations
SELECT to_regclass('schema_migrations') IS NOT NULL;

-- name: applied_migrations
SELECT name, digest FROM schema_migrations ORDER BY name;

-- name: note_migration
INSERT INTO schema_migrations (name, digest) VALUES (%(name)s, %(digest)s);
