-- name: workers
SELECT w.host, w.role, count(*)::integer AS processes,
       extract(epoch FROM now() - max(w.heartbeat_at))::float8 AS silent_seconds
FROM workers w
WHERE w.heartbeat_at > now() - interval '30 seconds'
GROUP BY w.host, w.role
ORDER BY w.host, w.role;

-- name: profiles
-- Each sending profile with what lies in the ledger for it and what holds it up. due: whose time has come, as far as
-- their jobs and a halt of all sending are concerned; paused is a part of waiting.
SELECT p.name, p.from_address, p.auth, p.paused_reason, p.probe_at,
       r.parked_until, r.parked_reason, r.kept_for_urgent_until, r.kept_for_urgent_reason,
       coalesce(w.jobs, 0)::integer AS open_jobs,
       coalesce(w.due, 0)::bigint AS due_recipients,
       coalesce(w.unsettled - w.due, 0)::bigint AS waiting_recipients,
       coalesce(w.paused, 0)::bigint AS paused_recipients,
       coalesce(w.paused_jobs, 0)::integer AS paused_jobs,
       (SELECT count(*) FROM mailbox_connections c WHERE c.mailbox_id = m.id)::integer AS connections_open,
       least(m.connections, m.learned_connections) AS connections,
       least(m.messages_per_minute, m.learned_per_minute)::float8 AS messages_per_minute,
       nullif(concat_ws(' ', t.failure, t.failure_fix), '') AS token_failure
FROM sending_profiles p
JOIN mailboxes m ON m.id = p.mailbox_id
JOIN mailbox_rests r ON r.mailbox_id = m.id
LEFT JOIN access_tokens t ON t.oauth_profile_id = p.oauth_profile_id AND t.failure IS NOT NULL
      AND t.subject IN ('', lower(p.login))
LEFT JOIN LATERAL (
    SELECT count(*) AS jobs,
           count(*) FILTER (WHERE o.state = 'paused') AS paused_jobs,
           sum(u.unsettled) AS unsettled,
           coalesce(sum(u.due) FILTER (WHERE o.is_begun AND s.is_allowed), 0) AS due,
           sum(u.unsettled) FILTER (WHERE o.state = 'paused') AS paused
    FROM (
        SELECT number, state,
               state <> 'paused' AND (send_after IS NULL OR send_after <= now()) AND expires_at > now() AS is_begun
        FROM jobs
        WHERE profile_id = p.id AND state IN ('receiving', 'running', 'paused')
    ) o
    CROSS JOIN (SELECT sending_is_allowed() AS is_allowed) s
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(c.unsettled), 0) AS unsettled,
               coalesce(sum(c.unsettled) FILTER (WHERE c.due_at <= now()), 0) AS due
        FROM (
            SELECT b.size - bit_count(b.sent) - b.failed - b.unknown - b.suppressed AS unsettled, b.due_at
            FROM batches b
            WHERE b.job_number = o.number AND b.state <> 'done'
        ) c
    ) u
) w ON true
ORDER BY p.name;

-- name: held_jobs
-- Jobs that a person has paused, and jobs whose time has not come.
SELECT count(*) FILTER (WHERE state = 'paused')::integer AS paused,
       count(*) FILTER (WHERE state <> 'paused' AND send_after > now())::integer AS scheduled,
       min(send_after) FILTER (WHERE state <> 'paused' AND send_after > now()) AS first_begins_at
FROM jobs
WHERE state IN ('receiving', 'running', 'paused');

-- name: paused_jobs
-- Those that were published last; each with who paused it.
WITH newest AS MATERIALIZED (
    SELECT number, id, profile_id, expires_at
    FROM jobs
    WHERE state = 'paused'
    ORDER BY number DESC
    LIMIT %(limit)s
)
SELECT n.number, n.id, p.name AS profile, e.actor, e.at AS since, e.reason,
       u.unsettled, n.expires_at
FROM newest n
LEFT JOIN sending_profiles p ON p.id = n.profile_id
LEFT JOIN LATERAL (
    SELECT actor, at, details ->> 'reason' AS reason
    FROM job_events
    WHERE job_number = n.number AND event = 'paused'
    ORDER BY id DESC
    LIMIT 1
) e ON true
CROSS JOIN LATERAL (
    SELECT coalesce(sum(b.size - bit_count(b.sent) - b.failed - b.unknown - b.suppressed), 0)::bigint AS unsettled
    FROM batches b
    WHERE b.job_number = n.number AND b.state <> 'done'
) u
ORDER BY n.number DESC;

-- name: jobs_with_unknown
-- The newest of which recipients wait for a person, and how many there are. Nobody else's fate stays unknown than
-- that of jobs under hold. Older ones are not looked for: their tables may be large, and nobody knows any more.
WITH held AS MATERIALIZED (
    SELECT number, id FROM jobs
    WHERE on_unknown = 'hold' AND number >= job_number_at(now() - make_interval(days => %(days)s))
)
SELECT h.id, u.unknown, count(*) OVER ()::integer AS jobs, sum(u.unknown) OVER ()::bigint AS recipients
FROM held h
CROSS JOIN LATERAL (
    SELECT sum(b.unknown)::bigint AS unknown FROM batches b WHERE b.job_number = h.number AND b.unknown > 0
) u
WHERE u.unknown > 0
ORDER BY h.number DESC
LIMIT 1;
