-- name: lock_mailbox_day
-- So that whoever counts the day's recipients next sees what we add.
SELECT recipients_per_day, urgent_share(recipients_per_day), tenant_id
FROM mailboxes
WHERE id = %(mailbox_id)s
FOR UPDATE;

-- name: lock_tenant_day
-- Always after the mailbox.
SELECT external_recipients_per_day, urgent_share(external_recipients_per_day), name
FROM tenants
WHERE id = %(tenant_id)s
FOR UPDATE;

-- name: used_by_mailbox
SELECT coalesce(sum(recipients), 0)::integer, coalesce(sum(urgent), 0)::integer
FROM mailbox_usage
WHERE mailbox_id = %(id)s AND minute > now() - interval '24 hours 1 minute';

-- name: used_by_tenant
SELECT coalesce(sum(recipients), 0)::integer, coalesce(sum(urgent), 0)::integer
FROM tenant_usage
WHERE tenant_id = %(id)s AND minute > now() - interval '24 hours 1 minute';

-- name: leaving_of_mailbox
SELECT extract(epoch FROM minute + interval '24 hours 1 minute' - now())::float8, recipients, urgent
FROM mailbox_usage
WHERE mailbox_id = %(id)s AND minute > now() - interval '24 hours 1 minute'
ORDER BY minute;

-- name: leaving_of_tenant
SELECT extract(epoch FROM minute + interval '24 hours 1 minute' - now())::float8, recipients, urgent
FROM tenant_usage
WHERE tenant_id = %(id)s AND minute > now() - interval '24 hours 1 minute'
ORDER BY minute;

-- name: count_for_mailbox
WITH forgotten AS (
    DELETE FROM mailbox_usage WHERE mailbox_id = %(id)s AND minute < now() - interval '25 hours'
)
INSERT INTO mailbox_usage (mailbox_id, minute, recipients, urgent)
VALUES (%(id)s, date_trunc('minute', now()), %(recipients)s, %(urgent)s)
ON CONFLICT (mailbox_id, minute) DO UPDATE
SET recipients = mailbox_usage.recipients + EXCLUDED.recipients, urgent = mailbox_usage.urgent + EXCLUDED.urgent;

-- name: count_for_tenant
WITH forgotten AS (
    DELETE FROM tenant_usage WHERE tenant_id = %(id)s AND minute < now() - interval '25 hours'
)
INSERT INTO tenant_usage (tenant_id, minute, recipients, urgent)
VALUES (%(id)s, date_trunc('minute', now()), %(recipients)s, %(urgent)s)
ON CONFLICT (tenant_id, minute) DO UPDATE
SET recipients = tenant_usage.recipients + EXCLUDED.recipients, urgent = tenant_usage.urgent + EXCLUDED.urgent;

-- name: give_back_to_mailbox
-- Those that were counted and not tried after all, of the last minutes, the oldest first: what is left counts for longer
-- rather than for less long. Urgent ones are taken from urgent ones.
UPDATE mailbox_usage u
SET recipients = u.recipients - n.taken, urgent = u.urgent - CASE WHEN %(is_urgent)s THEN n.taken ELSE 0 END
FROM (
    SELECT minute, least(counted, greatest(0, %(count)s - (sum(counted) OVER (ORDER BY minute) - counted))) AS taken
    FROM (
        SELECT minute, CASE WHEN %(is_urgent)s THEN urgent ELSE recipients - urgent END AS counted
        FROM mailbox_usage
        WHERE mailbox_id = %(id)s AND minute > now() - interval '10 minutes'
    ) c
) n
WHERE u.mailbox_id = %(id)s AND u.minute = n.minute;

-- name: give_back_to_tenant
UPDATE tenant_usage u
SET recipients = u.recipients - n.taken, urgent = u.urgent - CASE WHEN %(is_urgent)s THEN n.taken ELSE 0 END
FROM (
    SELECT minute, least(counted, greatest(0, %(count)s - (sum(counted) OVER (ORDER BY minute) - counted))) AS taken
    FROM (
        SELECT minute, CASE WHEN %(is_urgent)s THEN urgent ELSE recipients - urgent END AS counted
        FROM tenant_usage
        WHERE tenant_id = %(id)s AND minute > now() - interval '10 minutes'
    ) c
) n
WHERE u.tenant_id = %(id)s AND u.minute = n.minute;
