-- name: read_place
-- Where the ledger lives now, where it lived when it was last written to, and whether sending is halted.
SELECT c.system_identifier, c.database_oid::bigint AS database_oid, c.timeline,
       o.system_identifier AS seen_system_identifier, o.database_oid::bigint AS seen_database_oid,
       o.timeline AS seen_timeline, o.seen_at, h.cause, now() AS now
FROM current_origin c
LEFT JOIN ledger_origin o ON true
LEFT JOIN sending_halt h ON true;

-- name: read_halt
SELECT cause, reason, actor, halted_at FROM sending_halt;

-- name: halt_by_hand
-- No row comes back where sending is halted already: the first reason stays, and a restored ledger stays a restored one.
-- The time is that of the writing and not of the transaction's begin, so that the sweeper does not take it for old.
INSERT INTO sending_halts (cause, reason, actor_kind, actor, halted_at)
VALUES ('by_hand', %(reason)s, %(actor_kind)s, %(actor)s, clock_timestamp())
ON CONFLICT ((true)) WHERE lifted_at IS NULL DO NOTHING
RETURNING cause;

-- name: halt_restored
-- Once. It outweighs a pause by hand, which may have come along in the backup.
INSERT INTO sending_halts AS h (cause, reason)
VALUES ('restored', %(reason)s)
ON CONFLICT ((true)) WHERE lifted_at IS NULL DO UPDATE
SET cause = 'restored', actor_kind = NULL, actor = NULL, halted_at = now(),
    reason = concat(EXCLUDED.reason, ' Before, ', h.actor, ' had paused all sending: ', h.reason)
WHERE h.cause = 'by_hand'
RETURNING cause;

-- name: lift_halt
UPDATE sending_halts
SET lifted_by_kind = %(actor_kind)s, lifted_by = %(actor)s, lifted_at = clock_timestamp()
WHERE lifted_at IS NULL;

-- name: last_lifted
SELECT cause, reason, actor, halted_at, lifted_by, lifted_at
FROM sending_halts
WHERE lifted_at >= now() - %(within)s::interval OR (%(within)s::interval IS NULL AND lifted_at IS NOT NULL)
ORDER BY lifted_at DESC
LIMIT 1;

-- name: unnoticed
-- What was done since the sweeper was last here.
SELECT h.cause, h.reason, h.actor, h.halted_at, h.lifted_by, h.lifted_at, h.halted_at >= o.seen_at AS is_new
FROM sending_halts h
JOIN ledger_origin o ON h.halted_at >= o.seen_at OR h.lifted_at >= o.seen_at
ORDER BY h.id;

-- name: adopt_origin
INSERT INTO ledger_origin AS o (system_identifier, database_oid, timeline)
SELECT system_identifier, database_oid, timeline FROM current_origin
ON CONFLICT (only_row) DO UPDATE
SET system_identifier = EXCLUDED.system_identifier, database_oid = EXCLUDED.database_oid,
    timeline = EXCLUDED.timeline, seen_at = now();

-- name: note_seen
-- after: the time of what was read, which may lie behind the begin of this transaction.
UPDATE ledger_origin SET seen_at = greatest(now(), %(after)s::timestamptz + interval '1 microsecond');

-- name: count_open_jobs
SELECT count(*) FROM jobs WHERE state IN ('receiving', 'running', 'paused');
