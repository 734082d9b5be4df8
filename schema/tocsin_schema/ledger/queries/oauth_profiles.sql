-- name: list_defaults
SELECT provider, title, grant_type, grants, token_endpoint, scope, delegated_scope, wants_tenant, guid_ids,
       sending_defaults
FROM oauth_profile_defaults
ORDER BY provider;

-- name: add_profile
-- No row comes back where the name is taken.
INSERT INTO oauth_profiles
    (id, name, provider, grant_type, token_endpoint, scope, tenant_id, client_id, ca_pem, client_auth,
     device_endpoint, certificate_pem, key_id, delegation_client_id, token_file, secret_expires_at,
     certificate_expires_at, sealed_client_secret, secret_set_at, sealed_private_key, private_key_set_at)
VALUES
    (%(id)s, %(name)s, %(provider)s, %(grant_type)s, %(token_endpoint)s, %(scope)s, %(tenant_id)s, %(client_id)s,
     %(ca_pem)s, %(client_auth)s, %(device_endpoint)s, %(certificate_pem)s, %(key_id)s, %(delegation_client_id)s,
     %(token_file)s, %(secret_expires_at)s, %(certificate_expires_at)s,
     %(sealed_client_secret)s, CASE WHEN %(sealed_client_secret)s::bytea IS NOT NULL THEN now() END,
     %(sealed_private_key)s, CASE WHEN %(sealed_private_key)s::bytea IS NOT NULL THEN now() END)
ON CONFLICT (name) DO NOTHING
RETURNING id;

-- name: list_profiles
SELECT * FROM oauth_profile_facts ORDER BY name;

-- name: get_profile_by_name
SELECT * FROM oauth_profile_facts WHERE name = %(name)s;

-- name: get_profile_by_id
SELECT * FROM oauth_profile_facts WHERE id = %(id)s;

-- name: lock_profile
-- The row as it stands, held against other changes to the end of the transaction.
SELECT * FROM oauth_profile_facts WHERE id = %(id)s FOR NO KEY UPDATE;

-- name: is_name_taken
SELECT 1 FROM oauth_profiles WHERE name = %(name)s AND id <> %(id)s;

-- name: update_profile
UPDATE oauth_profiles
SET name = %(name)s, grant_type = %(grant_type)s, token_endpoint = %(token_endpoint)s, scope = %(scope)s,
    tenant_id = %(tenant_id)s, client_id = %(client_id)s, ca_pem = %(ca_pem)s, client_auth = %(client_auth)s,
    device_endpoint = %(device_endpoint)s, certificate_pem = %(certificate_pem)s, key_id = %(key_id)s,
    delegation_client_id = %(delegation_client_id)s, token_file = %(token_file)s,
    secret_expires_at = %(secret_expires_at)s, certificate_expires_at = %(certificate_expires_at)s,
    updated_at = clock_timestamp()
WHERE id = %(id)s;

-- name: read_as_of_now
-- For this transaction: what is read in several statements is as of one moment.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;

-- name: read_sealed_secrets
SELECT sealed_client_secret, sealed_private_key FROM oauth_profiles WHERE id = %(id)s;

-- name: write_sealed_client_secret
UPDATE oauth_profiles
SET sealed_client_secret = %(sealed_client_secret)s, secret_set_at = now(),
    secret_expires_at = %(secret_expires_at)s, updated_at = clock_timestamp()
WHERE id = %(id)s
RETURNING id;

-- name: write_sealed_private_key
-- A key and its certificate belong together.
UPDATE oauth_profiles
SET sealed_private_key = %(sealed_private_key)s, private_key_set_at = now(), key_id = %(key_id)s,
    certificate_pem = %(certificate_pem)s, certificate_expires_at = %(certificate_expires_at)s, updated_at = clock_timestamp()
WHERE id = %(id)s
RETURNING id;

-- name: forget_client_secret
UPDATE oauth_profiles
SET sealed_client_secret = NULL, secret_set_at = NULL, secret_expires_at = NULL, updated_at = clock_timestamp()
WHERE id = %(id)s;

-- name: forget_private_key
UPDATE oauth_profiles
SET sealed_private_key = NULL, private_key_set_at = NULL, key_id = NULL, certificate_pem = NULL,
    certificate_expires_at = NULL, updated_at = clock_timestamp()
WHERE id = %(id)s;

-- name: sending_profiles_that_use
SELECT name FROM sending_profiles WHERE oauth_profile_id = %(id)s ORDER BY name;

-- name: mailboxes_that_use
-- Whom its sending profiles log in as.
SELECT DISTINCT lower(login) FROM sending_profiles WHERE oauth_profile_id = %(id)s ORDER BY 1;

-- name: remove_profile
DELETE FROM oauth_profiles WHERE id = %(id)s;
