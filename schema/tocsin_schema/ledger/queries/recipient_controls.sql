-- name: next_batches_to_retry
-- Some batches with a failed recipient, or of which somebody is left although they were closed with their job. As many
-- as have about `recipients` of them; locked, so that no outcome falls between the look and the deed.
WITH following AS (
    SELECT number, sum(size) OVER (ORDER BY number) - size AS before
    FROM (
        SELECT number, size
        FROM batches b
        WHERE job_number = %(job_number)s AND number > %(after)s
          AND (failed > 0 OR (state = 'done' AND NOT batch_is_settled(b)))
        ORDER BY number
        LIMIT 1000
    ) found
)
SELECT b.number, b.state = 'done' AND NOT batch_is_settled(b) AS is_left
FROM batches b
JOIN following f ON f.number = b.number AND f.before < %(recipients)s
WHERE b.job_number = %(job_number)s
ORDER BY b.number
FOR UPDATE OF b;

-- name: next_batches_in_doubt
-- The same for recipients whose fate is unknown.
WITH following AS (
    SELECT number, sum(size) OVER (ORDER BY number) - size AS before
    FROM (
        SELECT number, size
        FROM batches
        WHERE job_number = %(job_number)s AND number > %(after)s AND unknown > 0
        ORDER BY number
        LIMIT 1000
    ) found
)
SELECT b.number
FROM batches b
JOIN following f ON f.number = b.number AND f.before < %(recipients)s
WHERE b.job_number = %(job_number)s
ORDER BY b.number
FOR UPDATE OF b;

-- name: lock_batches
SELECT number
FROM batches
WHERE job_number = %(job_number)s AND number = ANY (%(numbers)s)
ORDER BY number
FOR UPDATE;

-- name: find_recipients
-- There is no index by address: one look over the job's recipients finds all that are asked for.
SELECT ordinal, batch_number FROM recipients WHERE job_number = %(job_number)s AND address = ANY (%(addresses)s);

-- name: read_standings
-- Whoever failed without any try was refused at intake: their address is malformed.
SELECT ordinal, batch_number, address, state,
       state = 'failed' AND exception_attempts = 0 AND phase IS NULL AND code IS NULL AS is_malformed
FROM recipient_states
WHERE job_number = %(job_number)s AND ordinal = ANY (%(ordinals)s);

-- name: retry_failed
-- Not those that intake refused: nothing has been tried of them, and nothing would be otherwise. What the server said
-- last stays.
WITH changed AS (
    UPDATE recipient_exceptions e
    SET state = 'pending', due_at = now(), reason = %(reason)s, updated_at = now()
    FROM batches b
    WHERE b.job_number = %(job_number)s AND b.number = ANY (%(numbers)s)
      AND e.job_number = %(job_number)s AND e.batch_number = b.number
      AND e.state = 'failed' AND (e.attempts > 0 OR e.phase IS NOT NULL OR e.code IS NOT NULL)
      AND get_bit(b.sent, e.ordinal - b.first_ordinal) = 0
      AND (%(ordinals)s::integer[] IS NULL OR e.ordinal = ANY (%(ordinals)s))
    RETURNING e.batch_number
)
SELECT batch_number, count(*) FROM changed GROUP BY batch_number;

-- name: settle_unknown
-- As failed, or to be sent again at once.
WITH changed AS (
    UPDATE recipient_exceptions e
    SET state = %(state)s, due_at = CASE WHEN %(state)s::text = 'pending' THEN now() END, reason = %(reason)s,
        updated_at = now()
    FROM batches b
    WHERE b.job_number = %(job_number)s AND b.number = ANY (%(numbers)s)
      AND e.job_number = %(job_number)s AND e.batch_number = b.number
      AND e.state = 'unknown'
      AND get_bit(b.sent, e.ordinal - b.first_ordinal) = 0
      AND (%(ordinals)s::integer[] IS NULL OR e.ordinal = ANY (%(ordinals)s))
    RETURNING e.batch_number
)
SELECT batch_number, count(*) FROM changed GROUP BY batch_number;

-- name: settle_as_sent
-- The bit of an acceptance, and no email copy: nobody knows what the provider said. The try that was in doubt is the
-- one that got through, and so none of those that did not.
WITH changed AS (
    UPDATE recipient_exceptions e
    SET attempts = greatest(e.attempts - 1, 0), reason = %(reason)s, updated_at = now()
    FROM batches b
    WHERE b.job_number = %(job_number)s AND b.number = ANY (%(numbers)s)
      AND e.job_number = %(job_number)s AND e.batch_number = b.number
      AND e.state = 'unknown'
      AND get_bit(b.sent, e.ordinal - b.first_ordinal) = 0
      AND (%(ordinals)s::integer[] IS NULL OR e.ordinal = ANY (%(ordinals)s))
    RETURNING e.batch_number, set_bit(repeat('0', b.size)::varbit, e.ordinal - b.first_ordinal, 1) AS bit
), masks AS (
    SELECT batch_number, count(*) AS recipients, bit_or(bit) AS mask FROM changed GROUP BY batch_number
)
UPDATE batches b
SET sent = b.sent | m.mask
FROM masks m
WHERE b.job_number = %(job_number)s AND b.number = m.batch_number
RETURNING b.number, m.recipients;

-- name: make_due
-- What is left of them is worked on at once; whoever was deferred still has a time of their own. A leased batch stays
-- with its owner, who gives it back with somebody left. What waits for the job's part 1 goes on waiting for it.
UPDATE batches b
SET state = CASE WHEN b.state = 'leased' THEN 'leased' ELSE 'due' END,
    due_at = CASE
        WHEN b.due_at = 'infinity'
             AND NOT EXISTS (SELECT FROM job_parts WHERE job_number = %(job_number)s AND number = 1) THEN b.due_at
        ELSE least(b.due_at, now())
    END
WHERE b.job_number = %(job_number)s AND b.number = ANY (%(numbers)s) AND NOT batch_is_settled(b);

-- name: hold_profile
-- The profile of a job that is opened again cannot be removed meanwhile.
SELECT p.id
FROM jobs j
JOIN sending_profiles p ON p.id = j.profile_id
WHERE j.number = %(job_number)s
FOR KEY SHARE OF p;
