-- name: mailboxes
-- What mailboxes may use and have used: that of a profile, that of a job's profile, or of all profiles.
-- seen_per_minute: as fast as it was while it was at work in the last minute, all workers together. A worker that was
-- at it for less than a second shows no more than what it sent.
SELECT b.id, b.host, b.login, p.profiles, b.connections, b.connections_set, b.connections_lowered_at,
       b.connections_reason, b.connections_open, b.messages_per_minute, b.per_minute_set, b.per_minute_lowered_at,
       b.per_minute_reason, b.recipients_per_message, b.recipients_per_day, b.recipients_of_the_day,
       b.urgent_of_the_day, b.share_for_urgent, b.frees_at, b.tenant, b.tenant_recipients_per_day,
       b.tenant_recipients_of_the_day, b.tenant_urgent_of_the_day, b.tenant_share_for_urgent, b.tenant_frees_at,
       b.parked_until, b.parked_reason, b.kept_for_urgent_until, b.kept_for_urgent_reason, b.messages_last_minute,
       b.recipients_last_minute, s.seen_per_minute, now() AS read_at
FROM mailbox_budgets b
JOIN LATERAL (
    SELECT array_agg(name ORDER BY name) AS profiles FROM sending_profiles WHERE mailbox_id = b.id
) p ON p.profiles IS NOT NULL
CROSS JOIN LATERAL (
    SELECT sum(w.per_minute)::float8 AS seen_per_minute
    FROM (
        SELECT sum(messages) * 60 / greatest(sum(busy_seconds), 1) AS per_minute
        FROM mailbox_traffic
        WHERE mailbox_id = b.id AND bucket > now() - interval '1 minute'
        GROUP BY worker_id
        HAVING sum(messages) > 0
    ) w
) s
WHERE (%(profile_id)s::uuid IS NULL
       OR b.id = (SELECT mailbox_id FROM sending_profiles WHERE id = %(profile_id)s))
  AND (%(job_number)s::bigint IS NULL
       OR b.id = (SELECT p.mailbox_id
                  FROM jobs j
                  JOIN sending_profiles p ON p.id = j.profile_id
                  WHERE j.number = %(job_number)s))
ORDER BY b.host, b.login;

-- name: open_work
-- What is left of the open jobs of some mailboxes, a row a job. A job that is paused, or whose profile is, is in nobody's
-- way; the job that is asked about is told all the same. A batch that waits for its job's part 1 is due at infinity.
SELECT p.mailbox_id, j.number AS job_number, j.rank, u.recipients, u.messages,
       CASE WHEN j.send_after > now() THEN j.send_after END AS begins_at, u.deferred, u.deferred_until
FROM unnest(%(mailbox_ids)s::bigint[], %(most_in_a_message)s::integer[]) AS m (id, most_in_a_message)
JOIN sending_profiles p ON p.mailbox_id = m.id
JOIN jobs j ON j.profile_id = p.id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(c.left_over), 0)::bigint AS recipients,
           coalesce(sum(CASE
               WHEN j.mode = 'individual' THEN c.left_over
               WHEN m.most_in_a_message IS NULL THEN 1
               ELSE (c.left_over + m.most_in_a_message - 1) / m.most_in_a_message
           END), 0)::bigint AS messages,
           coalesce(sum(c.left_over) FILTER (WHERE c.is_deferred), 0)::bigint AS deferred,
           max(c.due_at) FILTER (WHERE c.is_deferred) AS deferred_until
    FROM (
        SELECT b.size - bit_count(b.sent) - b.failed - b.unknown - b.suppressed AS left_over, b.due_at,
               b.state = 'due' AND b.due_at > greatest(now(), j.send_after) AS is_deferred
        FROM batches b
        WHERE b.job_number = j.number AND b.state <> 'done' AND b.due_at < 'infinity'
    ) c
    WHERE c.left_over > 0
) u
WHERE (j.number = %(job_number)s
       OR (p.paused_at IS NULL AND j.state IN ('receiving', 'running') AND j.expires_at > now()))
  AND j.state IN ('receiving', 'running', 'paused')
  AND u.recipients > 0
ORDER BY j.number;

-- name: last_retry
-- When the last of a job's recipients who were put off is due again; their batch is due as soon as the first of them.
SELECT max(due_at) FROM recipient_exceptions
WHERE job_number = %(job_number)s AND state = 'pending' AND due_at > now();

-- name: used_minutes
-- The rolling 24 hours of mailboxes, a row a minute.
SELECT mailbox_id, minute, recipients, urgent
FROM mailbox_usage
WHERE mailbox_id = ANY (%(mailbox_ids)s) AND minute > now() - interval '24 hours 1 minute' AND recipients > 0;

-- name: used_minutes_of_tenants
-- The same of the tenants of mailboxes.
SELECT m.id AS mailbox_id, u.minute, u.recipients, u.urgent
FROM mailboxes m
JOIN tenant_usage u ON u.tenant_id = m.tenant_id
WHERE m.id = ANY (%(mailbox_ids)s) AND u.minute > now() - interval '24 hours 1 minute' AND u.recipients > 0;

-- name: external_parts
-- Which part of the recipients of the mailboxes' tenants were external in the last 24 hours, as far as both were
-- counted: where no mailbox of a tenant has a quota of its own, only the external ones are, and all count as external.
SELECT m.id AS mailbox_id,
       least(1, coalesce((SELECT sum(recipients) FROM tenant_usage WHERE tenant_id = m.tenant_id)
                         / nullif(sum(u.recipients), 0), 1))::float8 AS external_part
FROM mailboxes m
LEFT JOIN mailboxes other ON other.tenant_id = m.tenant_id AND other.recipients_per_day IS NOT NULL
LEFT JOIN mailbox_usage u ON u.mailbox_id = other.id AND u.minute > now() - interval '24 hours 1 minute'
WHERE m.id = ANY (%(mailbox_ids)s) AND m.tenant_id IS NOT NULL
GROUP BY m.id, m.tenant_id;
