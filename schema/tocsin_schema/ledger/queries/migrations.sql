-- name: lock_migrations
-- Held to the end of the transaction, so that pods that start together take turns.
SELECT pg_advisory_xact_lock(hashtext('tocsin.migrations'));

-- name: take_short_locks
-- Whoever comes after a lock that is waited for waits as well: so nobody at work waits longer than this. Where a table is
-- being vacuumed it is more: Postgres sends its own vacuum away, but only for who has waited for deadlock_timeout.
SELECT set_config('lock_timeout', CASE WHEN EXISTS (
    SELECT FROM pg_locks
    WHERE mode = 'ShareUpdateExclusiveLock' AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
) THEN least(500 + (SELECT setting::integer FROM pg_settings WHERE name = 'deadlock_timeout'), 3000) ELSE 500 END::text, true);

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

-- name: hold_workers
-- Until the end of the transaction no worker registers: one that did before is seen, and one that does afterwards sees
-- what was applied.
LOCK TABLE workers IN SHARE MODE;

-- name: living_workers
-- In the first lease time after Postgres has started, silence is no death: see lapsed_workers.
SELECT host, role, schema_version, count(*) AS processes
FROM workers
WHERE heartbeat_at >= now() - make_interval(secs => lease_seconds)
   OR pg_postmaster_start_time() >= now() - make_interval(secs => lease_seconds)
GROUP BY host, role, schema_version
ORDER BY host, role, schema_version;

-- name: oldest_transaction
-- Most likely what stands in a migration's way. What a session of another user does is hidden from us.
SELECT pid, coalesce(nullif(application_name, ''), 'no name'), extract(epoch FROM now() - xact_start)::double precision
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
ORDER BY xact_start
LIMIT 1;
