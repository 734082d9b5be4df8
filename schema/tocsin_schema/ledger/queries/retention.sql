-- name: read_month_tables
-- Every table of a month, attached to its parent or not; the month as six digits.
SELECT p.parent, right(c.relname, 6) AS month,
       CASE WHEN i.inhrelid IS NULL THEN 'detached' WHEN i.inhdetachpending THEN 'pending' ELSE 'attached' END AS state
FROM unnest(partitioned_tables()) AS p (parent)
JOIN pg_class parent ON parent.oid = to_regclass(p.parent)
JOIN pg_class c ON c.relnamespace = parent.relnamespace AND c.relkind = 'r'
               AND c.relname ~ ('^' || p.parent || '_[0-9]{6}$')
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = parent.oid;

-- name: now
SELECT now();

-- name: limit_waiting
-- In the transaction of what follows: whoever waits for a lock lets nobody else pass.
SET LOCAL lock_timeout = '2s';

-- name: try_lock_retiring
-- One step at a time over the fleet; held to the end of the transaction.
SELECT pg_try_advisory_xact_lock(hashtext('tocsin.retire'));

-- name: held_statement
-- Asks the month's own tables, so that it answers whether they are attached or not. A job that ended lately may still
-- have a late outcome coming, or a person may just be looking at it.
SELECT format(
    $$SELECT EXISTS (SELECT FROM %%I
                     WHERE state IN ('receiving', 'running', 'paused') OR finished_at > now() - interval '1 day')
          OR EXISTS (SELECT FROM %%I WHERE state = 'leased')
          OR EXISTS (SELECT FROM %%I WHERE at > now() - interval '1 day')$$,
    'jobs_' || %(month)s::text, 'batches_' || %(month)s::text, 'job_events_' || %(month)s::text);

-- name: detach_statement
-- It waits for whoever uses the table, and keeps nobody from it.
SELECT format('ALTER TABLE %%I DETACH PARTITION %%I CONCURRENTLY',
              %(parent)s::text, concat(%(parent)s::text, '_', %(month)s::text));

-- name: finalize_statement
-- Ends a detachment that was interrupted.
SELECT format('ALTER TABLE %%I DETACH PARTITION %%I FINALIZE',
              %(parent)s::text, concat(%(parent)s::text, '_', %(month)s::text));

-- name: attach_statement
SELECT format('ALTER TABLE %%I ATTACH PARTITION %%I FOR VALUES FROM (%%s) TO (%%s)',
              %(parent)s::text, concat(%(parent)s::text, '_', %(month)s::text),
              job_number_at(%(first)s::timestamptz), job_number_at(%(end)s::timestamptz));

-- name: drop_statement
-- All at once: a month is there, or it is not.
SELECT 'DROP TABLE ' || string_agg(format('%%I', parent || '_' || %(month)s::text), ', ')
FROM unnest(%(parents)s::text[]) AS parent;

-- name: forget_job_ids
-- A portion. Their jobs are gone: an id may be used again.
DELETE FROM job_ids
WHERE id IN (
    SELECT id FROM job_ids
    WHERE job_number >= job_number_at(%(first)s::timestamptz) AND job_number < job_number_at(%(end)s::timestamptz)
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
);

-- name: has_job_ids
SELECT EXISTS (
    SELECT FROM job_ids
    WHERE job_number >= job_number_at(%(first)s::timestamptz) AND job_number < job_number_at(%(end)s::timestamptz)
);
