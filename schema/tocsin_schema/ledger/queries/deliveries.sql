-- name: deliveries
-- Every (message, recipient) of some jobs that a provider accepted, as the email copies have it.
SELECT c.message_id, encode(c.sha256, 'hex') AS sha256, r.address
FROM email_copies c
JOIN batches b ON b.job_number = c.job_number AND b.number = c.batch_number
JOIN recipients r ON r.job_number = c.job_number AND r.batch_number = c.batch_number
WHERE c.job_number = ANY (%(job_numbers)s) AND get_bit(c.recipients, r.ordinal - b.first_ordinal) = 1;

-- name: sent_recipients
-- Every recipient of some jobs whose state is sent.
SELECT job_number, address FROM recipient_states WHERE job_number = ANY (%(job_numbers)s) AND state = 'sent';

-- name: has_jobs
SELECT EXISTS (SELECT FROM job_ids);
