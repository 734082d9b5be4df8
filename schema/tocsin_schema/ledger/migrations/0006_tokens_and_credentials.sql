-- Every provider's sign-in: keys and refresh tokens beside client secrets, their known end, pauses that are probed,
-- and which master keys there are.

ALTER TABLE oauth_profile_defaults
    ADD COLUMN grants          text[],
    ADD COLUMN delegated_scope text,
    ADD COLUMN source          text;
COMMENT ON COLUMN oauth_profile_defaults.grants IS 'What the provider''s token endpoint knows; the usual one is grant_type.';
COMMENT ON COLUMN oauth_profile_defaults.delegated_scope IS
    'The scope of a token that acts for a person who signed in; scope is that of an application''s own.';

INSERT INTO sending_profile_defaults
    (provider, title, host, port, tls, auth, batch_size, connections, messages_per_minute, recipients_per_day, source)
SELECT cloud.provider, cloud.title, cloud.host, d.port, d.tls, d.auth, d.batch_size, d.connections,
       d.messages_per_minute, d.recipients_per_day, cloud.source
FROM sending_profile_defaults d,
     (VALUES ('microsoft365-gcc-high', 'Microsoft 365 GCC High', 'smtp.office365.us',
              'learn.microsoft.com: Office 365 U.S. Government GCC High endpoints'),
             ('microsoft365-dod', 'Microsoft 365 DoD', 'outlook-dod.office365.us',
              'learn.microsoft.com: Office 365 U.S. Government DoD endpoints'),
             ('microsoft365-china', 'Microsoft 365 operated by 21Vianet', 'smtp.partner.outlook.cn',
              'learn.microsoft.com: URLs and IP address ranges for Office 365 operated by 21Vianet')
     ) AS cloud (provider, title, host, source)
WHERE d.provider = 'microsoft365';

INSERT INTO oauth_profile_defaults
    (provider, title, grant_type, token_endpoint, scope, wants_tenant, guid_ids, sending_defaults)
VALUES
    ('microsoft365-gcc-high', 'Microsoft 365 GCC High', 'client_credentials',
     'https://login.microsoftonline.us/{tenantId}/oauth2/v2.0/token', 'https://outlook.office365.us/.default',
     true, true, 'microsoft365-gcc-high'),
    ('microsoft365-dod', 'Microsoft 365 DoD', 'client_credentials',
     'https://login.microsoftonline.us/{tenantId}/oauth2/v2.0/token', 'https://outlook-dod.office365.us/.default',
     true, true, 'microsoft365-dod'),
    ('microsoft365-china', 'Microsoft 365 operated by 21Vianet', 'client_credentials',
     'https://login.partner.microsoftonline.cn/{tenantId}/oauth2/v2.0/token', 'https://partner.outlook.cn/.default',
     true, true, 'microsoft365-china');

UPDATE oauth_profile_defaults
SET grants = ARRAY['client_credentials', 'workload_identity', 'managed_identity', 'device_code', 'refresh_token'],
    delegated_scope = CASE provider
        WHEN 'microsoft365' THEN 'https://outlook.office.com/SMTP.Send'
        ELSE replace(scope, '.default', 'SMTP.Send')
    END,
    source = 'learn.microsoft.com: Authenticate an IMAP, POP or SMTP connection using OAuth; National clouds'
WHERE provider LIKE 'microsoft365%';

UPDATE oauth_profile_defaults
SET grants = ARRAY['jwt_bearer', 'refresh_token'], delegated_scope = scope,
    source = 'developers.google.com: OAuth 2.0 mechanism for SMTP; OAuth 2.0 for server to server applications'
WHERE provider = 'google';

UPDATE oauth_profile_defaults
SET grants = ARRAY['client_credentials', 'jwt_bearer', 'device_code', 'refresh_token'],
    source = 'RFC 6749 (client credentials, refresh token), RFC 7523 (JWT bearer), RFC 8628 (device code)'
WHERE provider = 'custom';

ALTER TABLE oauth_profile_defaults
    ALTER COLUMN grants SET NOT NULL,
    ALTER COLUMN source SET NOT NULL;

ALTER TABLE oauth_profiles
    ADD COLUMN client_auth            text NOT NULL DEFAULT 'client_secret_post'
        CHECK (client_auth IN ('client_secret_post', 'client_secret_basic')),
    ADD COLUMN device_endpoint        text,
    ADD COLUMN certificate_pem        text,
    ADD COLUMN sealed_private_key     bytea,
    ADD COLUMN private_key_set_at     timestamptz,
    ADD COLUMN key_id                 text,
    ADD COLUMN delegation_client_id   text,
    ADD COLUMN token_file             text,
    ADD COLUMN secret_expires_at      timestamptz,
    ADD COLUMN certificate_expires_at timestamptz;
COMMENT ON COLUMN oauth_profiles.client_id IS 'The application; with jwt_bearer the issuer (Google: the service account).';
COMMENT ON COLUMN oauth_profiles.client_auth IS 'Where a client secret goes: into the body or a Basic header (RFC 6749 section 2.3.1).';
COMMENT ON COLUMN oauth_profiles.device_endpoint IS 'RFC 8628; NULL where the provider''s discovery names it.';
COMMENT ON COLUMN oauth_profiles.key_id IS 'The kid of the private key in JWT headers (Google: private_key_id).';
COMMENT ON COLUMN oauth_profiles.delegation_client_id IS
    'Google: the service account''s number, which domain-wide delegation is granted to.';
COMMENT ON COLUMN oauth_profiles.token_file IS 'workload_identity: the projected token; NULL: where Azure''s webhook mounts it.';
COMMENT ON COLUMN oauth_profiles.secret_expires_at IS 'As entered by a person; no endpoint tells it.';
COMMENT ON COLUMN oauth_profiles.certificate_expires_at IS 'Read from certificate_pem.';

CREATE TABLE refresh_tokens (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    oauth_profile_id uuid NOT NULL REFERENCES oauth_profiles (id) ON DELETE CASCADE,
    subject          text NOT NULL,
    version          bigint NOT NULL DEFAULT 1,
    sealed_token     bytea NOT NULL,
    account          text,
    signed_in_at     timestamptz NOT NULL DEFAULT now(),
    renewed_at       timestamptz NOT NULL DEFAULT now(),
    expires_at       timestamptz,
    UNIQUE (oauth_profile_id, subject)
);
COMMENT ON TABLE refresh_tokens IS 'What lets us ask for tokens in a person''s name: one a mailbox, replaced at every use.';
COMMENT ON COLUMN refresh_tokens.subject IS 'The mailbox that it is for.';
COMMENT ON COLUMN refresh_tokens.version IS 'Grows with every replacement; compare-and-swap works on it.';
COMMENT ON COLUMN refresh_tokens.account IS 'Who signed in, as the provider told.';
COMMENT ON COLUMN refresh_tokens.expires_at IS 'NULL where the provider does not tell.';

ALTER TABLE access_tokens
    ADD COLUMN failure_fix      text,
    ADD COLUMN failure_code     text,
    ADD COLUMN refresh_outdated boolean NOT NULL DEFAULT false,
    ADD COLUMN refused_version  bigint,
    ADD COLUMN retry_wished     boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN access_tokens.failure IS 'What was wrong with the last token request; NULL where it succeeded.';

COMMENT ON COLUMN access_tokens.refresh_outdated IS
    'The request under way asks with what the profile was before: what comes of it is dropped, and only then asked anew.';

COMMENT ON COLUMN access_tokens.retry_wished IS 'retry_at is the endpoint''s own wish (Retry-After), which nobody overrules.';
COMMENT ON COLUMN access_tokens.refused_version IS
    'The version that a mail server refused last: where it is the present one, another is asked for; who is not refused goes on with it meanwhile.';

-- What was kept until now in a second line.
UPDATE access_tokens
SET failure_fix = nullif(split_part(failure, E'\n', 2), ''), failure = split_part(failure, E'\n', 1)
WHERE failure IS NOT NULL;

ALTER TABLE sending_profiles
    ADD COLUMN pause_cause text CHECK (pause_cause IN ('by_hand', 'credentials', 'sender')),
    ADD COLUMN probe_at    timestamptz,
    ADD COLUMN probes      integer NOT NULL DEFAULT 0 CHECK (probes >= 0),
    ADD COLUMN resumed_at  timestamptz;
-- Until now a corrected secret let every paused profile go on.
UPDATE sending_profiles
SET pause_cause = CASE WHEN paused_reason = 'paused by hand' THEN 'by_hand' ELSE 'credentials' END
WHERE paused_at IS NOT NULL;
ALTER TABLE sending_profiles
    ADD CONSTRAINT sending_profiles_pause_has_cause CHECK ((paused_at IS NULL) = (pause_cause IS NULL)),
    ADD CONSTRAINT sending_profiles_probe_of_pause CHECK (probe_at IS NULL OR paused_at IS NOT NULL);

CREATE FUNCTION complete_pause() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.paused_at IS NULL THEN
        NEW.pause_cause := NULL;
        NEW.probe_at := NULL;
    ELSIF NEW.pause_cause IS NULL THEN
        NEW.pause_cause := 'credentials';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION complete_pause IS
    'Workers and commands of the release before, which run on beside this schema for a while, know no causes.';

CREATE TRIGGER sending_profiles_pause BEFORE INSERT OR UPDATE OF paused_at ON sending_profiles
    FOR EACH ROW EXECUTE FUNCTION complete_pause();

COMMENT ON COLUMN sending_profiles.probe_at IS 'When a worker tries by itself whether the credentials are taken again.';
COMMENT ON COLUMN sending_profiles.probes IS 'How often in a row the credentials were refused; the wait for the next probe grows with it.';

ALTER TABLE workers ADD COLUMN key_ids text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN workers.key_ids IS 'The master keys that this process has open, the one that it seals with first.';

CREATE TABLE master_keys (
    id          text PRIMARY KEY,
    opened_at   timestamptz NOT NULL DEFAULT now(),
    promoted_at timestamptz,
    retired_at  timestamptz
);
COMMENT ON TABLE master_keys IS 'Which master keys there are and were, by id; the keys themselves lie outside the database.';

CREATE VIEW access_token_rows AS
SELECT t.id, t.oauth_profile_id, t.subject, o.grant_type, t.version, t.refused_version, t.sealed_token, t.obtained_at,
       t.expires_at, t.refresh_leased_until, t.failure, t.failure_fix, t.failure_code, t.failure_permanent, t.failed_at,
       t.retry_at, t.used_at, clock_timestamp() AS now
FROM access_tokens t
JOIN oauth_profiles o ON o.id = t.oauth_profile_id;
COMMENT ON VIEW access_token_rows IS 'Access tokens as they stand at now, with the grant that they come by.';

CREATE VIEW oauth_profile_facts AS
SELECT id, name, provider, grant_type, token_endpoint, scope, tenant_id, client_id, ca_pem, client_auth,
       device_endpoint, certificate_pem, key_id, delegation_client_id, token_file, secret_set_at, secret_expires_at,
       private_key_set_at, certificate_expires_at, created_at, updated_at
FROM oauth_profiles;
COMMENT ON VIEW oauth_profile_facts IS 'OAuth profiles without their sealed secrets.';
