-- The installation itself: its settings, its worker processes, and the functions that keys are made with.

DO $$
BEGIN
    -- A process that is frozen in the middle of a transaction must not hold up the others for ever; and times up to
    -- the year 9999 are read the same wherever the server stands. Set for the database, since session settings do not
    -- pass through PgBouncer in transaction mode.
    EXECUTE format('ALTER DATABASE %I SET idle_in_transaction_session_timeout = %L', current_database(), '60s');
    EXECUTE format('ALTER DATABASE %I SET timezone = %L', current_database(), 'UTC');
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'not the owner of the database: set idle_in_transaction_session_timeout and timezone by hand';
END $$;

CREATE TABLE settings (
    key          text PRIMARY KEY,
    value        text,
    sealed_value bytea,
    bound_to     text,
    row_id       uuid NOT NULL DEFAULT gen_random_uuid(),
    read_only    boolean NOT NULL DEFAULT false,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CHECK (value IS NULL OR sealed_value IS NULL)
);
COMMENT ON TABLE settings IS 'Operators'' settings of the whole installation. Secrets stand sealed in sealed_value.';
COMMENT ON COLUMN settings.bound_to IS 'EmailPassword: the one mail host that it may be sent to.';
COMMENT ON COLUMN settings.row_id IS 'Authenticated with the sealed value, so that it opens in this row only.';

CREATE FUNCTION refuse_change_of_read_only_setting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'setting % is read-only', OLD.key USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER settings_read_only BEFORE UPDATE OR DELETE ON settings
    FOR EACH ROW WHEN (OLD.read_only) EXECUTE FUNCTION refuse_change_of_read_only_setting();

-- Part of every sealing key: a ledger's secrets do not open in another ledger.
INSERT INTO settings (key, value, read_only) VALUES ('DatabaseUniqueID', gen_random_uuid()::text, true);

CREATE TABLE workers (
    id           uuid PRIMARY KEY,
    host         text NOT NULL,
    pid          integer NOT NULL,
    role         text NOT NULL,
    lease_seconds double precision NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE workers IS
    'One row a worker process. All its leases lapse when heartbeat_at is lease_seconds old.';

CREATE SEQUENCE job_number_low_bits CYCLE MINVALUE 0 MAXVALUE 4095;

CREATE FUNCTION job_number_at(instant timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (floor(extract(epoch FROM instant) * 1000)::bigint << 12)
$$;
COMMENT ON FUNCTION job_number_at IS 'The lowest job number of an instant: milliseconds since 1970, then 12 bits.';

CREATE FUNCTION next_job_number() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT job_number_at(clock_timestamp()) | nextval('job_number_low_bits')
$$;
