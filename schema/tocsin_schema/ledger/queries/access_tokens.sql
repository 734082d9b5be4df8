-- name: ensure_token_row
-- Makes the row of a profile and subject that was never asked for; nothing where the profile is gone.
INSERT INTO access_tokens (oauth_profile_id, subject)
SELECT id, %(subject)s FROM oauth_profiles WHERE id = %(profile_id)s
ON CONFLICT (oauth_profile_id, subject) DO NOTHING;

-- name: read_token_row
SELECT id, oauth_profile_id, subject, grant_type, version, refused_version, sealed_token, obtained_at, expires_at,
       refresh_leased_until, failure, failure_fix, failure_code, failure_permanent, failed_at, retry_at, now
FROM access_token_rows
WHERE oauth_profile_id = %(profile_id)s AND subject = %(subject)s;

-- name: note_use
-- At most one write a minute over the fleet, so that the row stays cold.
UPDATE access_tokens
SET used_at = clock_timestamp()
WHERE oauth_profile_id = %(profile_id)s AND subject = %(subject)s
  AND (used_at IS NULL OR used_at < clock_timestamp() - interval '1 minute');

-- name: list_used_lately
SELECT id, oauth_profile_id, subject, grant_type, version, refused_version, sealed_token, obtained_at, expires_at,
       refresh_leased_until, failure, failure_fix, failure_code, failure_permanent, failed_at, retry_at, now
FROM access_token_rows
WHERE sealed_token IS NOT NULL AND used_at > now - make_interval(secs => %(within_seconds)s)
ORDER BY expires_at;

-- name: claim_refresh
-- The single flight: one asker gets the lease, on the database's clock. Who saw an older version gets nothing,
-- since somebody else has refreshed meanwhile.
UPDATE access_tokens
SET refresh_leased_by = %(attempt)s, refresh_outdated = false,
    refresh_leased_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
WHERE oauth_profile_id = %(profile_id)s AND subject = %(subject)s AND version = %(version)s
  AND (refresh_leased_until IS NULL OR refresh_leased_until <= clock_timestamp())
  AND (retry_at IS NULL OR retry_at <= clock_timestamp())
RETURNING clock_timestamp() AS claimed_at;

-- name: record_token
-- Fenced by the attempt: where the lease lapsed and went to another, or the profile was changed meanwhile, nothing is
-- stored. The life counts from the claim, which lies before the request.
UPDATE access_tokens
SET version = version + 1, sealed_token = %(sealed_token)s, obtained_at = %(claimed_at)s,
    expires_at = %(claimed_at)s + make_interval(secs => %(lifetime_seconds)s),
    refresh_leased_by = NULL, refresh_leased_until = NULL,
    failure = NULL, failure_fix = NULL, failure_code = NULL, failure_permanent = false, failed_at = NULL, retry_at = NULL
WHERE oauth_profile_id = %(profile_id)s AND subject = %(subject)s AND refresh_leased_by = %(attempt)s
  AND NOT refresh_outdated
RETURNING version;

-- name: record_failure
-- The token, if there is one, stays: while it lives nobody need notice.
UPDATE access_tokens
SET failure = %(failure)s, failure_fix = %(fix)s, failure_code = %(code)s, failure_permanent = %(permanent)s,
    failed_at = clock_timestamp(), retry_wished = %(wished)s,
    retry_at = clock_timestamp() + make_interval(secs => %(wait_seconds)s),
    refresh_leased_by = NULL, refresh_leased_until = NULL
WHERE oauth_profile_id = %(profile_id)s AND subject = %(subject)s AND refresh_leased_by = %(attempt)s
  AND NOT refresh_outdated
RETURNING version;

-- name: release_refresh
-- Nothing was asked under it, or what came of it no longer counts.
UPDATE access_tokens
SET refresh_leased_by = NULL, refresh_leased_until = NULL
WHERE oauth_profile_id = %(profile_id)s AND subject = %(subject)s AND refresh_leased_by = %(attempt)s;

-- name: note_refusal
-- Compare-and-swap: of many that were refused with one version, one succeeds. The token stays: whom the mail server
-- does not refuse may go on with it until there is another.
UPDATE access_tokens
SET refused_version = version
WHERE oauth_profile_id = %(profile_id)s AND subject = %(subject)s AND version = %(version)s
  AND refused_version IS DISTINCT FROM version
RETURNING version;

-- name: lock_users_of_profile
-- Before its tokens: whoever resumes a sending profile goes from there to the tokens too.
SELECT id FROM sending_profiles WHERE oauth_profile_id = %(profile_id)s ORDER BY id FOR NO KEY UPDATE;

-- name: invalidate_tokens_of_profile
-- What was obtained, or is being obtained, with what the profile was before. Past failures no longer count. The lease
-- of a request under way stays: a refresh token that is used twice at a time may cost the whole sign-in.
UPDATE access_tokens
SET version = version + 1, sealed_token = NULL, obtained_at = NULL, expires_at = NULL,
    refresh_outdated = refresh_leased_by IS NOT NULL,
    failure = NULL, failure_fix = NULL, failure_code = NULL, failure_permanent = false, failed_at = NULL, retry_at = NULL
WHERE oauth_profile_id = %(profile_id)s;

-- name: invalidate_tokens_of_subject
-- The same for one mailbox, somebody having signed in for it.
UPDATE access_tokens
SET version = version + 1, sealed_token = NULL, obtained_at = NULL, expires_at = NULL,
    refresh_outdated = refresh_leased_by IS NOT NULL,
    failure = NULL, failure_fix = NULL, failure_code = NULL, failure_permanent = false, failed_at = NULL, retry_at = NULL
WHERE oauth_profile_id = %(profile_id)s AND subject = %(subject)s;

-- name: forgive_failure
-- A person asks: the endpoint may be asked again at once, unless it has wished to be left alone.
UPDATE access_tokens
SET retry_at = NULL
WHERE oauth_profile_id = %(profile_id)s AND subject = %(subject)s AND NOT retry_wished;

-- name: list_tokens_of_profile
SELECT id, oauth_profile_id, subject, grant_type, version, refused_version, sealed_token, obtained_at, expires_at,
       refresh_leased_until, failure, failure_fix, failure_code, failure_permanent, failed_at, retry_at, now
FROM access_token_rows
WHERE oauth_profile_id = %(profile_id)s
ORDER BY subject;
