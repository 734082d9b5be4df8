-- name: ledger_depths
-- due: what pods may be scaled on; neither a pause, a resting mailbox nor a later time holds it up.
WITH sendable AS (
    SELECT j.number
    FROM sendable_jobs j
    JOIN sending_profiles p ON p.id = j.profile_id AND p.paused_at IS NULL
    JOIN mailbox_rests r ON r.mailbox_id = p.mailbox_id AND r.parked_until IS NULL
),
due AS (
    SELECT count(*) AS batches
    FROM sendable s
    JOIN batches b ON b.job_number = s.number
    WHERE b.state = 'due' AND b.due_at <= now()
)
SELECT
    (SELECT batches FROM due) AS due,
    (SELECT count(*) FROM batches WHERE state = 'due') - (SELECT batches FROM due) AS waiting,
    (SELECT count(*) FROM batches WHERE state = 'leased') AS leased,
    (SELECT count(*) FROM dead_letters WHERE state = 'kept') AS dead_letters,
    (SELECT count(*) FROM jobs WHERE state IN ('receiving', 'running', 'paused')) AS open_jobs;

-- name: open_jobs
SELECT count(*) FILTER (WHERE state = 'receiving') AS receiving,
       count(*) FILTER (WHERE state = 'running') AS running,
       count(*) FILTER (WHERE state = 'paused') AS paused
FROM jobs
WHERE state IN ('receiving', 'running', 'paused');

-- name: open_recipients
-- As the view job_counts tells a job's recipients, but in one pass and over the batches of open jobs only: the view
-- would sum up every job that was ever sent.
SELECT coalesce(sum(c.size - c.sent - c.in_flight - c.failed - c.unknown - c.suppressed), 0)::bigint AS pending,
       coalesce(sum(c.in_flight), 0)::bigint AS in_flight,
       coalesce(sum(c.sent), 0)::bigint AS sent,
       coalesce(sum(c.failed), 0)::bigint AS failed,
       coalesce(sum(c.unknown), 0)::bigint AS unknown,
       coalesce(sum(c.suppressed), 0)::bigint AS suppressed
FROM jobs j
CROSS JOIN LATERAL (
    SELECT b.size, bit_count(b.sent) AS sent, bit_count(b.in_flight & ~b.sent) AS in_flight,
           b.failed, b.unknown, b.suppressed
    FROM batches b
    WHERE b.job_number = j.number
) c
WHERE j.state IN ('receiving', 'running', 'paused');
