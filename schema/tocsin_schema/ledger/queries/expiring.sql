-- name: expiring_jobs
-- Soon: when less is left than a tenth of the job's life, or an hour, whichever is more; but of a short life not before
-- its half is over, and of no life more than a day ahead. Nothing is told of a job that has only to be finished.
WITH soon AS MATERIALIZED (
    SELECT j.number, j.id, j.profile_id, j.rank, j.state, j.state_reason, j.send_after, j.expires_at
    FROM jobs j
    CROSS JOIN LATERAL (SELECT j.expires_at - greatest(j.created_at, j.send_after) AS life) l
    WHERE j.state IN ('receiving', 'running', 'paused')
      AND j.expires_at > now()
      AND j.expires_at <= now() + least(interval '1 day', greatest(l.life / 10, least(interval '1 hour', l.life / 2)))
      AND (j.state = 'receiving' OR EXISTS (SELECT FROM batches b WHERE b.job_number = j.number AND b.state <> 'done'))
      -- Once for each time that it is given: a job that is reopened gets a new one.
      AND (NOT %(only_untold)s
           OR NOT EXISTS (SELECT FROM job_events e
                          WHERE e.job_number = j.number AND e.event = 'expires_soon'
                            AND (e.details ->> 'expires_at')::timestamptz = j.expires_at))
    ORDER BY j.expires_at
    LIMIT %(limit)s
)
SELECT s.number, s.id, p.name AS profile, s.state, s.state_reason, s.expires_at, b.unsettled, b.next_due_at,
       coalesce(b.is_worked_on, false) AS is_worked_on, p.paused_reason,
       r.parked_until, r.parked_reason,
       CASE WHEN s.rank > 0 THEN r.kept_for_urgent_until END AS kept_for_urgent_until,
       CASE WHEN s.rank > 0 THEN r.kept_for_urgent_reason END AS kept_for_urgent_reason,
       h.reason AS halted_reason, now() AS read_at
FROM soon s
LEFT JOIN sending_profiles p ON p.id = s.profile_id
LEFT JOIN mailbox_rests r ON r.mailbox_id = p.mailbox_id
LEFT JOIN sending_halt h ON true
CROSS JOIN LATERAL (
    SELECT coalesce(sum(b.size - bit_count(b.sent) - b.failed - b.unknown - b.suppressed), 0)::bigint AS unsettled,
           nullif(min(b.due_at) FILTER (WHERE b.state = 'due'), 'infinity') AS next_due_at,
           bool_or(b.state = 'leased') AS is_worked_on
    FROM batches b
    WHERE b.job_number = s.number
    OFFSET 0
) b
ORDER BY s.expires_at;
