-- name: workers
SELECT w.host, w.role, count(*)::integer AS processes,
       extract(epoch FROM now() - max(w.heartbeat_at))::float8 AS silent_seconds
FROM workers w
WHERE w.heartbeat_at > now() - interval '30 seconds'
GROUP BY w.host, w.role
ORDER BY w.host, w.role;

-- name: profiles
-- Each sending profile with what lies in the ledger for it and what holds it up.
SELECT p.name, p.from_address, p.auth, p.paused_reason, p.probe_at,
       CASE WHEN m.parked_until > now() THEN m.parked_until END AS parked_until,
       CASE WHEN m.parked_until > now() THEN m.parked_reason END AS parked_reason,
       coalesce(w.jobs, 0)::integer AS open_jobs,
       coalesce(w.due, 0)::bigint AS due_recipients,
       coalesce(w.waiting, 0)::bigint AS waiting_recipients,
       (SELECT count(*) FROM mailbox_connections c WHERE c.mailbox_id = m.id)::integer AS connections_open,
       m.connections, m.messages_per_minute, nullif(concat_ws(' ', t.failure, t.failure_fix), '') AS token_failure
FROM sending_profiles p
JOIN mailboxes m ON m.id = p.mailbox_id
LEFT JOIN access_tokens t ON t.oauth_profile_id = p.oauth_profile_id AND t.failure IS NOT NULL
      AND t.subject IN ('', lower(p.login))
LEFT JOIN LATERAL (
    SELECT count(DISTINCT j.number) AS jobs,
           sum(b.size - bit_count(b.sent) - b.failed - b.unknown - b.suppressed)
               FILTER (WHERE b.due_at <= now() AND (j.send_after IS NULL OR j.send_after <= now())) AS due,
           sum(b.size - bit_count(b.sent) - b.failed - b.unknown - b.suppressed)
               FILTER (WHERE b.due_at > now() OR j.send_after > now()) AS waiting
    FROM jobs j
    LEFT JOIN batches b ON b.job_number = j.number AND b.state <> 'done'
    WHERE j.profile_id = p.id AND j.state IN ('receiving', 'running', 'paused')
) w ON true
ORDER BY p.name;
