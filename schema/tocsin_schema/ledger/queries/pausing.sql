-- name: pause_profile
-- The first reason stays: later ones mostly follow from it.
UPDATE sending_profiles
SET paused_at = now(), paused_reason = %(reason)s
WHERE id = %(profile_id)s AND paused_at IS NULL;

-- name: resume_profile
-- A person says that it may go on: its mailbox need not rest any longer, and token endpoints may be asked again.
WITH resumed AS (
    UPDATE sending_profiles
    SET paused_at = NULL, paused_reason = NULL
    WHERE id = %(profile_id)s
    RETURNING mailbox_id, oauth_profile_id
), rested AS (
    UPDATE mailboxes m
    SET parked_until = NULL, parked_reason = NULL
    FROM resumed r
    WHERE m.id = r.mailbox_id
)
UPDATE access_tokens t
SET failure = NULL, failure_fix = NULL, failure_code = NULL, failure_permanent = false, failed_at = NULL, retry_at = NULL
FROM resumed r
WHERE t.oauth_profile_id = r.oauth_profile_id;

-- name: paused_users_of_oauth_profile
SELECT id, name FROM sending_profiles
WHERE oauth_profile_id = %(oauth_profile_id)s AND paused_at IS NOT NULL
ORDER BY name;
