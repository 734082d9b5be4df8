-- name: write_batches
SELECT job_number, number, counts_exceptions, is_marked, is_outranked
FROM write_batches(%(worker_id)s, %(job_numbers)s::bigint[], %(numbers)s::integer[], %(epochs)s::bigint[],
                   %(sents)s::varbit[], %(settleds)s::varbit[], %(marks)s::varbit[], %(mark_epochs)s::bigint[],
                   %(jobs_to_mark)s::bigint[]);

-- name: copy_email_copies
COPY email_copies
    (job_number, batch_number, lease_epoch, first_index, recipients, profile, from_address, reply_to, visible_to, subject, message_id,
     provider_id, dated_at, accepted_at, reply_code, enhanced_code, reply, size, sha256, content)
FROM STDIN;

-- name: record_exceptions
-- Twice the same changes nothing: attempts are those so far, not one more. Fenced: whoever lost a batch has nothing
-- more to say of recipients that others try by now; but a refusal of one that is held as unknown, whom nobody tries,
-- still counts, unless somebody has tried them since. What was a try is written down for good.
WITH told AS (
    SELECT *
    FROM unnest(%(job_numbers)s::bigint[], %(ordinals)s::integer[], %(batch_numbers)s::integer[], %(states)s::text[],
                %(attempts)s::smallint[], %(due_in_seconds)s::float8[], %(phases)s::text[], %(codes)s::smallint[],
                %(enhanced_codes)s::text[], %(replies)s::text[], %(reasons)s::text[],
                %(alones)s::boolean[], %(tries)s::boolean[], %(epochs)s::bigint[])
             AS v (job_number, ordinal, batch_number, state, attempts, due_in_seconds, phase, code, enhanced_code,
                   reply, reason, alone, is_try, epoch)
),
taken AS (
    INSERT INTO recipient_exceptions AS e
        (job_number, ordinal, batch_number, state, attempts, due_at, phase, code, enhanced_code, reply, reason, alone)
    SELECT v.job_number, v.ordinal, v.batch_number, v.state, v.attempts,
           now() + make_interval(secs => v.due_in_seconds), v.phase, v.code, v.enhanced_code, v.reply, v.reason, v.alone
    FROM told v
    CROSS JOIN LATERAL (
        SELECT lease_epoch FROM batches WHERE job_number = v.job_number AND number = v.batch_number OFFSET 0
    ) b
    WHERE b.lease_epoch = v.epoch
       OR (v.state = 'failed'
           AND EXISTS (
               SELECT FROM recipient_exceptions x
               WHERE x.job_number = v.job_number AND x.ordinal = v.ordinal AND x.state = 'unknown')
           AND NOT EXISTS (
               SELECT FROM delivery_attempts a
               WHERE a.job_number = v.job_number AND a.ordinal = v.ordinal AND a.lease_epoch > v.epoch))
    ON CONFLICT (job_number, ordinal) DO UPDATE
    SET state = EXCLUDED.state, attempts = greatest(e.attempts, EXCLUDED.attempts), due_at = EXCLUDED.due_at,
        phase = EXCLUDED.phase, code = EXCLUDED.code, enhanced_code = EXCLUDED.enhanced_code, reply = EXCLUDED.reply,
        reason = EXCLUDED.reason, alone = EXCLUDED.alone, updated_at = now()
    RETURNING job_number, ordinal
),
tried AS (
    INSERT INTO delivery_attempts (job_number, ordinal, lease_epoch, state, phase, code, enhanced_code, reply, reason)
    SELECT v.job_number, v.ordinal, v.epoch, v.state, v.phase, v.code, v.enhanced_code, v.reply, v.reason
    FROM told v
    JOIN taken USING (job_number, ordinal)
    WHERE v.is_try
    ON CONFLICT DO NOTHING
)
SELECT job_number, ordinal FROM taken;

-- name: recount_exceptions
UPDATE batches b
SET failed = c.failed, unknown = c.unknown, suppressed = c.suppressed
FROM (
    SELECT x.job_number, x.number,
           count(*) FILTER (WHERE e.state = 'failed') AS failed,
           count(*) FILTER (WHERE e.state = 'unknown') AS unknown,
           count(*) FILTER (WHERE e.state = 'suppressed') AS suppressed
    FROM unnest(%(job_numbers)s::bigint[], %(numbers)s::integer[]) AS v (job_number, number)
    JOIN batches x ON x.job_number = v.job_number AND x.number = v.number
    LEFT JOIN recipient_exceptions e
      ON e.job_number = x.job_number AND e.batch_number = x.number AND get_bit(x.sent, e.ordinal - x.first_ordinal) = 0
    GROUP BY x.job_number, x.number
) c
WHERE b.job_number = c.job_number AND b.number = c.number;
