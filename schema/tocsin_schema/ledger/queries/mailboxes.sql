-- name: take_connection
-- A free slot of the mailbox's connections. Random order, so that two pods seldom try the same one.
INSERT INTO mailbox_connections (mailbox_id, slot, worker_id)
SELECT m.id, s.slot, %(worker_id)s
FROM mailboxes m
CROSS JOIN LATERAL generate_series(1, m.connections) AS s (slot)
WHERE m.id = %(mailbox_id)s
  AND NOT EXISTS (SELECT FROM mailbox_connections c WHERE c.mailbox_id = m.id AND c.slot = s.slot)
  AND (SELECT count(*) FROM mailbox_connections c WHERE c.mailbox_id = m.id) < m.connections
ORDER BY random()
LIMIT 1
ON CONFLICT DO NOTHING
RETURNING slot;

-- name: give_back_connection
DELETE FROM mailbox_connections
WHERE mailbox_id = %(mailbox_id)s AND slot = %(slot)s AND worker_id = %(worker_id)s;

-- name: reserve_messages
-- The next time slots of a rate-limited mailbox, evenly spaced, if the first is near enough to wait for.
-- 61 seconds a minute: a message may leave up to a second after its slot without a 60 s window overflowing.
UPDATE mailboxes
SET next_message_at = greatest(next_message_at, now()) + make_interval(secs => %(count)s * 61.0 / messages_per_minute)
WHERE id = %(mailbox_id)s
  AND messages_per_minute IS NOT NULL
  AND next_message_at <= now() + make_interval(secs => %(horizon_seconds)s)
RETURNING extract(epoch FROM next_message_at - now())::float8 - %(count)s * 61.0 / messages_per_minute AS first_in_seconds,
          (61.0 / messages_per_minute)::float8 AS spacing_seconds;

-- name: lock_mailbox
-- So that whoever counts the day's recipients next sees what we add.
SELECT recipients_per_day FROM mailboxes WHERE id = %(mailbox_id)s FOR UPDATE;

-- name: recipients_of_a_day
-- Those of the rolling 24 hours, and in how many seconds the oldest of them count no more.
SELECT coalesce(sum(recipients), 0)::integer AS recipients,
       coalesce(extract(epoch FROM min(minute) + interval '24 hours 1 minute' - now()), 0)::float8 AS frees_in_seconds
FROM mailbox_usage
WHERE mailbox_id = %(mailbox_id)s AND minute > now() - interval '24 hours 1 minute';

-- name: count_recipients
INSERT INTO mailbox_usage (mailbox_id, minute, recipients)
VALUES (%(mailbox_id)s, date_trunc('minute', now()), %(count)s)
ON CONFLICT (mailbox_id, minute) DO UPDATE SET recipients = mailbox_usage.recipients + EXCLUDED.recipients;

-- name: give_back_recipients
-- Those that were counted and not tried after all; of the newest minutes, which is where they were counted.
UPDATE mailbox_usage SET recipients = greatest(recipients - %(count)s, 0)
WHERE mailbox_id = %(mailbox_id)s
  AND minute = (SELECT max(minute) FROM mailbox_usage WHERE mailbox_id = %(mailbox_id)s);

-- name: forget_old_usage
DELETE FROM mailbox_usage WHERE mailbox_id = %(mailbox_id)s AND minute < now() - interval '25 hours';

-- name: park_mailbox
UPDATE mailboxes
SET parked_until = greatest(parked_until, now() + make_interval(secs => %(seconds)s)), parked_reason = %(reason)s
WHERE id = %(mailbox_id)s;
