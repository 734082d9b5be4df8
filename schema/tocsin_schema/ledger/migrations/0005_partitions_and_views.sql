-- Partitions made ahead, and the one place that says what a recipient's and a job's state is.

CREATE FUNCTION make_partitions(from_instant timestamptz, months integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent      text;
    month       timestamptz;
    partition   text;
    made        integer := 0;
BEGIN
    -- Ten pods may come here at once: one makes, the others find it made.
    PERFORM pg_advisory_xact_lock(hashtext('tocsin.make_partitions'));
    FOR offset_months IN 0..months LOOP
        month := date_trunc('month', from_instant AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
                 + make_interval(months => offset_months);
        FOREACH parent IN ARRAY ARRAY['jobs', 'job_parts', 'message_contents', 'attachments', 'batches',
                                      'recipients', 'recipient_exceptions', 'email_copies'] LOOP
            partition := format('%s_%s', parent, to_char(month AT TIME ZONE 'UTC', 'YYYYMM'));
            CONTINUE WHEN to_regclass(partition) IS NOT NULL;
            -- Made apart and attached, since CREATE … PARTITION OF would lock the parent against all writers.
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, parent);
            IF parent = 'batches' THEN
                -- Room on the page for the marks, which then touch no index.
                EXECUTE format('ALTER TABLE %I SET (fillfactor = 60)', partition);
            END IF;
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                           parent, partition, job_number_at(month), job_number_at(month + interval '1 month'));
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
COMMENT ON FUNCTION make_partitions IS 'Makes what is missing of a month''s partitions and of the months after it; returns how many.';

CREATE VIEW sendable_jobs AS
SELECT number, profile_id, rank
FROM jobs j
WHERE state IN ('receiving', 'running')
  AND (send_after IS NULL OR send_after <= now())
  AND expires_at > now()
  AND EXISTS (SELECT FROM batches b WHERE b.job_number = j.number AND b.state = 'due' AND b.due_at <= now());
COMMENT ON VIEW sendable_jobs IS 'Jobs of which a batch may be sent now, as far as the job is concerned.';

CREATE VIEW recipient_states AS
SELECT r.job_number,
       r.ordinal,
       r.batch_number,
       r.address,
       r.name,
       CASE
           WHEN get_bit(b.sent, r.ordinal - b.first_ordinal) = 1 THEN 'sent'
           WHEN e.state IN ('failed', 'unknown', 'suppressed') THEN e.state
           WHEN get_bit(b.in_flight, r.ordinal - b.first_ordinal) = 1 THEN 'in_flight'
           WHEN j.state = 'cancelled' THEN 'cancelled'
           WHEN j.state = 'finished' THEN 'expired'
           ELSE 'pending'
       END AS state,
       e.attempts AS exception_attempts,
       e.due_at,
       e.phase,
       e.code,
       e.enhanced_code,
       e.reply,
       e.reason
FROM recipients r
JOIN jobs j ON j.number = r.job_number
JOIN batches b ON b.job_number = r.job_number AND b.number = r.batch_number
LEFT JOIN recipient_exceptions e ON e.job_number = r.job_number AND e.ordinal = r.ordinal;
COMMENT ON VIEW recipient_states IS 'The state of every recipient. A recorded acceptance wins over everything.';

CREATE VIEW job_counts AS
WITH sums AS (
    SELECT job_number,
           sum(size) AS total,
           sum(bit_count(sent)) AS sent,
           sum(bit_count(in_flight & ~sent)) AS in_flight,
           sum(failed) AS failed,
           sum(unknown) AS unknown,
           sum(suppressed) AS suppressed
    FROM batches
    GROUP BY job_number
)
SELECT j.number AS job_number,
       coalesce(s.total, 0)::bigint AS total,
       coalesce(s.sent, 0)::bigint AS sent,
       coalesce(s.in_flight, 0)::bigint AS in_flight,
       coalesce(s.failed, 0)::bigint AS failed,
       coalesce(s.unknown, 0)::bigint AS unknown,
       coalesce(s.suppressed, 0)::bigint AS suppressed,
       coalesce(s.total - s.sent - s.in_flight - s.failed - s.unknown - s.suppressed, 0)::bigint AS unsettled,
       CASE j.state WHEN 'cancelled' THEN 'cancelled' WHEN 'finished' THEN 'expired' ELSE 'pending' END
           AS unsettled_state
FROM jobs j
LEFT JOIN sums s ON s.job_number = j.number;
COMMENT ON VIEW job_counts IS 'A job''s recipients by state, as sums over its batches.';

SELECT make_partitions(now(), 2);
