-- The embedded message broker on dramatiq-postgres' own table, dramatiq.queue.
-- `state` is queued, consumed (in the hand of `worker_id`) or rejected (never used by us).

-- name: wait_for_turn
SELECT pg_advisory_xact_lock(hashtext('tocsin.message_broker'));

-- name: add_deliveries
-- How often a message was handed out: what kills its workers every time has to stop somewhere.
ALTER TABLE dramatiq.queue ADD COLUMN IF NOT EXISTS deliveries integer NOT NULL DEFAULT 0;

-- name: is_ready
SELECT EXISTS (
    SELECT FROM pg_attribute
    WHERE attrelid = to_regclass('dramatiq.queue') AND attname = 'deliveries' AND NOT attisdropped
);

-- name: enqueue
-- Doing nothing when it is there makes it safe to say again after a broken connection.
WITH enqueued AS (
    INSERT INTO dramatiq.queue (queue_name, message_id, state, message)
    VALUES (%(queue)s, %(id)s, 'queued', %(message)s::jsonb)
    ON CONFLICT (message_id) DO NOTHING
    RETURNING queue_name
)
SELECT pg_notify('dramatiq.' || queue_name || '.enqueue', '') FROM enqueued;

-- name: claim
WITH next AS (
    SELECT message_id
    FROM dramatiq.queue
    WHERE queue_name = %(queue)s AND state = 'queued' AND available_at <= now()
    ORDER BY available_at, position
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE dramatiq.queue AS q
SET state = 'consumed', worker_id = %(worker)s, consumed_at = now(), mtime = now(), deliveries = deliveries + 1
FROM next
WHERE q.message_id = next.message_id
RETURNING q.message_id::text, q.message::text, q.deliveries;

-- name: acknowledge
-- Only by the worker that holds it: one whose messages were taken away must not remove what another works on.
DELETE FROM dramatiq.queue
WHERE message_id = %(id)s AND queue_name = %(queue)s AND state = 'consumed' AND worker_id = %(worker)s;

-- name: dead_letter
-- One statement on one row: the part is in exactly one of the two queues at any time.
WITH moved AS (
    UPDATE dramatiq.queue
    SET queue_name = %(dead_queue)s, state = 'queued', message = %(message)s::jsonb, worker_id = NULL,
        consumed_at = NULL, deliveries = 0, available_at = now(), mtime = now()
    WHERE message_id = %(id)s AND queue_name = %(queue)s AND state = 'consumed' AND worker_id = %(worker)s
    RETURNING queue_name
)
SELECT pg_notify('dramatiq.' || queue_name || '.enqueue', '') FROM moved;

-- name: requeue_later
UPDATE dramatiq.queue
SET state = 'queued', worker_id = NULL, consumed_at = NULL, mtime = now(),
    available_at = now() + make_interval(secs => %(seconds)s)
WHERE message_id = %(id)s AND queue_name = %(queue)s AND state = 'consumed' AND worker_id = %(worker)s;

-- name: give_back
-- What this worker claimed and nobody in it has in hand: its consumer was restarted, or it stops. Not started, so
-- it does not count as a delivery.
UPDATE dramatiq.queue
SET state = 'queued', worker_id = NULL, consumed_at = NULL, mtime = now(), deliveries = greatest(deliveries - 1, 0)
WHERE queue_name = %(queue)s AND state = 'consumed' AND worker_id = %(worker)s
  AND message_id <> ALL (%(in_hand)s::uuid[]);

-- name: limit_time
-- In the transaction only: behind PgBouncer a session is not ours.
SELECT set_config('statement_timeout', %(milliseconds)s::integer::text, true);

-- name: ready_messages
SELECT queue_name, count(*) FROM dramatiq.queue WHERE state = 'queued' GROUP BY queue_name;

-- name: nudge
-- Ends the listener's wait, so that a worker stops at once.
SELECT pg_notify(%(channel)s, '');

-- name: flush
DELETE FROM dramatiq.queue WHERE queue_name = %(queue)s AND state = 'queued';
