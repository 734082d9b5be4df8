-- name: read_sending_defaults
SELECT provider, title, host, port, tls, auth, batch_size, connections, messages_per_minute, recipients_per_day
FROM sending_profile_defaults
WHERE provider = %(provider)s;

-- name: lock_mailbox
-- The one row of a login at a host, made if it is missing; locked, so that two profiles that meet here take turns.
INSERT INTO mailboxes (host, login)
VALUES (%(host)s, %(login)s)
ON CONFLICT (host, login) DO UPDATE SET host = EXCLUDED.host
RETURNING id, connections, messages_per_minute, recipients_per_day;

-- name: profiles_of_mailbox
SELECT name FROM sending_profiles WHERE mailbox_id = %(mailbox_id)s ORDER BY name;

-- name: write_mailbox_limits
UPDATE mailboxes
SET connections = %(connections)s,
    messages_per_minute = %(messages_per_minute)s,
    recipients_per_day = %(recipients_per_day)s
WHERE id = %(mailbox_id)s;

-- name: forget_learned_connections
-- A person knows better.
UPDATE mailboxes
SET learned_connections = NULL, connections_lowered_at = NULL, connections_raised_at = NULL, connections_failures = 0,
    connections_reason = NULL
WHERE id = %(mailbox_id)s;

-- name: forget_learned_rate
-- The same. What was reserved at another rate lies at most some seconds ahead.
UPDATE mailboxes
SET learned_per_minute = NULL, per_minute_before = NULL, per_minute_lowered_at = NULL, per_minute_raised_at = NULL,
    per_minute_steps = 0, per_minute_counted_by = NULL, per_minute_needed_at = NULL, per_minute_reason = NULL
WHERE id = %(mailbox_id)s;

-- name: end_rest_of_quota
-- With another limit of a day the mailbox looks anew whether there is room.
UPDATE mailboxes
SET parked_until = NULL, parked_reason = NULL, kept_for_urgent_until = NULL, kept_for_urgent_reason = NULL
WHERE id = %(mailbox_id)s;

-- name: read_oauth_profile_id
SELECT id FROM oauth_profiles WHERE name = %(name)s FOR KEY SHARE;

-- name: insert_sending_profile
INSERT INTO sending_profiles
    (id, name, provider, host, port, tls, auth, from_address, oauth_profile_id, login, sealed_password, ca_pem,
     allow_plaintext_auth, batch_size, copies, pipelining, mailbox_id)
VALUES
    (%(id)s, %(name)s, %(provider)s, %(host)s, %(port)s, %(tls)s, %(auth)s, %(from_address)s,
     %(oauth_profile_id)s, %(login)s, %(sealed_password)s, %(ca_pem)s, %(allow_plaintext_auth)s, %(batch_size)s,
     %(copies)s, %(pipelining)s, %(mailbox_id)s);

-- name: lock_sending_profile
SELECT id FROM sending_profiles WHERE name = %(name)s FOR UPDATE;

-- name: read_sending_profile
SELECT p.id, p.name, p.provider, p.host, p.port, p.tls, p.auth, p.from_address, p.oauth_profile_id,
       o.name AS oauth_profile, p.login, p.sealed_password IS NOT NULL AS has_password, p.ca_pem,
       p.allow_plaintext_auth, p.batch_size, p.copies, p.mailbox_id, p.paused_at, p.paused_reason, p.paused_by,
       m.connections, m.messages_per_minute, m.recipients_per_day,
       r.parked_until, r.parked_reason, r.kept_for_urgent_until, r.kept_for_urgent_reason, p.pipelining,
       m.learned_connections, m.connections_reason, m.learned_per_minute, m.per_minute_reason,
       CASE WHEN m.learned_recipients_at > now() - interval '1 day' THEN m.learned_recipients_per_message END
           AS recipients_per_message,
       CASE WHEN m.learned_pipelining_at > now() - interval '1 day' THEN m.learned_pipelining END AS learned_pipelining,
       t.name AS tenant, t.external_recipients_per_day AS tenant_per_day,
       p.created_at, p.updated_at
FROM sending_profiles p
JOIN mailboxes m ON m.id = p.mailbox_id
JOIN mailbox_rests r ON r.mailbox_id = m.id
LEFT JOIN tenants t ON t.id = m.tenant_id
LEFT JOIN oauth_profiles o ON o.id = p.oauth_profile_id
WHERE p.name = %(name)s;

-- name: list_sending_profiles
SELECT p.id, p.name, p.provider, p.host, p.port, p.tls, p.auth, p.from_address, p.oauth_profile_id,
       o.name AS oauth_profile, p.login, p.sealed_password IS NOT NULL AS has_password, p.ca_pem,
       p.allow_plaintext_auth, p.batch_size, p.copies, p.mailbox_id, p.paused_at, p.paused_reason, p.paused_by,
       m.connections, m.messages_per_minute, m.recipients_per_day,
       r.parked_until, r.parked_reason, r.kept_for_urgent_until, r.kept_for_urgent_reason, p.pipelining,
       m.learned_connections, m.connections_reason, m.learned_per_minute, m.per_minute_reason,
       CASE WHEN m.learned_recipients_at > now() - interval '1 day' THEN m.learned_recipients_per_message END
           AS recipients_per_message,
       CASE WHEN m.learned_pipelining_at > now() - interval '1 day' THEN m.learned_pipelining END AS learned_pipelining,
       t.name AS tenant, t.external_recipients_per_day AS tenant_per_day,
       p.created_at, p.updated_at
FROM sending_profiles p
JOIN mailboxes m ON m.id = p.mailbox_id
JOIN mailbox_rests r ON r.mailbox_id = m.id
LEFT JOIN tenants t ON t.id = m.tenant_id
LEFT JOIN oauth_profiles o ON o.id = p.oauth_profile_id
ORDER BY p.name;

-- name: update_sending_profile
UPDATE sending_profiles
SET host = %(host)s, port = %(port)s, tls = %(tls)s, auth = %(auth)s, from_address = %(from_address)s,
    oauth_profile_id = %(oauth_profile_id)s, login = %(login)s, ca_pem = %(ca_pem)s,
    allow_plaintext_auth = %(allow_plaintext_auth)s, batch_size = %(batch_size)s, copies = %(copies)s,
    pipelining = %(pipelining)s, mailbox_id = %(mailbox_id)s, updated_at = now()
WHERE id = %(id)s;

-- name: write_password
UPDATE sending_profiles SET sealed_password = %(sealed_password)s, updated_at = now() WHERE id = %(id)s;

-- name: count_unfinished_jobs
SELECT count(*)
FROM jobs
WHERE profile_id = %(id)s AND state IN ('receiving', 'running', 'paused');

-- name: delete_sending_profile
DELETE FROM sending_profiles WHERE id = %(id)s;
