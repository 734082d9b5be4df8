-- name: read_refresh_token
SELECT id, oauth_profile_id, subject, version, sealed_token, account, signed_in_at, renewed_at, expires_at
FROM refresh_tokens
WHERE oauth_profile_id = %(profile_id)s AND subject = %(subject)s;

-- name: list_refresh_tokens
SELECT id, oauth_profile_id, subject, version, sealed_token, account, signed_in_at, renewed_at, expires_at
FROM refresh_tokens
WHERE oauth_profile_id = %(profile_id)s
ORDER BY subject;

-- name: store_sign_in
-- Somebody signed in: whatever was there before is over.
INSERT INTO refresh_tokens (id, oauth_profile_id, subject, sealed_token, account, expires_at)
VALUES (%(id)s, %(profile_id)s, %(subject)s, %(sealed_token)s, %(account)s,
        now() + make_interval(secs => %(lifetime_seconds)s))
ON CONFLICT (oauth_profile_id, subject) DO UPDATE
SET id = EXCLUDED.id, version = refresh_tokens.version + 1, sealed_token = EXCLUDED.sealed_token,
    account = EXCLUDED.account, signed_in_at = now(), renewed_at = now(), expires_at = EXCLUDED.expires_at;

-- name: renew_refresh_token
-- Compare-and-swap: the one that was used gives way to the one that came for it, unless somebody signed in anew.
UPDATE refresh_tokens
SET version = version + 1, sealed_token = %(sealed_token)s, renewed_at = now(),
    expires_at = now() + make_interval(secs => %(lifetime_seconds)s)
WHERE id = %(id)s AND version = %(version)s
RETURNING version;

-- name: forget_refresh_tokens
DELETE FROM refresh_tokens WHERE oauth_profile_id = %(profile_id)s RETURNING subject;

-- name: note_credentials_changed
-- A sign-in is stored beside the profile; what was seen of it before no longer counts.
UPDATE oauth_profiles SET updated_at = clock_timestamp() WHERE id = %(profile_id)s;
