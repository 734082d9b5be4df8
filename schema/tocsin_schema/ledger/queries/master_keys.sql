-- name: lock_rotation
-- One rotation at a time over the fleet; held to the end of the transaction.
SELECT pg_try_advisory_xact_lock(hashtext('tocsin.key_rotation'));

-- name: stay_in_rotation
-- The transaction that holds the lock is idle while the work is done on another connection.
SET LOCAL idle_in_transaction_session_timeout = 0;

-- name: note_keys
-- The keys of a key file, the primary first. One statement, so that a key that came behind the primary is never older.
INSERT INTO master_keys (id, promoted_at)
SELECT key.id, CASE WHEN key.position = 1 THEN now() END
FROM unnest(%(key_ids)s::text[]) WITH ORDINALITY AS key (id, position)
ON CONFLICT (id) DO UPDATE SET promoted_at = EXCLUDED.promoted_at
WHERE master_keys.promoted_at IS NULL AND EXCLUDED.promoted_at IS NOT NULL;

-- name: note_keys_in_use
-- Whatever something is sealed with was promoted once, also where nobody noted it.
UPDATE master_keys SET promoted_at = opened_at WHERE id = ANY (%(key_ids)s) AND promoted_at IS NULL;

-- name: retire_keys
UPDATE master_keys SET retired_at = now() WHERE id = ANY (%(key_ids)s) AND retired_at IS NULL;

-- name: list_keys
SELECT id, opened_at, promoted_at, retired_at FROM master_keys;

-- name: list_live_workers
-- Whose heartbeat is within its lease. Not a profile's check: it never reads its keys anew, and nobody could wait for
-- it. What it holds is safe all the same: it seals nothing once its key is out of the key file.
SELECT host, key_ids FROM workers
WHERE heartbeat_at > now() - make_interval(secs => lease_seconds) AND role <> 'check'
ORDER BY host, pid;
