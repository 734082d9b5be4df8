-- name: lock_job
-- Always before any batch of it. Whoever else decides about the job as a whole waits; senders do not.
SELECT number, id, state, state_reason, expires_at, now() AS read_at
FROM jobs
WHERE number = %(job_number)s
FOR NO KEY UPDATE;

-- name: count_recipients
SELECT sent, in_flight, failed, unknown, unsettled FROM job_counts WHERE job_number = %(job_number)s;

-- name: cancel_job
UPDATE jobs SET state = 'cancelled', state_reason = %(reason)s
WHERE number = %(job_number)s AND state IN ('receiving', 'running', 'paused');

-- name: pause_job
UPDATE jobs SET state = 'paused', state_reason = %(reason)s
WHERE number = %(job_number)s AND state IN ('receiving', 'running') AND expires_at > now();

-- name: resume_job
-- Parts may have come in meanwhile: whether it goes on receiving is seen by those.
UPDATE jobs
SET state = CASE
        WHEN last_part = (SELECT count(*) FROM job_parts WHERE job_number = %(job_number)s) THEN 'running'
        ELSE 'receiving'
    END,
    state_reason = NULL
WHERE number = %(job_number)s AND state = 'paused' AND expires_at > now();

-- name: open_again
-- A finished job of which somebody is to be tried again.
UPDATE jobs
SET state = CASE
        WHEN last_part = (SELECT count(*) FROM job_parts WHERE job_number = %(job_number)s) THEN 'running'
        ELSE 'receiving'
    END,
    state_reason = NULL, finished_at = NULL
WHERE number = %(job_number)s AND state = 'finished' AND expires_at > now();

-- name: set_expiry
-- More time, never less: those who still wait shall not expire for it.
UPDATE jobs SET expires_at = greatest(expires_at, %(expires_at)s) WHERE number = %(job_number)s AND state <> 'cancelled';
