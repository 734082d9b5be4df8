-- name: register_worker
INSERT INTO workers (id, host, pid, role, lease_seconds, key_ids, schema_version)
VALUES (%(id)s, %(host)s, %(pid)s, %(role)s, %(lease_seconds)s, %(key_ids)s, %(schema_version)s)
ON CONFLICT (id) DO UPDATE SET heartbeat_at = now(), key_ids = EXCLUDED.key_ids;

-- name: beat
-- No row comes back where the sweeper has buried this worker: its leases are gone.
UPDATE workers SET heartbeat_at = now(), key_ids = %(key_ids)s WHERE id = %(id)s RETURNING id;

-- name: release_forgotten_batches
-- A claim whose commit succeeded and whose reply was lost: leased by us, and we do not know of it. Nothing of it was
-- written, so its marks mean nothing.
UPDATE batches b
SET state = CASE WHEN batch_is_settled(b) THEN 'done' ELSE 'due' END,
    due_at = now(), leased_by = NULL, lease_epoch = b.lease_epoch + 1, in_flight = b.in_flight & repeat('0', b.size)::varbit
FROM (
    SELECT f.job_number, f.number
    FROM batches f
    WHERE f.state = 'leased' AND f.leased_by = %(id)s
      AND f.leased_at < now() - make_interval(secs => %(older_than_seconds)s)
      AND NOT EXISTS (
          SELECT FROM unnest(%(job_numbers)s::bigint[], %(numbers)s::integer[], %(epochs)s::bigint[])
                          AS known (job_number, number, epoch)
          WHERE known.job_number = f.job_number AND known.number = f.number AND known.epoch = f.lease_epoch
      )
    FOR UPDATE SKIP LOCKED
) forgotten
WHERE b.job_number = forgotten.job_number AND b.number = forgotten.number
RETURNING b.job_number;

-- name: retire_worker
-- A worker that ends in good order gives everything back itself. All its outcomes are recorded by now: what is still
-- marked was never written.
WITH connections AS (
    DELETE FROM mailbox_connections WHERE worker_id = %(id)s
), batches_back AS (
    UPDATE batches b
    SET state = CASE WHEN batch_is_settled(b) THEN 'done' ELSE 'due' END,
        due_at = now(), leased_by = NULL, in_flight = b.in_flight & repeat('0', b.size)::varbit
    WHERE b.state = 'leased' AND b.leased_by = %(id)s
)
DELETE FROM workers WHERE id = %(id)s;
