-- name: suppress_refused
-- Takes what the exceptions say that were just written. In the order of the key, so that two writers who meet the same
-- addresses wait for each other and do not deadlock.
INSERT INTO suppressions (address, source, reason, code, enhanced_code, reply, job_number)
SELECT r.address, coalesce(j.source, ''), e.reason, e.code, e.enhanced_code, e.reply, e.job_number
FROM unnest(%(job_numbers)s::bigint[], %(ordinals)s::integer[]) AS v (job_number, ordinal)
JOIN jobs j ON j.number = v.job_number
JOIN recipients r ON r.job_number = v.job_number AND r.ordinal = v.ordinal
JOIN recipient_exceptions e ON e.job_number = v.job_number AND e.ordinal = v.ordinal
ORDER BY r.address, coalesce(j.source, '')
ON CONFLICT (address, source) DO NOTHING;

-- name: read_claimed_suppressions
SELECT job_number, ordinal, since, reason
FROM claimed_suppressions(%(job_numbers)s::bigint[], %(first_ordinals)s::integer[], %(sizes)s::integer[]);

-- name: list_suppressions
SELECT s.id, s.address, s.source, s.reason, s.code, s.enhanced_code, s.reply, s.job_number, j.id AS job_id,
       s.actor_kind, s.actor, s.created_at
FROM suppressions s
LEFT JOIN jobs j ON j.number = s.job_number
WHERE (%(source)s::text IS NULL OR s.source = %(source)s)
  AND (%(address)s::text IS NULL OR s.address = %(address)s)
ORDER BY s.id DESC
LIMIT %(limit)s;

-- name: add_suppressions
-- In the order of the key, as in suppress_refused.
INSERT INTO suppressions (address, source, reason, actor_kind, actor)
SELECT a.address, %(source)s, %(reason)s, %(actor_kind)s, %(actor)s
FROM unnest(%(addresses)s::text[]) AS a (address)
ORDER BY a.address
ON CONFLICT (address, source) DO NOTHING
RETURNING address;

-- name: remove_suppressions
WITH gone AS (
    DELETE FROM suppressions
    WHERE address = ANY (%(addresses)s) AND (%(source)s::text IS NULL OR source = %(source)s)
    RETURNING *
)
INSERT INTO removed_suppressions
    (suppression_id, address, source, reason, job_number, actor, created_at, removed_by_kind, removed_by)
SELECT id, address, source, reason, job_number, actor, created_at, %(actor_kind)s, %(actor)s FROM gone
RETURNING address;
