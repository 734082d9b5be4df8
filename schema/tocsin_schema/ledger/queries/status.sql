-- name: workers
SELECT w.host, w.role, count(*)::integer AS processes,
       extract(epoch FROM now() - max(w.heartbeat_at))::float8 AS silent_seconds
FROM workers w
WHERE w.heartbeat_at > now() - interval '30 seconds'
GROUP BY w.host, w.role
ORDER BY w.host, w.role;

-- name: profiles
-- Each sending profile with what lies in the ledger for it and what holds it up. due: what may be sent now or is in work;
-- paused is a part of waiting.
WITH backlogs AS MATERIALIZED (SELECT * FROM profile_backlogs)
SELECT p.name, p.from_address, p.auth, p.paused_at, p.paused_reason, p.paused_by, p.probe_at,
       r.parked_until, r.parked_reason, r.kept_for_urgent_until, r.kept_for_urgent_reason,
       coalesce(b.receiving_jobs + b.running_jobs + b.paused_jobs, 0)::integer AS open_jobs,
       coalesce(b.due_recipients + b.leased_recipients, 0) AS due_recipients,
       coalesce(b.waiting_recipients, 0) AS waiting_recipients,
       coalesce(b.paused_recipients, 0) AS paused_recipients,
       coalesce(b.paused_jobs, 0)::integer AS paused_jobs,
       (SELECT count(*) FROM mailbox_connections c WHERE c.mailbox_id = m.id)::integer AS connections_open,
       least(m.connections, m.learned_connections) AS connections,
       least(m.messages_per_minute, m.learned_per_minute)::float8 AS messages_per_minute,
       nullif(concat_ws(' ', t.failure, t.failure_fix), '') AS token_failure
FROM sending_profiles p
JOIN mailboxes m ON m.id = p.mailbox_id
JOIN mailbox_rests r ON r.mailbox_id = m.id
LEFT JOIN access_tokens t ON t.oauth_profile_id = p.oauth_profile_id AND t.failure IS NOT NULL
      AND t.subject IN ('', lower(p.login))
LEFT JOIN backlogs b ON b.profile_id = p.id
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
-- that of jobs under hold. Older ones are not looked for: nobody knows any more.
WITH waiting AS (
    SELECT job_number, sum(unknown)::bigint AS unknown
    FROM batches
    WHERE unknown > 0 AND job_number >= job_number_at(now() - make_interval(days => %(days)s))
    GROUP BY job_number
)
SELECT j.id, w.unknown, count(*) OVER ()::integer AS jobs, sum(w.unknown) OVER ()::bigint AS recipients
FROM waiting w
JOIN jobs j ON j.number = w.job_number AND j.on_unknown = 'hold'
ORDER BY j.number DESC
LIMIT 1;
