-- name: pause_profile
-- The first reason stays, since later ones mostly follow from it; only a person's outweighs a worker's. What was seen
-- before the profile or its credentials were changed, or before somebody resumed it, no longer counts.
UPDATE sending_profiles p
SET paused_at = now(), paused_reason = %(reason)s, pause_cause = %(cause)s,
    paused_by_kind = %(actor_kind)s, paused_by = %(actor)s, probes = %(probes)s,
    probe_at = now() + make_interval(secs => %(probe_in_seconds)s)
WHERE p.id = %(profile_id)s
  AND (p.paused_at IS NULL OR (%(cause)s = 'by_hand' AND p.pause_cause IS DISTINCT FROM 'by_hand'))
  AND (%(seen_at)s::timestamptz IS NULL
       OR (p.updated_at <= %(seen_at)s
           AND NOT EXISTS (SELECT FROM oauth_profiles o WHERE o.id = p.oauth_profile_id AND o.updated_at > %(seen_at)s)
           AND NOT EXISTS (
               SELECT FROM settings s
               WHERE s.key IN ('EmailUsername', 'EmailPassword') AND s.updated_at > %(seen_at)s
                 AND p.auth = 'basic' AND p.sealed_password IS NULL
           )));

-- name: claim_probe
-- One worker tries the credentials; should it die, another may in two minutes.
UPDATE sending_profiles
SET probe_at = now() + interval '2 minutes'
WHERE id = %(profile_id)s AND pause_cause = 'credentials' AND probe_at <= now()
RETURNING id;

-- name: postpone_probe
-- The reason is the newest here: the first trouble may have given way to another.
UPDATE sending_profiles
SET paused_reason = %(reason)s, probes = %(probes)s, probe_at = now() + make_interval(secs => %(probe_in_seconds)s)
WHERE id = %(profile_id)s AND pause_cause = 'credentials';

-- name: resume_probed_profile
-- Unless a person has paused it meanwhile. The count stays: should the next minutes bring the same trouble, the waits
-- go on growing.
UPDATE sending_profiles
SET paused_at = NULL, paused_reason = NULL, pause_cause = NULL, probe_at = NULL, resumed_at = now(), updated_at = clock_timestamp()
WHERE id = %(profile_id)s AND pause_cause = 'credentials'
RETURNING id;

-- name: resume_profile
-- A person says that it may go on: its mailbox need not rest any longer, and token endpoints may be asked again that
-- have not wished otherwise.
WITH resumed AS (
    UPDATE sending_profiles
    SET paused_at = NULL, paused_reason = NULL, pause_cause = NULL, paused_by_kind = NULL, paused_by = NULL,
        probe_at = NULL, probes = 0, resumed_at = now(), updated_at = clock_timestamp()
    WHERE id = %(profile_id)s
    RETURNING mailbox_id, oauth_profile_id
), rested AS (
    UPDATE mailboxes m
    SET parked_until = NULL, parked_reason = NULL, kept_for_urgent_until = NULL, kept_for_urgent_reason = NULL
    FROM resumed r
    WHERE m.id = r.mailbox_id
    RETURNING m.tenant_id
), rested_tenant AS (
    UPDATE tenants t
    SET parked_until = NULL, parked_reason = NULL, kept_for_urgent_until = NULL, kept_for_urgent_reason = NULL
    FROM rested r
    WHERE t.id = r.tenant_id
)
UPDATE access_tokens t
SET failure = NULL, failure_fix = NULL, failure_code = NULL, failure_permanent = false, failed_at = NULL, retry_at = NULL
FROM resumed r
WHERE t.oauth_profile_id = r.oauth_profile_id AND NOT t.retry_wished;

-- name: resume_corrected_profile
-- Its credentials are others now. Its mailbox goes on resting if it does, for reasons of its own.
UPDATE sending_profiles
SET paused_at = NULL, paused_reason = NULL, pause_cause = NULL, probe_at = NULL, probes = 0,
    resumed_at = now(), updated_at = clock_timestamp()
WHERE id = %(profile_id)s;

-- name: refused_users_of_oauth_profile
-- Those that are paused because their credentials were refused; what a person paused stays so.
SELECT id, name FROM sending_profiles
WHERE oauth_profile_id = %(oauth_profile_id)s AND pause_cause = 'credentials'
ORDER BY name;

-- name: refused_profile
-- The same for a profile with a password of its own.
SELECT id, name FROM sending_profiles
WHERE id = %(profile_id)s AND pause_cause = 'credentials';

-- name: refused_users_of_shared_login
-- The same for EmailPassword and the host that it is bound to.
SELECT id, name FROM sending_profiles
WHERE auth = 'basic' AND sealed_password IS NULL AND host = %(host)s AND pause_cause = 'credentials'
ORDER BY name;
