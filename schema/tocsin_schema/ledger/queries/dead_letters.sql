-- name: list_dead_letters
-- Newest first; the bodies stay where they are.
SELECT id, received_at, queue, code, reason, job_id, length(body) AS size, state, requeues, settled_at
FROM dead_letters
WHERE (%(state)s::text IS NULL OR state = %(state)s) AND (%(job_id)s::uuid IS NULL OR job_id = %(job_id)s)
ORDER BY id DESC
LIMIT %(limit)s;

-- name: read_dead_letter
SELECT id, received_at, queue, code, reason, job_id, length(body) AS size, state, requeues, settled_at, body, details
FROM dead_letters
WHERE id = %(id)s;

-- name: lock_dead_letter
SELECT id FROM dead_letters WHERE id = %(id)s FOR UPDATE;

-- name: settle_dead_letter
-- No row comes back where it was settled before.
UPDATE dead_letters
SET state = %(state)s,
    requeues = requeues + CASE WHEN %(state)s = 'requeued' THEN 1 ELSE 0 END,
    settled_at = now()
WHERE id = %(id)s AND state = 'kept'
RETURNING id;

-- name: keep_dead_letter
-- A message that comes again, because its first acknowledgement was lost, is kept once.
INSERT INTO dead_letters (queue, code, reason, job_id, body, digest, details)
VALUES (%(queue)s, %(code)s, %(reason)s, %(job_id)s, %(body)s, %(digest)s, %(details)s)
ON CONFLICT (digest, code) WHERE state = 'kept' DO UPDATE SET details = EXCLUDED.details
RETURNING id;

-- name: begin_second_chance
-- Counted before it is tried: a part that kills its worker must not be tried for ever.
UPDATE dead_letters SET requeues = requeues + 1
WHERE id = %(id)s AND state = 'kept' AND requeues < %(limit)s
RETURNING id;

-- name: end_second_chance
UPDATE dead_letters SET state = 'requeued', settled_at = now() WHERE id = %(id)s AND state = 'kept';
