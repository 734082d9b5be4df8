-- name: read_sender_profile
-- Everything that a slice has to know of its profile, and whether it may send now. Limits are those in force.
SELECT p.id, p.name, p.host, p.port, p.tls, p.auth, p.from_address, p.oauth_profile_id, p.login, p.sealed_password,
       p.ca_pem, p.allow_plaintext_auth, p.batch_size, p.copies, p.mailbox_id, p.updated_at,
       p.paused_reason, coalesce(p.probe_at <= now(), false) AS probe_is_due, p.probes, p.resumed_at,
       now() AS read_at, p.provider, p.pipelining,
       least(m.connections, m.learned_connections) AS connections,
       least(m.messages_per_minute, m.learned_per_minute) AS messages_per_minute,
       m.recipients_per_day, urgent_share(m.recipients_per_day) AS urgent_share,
       CASE WHEN m.learned_recipients_at > now() - interval '1 day' THEN m.learned_recipients_per_message END
           AS recipients_per_message,
       CASE WHEN m.learned_pipelining_at > now() - interval '1 day' THEN m.learned_pipelining END AS learned_pipelining,
       m.tenant_id, t.external_recipients_per_day AS tenant_per_day,
       urgent_share(t.external_recipients_per_day) AS tenant_urgent_share,
       CASE WHEN m.connection_wanted_by <> p.id THEN m.connection_wanted_rank END AS wanted_by_other,
       m.connection_wanted_by IS NOT DISTINCT FROM p.id AS is_wanting,
       (SELECT count(*) FROM mailbox_connections c WHERE c.mailbox_id = m.id)::integer AS connections_open,
       extract(epoch FROM m.next_message_at - now())::float8 AS next_slot_in_seconds,
       r.parked_until, r.parked_reason
FROM sending_profiles p
JOIN mailboxes m ON m.id = p.mailbox_id
JOIN mailbox_rests r ON r.mailbox_id = m.id
LEFT JOIN tenants t ON t.id = m.tenant_id
WHERE p.id = %(profile_id)s;

-- name: claim_batches
WITH claimed AS MATERIALIZED (
    SELECT job_number, number, first_ordinal, size, lease_epoch, sent, rank
    FROM claim_due_batches(%(profile_id)s, %(worker_id)s, %(limit)s)
)
SELECT c.job_number, c.number, c.first_ordinal, c.size, c.lease_epoch, c.sent, c.rank,
       coalesce(w.since_published, 0) AS since_published, coalesce(w.since_due, 0) AS since_due
FROM claimed c
LEFT JOIN claimed_waits(ARRAY(SELECT job_number FROM claimed), ARRAY(SELECT number FROM claimed)) w
  ON w.job_number = c.job_number AND w.batch_number = c.number;

-- name: read_claimed_recipients
SELECT job_number, batch_number, ordinal, address, name, data
FROM claimed_recipients(%(job_numbers)s::bigint[], %(first_ordinals)s::integer[], %(sizes)s::integer[]);

-- name: read_claimed_exceptions
SELECT job_number, ordinal, batch_number, state, attempts, due_in_seconds, alone
FROM claimed_exceptions(%(job_numbers)s::bigint[], %(batch_numbers)s::integer[]);

-- name: read_job_content
SELECT j.number, j.id, j.mode, j.on_unknown, c.rendered, c.subject, c.text_body, c.html_body, c.from_name,
       c.reply_to, c.visible_to, c.headers, c.data
FROM jobs j
JOIN message_contents c ON c.job_number = j.number
WHERE j.number = %(job_number)s;

-- name: release_batches
SELECT job_number, state
FROM release_leased_batches(%(worker_id)s, %(job_numbers)s::bigint[], %(numbers)s::integer[], %(epochs)s::bigint[],
                            %(due_in_seconds)s::float8[]);

-- name: finish_jobs
SELECT finish_jobs(%(job_numbers)s::bigint[]);

-- name: has_due_work
SELECT has_due_work(%(profile_id)s);

-- name: read_recipient_of_copy
-- The one recipient of an individual message.
SELECT r.job_number, r.batch_number, r.ordinal, r.address, r.name, r.data
FROM email_copies c
JOIN batches b ON b.job_number = c.job_number AND b.number = c.batch_number
JOIN recipients r ON r.job_number = c.job_number AND r.ordinal = b.first_ordinal + c.first_index
WHERE c.id = %(copy_id)s;
