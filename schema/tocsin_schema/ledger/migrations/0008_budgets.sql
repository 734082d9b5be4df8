-- What a provider allows, exact over the fleet: learned limits, the urgent share, tenants, and the traffic of the last minutes.

ALTER TABLE sending_profiles
    ADD COLUMN pipelining text NOT NULL DEFAULT 'envelope' CHECK (pipelining IN ('full', 'envelope', 'off'));
COMMENT ON COLUMN sending_profiles.pipelining IS 'How many commands may be under way at once; a server that breaks on it gets fewer (mailboxes.learned_pipelining).';

CREATE TABLE tenants (
    id                          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                        text NOT NULL UNIQUE,
    external_recipients_per_day integer CHECK (external_recipients_per_day >= 1),
    parked_until                timestamptz,
    parked_reason               text,
    kept_for_urgent_until       timestamptz,
    kept_for_urgent_reason      text
);
COMMENT ON TABLE tenants IS 'Organisations at a provider, which limits all their mailboxes together.';
COMMENT ON COLUMN tenants.external_recipients_per_day IS 'Recipients outside of InternalDomains in 24 hours; NULL means no limit.';

CREATE TABLE tenant_usage (
    tenant_id  bigint NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    minute     timestamptz NOT NULL,
    recipients integer NOT NULL,
    urgent     integer NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, minute)
);
COMMENT ON TABLE tenant_usage IS 'External recipients tried a minute, for the rolling 24 hours of external_recipients_per_day.';
COMMENT ON COLUMN tenant_usage.urgent IS 'Those of them that belong to urgent jobs.';

ALTER TABLE mailbox_usage ADD COLUMN urgent integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN mailbox_usage.urgent IS 'Those of them that belong to urgent jobs.';

-- Only ever as much as is set: least() passes over NULLs, so a limit in force is least(set, learned).
ALTER TABLE mailboxes
    ADD COLUMN tenant_id              bigint REFERENCES tenants (id),
    ADD COLUMN kept_for_urgent_until  timestamptz,
    ADD COLUMN kept_for_urgent_reason text,
    ADD COLUMN connection_wanted_by   uuid,
    ADD COLUMN connection_wanted_rank smallint,
    ADD COLUMN learned_connections    integer CHECK (learned_connections >= 1),
    ADD COLUMN connections_lowered_at timestamptz,
    ADD COLUMN connections_raised_at  timestamptz,
    ADD COLUMN connections_failures   smallint NOT NULL DEFAULT 0 CHECK (connections_failures >= 0),
    ADD COLUMN connections_reason     text,
    ADD COLUMN learned_per_minute     float8 CHECK (learned_per_minute > 0),
    ADD COLUMN per_minute_before      float8,
    ADD COLUMN per_minute_lowered_at  timestamptz,
    ADD COLUMN per_minute_raised_at   timestamptz,
    ADD COLUMN per_minute_steps       smallint NOT NULL DEFAULT 0 CHECK (per_minute_steps >= 0),
    ADD COLUMN per_minute_counted_by  text CHECK (per_minute_counted_by IN ('minute', 'second')),
    ADD COLUMN per_minute_needed_at   timestamptz,
    ADD COLUMN per_minute_reason      text,
    ADD COLUMN learned_recipients_per_message integer CHECK (learned_recipients_per_message >= 1),
    ADD COLUMN learned_recipients_at  timestamptz,
    ADD COLUMN learned_pipelining     text CHECK (learned_pipelining IN ('envelope', 'off')),
    ADD COLUMN learned_pipelining_at  timestamptz,
    ADD CONSTRAINT mailboxes_learned_connections CHECK ((learned_connections IS NULL) = (connections_lowered_at IS NULL)),
    ADD CONSTRAINT mailboxes_learned_per_minute CHECK ((learned_per_minute IS NULL) = (per_minute_lowered_at IS NULL)),
    ADD CONSTRAINT mailboxes_learned_recipients
        CHECK ((learned_recipients_per_message IS NULL) = (learned_recipients_at IS NULL)),
    ADD CONSTRAINT mailboxes_learned_pipelining CHECK ((learned_pipelining IS NULL) = (learned_pipelining_at IS NULL));
COMMENT ON COLUMN mailboxes.kept_for_urgent_until IS 'Until then what is left of its 24 hours is kept for urgent jobs.';
COMMENT ON COLUMN mailboxes.connection_wanted_by IS
    'The profile that last found no free connection, until it has one or one was closed for it.';
COMMENT ON COLUMN mailboxes.learned_connections IS 'As many as the server was seen to take; the limit in force is the lesser of this and connections.';
COMMENT ON COLUMN mailboxes.connections_failures IS 'How often the server has refused one more; the wait before the next try doubles with each.';
COMMENT ON COLUMN mailboxes.learned_per_minute IS 'The rate that the server was seen to take; the limit in force is the lesser of this and messages_per_minute.';
COMMENT ON COLUMN mailboxes.per_minute_before IS 'The rate in force before it was lowered last; NULL where there was none.';
COMMENT ON COLUMN mailboxes.per_minute_steps IS 'How often the rate was raised since it was lowered; the steps grow.';
COMMENT ON COLUMN mailboxes.per_minute_counted_by IS 'Whether the server''s words were about minutes or seconds.';
COMMENT ON COLUMN mailboxes.per_minute_needed_at IS 'When the rate was last more than a little used.';
COMMENT ON COLUMN mailboxes.learned_recipients_per_message IS 'As many as the server takes in one transaction; believed for a day.';
COMMENT ON COLUMN mailboxes.learned_pipelining IS 'What the server did not break on; believed for a day.';
CREATE INDEX mailboxes_tenant ON mailboxes (tenant_id) WHERE tenant_id IS NOT NULL;
CREATE INDEX mailboxes_kept_for_urgent ON mailboxes (id) WHERE kept_for_urgent_until IS NOT NULL;
CREATE INDEX sending_profiles_mailbox ON sending_profiles (mailbox_id);

CREATE TABLE mailbox_traffic (
    mailbox_id   bigint NOT NULL REFERENCES mailboxes (id) ON DELETE CASCADE,
    bucket       timestamptz NOT NULL,
    worker_id    uuid NOT NULL,
    messages     integer NOT NULL,
    recipients   integer NOT NULL,
    connections  integer NOT NULL,
    busy_seconds real NOT NULL,
    PRIMARY KEY (mailbox_id, bucket, worker_id)
);
COMMENT ON TABLE mailbox_traffic IS 'What a mailbox''s provider accepted in the last minutes: a row for 5 seconds and a worker, none where it is idle.';
COMMENT ON COLUMN mailbox_traffic.connections IS 'The most that this worker had open.';
COMMENT ON COLUMN mailbox_traffic.busy_seconds IS 'How long of the 5 seconds this worker was at it.';

CREATE FUNCTION urgent_share(recipients_per_day integer) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT (recipients_per_day
            * coalesce((SELECT value::bigint FROM settings WHERE key = 'UrgentSharePercent'), 20) / 100)::integer
$$;
COMMENT ON FUNCTION urgent_share IS 'How many of a day''s recipients are kept for urgent jobs.';

CREATE VIEW mailbox_rests AS
SELECT m.id AS mailbox_id,
       nullif(greatest(m.parked_until, t.parked_until, now()), now()) AS parked_until,
       CASE
           WHEN t.parked_until > greatest(m.parked_until, now()) THEN t.parked_reason
           WHEN m.parked_until > now() THEN m.parked_reason
       END AS parked_reason,
       nullif(greatest(m.kept_for_urgent_until, t.kept_for_urgent_until, now()), now()) AS kept_for_urgent_until,
       CASE
           WHEN t.kept_for_urgent_until > greatest(m.kept_for_urgent_until, now()) THEN t.kept_for_urgent_reason
           WHEN m.kept_for_urgent_until > now() THEN m.kept_for_urgent_reason
       END AS kept_for_urgent_reason
FROM mailboxes m
LEFT JOIN tenants t ON t.id = m.tenant_id;
COMMENT ON VIEW mailbox_rests IS 'Whether a mailbox rests now, or only urgent jobs may use it, for its own sake or its tenant''s; until when, and why.';

CREATE OR REPLACE VIEW sendable_jobs AS
SELECT number, profile_id, rank
FROM jobs j
WHERE state IN ('receiving', 'running')
  AND (send_after IS NULL OR send_after <= now())
  AND expires_at > now()
  AND (SELECT sending_is_allowed())
  -- Looked up once, not a job: mostly nobody is in it.
  AND (rank = 0
       OR profile_id NOT IN (SELECT p.id
                             FROM mailbox_rests r
                             JOIN sending_profiles p ON p.mailbox_id = r.mailbox_id
                             WHERE r.kept_for_urgent_until IS NOT NULL))
  -- OFFSET keeps it a look-up by index, job by job: a plan made while the table was empty would read all due batches.
  AND EXISTS (SELECT FROM batches b
              WHERE b.job_number = j.number AND b.state = 'due' AND b.due_at <= now()
              OFFSET 0);

CREATE VIEW mailbox_budgets AS
SELECT m.id,
       m.host,
       m.login,
       least(m.connections, m.learned_connections) AS connections,
       m.connections AS connections_set,
       m.learned_connections,
       m.connections_lowered_at,
       m.connections_reason,
       (SELECT count(*) FROM mailbox_connections c WHERE c.mailbox_id = m.id)::integer AS connections_open,
       least(m.messages_per_minute, m.learned_per_minute)::float8 AS messages_per_minute,
       m.messages_per_minute AS per_minute_set,
       m.learned_per_minute,
       m.per_minute_lowered_at,
       m.per_minute_reason,
       CASE WHEN m.learned_recipients_at > now() - interval '1 day' THEN m.learned_recipients_per_message END
           AS recipients_per_message,
       CASE WHEN m.learned_pipelining_at > now() - interval '1 day' THEN m.learned_pipelining END AS learned_pipelining,
       m.recipients_per_day,
       d.recipients AS recipients_of_the_day,
       d.urgent AS urgent_of_the_day,
       urgent_share(m.recipients_per_day) AS share_for_urgent,
       d.frees_at,
       t.name AS tenant,
       t.external_recipients_per_day AS tenant_recipients_per_day,
       e.recipients AS tenant_recipients_of_the_day,
       e.urgent AS tenant_urgent_of_the_day,
       urgent_share(t.external_recipients_per_day) AS tenant_share_for_urgent,
       e.frees_at AS tenant_frees_at,
       r.parked_until,
       r.parked_reason,
       r.kept_for_urgent_until,
       r.kept_for_urgent_reason,
       l.messages AS messages_last_minute,
       l.recipients AS recipients_last_minute
FROM mailboxes m
JOIN mailbox_rests r ON r.mailbox_id = m.id
LEFT JOIN tenants t ON t.id = m.tenant_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(recipients), 0)::integer AS recipients, coalesce(sum(urgent), 0)::integer AS urgent,
           min(minute) + interval '24 hours 1 minute' AS frees_at
    FROM mailbox_usage
    WHERE mailbox_id = m.id AND minute > now() - interval '24 hours 1 minute'
) d
CROSS JOIN LATERAL (
    SELECT coalesce(sum(recipients), 0)::integer AS recipients, coalesce(sum(urgent), 0)::integer AS urgent,
           min(minute) + interval '24 hours 1 minute' AS frees_at
    FROM tenant_usage
    WHERE tenant_id = m.tenant_id AND minute > now() - interval '24 hours 1 minute'
) e
CROSS JOIN LATERAL (
    SELECT coalesce(sum(messages), 0)::integer AS messages, coalesce(sum(recipients), 0)::integer AS recipients
    FROM mailbox_traffic
    WHERE mailbox_id = m.id AND bucket > now() - interval '1 minute'
) l;
COMMENT ON VIEW mailbox_budgets IS 'What a mailbox may use, what it has used, and what holds it up; limits as they are in force, NULL where there is none.';
COMMENT ON COLUMN mailbox_budgets.frees_at IS 'When the oldest recipients of the last 24 hours count no more; NULL where none count.';
