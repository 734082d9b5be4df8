-- name: note_wakeup
-- A few wake-ups on the queue are enough, however many slices want successors: a row comes back only where there is
-- room for another one, or where those under way are taken for lost.
INSERT INTO wakeups AS w (profile_id, rank, under_way, sent_at)
VALUES (%(profile_id)s, %(rank)s, 1, now())
ON CONFLICT (profile_id, rank) DO UPDATE
SET under_way = CASE
        WHEN w.sent_at < now() - make_interval(secs => %(patience_seconds)s) THEN 1
        ELSE w.under_way + 1
    END,
    sent_at = now()
WHERE w.under_way < %(most)s OR w.sent_at < now() - make_interval(secs => %(patience_seconds)s)
RETURNING profile_id;

-- name: take_wakeup
-- The sender has it in hand: another one may be sent.
UPDATE wakeups SET under_way = under_way - 1
WHERE profile_id = %(profile_id)s AND rank = %(rank)s AND under_way > 0;
