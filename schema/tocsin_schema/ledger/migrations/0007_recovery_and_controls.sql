-- Job controls with who and when, the story of every try, suppression, restored ledgers, partitions that are retired.

CREATE SEQUENCE job_event_ids;

CREATE TABLE job_events (
    id         bigint NOT NULL DEFAULT nextval('job_event_ids'),
    job_number bigint NOT NULL,
    event      text NOT NULL CHECK (event IN ('paused', 'resumed', 'cancelled', 'retried', 'settled',
                                              'expires_soon', 'expired', 'incomplete', 'reopened')),
    at         timestamptz NOT NULL DEFAULT now(),
    actor_kind text CHECK (actor_kind IN ('login', 'api_key')),
    actor      text,
    details    json NOT NULL DEFAULT '{}',
    PRIMARY KEY (job_number, id),
    CHECK ((actor IS NULL) = (actor_kind IS NULL))
) PARTITION BY RANGE (job_number);
COMMENT ON TABLE job_events IS 'What was done to a job and by whom, and what it could not do; the outbox of events about it.';
COMMENT ON COLUMN job_events.actor IS 'A login name or the name of an API key; NULL where Tocsin itself acted.';

CREATE TABLE ended_jobs (
    job_number bigint PRIMARY KEY,
    noted_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ended_jobs IS
    'Jobs that have ended and of which batches may still be open: the sweeper closes those, and need not look at all jobs.';

CREATE FUNCTION note_ended_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ended_jobs (job_number) VALUES (NEW.number)
    ON CONFLICT (job_number) DO UPDATE SET noted_at = now();
    RETURN NULL;
END $$;

CREATE TRIGGER jobs_ended AFTER UPDATE OF state ON jobs
    FOR EACH ROW WHEN (NEW.state IN ('cancelled', 'finished') AND NEW.state <> OLD.state)
    EXECUTE FUNCTION note_ended_job();

INSERT INTO ended_jobs (job_number)
SELECT DISTINCT b.job_number
FROM batches b
JOIN jobs j ON j.number = b.job_number
WHERE b.state <> 'done' AND j.state IN ('cancelled', 'finished');

CREATE TABLE delivery_attempts (
    job_number    bigint NOT NULL,
    ordinal       integer NOT NULL,
    lease_epoch   bigint NOT NULL,
    state         text NOT NULL CHECK (state IN ('pending', 'failed', 'unknown')),
    phase         text,
    code          smallint,
    enhanced_code text,
    reply         text,
    reason        text NOT NULL,
    at            timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_number, ordinal, lease_epoch)
) PARTITION BY RANGE (job_number);
COMMENT ON TABLE delivery_attempts IS
    'Every try of a recipient that did not end in an acceptance; one that did has an email copy.';
COMMENT ON COLUMN delivery_attempts.lease_epoch IS 'A recipient is tried at most once under a claim, so this names the try.';
COMMENT ON COLUMN delivery_attempts.state IS 'What the recipient became by it.';

CREATE TABLE suppressions (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address       text NOT NULL,
    source        text,
    reason        text NOT NULL,
    code          smallint,
    enhanced_code text,
    reply         text,
    job_number    bigint,
    actor_kind    text CHECK (actor_kind IN ('login', 'api_key')),
    actor         text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CHECK ((actor IS NULL) = (actor_kind IS NULL)),
    UNIQUE NULLS NOT DISTINCT (address, source)
);
COMMENT ON TABLE suppressions IS 'Addresses that are not written to any more, but by urgent jobs.';
COMMENT ON COLUMN suppressions.source IS 'Whose jobs it holds for: a source, '''' for jobs without one, NULL for all.';
COMMENT ON COLUMN suppressions.job_number IS 'The job whose recipient was refused; NULL where a person added it.';

CREATE TABLE removed_suppressions (
    suppression_id  bigint PRIMARY KEY,
    address         text NOT NULL,
    source          text,
    reason          text NOT NULL,
    job_number      bigint,
    actor           text,
    created_at      timestamptz NOT NULL,
    removed_by_kind text NOT NULL CHECK (removed_by_kind IN ('login', 'api_key')),
    removed_by      text NOT NULL,
    removed_at      timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE removed_suppressions IS 'Suppressions that a person took back: who, and when. Nobody asks it who may be written to.';

-- A ledger that was put back from a backup knows nothing of what was sent since. Where it lives now is compared with
-- where it lived when it was last written to, and until a person has looked nothing is sent.

CREATE TABLE ledger_origin (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    system_identifier bigint NOT NULL,
    database_oid      oid NOT NULL,
    timeline          integer NOT NULL,
    seen_at           timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ledger_origin IS 'The server, database and timeline that this ledger lives in, and when the sweeper was last here.';

CREATE VIEW current_origin AS
SELECT s.system_identifier, d.oid AS database_oid,
       -- The control file learns of a promotion only at the end of a checkpoint, which may take minutes.
       CASE
           WHEN pg_is_in_recovery() THEN c.timeline_id
           ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer
       END AS timeline
FROM pg_control_system() s
CROSS JOIN pg_control_checkpoint() c
JOIN pg_database d ON d.datname = current_database();

INSERT INTO ledger_origin (system_identifier, database_oid, timeline)
SELECT system_identifier, database_oid, timeline FROM current_origin;

CREATE TABLE sending_halts (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cause          text NOT NULL CHECK (cause IN ('by_hand', 'restored')),
    reason         text NOT NULL,
    actor_kind     text CHECK (actor_kind IN ('login', 'api_key')),
    actor          text,
    halted_at      timestamptz NOT NULL DEFAULT now(),
    lifted_by_kind text CHECK (lifted_by_kind IN ('login', 'api_key')),
    lifted_by      text,
    lifted_at      timestamptz,
    CHECK ((actor IS NULL) = (actor_kind IS NULL)),
    CHECK (cause <> 'by_hand' OR actor IS NOT NULL),
    CHECK ((lifted_by IS NULL) = (lifted_by_kind IS NULL)),
    CHECK ((lifted_by IS NULL) = (lifted_at IS NULL))
);
COMMENT ON TABLE sending_halts IS 'Times in which nothing was sent, by nobody: why, and who let it go on.';
CREATE UNIQUE INDEX sending_halts_in_force ON sending_halts ((true)) WHERE lifted_at IS NULL;

CREATE VIEW sending_halt AS
SELECT cause, reason, actor_kind, actor, halted_at FROM sending_halts WHERE lifted_at IS NULL;
COMMENT ON VIEW sending_halt IS 'The halt in force: one row or none.';

CREATE FUNCTION sending_is_allowed() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT NOT EXISTS (SELECT FROM sending_halt)
       AND EXISTS (SELECT FROM ledger_origin o
                   JOIN current_origin c USING (system_identifier, database_oid, timeline))
$$;
COMMENT ON FUNCTION sending_is_allowed IS
    'Whether nobody has halted all sending, and this ledger still lives where it did. Asked by every claim.';

CREATE OR REPLACE VIEW sendable_jobs AS
SELECT number, profile_id, rank
FROM jobs j
WHERE state IN ('receiving', 'running')
  AND (send_after IS NULL OR send_after <= now())
  AND expires_at > now()
  AND (SELECT sending_is_allowed())
  AND EXISTS (SELECT FROM batches b WHERE b.job_number = j.number AND b.state = 'due' AND b.due_at <= now());

CREATE FUNCTION partitioned_tables() RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['jobs', 'job_parts', 'job_events', 'message_contents', 'attachments', 'batches', 'recipients',
                 'recipient_exceptions', 'delivery_attempts', 'email_copies']
$$;
COMMENT ON FUNCTION partitioned_tables IS 'All that piles up with jobs; jobs first, since a job whose row is away is away.';

CREATE OR REPLACE FUNCTION make_partitions(from_instant timestamptz, months integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent      text;
    month       timestamptz;
    partition   text;
    made        integer := 0;
BEGIN
    -- Ten pods may come here at once: one makes, the others find it made.
    PERFORM pg_advisory_xact_lock(hashtext('tocsin.make_partitions'));
    FOR offset_months IN 0..months LOOP
        month := date_trunc('month', from_instant AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
                 + make_interval(months => offset_months);
        FOREACH parent IN ARRAY partitioned_tables() LOOP
            partition := format('%s_%s', parent, to_char(month AT TIME ZONE 'UTC', 'YYYYMM'));
            CONTINUE WHEN to_regclass(partition) IS NOT NULL;
            -- Made apart and attached, since CREATE … PARTITION OF would lock the parent against all writers.
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, parent);
            IF parent = 'batches' THEN
                -- Room on the page for the marks, which then touch no index.
                EXECUTE format('ALTER TABLE %I SET (fillfactor = 60)', partition);
            END IF;
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                           parent, partition, job_number_at(month), job_number_at(month + interval '1 month'));
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

-- For every month that the older tables have partitions for.
SELECT make_partitions(m.first::timestamp AT TIME ZONE 'UTC',
                       (extract(year FROM m.span) * 12 + extract(month FROM m.span))::integer)
FROM (
    SELECT min(to_date(right(relname, 6), 'YYYYMM')) AS first,
           age(max(to_date(right(relname, 6), 'YYYYMM')), min(to_date(right(relname, 6), 'YYYYMM'))) AS span
    FROM pg_class c
    JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE i.inhparent = 'jobs'::regclass
) m;
