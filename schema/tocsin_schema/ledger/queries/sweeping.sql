-- name: try_lock_sweep
-- One sweep at a time over the fleet; held to the end of the transaction.
SELECT pg_try_advisory_xact_lock(hashtext('tocsin.sweep'));

-- name: make_partitions
SELECT make_partitions(now(), 2);

-- name: lapsed_workers
-- Not in the first lease time after Postgres has started: then nobody could give a sign of life.
SELECT id FROM workers
WHERE heartbeat_at < now() - make_interval(secs => lease_seconds)
  AND pg_postmaster_start_time() < now() - make_interval(secs => lease_seconds)
FOR UPDATE SKIP LOCKED;

-- name: ownerless_leases
-- Whose row is gone although they still lease something: ended in a hurry, or removed by hand.
SELECT DISTINCT b.leased_by
FROM batches b
WHERE b.state = 'leased' AND NOT EXISTS (SELECT FROM workers w WHERE w.id = b.leased_by);

-- name: lock_leases
-- Before anything is decided, so that no late outcome falls between the decision and the deed. What a frozen process
-- has locked is left for the next sweep.
SELECT job_number, number FROM batches
WHERE state = 'leased' AND leased_by = ANY (%(worker_ids)s)
ORDER BY job_number, number
FOR UPDATE SKIP LOCKED;

-- name: note_in_doubt
-- Whoever gets this message twice can be told why. What the worker has said of a try itself is not told again. Gives how
-- many are in doubt by profile; of a shared message nobody knows which recipients went together, so a batch is one.
WITH doubted AS MATERIALIZED (
    SELECT b.job_number, b.number, b.first_ordinal + bit.i AS ordinal, b.lease_epoch, j.profile_id, j.mode, j.on_unknown
    FROM unnest(%(job_numbers)s::bigint[], %(numbers)s::integer[]) AS k (job_number, number)
    JOIN batches b ON b.job_number = k.job_number AND b.number = k.number
    JOIN jobs j ON j.number = b.job_number
    CROSS JOIN LATERAL generate_series(0, b.size - 1) AS bit (i)
    WHERE get_bit(b.in_flight & ~b.sent, bit.i) = 1
), noted AS (
    INSERT INTO delivery_attempts (job_number, ordinal, lease_epoch, state, phase, reason)
    SELECT job_number, ordinal, lease_epoch, CASE on_unknown WHEN 'hold' THEN 'unknown' ELSE 'pending' END, 'final',
           'the worker stopped while this message was in flight: it may have been sent'
    FROM doubted
    ON CONFLICT DO NOTHING
    RETURNING job_number, ordinal
)
SELECT p.name AS profile, count(*) AS recipients,
       count(DISTINCT (d.job_number, d.number, CASE d.mode WHEN 'individual' THEN d.ordinal END)) AS messages
FROM noted n
JOIN doubted d USING (job_number, ordinal)
JOIN sending_profiles p ON p.id = d.profile_id
GROUP BY p.name;

-- name: hold_in_doubt
-- Jobs that ask for no doubles: what was in flight when its worker died waits for a person.
INSERT INTO recipient_exceptions (job_number, ordinal, batch_number, state, attempts, reason)
SELECT b.job_number, b.first_ordinal + bit.i, b.number, 'unknown', 1,
       'the worker stopped while this message was in flight'
FROM unnest(%(job_numbers)s::bigint[], %(numbers)s::integer[]) AS k (job_number, number)
JOIN batches b ON b.job_number = k.job_number AND b.number = k.number
JOIN jobs j ON j.number = b.job_number AND j.on_unknown = 'hold'
CROSS JOIN LATERAL generate_series(0, b.size - 1) AS bit (i)
WHERE get_bit(b.in_flight & ~b.sent, bit.i) = 1
ON CONFLICT (job_number, ordinal) DO UPDATE
SET state = 'unknown', due_at = NULL, attempts = recipient_exceptions.attempts + 1, reason = EXCLUDED.reason,
    updated_at = now();

-- name: reclaim_batches
-- At once the first time; ever later if workers keep dying with it in hand.
WITH held AS (
    SELECT b.job_number, b.number, count(e.ordinal) AS unknown
    FROM unnest(%(job_numbers)s::bigint[], %(numbers)s::integer[]) AS k (job_number, number)
    JOIN batches b ON b.job_number = k.job_number AND b.number = k.number
    LEFT JOIN recipient_exceptions e
      ON e.job_number = b.job_number AND e.batch_number = b.number AND e.state = 'unknown'
     AND get_bit(b.sent, e.ordinal - b.first_ordinal) = 0
    GROUP BY b.job_number, b.number
)
UPDATE batches b
SET state = CASE WHEN bit_count(b.sent) + b.failed + h.unknown + b.suppressed >= b.size THEN 'done' ELSE 'due' END,
    unknown = h.unknown, deaths = least(b.deaths + 1, 100), lease_epoch = b.lease_epoch + 1, leased_by = NULL,
    due_at = now() + make_interval(secs => least(3600, 2.0 ^ least(b.deaths, 20) - 1)),
    in_flight = b.in_flight & repeat('0', b.size)::varbit
FROM held h
WHERE b.job_number = h.job_number AND b.number = h.number
RETURNING b.job_number;

-- name: bury_workers
-- Their rows go. What a frozen process has locked is found by ownerless_leases later.
WITH connections AS (
    DELETE FROM mailbox_connections WHERE worker_id = ANY (%(worker_ids)s)
)
DELETE FROM workers WHERE id = ANY (%(worker_ids)s);

-- name: free_orphaned_connections
-- A slot whose worker has no row any more.
DELETE FROM mailbox_connections c WHERE NOT EXISTS (SELECT FROM workers w WHERE w.id = c.worker_id);

-- name: close_expired_jobs
-- A few hundred at a time, and none that somebody has locked: the next sweep is a second away, and nothing is claimed of
-- an expired job anyway. A job that has only to be finished has not expired. The counts are those of this moment. In a ledger that was
-- put back from a backup nobody is given up before a person has looked.
WITH over AS MATERIALIZED (
    SELECT number, NOT c.is_complete AS is_incomplete
    FROM jobs j
    CROSS JOIN LATERAL (
        SELECT (state = 'running'
                OR (state = 'paused'
                    AND last_part = (SELECT count(*) FROM job_parts p WHERE p.job_number = j.number))) IS TRUE
               AS is_complete
        OFFSET 0
    ) c
    WHERE state IN ('receiving', 'running', 'paused') AND expires_at <= now()
      AND (SELECT sending_is_allowed() OR EXISTS (SELECT FROM sending_halt WHERE cause = 'by_hand'))
      AND (NOT c.is_complete
           OR EXISTS (SELECT FROM batches b WHERE b.job_number = j.number AND b.state <> 'done'))
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF j SKIP LOCKED
), closed AS (
    UPDATE jobs j
    SET state = 'finished', finished_at = now(),
        state_reason = CASE
            WHEN o.is_incomplete THEN 'incomplete: its last part did not come before it expired'
            ELSE 'expired'
        END
    FROM over o
    WHERE j.number = o.number
    RETURNING j.number, j.id, o.is_incomplete
)
SELECT c.number, c.id, c.is_incomplete, b.total, b.sent, b.in_flight, b.failed, b.unknown, b.suppressed,
       b.total - b.sent - b.in_flight - b.failed - b.unknown - b.suppressed AS expired
FROM closed c
CROSS JOIN LATERAL (
    SELECT coalesce(sum(size), 0)::bigint AS total,
           coalesce(sum(bit_count(sent)), 0)::bigint AS sent,
           coalesce(sum(bit_count(in_flight & ~sent)), 0)::bigint AS in_flight,
           coalesce(sum(failed), 0)::bigint AS failed,
           coalesce(sum(unknown), 0)::bigint AS unknown,
           coalesce(sum(suppressed), 0)::bigint AS suppressed
    FROM batches
    WHERE job_number = c.number
    OFFSET 0
) b;

-- name: note_events
INSERT INTO job_events (job_number, event, details)
SELECT job_number, event, details::json
FROM unnest(%(job_numbers)s::bigint[], %(events)s::text[], %(details)s::text[]) AS e (job_number, event, details);

-- name: close_batches_of_ended_jobs
-- A little at a time: a cancelled job of a million recipients must not hold up the sweep.
UPDATE batches b
SET state = 'done'
FROM (
    SELECT o.job_number, o.number
    FROM ended_jobs e
    JOIN jobs j ON j.number = e.job_number AND j.state IN ('cancelled', 'finished')
    CROSS JOIN LATERAL (
        SELECT job_number, number FROM batches WHERE job_number = e.job_number AND state = 'due' OFFSET 0
    ) o
    JOIN batches d ON d.job_number = o.job_number AND d.number = o.number AND d.state = 'due'
    LIMIT 5000
    -- A job that is just being reopened is locked, and keeps its batches.
    FOR UPDATE OF d SKIP LOCKED
    FOR NO KEY UPDATE OF j SKIP LOCKED
) ended
WHERE b.job_number = ended.job_number AND b.number = ended.number;

-- name: forget_ended_jobs
-- Of which nothing is open any more, or which go on: what is leased still comes back. Not those that ended just now:
-- one may have been opened and ended again while we look.
DELETE FROM ended_jobs e
WHERE e.noted_at < now() - interval '2 minutes'
  AND NOT EXISTS (
      SELECT
      FROM jobs j
      JOIN batches b ON b.job_number = j.number AND b.state <> 'done'
      WHERE j.number = e.job_number AND j.state IN ('cancelled', 'finished')
  );

-- name: lock_complete_jobs
-- Jobs whose last batch ended without anyone noticing: rare, so that of very many open jobs some are looked at, at
-- random, each time. None that somebody has locked: a part that comes late, or a person, may just be reopening it.
SELECT j.number
FROM (SELECT number FROM jobs WHERE state IN ('running', 'paused') ORDER BY random() LIMIT %(limit)s) picked
JOIN jobs j ON j.number = picked.number
WHERE j.state IN ('running', 'paused')
  AND NOT EXISTS (SELECT FROM batches b WHERE b.job_number = j.number AND b.state <> 'done')
FOR NO KEY UPDATE OF j SKIP LOCKED;

-- name: profiles_to_wake
-- Due and sendable now, and no wake-up lately: it was lost, or the time for it has only now come. A profile whose
-- credentials were refused is woken too when it is time to try them again. One job that can be sent is enough. Nobody is
-- woken for a mailbox that has no connection left, or of which the next time slot is far: there would be nothing to do.
SELECT p.id, r.rank
FROM sending_profiles p
JOIN mailboxes m ON m.id = p.mailbox_id
JOIN mailbox_rests s ON s.mailbox_id = m.id AND s.parked_until IS NULL
CROSS JOIN unnest(ARRAY[0, 1, 2]::smallint[]) AS r (rank)
LEFT JOIN wakeups w ON w.profile_id = p.id AND w.rank = r.rank
CROSS JOIN LATERAL (SELECT FROM sendable_jobs j WHERE j.profile_id = p.id AND j.rank = r.rank LIMIT 1) due
WHERE (p.paused_at IS NULL OR p.probe_at <= now())
  AND (w.under_way IS NULL OR w.under_way = 0 OR w.sent_at < now() - make_interval(secs => %(patience_seconds)s))
  AND (least(m.messages_per_minute, m.learned_per_minute) IS NULL
       OR m.next_message_at <= now() + make_interval(secs => %(horizon_seconds)s))
  AND (least(m.connections, m.learned_connections) IS NULL
       OR (SELECT count(*) FROM mailbox_connections c WHERE c.mailbox_id = m.id)
          < least(m.connections, m.learned_connections));

-- name: note_swept
UPDATE ledger_origin SET swept_at = now() WHERE swept_at IS NULL OR abs(extract(epoch FROM now() - swept_at)) > 5;
