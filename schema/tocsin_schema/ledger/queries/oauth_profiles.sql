-- name: list_defaults
SELECT provider, title, grant_type, token_endpoint, scope, wants_tenant, guid_ids, sending_defaults
FROM oauth_profile_defaults
ORDER BY provider;

-- name: add_profile
-- No row comes back where the name is taken.
INSERT INTO oauth_profiles
    (id, name, provider, grant_type, token_endpoint, scope, tenant_id, client_id, ca_pem,
     sealed_client_secret, secret_set_at)
VALUES
    (%(id)s, %(name)s, %(provider)s, %(grant_type)s, %(token_endpoint)s, %(scope)s, %(tenant_id)s, %(client_id)s,
     %(ca_pem)s, %(sealed_client_secret)s, CASE WHEN %(sealed_client_secret)s::bytea IS NOT NULL THEN now() END)
ON CONFLICT (name) DO NOTHING
RETURNING id, name, provider, grant_type, token_endpoint, scope, tenant_id, client_id, ca_pem, secret_set_at,
          created_at, updated_at;

-- name: list_profiles
SELECT id, name, provider, grant_type, token_endpoint, scope, tenant_id, client_id, ca_pem, secret_set_at,
       created_at, updated_at
FROM oauth_profiles
ORDER BY name;

-- name: get_profile_by_name
SELECT id, name, provider, grant_type, token_endpoint, scope, tenant_id, client_id, ca_pem, secret_set_at,
       created_at, updated_at
FROM oauth_profiles
WHERE name = %(name)s;

-- name: get_profile_by_id
SELECT id, name, provider, grant_type, token_endpoint, scope, tenant_id, client_id, ca_pem, secret_set_at,
       created_at, updated_at
FROM oauth_profiles
WHERE id = %(id)s;

-- name: lock_profile
-- The row as it stands, held against other changes to the end of the transaction.
SELECT id, name, provider, grant_type, token_endpoint, scope, tenant_id, client_id, ca_pem, secret_set_at,
       created_at, updated_at
FROM oauth_profiles
WHERE id = %(id)s
FOR NO KEY UPDATE;

-- name: is_name_taken
SELECT 1 FROM oauth_profiles WHERE name = %(name)s AND id <> %(id)s;

-- name: update_profile
UPDATE oauth_profiles
SET name = %(name)s, grant_type = %(grant_type)s, token_endpoint = %(token_endpoint)s, scope = %(scope)s,
    tenant_id = %(tenant_id)s, client_id = %(client_id)s, ca_pem = %(ca_pem)s, updated_at = now()
WHERE id = %(id)s
RETURNING id, name, provider, grant_type, token_endpoint, scope, tenant_id, client_id, ca_pem, secret_set_at,
          created_at, updated_at;

-- name: read_sealed_client_secret
SELECT sealed_client_secret FROM oauth_profiles WHERE id = %(id)s;

-- name: replace_sealed_client_secret
UPDATE oauth_profiles
SET sealed_client_secret = %(sealed_client_secret)s, secret_set_at = now(), updated_at = now()
WHERE id = %(id)s
RETURNING id;

-- name: sending_profiles_that_use
SELECT name FROM sending_profiles WHERE oauth_profile_id = %(id)s ORDER BY name;

-- name: remove_profile
DELETE FROM oauth_profiles WHERE id = %(id)s;
