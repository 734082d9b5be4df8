-- name: copies
-- Batch by batch, as the index gives them. The look-up of addresses spans only the ordinals between a message's
-- first and last recipient. OFFSET 0 keeps the look-ups to themselves, whatever the statistics say.
SELECT c.id, c.job_number, j.id AS job_id, c.batch_number, c.profile, c.from_address, c.reply_to, c.visible_to,
       c.subject, c.message_id, c.provider_id, c.dated_at, c.accepted_at, c.reply_code, c.enhanced_code, c.reply,
       c.size, c.sha256, c.content IS NOT NULL AS is_full,
       ARRAY(
           SELECT r.address
           FROM recipients r
           WHERE r.job_number = c.job_number
             AND r.ordinal >= b.first_ordinal + c.first_index
             AND r.ordinal <= b.first_ordinal + length(c.recipients) - strpos(reverse(c.recipients::text), '1')
             AND get_bit(c.recipients, r.ordinal - b.first_ordinal) = 1
           ORDER BY r.ordinal
       ) AS recipients
FROM email_copies c
CROSS JOIN LATERAL (
    SELECT first_ordinal FROM batches WHERE job_number = c.job_number AND number = c.batch_number OFFSET 0
) b
CROSS JOIN LATERAL (SELECT id FROM jobs WHERE number = c.job_number OFFSET 0) j
WHERE c.job_number = %(job_number)s AND (%(profile)s::text IS NULL OR c.profile = %(profile)s)
ORDER BY c.batch_number, c.lease_epoch, c.first_index
LIMIT %(limit)s;

-- name: copies_of_profile
-- Newest job first, by the primary key read backwards.
SELECT c.id, c.job_number, j.id AS job_id, c.batch_number, c.profile, c.from_address, c.reply_to, c.visible_to,
       c.subject, c.message_id, c.provider_id, c.dated_at, c.accepted_at, c.reply_code, c.enhanced_code, c.reply,
       c.size, c.sha256, c.content IS NOT NULL AS is_full,
       ARRAY(
           SELECT r.address
           FROM recipients r
           WHERE r.job_number = c.job_number
             AND r.ordinal >= b.first_ordinal + c.first_index
             AND r.ordinal <= b.first_ordinal + length(c.recipients) - strpos(reverse(c.recipients::text), '1')
             AND get_bit(c.recipients, r.ordinal - b.first_ordinal) = 1
           ORDER BY r.ordinal
       ) AS recipients
FROM (
    SELECT *
    FROM email_copies
    WHERE profile = %(profile)s
    ORDER BY job_number DESC, batch_number DESC, lease_epoch DESC, first_index DESC
    LIMIT %(limit)s
) c
CROSS JOIN LATERAL (
    SELECT first_ordinal FROM batches WHERE job_number = c.job_number AND number = c.batch_number OFFSET 0
) b
CROSS JOIN LATERAL (SELECT id FROM jobs WHERE number = c.job_number OFFSET 0) j
ORDER BY c.job_number DESC, c.batch_number DESC, c.lease_epoch DESC, c.first_index DESC;

-- name: read_copy
SELECT c.id, c.job_number, j.id AS job_id, c.batch_number, c.profile, c.from_address, c.reply_to, c.visible_to,
       c.subject, c.message_id, c.provider_id, c.dated_at, c.accepted_at, c.reply_code, c.enhanced_code, c.reply,
       c.size, c.sha256, c.content IS NOT NULL AS is_full,
       ARRAY(
           SELECT r.address
           FROM recipients r
           WHERE r.job_number = c.job_number
             AND r.ordinal >= b.first_ordinal + c.first_index
             AND r.ordinal <= b.first_ordinal + length(c.recipients) - strpos(reverse(c.recipients::text), '1')
             AND get_bit(c.recipients, r.ordinal - b.first_ordinal) = 1
           ORDER BY r.ordinal
       ) AS recipients
FROM email_copies c
CROSS JOIN LATERAL (
    SELECT first_ordinal FROM batches WHERE job_number = c.job_number AND number = c.batch_number OFFSET 0
) b
CROSS JOIN LATERAL (SELECT id FROM jobs WHERE number = c.job_number OFFSET 0) j
WHERE c.id = %(id)s;

-- name: read_copy_content
SELECT content FROM email_copies WHERE id = %(id)s;
