-- name: job_number_of_id
SELECT job_number FROM job_ids WHERE id = %(id)s;

-- name: read_jobs
-- Newest first, a page at a time. OFFSET 0 keeps the sums inside: they are made for the jobs of this page only.
-- While only urgent jobs may use what is left of a day, the mailbox rests for the others.
WITH page AS MATERIALIZED (
    SELECT *
    FROM jobs
    WHERE number <= %(up_to)s
      AND (%(number)s::bigint IS NULL OR number = %(number)s)
      AND (%(profile)s::text IS NULL OR profile_id = (SELECT id FROM sending_profiles WHERE name = %(profile)s))
      AND state = ANY (%(states)s)
    ORDER BY number DESC
    LIMIT %(limit)s
)
SELECT j.number, j.id, j.state, j.state_reason, p.name AS profile, t.name AS template, j.template_version, j.mode,
       j.rank, j.on_unknown, j.source, j.key, j.event, j.correlation_id, j.last_part, j.created_at, j.send_after,
       j.expires_at,
       CASE j.state
           WHEN 'cancelled' THEN (SELECT max(at) FROM job_events WHERE job_number = j.number AND event = 'cancelled')
           ELSE j.finished_at
       END AS finished_at,
       c.total, c.sent, c.in_flight, c.failed, c.unknown, c.suppressed, c.unsettled, c.unsettled_state,
       parts.received AS parts_received, parts.lacks_first AS lacks_first_part, parts.duplicates,
       -- A batch that waits for the job's part 1 is due at infinity, which is no time that Python knows.
       (SELECT nullif(min(b.due_at), 'infinity') FROM batches b WHERE b.job_number = j.number AND b.state = 'due')
           AS next_due_at,
       EXISTS (SELECT FROM batches b WHERE b.job_number = j.number AND b.state = 'leased') AS is_worked_on,
       p.paused_at IS NOT NULL AS profile_is_paused, p.paused_reason,
       CASE WHEN j.rank = 0 THEN m.parked_until ELSE greatest(m.parked_until, m.kept_for_urgent_until) END
           AS parked_until,
       CASE
           WHEN j.rank = 0 OR m.kept_for_urgent_until IS NULL OR m.parked_until >= m.kept_for_urgent_until
           THEN m.parked_reason
           ELSE m.kept_for_urgent_reason
       END AS parked_reason,
       coalesce(j.rank > 0 AND m.kept_for_urgent_until > coalesce(m.parked_until, '-infinity'), false)
           AS is_kept_for_urgent,
       (SELECT CASE WHEN NOT sending_is_allowed() THEN coalesce((SELECT reason FROM sending_halt), %(elsewhere)s) END)
           AS halted_reason,
       (SELECT EXISTS (SELECT FROM workers
                       WHERE role IN ('sender', 'all') AND heartbeat_at > now() - interval '30 seconds'))
           AS has_senders,
       now() AS read_at
FROM page j
LEFT JOIN sending_profiles p ON p.id = j.profile_id
LEFT JOIN mailbox_rests m ON m.mailbox_id = p.mailbox_id
LEFT JOIN email_templates t ON t.id = j.template_id
CROSS JOIN LATERAL (SELECT * FROM job_counts WHERE job_number = j.number OFFSET 0) c
CROSS JOIN LATERAL (
    SELECT count(*)::bigint AS received,
           coalesce(min(number) > 1, false) AS lacks_first,
           coalesce(sum(duplicates), 0)::bigint AS duplicates
    FROM job_parts
    WHERE job_number = j.number
    OFFSET 0
) parts
ORDER BY j.number DESC;

-- name: next_batches
SELECT number, first_ordinal, size
FROM batches
WHERE job_number = %(job_number)s AND number > %(after)s
ORDER BY number
LIMIT %(limit)s;

-- name: recipients_of_batches
-- OFFSET 0 keeps every batch's look-up to itself. Joined freely, and before the tables of a big new job have
-- statistics, Postgres compares each recipient with each batch, and a million of them take minutes.
SELECT s.ordinal, s.batch_number, s.address, s.name, s.state,
       coalesce(s.exception_attempts, 0) AS exception_attempts,
       s.due_at, s.code, s.enhanced_code, s.reply, s.reason
FROM unnest(%(numbers)s::integer[], %(first_ordinals)s::integer[], %(sizes)s::integer[])
         AS wanted (number, first_ordinal, size)
CROSS JOIN LATERAL (
    SELECT *
    FROM recipient_states
    WHERE job_number = %(job_number)s
      AND batch_number = wanted.number
      AND ordinal >= wanted.first_ordinal
      AND ordinal < wanted.first_ordinal + wanted.size
    OFFSET 0
) s
WHERE %(state)s::text IS NULL OR s.state = %(state)s
ORDER BY s.ordinal;

-- name: acceptances_of_batches
-- What the provider said to the messages of some batches; a later message wins over an earlier one.
SELECT wanted.first_ordinal, c.recipients::text AS recipients, c.accepted_at, c.reply_code AS code, c.enhanced_code,
       c.reply, c.message_id, c.lease_epoch
FROM unnest(%(numbers)s::integer[], %(first_ordinals)s::integer[]) AS wanted (number, first_ordinal)
CROSS JOIN LATERAL (
    SELECT * FROM email_copies WHERE job_number = %(job_number)s AND batch_number = wanted.number OFFSET 0
) c
ORDER BY c.id;

-- name: tries_of_recipients
-- The newest of each, oldest first. One look a recipient, so that somebody who was tried ten thousand times costs no
-- more than others.
SELECT t.ordinal, t.at, t.state, t.phase, t.code, t.enhanced_code, t.reply, t.reason, t.lease_epoch
FROM unnest(%(ordinals)s::integer[]) AS wanted (ordinal)
CROSS JOIN LATERAL (
    SELECT *
    FROM delivery_attempts
    WHERE job_number = %(job_number)s AND ordinal = wanted.ordinal
    ORDER BY lease_epoch DESC
    LIMIT %(most)s
) t
ORDER BY t.ordinal, t.lease_epoch;
