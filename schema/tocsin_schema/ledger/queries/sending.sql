-- name: read_sender_profile
-- Everything that a slice has to know of its profile, and whether it may send now.
SELECT p.id, p.name, p.host, p.port, p.tls, p.auth, p.from_address, p.oauth_profile_id, p.login, p.sealed_password,
       p.ca_pem, p.allow_plaintext_auth, p.batch_size, p.copies, p.mailbox_id, p.updated_at,
       p.paused_reason, m.connections, m.messages_per_minute,
       CASE WHEN m.parked_until > now() THEN m.parked_until END AS parked_until,
       m.parked_reason
FROM sending_profiles p
JOIN mailboxes m ON m.id = p.mailbox_id
WHERE p.id = %(profile_id)s;

-- name: claim_batches
-- Best rank first; jobs of one rank get turns, so that a long job does not hold up a short one.
WITH open_jobs AS (
    SELECT j.number, j.rank
    FROM jobs j
    WHERE j.profile_id = %(profile_id)s
      AND j.state IN ('receiving', 'running')
      AND (j.send_after IS NULL OR j.send_after <= now())
      AND j.expires_at > now()
      AND EXISTS (
          SELECT FROM batches b WHERE b.job_number = j.number AND b.state = 'due' AND b.due_at <= now()
      )
    ORDER BY j.rank, random()
    LIMIT %(limit)s
),
due AS (
    SELECT b.job_number, b.number
    FROM open_jobs o
    CROSS JOIN LATERAL (
        SELECT d.job_number, d.number, row_number() OVER (ORDER BY d.due_at, d.number) AS turn
        FROM (
            SELECT job_number, number, due_at
            FROM batches
            WHERE job_number = o.number AND state = 'due' AND due_at <= now()
            ORDER BY due_at, number
            LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        ) d
    ) b
    ORDER BY o.rank, b.turn
    LIMIT %(limit)s
)
UPDATE batches b
SET state = 'leased', leased_by = %(worker_id)s, lease_epoch = b.lease_epoch + 1, leased_at = now()
FROM due
WHERE b.job_number = due.job_number AND b.number = due.number
RETURNING b.job_number, b.number, b.first_ordinal, b.size, b.lease_epoch, b.sent::text AS sent;

-- name: read_claimed_recipients
SELECT r.job_number, r.batch_number, r.ordinal, r.address, r.name, r.data
FROM unnest(%(job_numbers)s::bigint[], %(first_ordinals)s::integer[], %(sizes)s::integer[])
         AS c (job_number, first_ordinal, size)
JOIN recipients r
  ON r.job_number = c.job_number AND r.ordinal >= c.first_ordinal AND r.ordinal < c.first_ordinal + c.size
ORDER BY r.job_number, r.ordinal;

-- name: read_claimed_exceptions
SELECT e.job_number, e.ordinal, e.batch_number, e.state, e.attempts,
       extract(epoch FROM e.due_at - now())::float8 AS due_in_seconds, e.alone
FROM unnest(%(job_numbers)s::bigint[], %(batch_numbers)s::integer[]) AS c (job_number, batch_number)
JOIN recipient_exceptions e ON e.job_number = c.job_number AND e.batch_number = c.batch_number;

-- name: read_job_content
SELECT j.number, j.id, j.mode, j.on_unknown, j.expires_at, j.rank,
       c.rendered, c.subject, c.text_body, c.html_body, c.from_name, c.reply_to, c.visible_to, c.headers, c.data
FROM jobs j
JOIN message_contents c ON c.job_number = j.number
WHERE j.number = %(job_number)s;

-- name: read_attachments
SELECT filename, content_type, content FROM attachments WHERE job_number = %(job_number)s ORDER BY position;

-- name: mark_in_flight
-- Fenced: only the owner of the lease may mark, and only with the epoch of its claim. A batch that does not come
-- back has another owner now.
UPDATE batches b
SET in_flight = b.in_flight | v.mask
FROM unnest(%(job_numbers)s::bigint[], %(numbers)s::integer[], %(epochs)s::bigint[], %(masks)s::varbit[])
         AS v (job_number, number, epoch, mask)
WHERE b.job_number = v.job_number AND b.number = v.number
  AND b.state = 'leased' AND b.leased_by = %(worker_id)s AND b.lease_epoch = v.epoch
RETURNING b.job_number, b.number;

-- name: record_outcomes
-- What the provider accepted is true, whoever owns the batch by now; marks are cleared only by who made them. What
-- comes back says whether the batch counts exceptions, which an acceptance may have made untrue.
UPDATE batches b
SET sent = b.sent | v.sent,
    in_flight = CASE WHEN b.lease_epoch = v.epoch THEN b.in_flight & ~v.settled ELSE b.in_flight END
FROM unnest(%(job_numbers)s::bigint[], %(numbers)s::integer[], %(epochs)s::bigint[], %(sents)s::varbit[],
            %(settleds)s::varbit[])
         AS v (job_number, number, epoch, sent, settled)
WHERE b.job_number = v.job_number AND b.number = v.number
RETURNING b.job_number, b.number, b.failed + b.unknown + b.suppressed > 0;

-- name: copy_email_copies
COPY email_copies
    (job_number, batch_number, lease_epoch, first_index, recipients, profile, from_address, reply_to, visible_to, subject, message_id,
     provider_id, dated_at, accepted_at, reply_code, enhanced_code, reply, size, sha256, content)
FROM STDIN;

-- name: record_exceptions
-- Twice the same changes nothing: attempts are those so far, not one more. Fenced: whoever lost a batch has nothing
-- more to say of recipients that others try by now; but a refusal of one that is held as unknown, whom nobody tries,
-- still counts.
INSERT INTO recipient_exceptions AS e
    (job_number, ordinal, batch_number, state, attempts, due_at, phase, code, enhanced_code, reply, reason, alone)
SELECT v.job_number, v.ordinal, v.batch_number, v.state, v.attempts, now() + make_interval(secs => v.due_in_seconds),
       v.phase, v.code, v.enhanced_code, v.reply, v.reason, v.alone
FROM unnest(%(job_numbers)s::bigint[], %(ordinals)s::integer[], %(batch_numbers)s::integer[], %(states)s::text[],
            %(attempts)s::smallint[], %(due_in_seconds)s::float8[], %(phases)s::text[], %(codes)s::smallint[],
            %(enhanced_codes)s::text[], %(replies)s::text[], %(reasons)s::text[],
            %(alones)s::boolean[], %(epochs)s::bigint[])
         AS v (job_number, ordinal, batch_number, state, attempts, due_in_seconds, phase, code, enhanced_code,
               reply, reason, alone, epoch)
JOIN batches b ON b.job_number = v.job_number AND b.number = v.batch_number
WHERE b.lease_epoch = v.epoch
   OR (v.state = 'failed' AND EXISTS (
          SELECT FROM recipient_exceptions x
          WHERE x.job_number = v.job_number AND x.ordinal = v.ordinal AND x.state = 'unknown'))
ON CONFLICT (job_number, ordinal) DO UPDATE
SET state = EXCLUDED.state, attempts = greatest(e.attempts, EXCLUDED.attempts), due_at = EXCLUDED.due_at,
    phase = EXCLUDED.phase, code = EXCLUDED.code, enhanced_code = EXCLUDED.enhanced_code, reply = EXCLUDED.reply,
    reason = EXCLUDED.reason, alone = EXCLUDED.alone, updated_at = now();

-- name: recount_exceptions
UPDATE batches b
SET failed = c.failed, unknown = c.unknown, suppressed = c.suppressed
FROM (
    SELECT x.job_number, x.number,
           count(*) FILTER (WHERE e.state = 'failed') AS failed,
           count(*) FILTER (WHERE e.state = 'unknown') AS unknown,
           count(*) FILTER (WHERE e.state = 'suppressed') AS suppressed
    FROM unnest(%(job_numbers)s::bigint[], %(numbers)s::integer[]) AS v (job_number, number)
    JOIN batches x ON x.job_number = v.job_number AND x.number = v.number
    LEFT JOIN recipient_exceptions e
      ON e.job_number = x.job_number AND e.batch_number = x.number AND get_bit(x.sent, e.ordinal - x.first_ordinal) = 0
    GROUP BY x.job_number, x.number
) c
WHERE b.job_number = c.job_number AND b.number = c.number;

-- name: release_batches
-- Whatever is still marked was never written: its owner says so by releasing.
UPDATE batches b
SET state = CASE WHEN bit_count(b.sent) + b.failed + b.unknown + b.suppressed >= b.size THEN 'done' ELSE 'due' END,
    due_at = now() + make_interval(secs => v.due_in_seconds),
    leased_by = NULL,
    in_flight = b.in_flight & repeat('0', b.size)::varbit
FROM unnest(%(job_numbers)s::bigint[], %(numbers)s::integer[], %(epochs)s::bigint[], %(due_in_seconds)s::float8[])
         AS v (job_number, number, epoch, due_in_seconds)
WHERE b.job_number = v.job_number AND b.number = v.number
  AND b.state = 'leased' AND b.leased_by = %(worker_id)s AND b.lease_epoch = v.epoch
RETURNING b.job_number, b.state;

-- name: finish_jobs
-- Run after the batches are committed: then at least the last of several workers sees them all done.
UPDATE jobs
SET state = 'finished', finished_at = now()
WHERE number = ANY (%(job_numbers)s)
  AND state = 'running'
  AND NOT EXISTS (SELECT FROM batches b WHERE b.job_number = jobs.number AND b.state <> 'done')
RETURNING number;

-- name: has_due_work
SELECT EXISTS (
    SELECT FROM jobs j
    WHERE j.profile_id = %(profile_id)s
      AND j.state IN ('receiving', 'running')
      AND (j.send_after IS NULL OR j.send_after <= now())
      AND j.expires_at > now()
      AND EXISTS (
          SELECT FROM batches b WHERE b.job_number = j.number AND b.state = 'due' AND b.due_at <= now()
      )
);

-- name: read_recipient_of_copy
-- The one recipient of an individual message.
SELECT r.job_number, r.batch_number, r.ordinal, r.address, r.name, r.data
FROM email_copies c
JOIN batches b ON b.job_number = c.job_number AND b.number = c.batch_number
JOIN recipients r ON r.job_number = c.job_number AND r.ordinal = b.first_ordinal + c.first_index
WHERE c.id = %(copy_id)s;
