-- name: read_sender_profile
-- Everything that a slice has to know of its profile, and whether it may send now.
SELECT p.id, p.name, p.host, p.port, p.tls, p.auth, p.from_address, p.oauth_profile_id, p.login, p.sealed_password,
       p.ca_pem, p.allow_plaintext_auth, p.batch_size, p.copies, p.mailbox_id, p.updated_at,
       p.paused_reason, coalesce(p.probe_at <= now(), false) AS probe_is_due, p.probes, p.resumed_at,
       now() AS read_at, p.provider, m.connections, m.messages_per_minute, m.recipients_per_day,
       CASE WHEN m.parked_until > now() THEN m.parked_until END AS parked_until,
       m.parked_reason
FROM sending_profiles p
JOIN mailboxes m ON m.id = p.mailbox_id
WHERE p.id = %(profile_id)s;

-- name: claim_batches
-- Best rank first; jobs of one rank share a claim evenly, so that a long job does not hold up a short one.
WITH best AS (
    SELECT number
    FROM sendable_jobs
    WHERE profile_id = %(profile_id)s
      AND rank = (SELECT min(rank) FROM sendable_jobs WHERE profile_id = %(profile_id)s)
      AND EXISTS (SELECT FROM sending_profiles WHERE id = %(profile_id)s AND paused_at IS NULL)
    ORDER BY random()
    LIMIT %(limit)s
),
due AS (
    SELECT d.job_number, d.number
    FROM best
    CROSS JOIN LATERAL (
        SELECT job_number, number
        FROM batches
        WHERE job_number = best.number AND state = 'due' AND due_at <= now()
        ORDER BY due_at, number
        LIMIT ceil(%(limit)s::numeric / (SELECT count(*) FROM best))
        FOR UPDATE SKIP LOCKED
    ) d
)
UPDATE batches b
SET state = 'leased', leased_by = %(worker_id)s, lease_epoch = b.lease_epoch + 1, leased_at = now()
FROM due
WHERE b.job_number = due.job_number AND b.number = due.number
RETURNING b.job_number, b.number, b.first_ordinal, b.size, b.lease_epoch, b.sent::text AS sent;

-- name: read_claimed_recipients
-- OFFSET 0 keeps every batch's look-up to itself: joined freely, Postgres reads the whole of a large job for a few
-- batches of it, once its table has statistics.
SELECT r.job_number, r.batch_number, r.ordinal, r.address, r.name, r.data
FROM unnest(%(job_numbers)s::bigint[], %(first_ordinals)s::integer[], %(sizes)s::integer[])
         AS c (job_number, first_ordinal, size)
CROSS JOIN LATERAL (
    SELECT job_number, batch_number, ordinal, address, name, data
    FROM recipients
    WHERE job_number = c.job_number AND ordinal >= c.first_ordinal AND ordinal < c.first_ordinal + c.size
    OFFSET 0
) r
ORDER BY r.job_number, r.ordinal;

-- name: read_claimed_exceptions
SELECT e.job_number, e.ordinal, e.batch_number, e.state, e.attempts,
       extract(epoch FROM e.due_at - now())::float8 AS due_in_seconds, e.alone
FROM unnest(%(job_numbers)s::bigint[], %(batch_numbers)s::integer[]) AS c (job_number, batch_number)
CROSS JOIN LATERAL (
    SELECT job_number, ordinal, batch_number, state, attempts, due_at, alone
    FROM recipient_exceptions
    WHERE job_number = c.job_number AND batch_number = c.batch_number
    OFFSET 0
) e;

-- name: read_job_content
SELECT j.number, j.id, j.mode, j.on_unknown, c.rendered, c.subject, c.text_body, c.html_body, c.from_name,
       c.reply_to, c.visible_to, c.headers, c.data
FROM jobs j
JOIN message_contents c ON c.job_number = j.number
WHERE j.number = %(job_number)s;

-- name: mark_in_flight
-- Fenced: only the owner of the lease may mark, and only with the epoch of its claim. A batch that does not come
-- back has another owner now, or its job was cancelled or paused or has expired meanwhile, or its profile or all
-- sending was paused.
UPDATE batches b
SET in_flight = b.in_flight | v.mask
FROM unnest(%(job_numbers)s::bigint[], %(numbers)s::integer[], %(epochs)s::bigint[], %(masks)s::varbit[])
         AS v (job_number, number, epoch, mask)
JOIN jobs j ON j.number = v.job_number AND j.state IN ('receiving', 'running') AND j.expires_at > now()
JOIN sending_profiles p ON p.id = j.profile_id AND p.paused_at IS NULL
WHERE b.job_number = v.job_number AND b.number = v.number
  AND b.state = 'leased' AND b.leased_by = %(worker_id)s AND b.lease_epoch = v.epoch
  AND (SELECT sending_is_allowed())
RETURNING b.job_number, b.number;

-- name: release_batches
-- Whatever is still marked was never written: its owner says so by releasing.
UPDATE batches b
SET state = CASE WHEN batch_is_settled(b) THEN 'done' ELSE 'due' END,
    -- Its owner does not know of whom a person wants tried again meanwhile: those have left a mark there.
    due_at = CASE
        WHEN b.due_at = '-infinity' THEN now()
        ELSE now() + make_interval(secs => v.due_in_seconds)
    END,
    leased_by = NULL,
    in_flight = b.in_flight & repeat('0', b.size)::varbit
FROM unnest(%(job_numbers)s::bigint[], %(numbers)s::integer[], %(epochs)s::bigint[], %(due_in_seconds)s::float8[])
         AS v (job_number, number, epoch, due_in_seconds)
WHERE b.job_number = v.job_number AND b.number = v.number
  AND b.state = 'leased' AND b.leased_by = %(worker_id)s AND b.lease_epoch = v.epoch
RETURNING b.job_number, b.state;

-- name: lock_jobs
-- In a statement of its own: what comes after it sees what whoever held the lock has committed.
SELECT number
FROM jobs
WHERE number = ANY (%(job_numbers)s) AND state IN ('running', 'paused')
ORDER BY number
FOR NO KEY UPDATE;

-- name: finish_jobs
-- Run after the batches are committed: then at least the last of several workers sees them all done. A paused job too,
-- if nothing more can come of it.
UPDATE jobs
SET state = 'finished', state_reason = NULL, finished_at = now()
WHERE number = ANY (%(job_numbers)s)
  AND (state = 'running'
       OR (state = 'paused' AND last_part = (SELECT count(*) FROM job_parts p WHERE p.job_number = jobs.number)))
  AND NOT EXISTS (SELECT FROM batches b WHERE b.job_number = jobs.number AND b.state <> 'done')
RETURNING number;

-- name: has_due_work
SELECT EXISTS (SELECT FROM sendable_jobs WHERE profile_id = %(profile_id)s);

-- name: read_recipient_of_copy
-- The one recipient of an individual message.
SELECT r.job_number, r.batch_number, r.ordinal, r.address, r.name, r.data
FROM email_copies c
JOIN batches b ON b.job_number = c.job_number AND b.number = c.batch_number
JOIN recipients r ON r.job_number = c.job_number AND r.ordinal = b.first_ordinal + c.first_index
WHERE c.id = %(copy_id)s;
