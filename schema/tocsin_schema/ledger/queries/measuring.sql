-- name: limit_time
-- In the transaction only: behind PgBouncer a session is not ours.
SELECT set_config('statement_timeout', %(milliseconds)s::integer::text, true);

-- name: profiles
-- Every sending profile with what its mailbox may use and has used. Of a day's recipients the limit that is nearer to its
-- end, the mailbox's own or its tenant's. Connections are counted where they are limited.
SELECT p.name, p.pause_cause, b.parked_until IS NOT NULL AS is_resting,
       CASE WHEN b.connections IS NOT NULL THEN b.connections_open END AS connections_open,
       b.connections AS connections_limit,
       m.connection_wanted_by IS NOT DISTINCT FROM p.id AS wants_connection,
       b.messages_last_minute, b.messages_per_minute AS messages_limit,
       CASE WHEN t.is_nearer THEN b.tenant_recipients_of_the_day ELSE b.recipients_of_the_day END AS recipients_used,
       CASE WHEN t.is_nearer THEN b.tenant_recipients_per_day ELSE b.recipients_per_day END AS recipients_limit
FROM sending_profiles p
JOIN mailboxes m ON m.id = p.mailbox_id
JOIN mailbox_budgets b ON b.id = p.mailbox_id
CROSS JOIN LATERAL (
    SELECT coalesce(b.tenant_recipients_of_the_day::float8 / b.tenant_recipients_per_day
                    > coalesce(b.recipients_of_the_day::float8 / b.recipients_per_day, -1), false) AS is_nearer
) t
ORDER BY p.name;

-- name: tokens
-- The token of each OAuth profile that ends first, of those that senders have used lately: others are not refreshed.
SELECT o.name AS oauth_profile, min(t.obtained_at) AS obtained_at, min(t.expires_at) AS expires_at
FROM access_tokens t
JOIN oauth_profiles o ON o.id = t.oauth_profile_id
WHERE t.sealed_token IS NOT NULL AND t.obtained_at IS NOT NULL AND t.expires_at IS NOT NULL
  AND t.used_at > now() - %(used_within)s::interval
GROUP BY o.name
ORDER BY o.name;

-- name: watch
-- Whether nobody may send anything, and when the sweeper last came to its end; one of the release before notes only
-- when it begins.
SELECT NOT sending_is_allowed() AS is_halted,
       (SELECT coalesce(swept_at, seen_at) FROM ledger_origin) AS swept_at,
       (SELECT count(*) FROM dead_letters WHERE state = 'kept') AS dead_letters;
