-- name: known_ends
-- What is known of the end of each credential: entered by a person, read from a certificate, told by an endpoint;
-- Microsoft's refresh tokens end so long after their last use.
SELECT name AS oauth_profile, 'client_secret' AS credential, NULL AS subject, secret_expires_at AS expires_at
FROM oauth_profiles
WHERE sealed_client_secret IS NOT NULL AND secret_expires_at IS NOT NULL
UNION ALL
SELECT name, 'certificate', NULL, certificate_expires_at
FROM oauth_profiles
WHERE certificate_expires_at IS NOT NULL
UNION ALL
SELECT o.name, 'refresh_token', r.subject,
       coalesce(r.expires_at, r.renewed_at + %(unused_sign_in_lives)s::interval)
FROM refresh_tokens r
JOIN oauth_profiles o ON o.id = r.oauth_profile_id
WHERE r.expires_at IS NOT NULL OR starts_with(o.provider, 'microsoft365')
ORDER BY expires_at, oauth_profile, credential, subject;
