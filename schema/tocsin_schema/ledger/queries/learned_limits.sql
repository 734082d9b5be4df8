-- name: lock_learned
-- What is known of a mailbox; locked, so that of many that come at once one decides.
SELECT m.id, m.connections, m.learned_connections, m.connections_lowered_at, m.connections_raised_at,
       m.connections_failures, m.messages_per_minute, m.learned_per_minute, m.per_minute_before, m.per_minute_lowered_at,
       m.per_minute_raised_at, m.per_minute_steps, m.per_minute_counted_by, m.per_minute_needed_at, now() AS read_at
FROM mailboxes m
WHERE m.id = %(mailbox_id)s
FOR UPDATE;

-- name: list_learned
-- Mailboxes of which something was learned that may be raised again.
SELECT id FROM mailboxes WHERE learned_connections IS NOT NULL OR learned_per_minute IS NOT NULL ORDER BY id;

-- name: open_connections
-- Slots where connections are limited; else what processes have told of the last moments.
SELECT coalesce(
    (SELECT nullif(count(*), 0) FROM mailbox_connections WHERE mailbox_id = %(mailbox_id)s),
    (SELECT sum(most)
     FROM (SELECT max(connections) AS most
           FROM mailbox_traffic
           WHERE mailbox_id = %(mailbox_id)s AND bucket > now() - interval '10 seconds'
           GROUP BY worker_id) w),
    0)::integer;

-- name: write_rate
UPDATE mailboxes
SET learned_per_minute = %(per_minute)s, per_minute_before = %(before)s, per_minute_lowered_at = %(lowered_at)s,
    per_minute_raised_at = %(raised_at)s, per_minute_steps = %(steps)s, per_minute_counted_by = %(counted_by)s, per_minute_needed_at = %(needed_at)s,
    per_minute_reason = CASE WHEN %(per_minute)s::float8 IS NOT NULL THEN coalesce(%(reason)s, per_minute_reason) END
WHERE id = %(mailbox_id)s;

-- name: write_connections
UPDATE mailboxes
SET learned_connections = %(connections)s, connections_lowered_at = %(lowered_at)s,
    connections_raised_at = %(raised_at)s, connections_failures = %(failures)s,
    connections_reason = CASE WHEN %(connections)s::integer IS NOT NULL THEN coalesce(%(reason)s, connections_reason) END
WHERE id = %(mailbox_id)s;

-- name: learn_recipients
-- The least that anybody has learned in a day.
UPDATE mailboxes
SET learned_recipients_per_message = %(recipients)s, learned_recipients_at = now()
WHERE id = %(mailbox_id)s
  AND (learned_recipients_per_message IS NULL OR learned_recipients_per_message > %(recipients)s
       OR learned_recipients_at <= now() - interval '1 day');

-- name: learn_pipelining
-- Never back to a bolder form within a day.
UPDATE mailboxes
SET learned_pipelining = %(pipelining)s, learned_pipelining_at = now()
WHERE id = %(mailbox_id)s
  AND (learned_pipelining IS NULL OR learned_pipelining_at <= now() - interval '1 day' OR %(pipelining)s = 'off');
