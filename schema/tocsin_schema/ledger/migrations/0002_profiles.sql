-- How and as whom to send: OAuth profiles, mailboxes, sending profiles, templates.

CREATE TABLE oauth_profile_defaults (
    provider       text PRIMARY KEY,
    title          text NOT NULL,
    grant_type     text NOT NULL,
    token_endpoint text,
    scope          text,
    wants_tenant   boolean NOT NULL,
    guid_ids       boolean NOT NULL,
    sending_defaults text NOT NULL
);
COMMENT ON TABLE oauth_profile_defaults IS 'Templates for new OAuth profiles; {tenantId} is filled in at run time.';

CREATE TABLE sending_profile_defaults (
    provider            text PRIMARY KEY,
    title               text NOT NULL,
    host                text,
    port                integer NOT NULL,
    tls                 text NOT NULL CHECK (tls IN ('starttls', 'implicit', 'none')),
    auth                text NOT NULL CHECK (auth IN ('oauth', 'basic', 'none')),
    batch_size          integer NOT NULL CHECK (batch_size BETWEEN 1 AND 1000),
    connections         integer CHECK (connections >= 1),
    messages_per_minute integer CHECK (messages_per_minute >= 1),
    recipients_per_day  integer CHECK (recipients_per_day >= 1),
    source              text NOT NULL
);
COMMENT ON TABLE sending_profile_defaults IS 'Templates for new sending profiles; NULL limits mean no limit.';

CREATE TABLE oauth_profiles (
    id                    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name                  text NOT NULL UNIQUE,
    provider              text NOT NULL REFERENCES oauth_profile_defaults (provider),
    grant_type            text NOT NULL,
    token_endpoint        text NOT NULL,
    scope                 text,
    tenant_id             text,
    client_id             text,
    sealed_client_secret  bytea,
    ca_pem                text,
    secret_set_at         timestamptz,
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN oauth_profiles.token_endpoint IS 'May hold {tenantId}, filled in from tenant_id at run time.';

CREATE TABLE access_tokens (
    id                   uuid NOT NULL DEFAULT gen_random_uuid(),
    oauth_profile_id     uuid NOT NULL REFERENCES oauth_profiles (id) ON DELETE CASCADE,
    subject              text NOT NULL,
    version              bigint NOT NULL DEFAULT 0,
    sealed_token         bytea,
    obtained_at          timestamptz,
    expires_at           timestamptz,
    refresh_leased_by    uuid,
    refresh_leased_until timestamptz,
    failure              text,
    failure_permanent    boolean NOT NULL DEFAULT false,
    failed_at            timestamptz,
    retry_at             timestamptz,
    used_at              timestamptz,
    PRIMARY KEY (oauth_profile_id, subject),
    UNIQUE (id)
);
COMMENT ON TABLE access_tokens IS 'One sealed token for the whole fleet a (OAuth profile, subject).';
COMMENT ON COLUMN access_tokens.subject IS 'The mailbox where the grant has one, else empty.';
COMMENT ON COLUMN access_tokens.version IS 'Grows with every token obtained or invalidated; compare-and-swap works on it.';

CREATE TABLE mailboxes (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host                text NOT NULL,
    login               text NOT NULL,
    connections         integer CHECK (connections >= 1),
    messages_per_minute integer CHECK (messages_per_minute >= 1),
    recipients_per_day  integer CHECK (recipients_per_day >= 1),
    next_message_at     timestamptz NOT NULL DEFAULT '-infinity',
    parked_until        timestamptz,
    parked_reason       text,
    UNIQUE (host, login)
);
COMMENT ON TABLE mailboxes IS 'What a provider limits: one login at one host, shared by all profiles that use it.';
COMMENT ON COLUMN mailboxes.next_message_at IS 'The next free slot of messages_per_minute; reserving moves it on.';

CREATE TABLE mailbox_connections (
    mailbox_id bigint NOT NULL REFERENCES mailboxes (id) ON DELETE CASCADE,
    slot       integer NOT NULL CHECK (slot >= 1),
    worker_id  uuid NOT NULL,
    taken_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (mailbox_id, slot)
);
COMMENT ON TABLE mailbox_connections IS 'Open connections to a limited mailbox over the fleet, one row each.';

CREATE TABLE mailbox_usage (
    mailbox_id bigint NOT NULL REFERENCES mailboxes (id) ON DELETE CASCADE,
    minute     timestamptz NOT NULL,
    recipients integer NOT NULL,
    PRIMARY KEY (mailbox_id, minute)
);
COMMENT ON TABLE mailbox_usage IS 'Recipients tried a minute, for the rolling 24 hours of recipients_per_day.';

CREATE TABLE sending_profiles (
    id                   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name                 text NOT NULL UNIQUE,
    provider             text NOT NULL REFERENCES sending_profile_defaults (provider),
    host                 text NOT NULL,
    port                 integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    tls                  text NOT NULL CHECK (tls IN ('starttls', 'implicit', 'none')),
    auth                 text NOT NULL CHECK (auth IN ('oauth', 'basic', 'none')),
    from_address         text NOT NULL,
    oauth_profile_id     uuid REFERENCES oauth_profiles (id),
    login                text NOT NULL,
    sealed_password      bytea,
    ca_pem               text,
    allow_plaintext_auth boolean NOT NULL DEFAULT false,
    batch_size           integer NOT NULL CHECK (batch_size BETWEEN 1 AND 1000),
    copies               text NOT NULL DEFAULT 'reference' CHECK (copies IN ('reference', 'full')),
    mailbox_id           bigint NOT NULL REFERENCES mailboxes (id),
    paused_at            timestamptz,
    paused_reason        text,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    CHECK (auth <> 'oauth' OR oauth_profile_id IS NOT NULL),
    CHECK ((paused_at IS NULL) = (paused_reason IS NULL))
);
COMMENT ON COLUMN sending_profiles.login IS 'Whom we log in as; the From address unless said otherwise.';
COMMENT ON COLUMN sending_profiles.copies IS 'reference: content is made again from the pinned sources; full: every byte is kept.';

CREATE TABLE wakeups (
    profile_id uuid NOT NULL REFERENCES sending_profiles (id) ON DELETE CASCADE,
    rank       smallint NOT NULL CHECK (rank BETWEEN 0 AND 2),
    under_way  integer NOT NULL DEFAULT 0 CHECK (under_way >= 0),
    sent_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (profile_id, rank)
);
COMMENT ON TABLE wakeups IS 'How many wake-ups are on the queue and not yet taken, so that further ones are spared.';

CREATE TABLE email_templates (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name             text NOT NULL UNIQUE,
    version          integer NOT NULL DEFAULT 1,
    subject          text NOT NULL,
    text_body        text,
    html_body        text,
    from_name        text,
    reply_to_address text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CHECK (text_body IS NOT NULL OR html_body IS NOT NULL)
);

CREATE TABLE email_template_versions (
    template_id      uuid NOT NULL REFERENCES email_templates (id) ON DELETE CASCADE,
    version          integer NOT NULL,
    subject          text NOT NULL,
    text_body        text,
    html_body        text,
    from_name        text,
    reply_to_address text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (template_id, version)
);

CREATE FUNCTION keep_template_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO email_template_versions
        (template_id, version, subject, text_body, html_body, from_name, reply_to_address)
    VALUES
        (NEW.id, NEW.version, NEW.subject, NEW.text_body, NEW.html_body, NEW.from_name, NEW.reply_to_address);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION keep_template_version IS 'Every version of a template stays readable, whoever writes the table.';

CREATE TRIGGER email_templates_version AFTER INSERT OR UPDATE OF version ON email_templates
    FOR EACH ROW EXECUTE FUNCTION keep_template_version();
