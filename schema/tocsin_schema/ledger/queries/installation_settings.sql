-- name: read_settings
SELECT key, value, sealed_value IS NOT NULL AS is_sealed, bound_to, read_only, updated_at
FROM settings
ORDER BY key;

-- name: write_setting
INSERT INTO settings (key, value)
VALUES (%(key)s, %(value)s)
ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, updated_at = now();

-- name: forget_mailboxes_kept_for_urgent
-- Before the tenants, as whoever counts recipients locks them. Who still has no room is found out again.
UPDATE mailboxes SET kept_for_urgent_until = NULL, kept_for_urgent_reason = NULL
WHERE kept_for_urgent_until IS NOT NULL;

-- name: forget_tenants_kept_for_urgent
UPDATE tenants SET kept_for_urgent_until = NULL, kept_for_urgent_reason = NULL
WHERE kept_for_urgent_until IS NOT NULL;

-- name: lock_setting
-- The row's id is authenticated with the sealed value, so the row is there before its value.
INSERT INTO settings (key)
VALUES (%(key)s)
ON CONFLICT (key) DO UPDATE SET updated_at = now()
RETURNING row_id;

-- name: write_sealed_setting
UPDATE settings
SET value = NULL, sealed_value = %(sealed_value)s, bound_to = %(bound_to)s, updated_at = now()
WHERE key = %(key)s;

-- name: read_shared_login
-- EmailUsername and EmailPassword: what a profile with basic authentication logs in with where it has no own.
SELECT u.value AS username, p.row_id, p.sealed_value, p.bound_to
FROM settings u
JOIN settings p ON p.key = 'EmailPassword' AND p.sealed_value IS NOT NULL
WHERE u.key = 'EmailUsername' AND u.value IS NOT NULL;
