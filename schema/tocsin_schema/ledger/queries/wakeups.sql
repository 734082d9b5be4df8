-- name: note_wakeup
-- One wake-up on the queue is enough: a row comes back only where none is under way.
INSERT INTO wakeups AS w (profile_id, rank, sent_at)
VALUES (%(profile_id)s, %(rank)s, now())
ON CONFLICT (profile_id, rank) DO UPDATE SET sent_at = now()
WHERE w.sent_at IS NULL OR w.sent_at < now() - make_interval(secs => %(patience_seconds)s)
RETURNING profile_id;

-- name: take_wakeup
-- The sender has it in hand: the next one may be sent.
UPDATE wakeups SET sent_at = NULL WHERE profile_id = %(profile_id)s AND rank = %(rank)s AND sent_at IS NOT NULL;
