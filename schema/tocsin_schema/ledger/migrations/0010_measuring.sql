-- What the metrics need: when a job was published, what lies in the ledger for each profile and may be sent now, and
-- when the sweeper last came to its end. Nothing that the release before asks for is changed.

ALTER TABLE jobs ADD COLUMN published_at timestamptz;
COMMENT ON COLUMN jobs.published_at IS 'When the part that came first was published, as its message told; never later than created_at. NULL: it did not.';

ALTER TABLE ledger_origin ADD COLUMN swept_at timestamptz;
COMMENT ON COLUMN ledger_origin.swept_at IS 'When the sweeper last came to its end, to a few seconds.';

CREATE VIEW profile_backlogs AS
SELECT o.profile_id,
       count(*) FILTER (WHERE o.state = 'receiving') AS receiving_jobs,
       count(*) FILTER (WHERE o.state = 'running') AS running_jobs,
       count(*) FILTER (WHERE o.state = 'paused') AS paused_jobs,
       coalesce(sum(b.due) FILTER (WHERE o.may_be_sent), 0)::bigint AS due_batches,
       coalesce(sum(b.due + b.later) - coalesce(sum(b.due) FILTER (WHERE o.may_be_sent), 0), 0)::bigint AS waiting_batches,
       coalesce(sum(b.leased), 0)::bigint AS leased_batches,
       coalesce(sum(b.due_unsettled) FILTER (WHERE o.may_be_sent), 0)::bigint AS due_recipients,
       coalesce(sum(b.leased_unsettled), 0)::bigint AS leased_recipients,
       coalesce(sum(b.due_unsettled + b.later_unsettled)
                - coalesce(sum(b.due_unsettled) FILTER (WHERE o.may_be_sent), 0), 0)::bigint AS waiting_recipients,
       coalesce(sum(b.due_unsettled + b.later_unsettled) FILTER (WHERE o.state = 'paused'), 0)::bigint AS paused_recipients,
       coalesce(sum(b.size - b.sent - b.in_flight - b.failed - b.unknown - b.suppressed), 0)::bigint AS pending,
       coalesce(sum(b.in_flight), 0)::bigint AS in_flight,
       coalesce(sum(b.sent), 0)::bigint AS sent,
       coalesce(sum(b.failed), 0)::bigint AS failed,
       coalesce(sum(b.unknown), 0)::bigint AS unknown,
       coalesce(sum(b.suppressed), 0)::bigint AS suppressed
FROM (
    SELECT j.number, j.profile_id, j.state,
           -- OFFSET 0: one look-up after the other. Of a month that is new nothing is known yet, and a join of the two
           -- may then become a nested loop over all of them.
           coalesce(p.paused_at IS NULL AND r.parked_until IS NULL
                    AND EXISTS (SELECT FROM sendable_jobs s WHERE s.number = j.number OFFSET 0), false) AS may_be_sent
    FROM jobs j
    LEFT JOIN sending_profiles p ON p.id = j.profile_id
    LEFT JOIN mailbox_rests r ON r.mailbox_id = p.mailbox_id
    WHERE j.state IN ('receiving', 'running', 'paused')
) o
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE c.is_due) AS due,
           count(*) FILTER (WHERE c.is_later) AS later,
           count(*) FILTER (WHERE c.is_leased) AS leased,
           coalesce(sum(c.unsettled) FILTER (WHERE c.is_due), 0) AS due_unsettled,
           coalesce(sum(c.unsettled) FILTER (WHERE c.is_later), 0) AS later_unsettled,
           coalesce(sum(c.unsettled) FILTER (WHERE c.is_leased), 0) AS leased_unsettled,
           sum(c.size) AS size, sum(c.sent) AS sent, sum(c.in_flight) AS in_flight,
           sum(c.failed) AS failed, sum(c.unknown) AS unknown, sum(c.suppressed) AS suppressed
    FROM (
        SELECT a.state = 'due' AND a.due_at <= now() AS is_due,
               a.state = 'due' AND a.due_at > now() AS is_later,
               a.state = 'leased' AS is_leased,
               a.size - bit_count(a.sent) - a.failed - a.unknown - a.suppressed AS unsettled,
               a.size, bit_count(a.sent) AS sent, bit_count(a.in_flight & ~a.sent) AS in_flight,
               a.failed, a.unknown, a.suppressed
        FROM batches a
        WHERE a.job_number = o.number
    ) c
) b
GROUP BY o.profile_id;
COMMENT ON VIEW profile_backlogs IS
    'What lies in the ledger for each profile that has open jobs: their batches and recipients. Due is what may be sent now: nothing holds up its job, its profile, its mailbox or all sending. Unsettled recipients are due, leased (in work) or waiting; paused ones are among those that wait. It reads all batches of open jobs.';

CREATE FUNCTION claimed_waits(job_numbers bigint[], batch_numbers integer[])
RETURNS TABLE (job_number bigint, batch_number integer, since_published float8, since_due float8)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT b.job_number, b.number,
           extract(epoch FROM clock_timestamp() - greatest(j.published_at, j.send_after))::float8,
           -- Whom a person wants tried again have no time of their own.
           CASE WHEN isfinite(b.due_at)
               THEN extract(epoch FROM clock_timestamp() - greatest(b.due_at, j.send_after))::float8
               ELSE 0
           END
    FROM unnest(job_numbers, batch_numbers) AS c (job_number, batch_number)
    CROSS JOIN LATERAL (
        SELECT o.job_number, o.number, o.due_at
        FROM batches o
        WHERE o.job_number = c.job_number AND o.number = c.batch_number
        OFFSET 0
    ) b
    CROSS JOIN LATERAL (
        SELECT coalesce(o.published_at, o.created_at) AS published_at, o.send_after
        FROM jobs o
        WHERE o.number = c.job_number
        OFFSET 0
    ) j;
END $$;
COMMENT ON FUNCTION claimed_waits IS
    'How many seconds batches have waited: since their job was published, or taken in where that was not told, and since they were due; neither before the time that the job is to begin.';

ALTER FUNCTION claimed_waits SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION claimed_waits SET enable_seqscan = off;
ALTER FUNCTION claimed_waits SET enable_hashjoin = off;
ALTER FUNCTION claimed_waits SET enable_mergejoin = off;
ALTER FUNCTION claimed_waits SET jit = off;
