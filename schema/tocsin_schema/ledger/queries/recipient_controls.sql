-- name: next_batches_to_retry
-- Some batches with a failed or suppressed recipient, or of which somebody is left although they were closed with their
-- job; all of which somebody is left, where the job's time was over. As many as have about `recipients` of them; locked,
-- so that no outcome falls between the look and the deed.
WITH following AS (
    SELECT number, sum(size) OVER (ORDER BY number) - size AS before
    FROM (
        SELECT number, size
        FROM batches b
        WHERE job_number = %(job_number)s AND number > %(after)s
          AND (failed > 0 OR suppressed > 0 OR ((state = 'done' OR %(was_over)s) AND NOT batch_is_settled(b)))
        ORDER BY number
        LIMIT 1000
    ) found
)
SELECT b.number, (b.state = 'done' OR %(was_over)s) AND NOT batch_is_settled(b) AS is_left
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
-- Whoever failed without any try was refused at intake: their address is malformed. Urgent jobs (rank 0) write to
-- suppressed addresses too.
SELECT ordinal, batch_number, address, state,
       state = 'failed' AND exception_attempts = 0 AND phase IS NULL AND code IS NULL AS is_malformed,
       state IN ('failed', 'suppressed') AND EXISTS (
           SELECT FROM jobs j
           JOIN suppressions s ON s.source = coalesce(j.source, '') OR s.source IS NULL
           WHERE j.number = %(job_number)s AND j.rank > 0 AND s.address = r.address
       ) AS is_suppressed
FROM recipient_states r
WHERE job_number = %(job_number)s AND ordinal = ANY (%(ordinals)s);

-- name: retry_recipients
-- Who failed or was suppressed, and may be written to. Not those that intake refused: nothing has been tried of them, and
-- nothing would be otherwise. What the server said last stays. Each batch's exceptions are looked up by themselves
-- (OFFSET 0), and changed by their key: joined freely, Postgres reads all that a large job has.
WITH found AS MATERIALIZED (
    SELECT e.ordinal, e.batch_number, e.state,
           j.rank > 0 AND (SELECT EXISTS (SELECT FROM suppressions)) AND coalesce((
               SELECT true
               FROM recipients r
               JOIN suppressions s ON s.address = r.address AND (s.source = coalesce(j.source, '') OR s.source IS NULL)
               WHERE r.job_number = %(job_number)s AND r.ordinal = e.ordinal
               LIMIT 1
           ), false) AS is_suppressed
    FROM jobs j
    CROSS JOIN unnest(%(numbers)s::integer[]) AS wanted (number)
    CROSS JOIN LATERAL (
        SELECT sent, first_ordinal
        FROM batches
        WHERE job_number = %(job_number)s AND number = wanted.number
        OFFSET 0
    ) b
    CROSS JOIN LATERAL (
        SELECT ordinal, batch_number, state
        FROM recipient_exceptions
        WHERE job_number = %(job_number)s AND batch_number = wanted.number
          AND (state = 'suppressed'
               OR (state = 'failed' AND (attempts > 0 OR phase IS NOT NULL OR code IS NOT NULL)))
        OFFSET 0
    ) e
    WHERE j.number = %(job_number)s
      AND get_bit(b.sent, e.ordinal - b.first_ordinal) = 0
      AND (%(ordinals)s::integer[] IS NULL OR e.ordinal = ANY (%(ordinals)s))
), changed AS (
    UPDATE recipient_exceptions
    SET state = 'pending', due_at = now(), reason = %(reason)s, updated_at = now()
    WHERE job_number = %(job_number)s AND ordinal = ANY (ARRAY(SELECT ordinal FROM found WHERE NOT is_suppressed))
)
SELECT batch_number,
       count(*) FILTER (WHERE state = 'failed' AND NOT is_suppressed) AS failed,
       count(*) FILTER (WHERE state = 'suppressed' AND NOT is_suppressed) AS suppressed,
       count(*) FILTER (WHERE state = 'failed' AND is_suppressed) AS left_out
FROM found
GROUP BY batch_number;

-- name: make_deferred_due
-- Whoever was to be tried again later, when the job's time was over.
UPDATE recipient_exceptions
SET due_at = now(), updated_at = now()
WHERE job_number = %(job_number)s
  AND ordinal = ANY (ARRAY(
      SELECT e.ordinal
      FROM unnest(%(numbers)s::integer[]) AS wanted (number)
      CROSS JOIN LATERAL (
          SELECT ordinal
          FROM recipient_exceptions
          WHERE job_number = %(job_number)s AND batch_number = wanted.number AND state = 'pending' AND due_at > now()
          OFFSET 0
      ) e
  ));

-- name: settle_unknown
-- As failed, or to be sent again at once. Looked up and changed as in retry_recipients.
WITH found AS MATERIALIZED (
    SELECT e.ordinal, e.batch_number
    FROM unnest(%(numbers)s::integer[]) AS wanted (number)
    CROSS JOIN LATERAL (
        SELECT sent, first_ordinal
        FROM batches
        WHERE job_number = %(job_number)s AND number = wanted.number
        OFFSET 0
    ) b
    CROSS JOIN LATERAL (
        SELECT ordinal, batch_number
        FROM recipient_exceptions
        WHERE job_number = %(job_number)s AND batch_number = wanted.number AND state = 'unknown'
        OFFSET 0
    ) e
    WHERE get_bit(b.sent, e.ordinal - b.first_ordinal) = 0
      AND (%(ordinals)s::integer[] IS NULL OR e.ordinal = ANY (%(ordinals)s))
), changed AS (
    UPDATE recipient_exceptions
    SET state = %(state)s, due_at = CASE WHEN %(state)s::text = 'pending' THEN now() END, reason = %(reason)s,
        updated_at = now()
    WHERE job_number = %(job_number)s AND ordinal = ANY (ARRAY(SELECT ordinal FROM found))
)
SELECT batch_number, count(*) FROM found GROUP BY batch_number;

-- name: settle_as_sent
-- The bit of an acceptance, and no email copy: nobody knows what the provider said. The try that was in doubt is the
-- one that got through, and so none of those that did not. Looked up and changed as in retry_recipients.
WITH found AS MATERIALIZED (
    SELECT e.ordinal, e.batch_number, set_bit(repeat('0', b.size)::varbit, e.ordinal - b.first_ordinal, 1) AS bit
    FROM unnest(%(numbers)s::integer[]) AS wanted (number)
    CROSS JOIN LATERAL (
        SELECT sent, first_ordinal, size
        FROM batches
        WHERE job_number = %(job_number)s AND number = wanted.number
        OFFSET 0
    ) b
    CROSS JOIN LATERAL (
        SELECT ordinal, batch_number
        FROM recipient_exceptions
        WHERE job_number = %(job_number)s AND batch_number = wanted.number AND state = 'unknown'
        OFFSET 0
    ) e
    WHERE get_bit(b.sent, e.ordinal - b.first_ordinal) = 0
      AND (%(ordinals)s::integer[] IS NULL OR e.ordinal = ANY (%(ordinals)s))
), changed AS (
    UPDATE recipient_exceptions
    SET attempts = greatest(attempts - 1, 0), reason = %(reason)s, updated_at = now()
    WHERE job_number = %(job_number)s AND ordinal = ANY (ARRAY(SELECT ordinal FROM found))
), masks AS (
    SELECT batch_number, count(*) AS recipients, bit_or(bit) AS mask FROM found GROUP BY batch_number
)
UPDATE batches b
SET sent = b.sent | m.mask
FROM masks m
WHERE b.job_number = %(job_number)s AND b.number = ANY (%(numbers)s) AND b.number = m.batch_number
RETURNING b.number, m.recipients;

-- name: make_due
-- What is left of them is worked on at once; whoever was deferred still has a time of their own. A leased batch stays
-- with its owner, who does not know of it: '-infinity' says that it is due at once when it is given back. What waits for
-- the job's part 1 goes on waiting for it.
UPDATE batches b
SET state = CASE WHEN b.state = 'leased' THEN 'leased' ELSE 'due' END,
    due_at = CASE
        WHEN b.state = 'leased' THEN '-infinity'
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
