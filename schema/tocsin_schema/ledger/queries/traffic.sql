-- name: note_traffic
-- A row for five seconds: what a process counted since it last told, added to what it has told before.
INSERT INTO mailbox_traffic AS t (mailbox_id, bucket, worker_id, messages, recipients, connections, busy_seconds)
SELECT v.mailbox_id, date_bin('5 seconds', now(), 'epoch'::timestamptz), %(worker_id)s,
       v.messages, v.recipients, v.connections, v.busy_seconds
FROM unnest(%(mailbox_ids)s::bigint[], %(messages)s::integer[], %(recipients)s::integer[], %(connections)s::integer[],
            %(busy_seconds)s::real[]) AS v (mailbox_id, messages, recipients, connections, busy_seconds)
JOIN mailboxes m ON m.id = v.mailbox_id
ON CONFLICT (mailbox_id, bucket, worker_id) DO UPDATE
SET messages = t.messages + EXCLUDED.messages, recipients = t.recipients + EXCLUDED.recipients,
    connections = greatest(t.connections, EXCLUDED.connections),
    busy_seconds = t.busy_seconds + EXCLUDED.busy_seconds;

-- name: forget_old_traffic
DELETE FROM mailbox_traffic WHERE bucket < now() - interval '15 minutes';

-- name: recent_traffic
-- The fleet's last minute and a half, the oldest first; ages are those of the buckets' beginnings.
SELECT extract(epoch FROM now() - bucket)::float8 AS age_seconds, sum(messages)::integer AS messages,
       max(busy_seconds)::float8 AS busy_seconds
FROM mailbox_traffic
WHERE mailbox_id = %(mailbox_id)s AND bucket > now() - interval '95 seconds'
GROUP BY bucket
ORDER BY bucket;
