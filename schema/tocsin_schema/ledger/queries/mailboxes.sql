-- name: lock_mailbox
-- Whoever counts its connections next sees ours: also while slots are still held above a number that was just lowered.
SELECT id FROM mailboxes WHERE id = %(mailbox_id)s FOR NO KEY UPDATE;

-- name: take_connection
-- A free slot of the mailbox's connections. Random order, so that two pods seldom try the same one.
INSERT INTO mailbox_connections (mailbox_id, slot, worker_id)
SELECT m.id, s.slot, %(worker_id)s
FROM mailboxes m
CROSS JOIN LATERAL generate_series(1, least(m.connections, m.learned_connections)) AS s (slot)
WHERE m.id = %(mailbox_id)s
  AND NOT EXISTS (SELECT FROM mailbox_connections c WHERE c.mailbox_id = m.id AND c.slot = s.slot)
  AND (SELECT count(*) FROM mailbox_connections c WHERE c.mailbox_id = m.id)
      < least(m.connections, m.learned_connections)
ORDER BY random()
LIMIT 1
ON CONFLICT DO NOTHING
RETURNING slot;

-- name: give_back_connection
DELETE FROM mailbox_connections
WHERE mailbox_id = %(mailbox_id)s AND slot = %(slot)s AND worker_id = %(worker_id)s;

-- name: want_connection
-- So that another profile on the mailbox, or another process, closes one. Who asks for an urgent job goes before who asked for another.
UPDATE mailboxes
SET connection_wanted_by = %(profile_id)s, connection_wanted_rank = %(rank)s
WHERE id = %(mailbox_id)s
  AND (connection_wanted_by IS NULL OR connection_wanted_rank > %(rank)s);

-- name: stop_wanting_connection
-- It has one now.
UPDATE mailboxes
SET connection_wanted_by = NULL, connection_wanted_rank = NULL
WHERE id = %(mailbox_id)s AND connection_wanted_by = %(profile_id)s;

-- name: grant_connection
-- One is being closed for whoever wants it; who wants more says so again.
UPDATE mailboxes
SET connection_wanted_by = NULL, connection_wanted_rank = NULL
WHERE id = %(mailbox_id)s AND connection_wanted_by <> %(profile_id)s
RETURNING id;

-- name: grant_idle_connections
-- Those of the mailboxes for which somebody waits: one idle connection of each is being closed.
UPDATE mailboxes
SET connection_wanted_by = NULL, connection_wanted_rank = NULL
WHERE id = ANY (%(mailbox_ids)s) AND connection_wanted_by IS NOT NULL
RETURNING id;

-- name: reserve_messages
-- The next time slots of a rate-limited mailbox, evenly spaced, if the first is near enough to wait for.
-- 61 seconds a minute: a message may leave up to a second after its slot without a 60 s window overflowing.
UPDATE mailboxes
SET next_message_at = greatest(next_message_at, now())
                      + make_interval(secs => %(count)s * 61.0 / least(messages_per_minute, learned_per_minute))
WHERE id = %(mailbox_id)s
  AND least(messages_per_minute, learned_per_minute) IS NOT NULL
  AND EXISTS (SELECT FROM mailbox_rests r WHERE r.mailbox_id = mailboxes.id AND r.parked_until IS NULL)
  AND next_message_at <= now() + make_interval(secs => %(horizon_seconds)s)
RETURNING extract(epoch FROM next_message_at - now())::float8
              - %(count)s * 61.0 / least(messages_per_minute, learned_per_minute) AS first_in_seconds,
          (61.0 / least(messages_per_minute, learned_per_minute))::float8 AS spacing_seconds;

-- name: park_mailbox
-- The reason of the longest rest stays with it.
UPDATE mailboxes
SET parked_until = greatest(parked_until, now() + make_interval(secs => %(seconds)s)),
    parked_reason = CASE
        WHEN parked_until > now() + make_interval(secs => %(seconds)s) THEN parked_reason
        ELSE %(reason)s
    END
WHERE id = %(mailbox_id)s;

-- name: keep_mailbox_for_urgent
UPDATE mailboxes
SET kept_for_urgent_until = now() + make_interval(secs => %(seconds)s), kept_for_urgent_reason = %(reason)s
WHERE id = %(mailbox_id)s;

-- name: park_tenant
UPDATE tenants
SET parked_until = greatest(parked_until, now() + make_interval(secs => %(seconds)s)),
    parked_reason = CASE
        WHEN parked_until > now() + make_interval(secs => %(seconds)s) THEN parked_reason
        ELSE %(reason)s
    END
WHERE id = %(tenant_id)s;

-- name: keep_tenant_for_urgent
UPDATE tenants
SET kept_for_urgent_until = now() + make_interval(secs => %(seconds)s), kept_for_urgent_reason = %(reason)s
WHERE id = %(tenant_id)s;
