-- name: count_by_key
-- The key id stands in the header, after one byte of form and one of its length.
SELECT encode(substring(v.sealed FROM 3 FOR CASE WHEN octet_length(v.sealed) > 1 THEN get_byte(v.sealed, 1) ELSE 0 END),
              'escape') AS key_id,
       count(*)::integer
FROM (
    SELECT sealed_client_secret AS sealed FROM oauth_profiles
    UNION ALL SELECT sealed_private_key FROM oauth_profiles
    UNION ALL SELECT sealed_token FROM refresh_tokens
    UNION ALL SELECT sealed_token FROM access_tokens
    UNION ALL SELECT sealed_password FROM sending_profiles
    UNION ALL SELECT sealed_value FROM settings
) v
WHERE v.sealed IS NOT NULL
GROUP BY 1;

-- name: read_sealed_otherwise
-- The next values that are not sealed with the key of that id, each with whose it is.
SELECT k.purpose, k.row_id, k.owner, k.key_id, k.sealed
FROM (
    SELECT v.*, encode(substring(v.sealed FROM 3 FOR CASE WHEN octet_length(v.sealed) > 1 THEN get_byte(v.sealed, 1)
                                                          ELSE 0 END), 'escape') AS key_id
    FROM (
        SELECT 'oauth_profiles.sealed_client_secret' AS purpose, id AS row_id, name AS owner, sealed_client_secret AS sealed
        FROM oauth_profiles
        UNION ALL
        SELECT 'oauth_profiles.sealed_private_key', id, name, sealed_private_key FROM oauth_profiles
        UNION ALL
        SELECT 'refresh_tokens.sealed_token', t.id, p.name, t.sealed_token
        FROM refresh_tokens t JOIN oauth_profiles p ON p.id = t.oauth_profile_id
        UNION ALL
        SELECT 'access_tokens.sealed_token', t.id, p.name, t.sealed_token
        FROM access_tokens t JOIN oauth_profiles p ON p.id = t.oauth_profile_id
        UNION ALL
        SELECT 'sending_profiles.sealed_password', id, name, sealed_password FROM sending_profiles
        UNION ALL
        SELECT CASE key WHEN 'MasterKeyCheck' THEN 'settings.MasterKeyCheck' ELSE 'settings.sealed_value' END,
               row_id, key, sealed_value
        FROM settings
    ) v
    WHERE v.sealed IS NOT NULL
) k
WHERE k.key_id <> %(key_id)s AND (k.purpose, k.row_id) > (%(after_purpose)s, %(after_row_id)s::uuid)
ORDER BY k.purpose, k.row_id
LIMIT %(limit)s;

-- name: swap_client_secret
-- Here and below: compare-and-swap on the very bytes, so that whoever changed the value meanwhile wins. Neither a
-- version nor a time of change moves with it: no token is thrown away and no session closed because of it.
UPDATE oauth_profiles SET sealed_client_secret = %(new)s WHERE id = %(row_id)s AND sealed_client_secret = %(old)s;

-- name: swap_private_key
UPDATE oauth_profiles SET sealed_private_key = %(new)s WHERE id = %(row_id)s AND sealed_private_key = %(old)s;

-- name: swap_refresh_token
UPDATE refresh_tokens SET sealed_token = %(new)s WHERE id = %(row_id)s AND sealed_token = %(old)s;

-- name: swap_access_token
UPDATE access_tokens SET sealed_token = %(new)s WHERE id = %(row_id)s AND sealed_token = %(old)s;

-- name: swap_password
UPDATE sending_profiles SET sealed_password = %(new)s WHERE id = %(row_id)s AND sealed_password = %(old)s;

-- name: swap_setting
UPDATE settings SET sealed_value = %(new)s WHERE row_id = %(row_id)s AND sealed_value = %(old)s;

-- name: throw_away_access_token
-- It does not open, and another one can be asked for.
UPDATE access_tokens
SET version = version + 1, sealed_token = NULL, obtained_at = NULL, expires_at = NULL
WHERE id = %(row_id)s AND sealed_token = %(old)s;
