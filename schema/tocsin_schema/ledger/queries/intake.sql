-- name: claim_job_id
-- The first part of a job makes its number; every other part finds it taken, and waits for the first one's commit.
INSERT INTO job_ids (id, job_number, digest)
VALUES (%(id)s, next_job_number(), %(digest)s)
ON CONFLICT (id) DO NOTHING
RETURNING job_number;

-- name: read_job_id
SELECT i.job_number, i.digest, EXISTS (SELECT FROM jobs j WHERE j.number = i.job_number) AS is_kept
FROM job_ids i
WHERE i.id = %(id)s
-- It shall not be removed for its age meanwhile.
FOR SHARE OF i;

-- name: forget_job_id
DELETE FROM job_ids WHERE id = %(id)s;

-- name: read_sending_profile
SELECT p.id, p.name, p.from_address, p.batch_size
FROM sending_profiles p
WHERE p.name = %(name)s
-- A profile that a job is just being made for cannot be removed meanwhile.
FOR KEY SHARE OF p;

-- name: read_template
SELECT id, version, subject, text_body, html_body, from_name, reply_to_address
FROM email_templates
WHERE name = %(name)s;

-- name: insert_job
INSERT INTO jobs
    (number, id, source, key, event, correlation_id, profile_id, template_id, template_version,
     mode, rank, on_unknown, state, send_after, published_at, expires_at)
VALUES
    (%(number)s, %(id)s, %(source)s, %(key)s, %(event)s, %(correlation_id)s, %(profile_id)s, %(template_id)s,
     %(template_version)s, %(mode)s, %(rank)s, %(on_unknown)s, 'receiving', %(send_after)s,
     CASE WHEN %(published_at)s::timestamptz <= now() THEN %(published_at)s::timestamptz END,
     coalesce(%(expires_at)s, greatest(now(), %(send_after)s) + make_interval(hours => %(expiry_hours)s)));

-- name: insert_message_content
INSERT INTO message_contents
    (job_number, rendered, subject, text_body, html_body, from_name, reply_to, visible_to, headers, data)
VALUES
    (%(job_number)s, %(rendered)s, %(subject)s, %(text_body)s, %(html_body)s, %(from_name)s, %(reply_to)s,
     %(visible_to)s, %(headers)s, %(data)s);

-- name: wait_for_turn_shared
-- Row locks let one sharer after the other in past who waits for all of them to be gone; these queue.
SELECT pg_advisory_xact_lock_shared(%(job_number)s);

-- name: wait_for_turn_alone
SELECT pg_advisory_xact_lock(%(job_number)s);

-- name: lock_job_shared
-- It shall not be closed between the look at it and our commit. Parts in the middle of a job do not mind each other.
SELECT number FROM jobs WHERE number = %(job_number)s FOR SHARE;

-- name: lock_job_alone
-- Whoever begins or ends the job, or finds it ended, has to see what all other parts have written.
SELECT number FROM jobs WHERE number = %(job_number)s FOR NO KEY UPDATE;

-- name: read_job_for_part
-- In a statement of its own: it sees what whoever held the lock has committed.
SELECT j.state = 'finished' OR (j.state <> 'cancelled' AND j.expires_at <= now()) AS is_over,
       j.state IN ('cancelled', 'finished') AS has_ended, j.last_part, j.rank, j.profile_id, p.batch_size,
       (SELECT max(number) FROM job_parts WHERE job_number = j.number) AS highest_part
FROM jobs j
JOIN sending_profiles p ON p.id = j.profile_id
WHERE j.number = %(job_number)s;

-- name: insert_part
-- No row comes back where this part was taken in before.
INSERT INTO job_parts (job_number, number, digest, recipients, duplicates)
VALUES (%(job_number)s, %(number)s, %(digest)s, %(recipients)s, %(duplicates)s)
ON CONFLICT (job_number, number) DO NOTHING
RETURNING number;

-- name: read_part_digest
SELECT digest FROM job_parts WHERE job_number = %(job_number)s AND number = %(number)s;

-- name: copy_recipients
COPY recipients (job_number, ordinal, batch_number, address, name, data) FROM STDIN;

-- name: copy_batches
COPY batches (job_number, number, first_ordinal, size, state, due_at, sent, in_flight, failed) FROM STDIN;

-- name: copy_recipient_exceptions
COPY recipient_exceptions (job_number, ordinal, batch_number, state, attempts, reason) FROM STDIN;

-- name: note_last_part
UPDATE jobs SET last_part = %(last_part)s WHERE number = %(job_number)s AND last_part IS NULL;

-- name: end_receiving
-- All parts up to the last are here.
UPDATE jobs
SET state = 'running'
WHERE number = %(job_number)s
  AND state = 'receiving'
  AND last_part = (SELECT count(*) FROM job_parts WHERE job_number = %(job_number)s);

-- name: reopen_job
-- A part that comes after its job was closed as incomplete: the job goes on with all that it has. One that is paused,
-- and whose time the sweeper has not yet seen to be over, stays paused.
UPDATE jobs
SET state = CASE WHEN state = 'paused' THEN 'paused' ELSE 'receiving' END,
    state_reason = CASE WHEN state = 'paused' THEN state_reason END, finished_at = NULL,
    expires_at = greatest(expires_at, now() + make_interval(hours => %(expiry_hours)s))
WHERE number = %(job_number)s AND state <> 'cancelled'
RETURNING expires_at;

-- name: reopen_batches
-- Not before part 1, which has the attachments.
UPDATE batches b
SET state = 'due',
    due_at = CASE
        WHEN EXISTS (SELECT FROM job_parts WHERE job_number = %(job_number)s AND number = 1) THEN now()
        ELSE 'infinity'
    END
WHERE b.job_number = %(job_number)s AND b.state = 'done' AND NOT batch_is_settled(b);

-- name: release_early_batches
-- Parts may come in any order, and attachments come with part 1: until it is here nothing is due.
UPDATE batches SET due_at = now() WHERE job_number = %(job_number)s AND state = 'due' AND due_at = 'infinity';

-- name: has_first_part
SELECT EXISTS (SELECT FROM job_parts WHERE job_number = %(job_number)s AND number = 1);
