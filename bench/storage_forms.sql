-- What bench/storage_forms.py compares. Every table stands in a schema of the benchmark's own, named by search_path.
-- The batch rows have the columns, partial indexes and fill factor of the ledger's; autovacuum is off, so that it does
-- not fall into one turn and not into another.

-- name: create_schema
SELECT set_config('search_path', %(schema)s, false), set_config('synchronous_commit', 'off', false);

-- name: column_tables
CREATE TABLE recipients (
    job_number   bigint NOT NULL,
    ordinal      integer NOT NULL,
    batch_number integer NOT NULL,
    address      text NOT NULL,
    state        smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (job_number, ordinal)
) WITH (fillfactor = 60, autovacuum_enabled = false);
CREATE TABLE batches (
    job_number    bigint NOT NULL,
    number        integer NOT NULL,
    first_ordinal integer NOT NULL,
    size          smallint NOT NULL,
    state         text NOT NULL,
    due_at        timestamptz NOT NULL,
    leased_by     uuid,
    lease_epoch   bigint NOT NULL,
    PRIMARY KEY (job_number, number)
) WITH (fillfactor = 60, autovacuum_enabled = false);
CREATE INDEX ON batches (job_number, due_at, number) WHERE state = 'due';
CREATE INDEX ON batches (leased_by) WHERE state = 'leased';
CREATE INDEX ON batches (job_number) WHERE state <> 'done';

-- name: column_fill
WITH filled AS (
    INSERT INTO recipients (job_number, ordinal, batch_number, address)
    SELECT 1, o, o / %(batch_size)s, 'recipient' || o || '@campus.example'
    FROM generate_series(0, %(recipients)s - 1) AS o
)
INSERT INTO batches (job_number, number, first_ordinal, size, state, due_at, leased_by, lease_epoch)
SELECT 1, n, n * %(batch_size)s, %(batch_size)s, 'leased', now(), %(worker_id)s, 1
FROM generate_series(0, %(recipients)s / %(batch_size)s - 1) AS n;

-- name: column_mark
-- Fenced by the lease like the other two, which is a join here.
UPDATE recipients r
SET state = 1
FROM unnest(%(ordinals)s::integer[]) AS v (ordinal), batches b
WHERE r.job_number = 1 AND r.ordinal = v.ordinal
  AND b.job_number = 1 AND b.number = r.batch_number
  AND b.state = 'leased' AND b.leased_by = %(worker_id)s AND b.lease_epoch = 1;

-- name: column_settle
UPDATE recipients r
SET state = v.state
FROM unnest(%(ordinals)s::integer[], %(states)s::smallint[]) AS v (ordinal, state)
WHERE r.job_number = 1 AND r.ordinal = v.ordinal;

-- name: column_count
SELECT count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 1) FROM recipients WHERE job_number = 1;

-- name: multirange_tables
CREATE TABLE recipients (
    job_number   bigint NOT NULL,
    ordinal      integer NOT NULL,
    batch_number integer NOT NULL,
    address      text NOT NULL,
    PRIMARY KEY (job_number, ordinal)
) WITH (autovacuum_enabled = false);
CREATE TABLE batches (
    job_number    bigint NOT NULL,
    number        integer NOT NULL,
    first_ordinal integer NOT NULL,
    size          smallint NOT NULL,
    state         text NOT NULL,
    due_at        timestamptz NOT NULL,
    leased_by     uuid,
    lease_epoch   bigint NOT NULL,
    sent          int4multirange NOT NULL DEFAULT '{}',
    in_flight     int4multirange NOT NULL DEFAULT '{}',
    PRIMARY KEY (job_number, number)
) WITH (fillfactor = 60, autovacuum_enabled = false);
CREATE INDEX ON batches (job_number, due_at, number) WHERE state = 'due';
CREATE INDEX ON batches (leased_by) WHERE state = 'leased';
CREATE INDEX ON batches (job_number) WHERE state <> 'done';

-- name: multirange_fill
WITH filled AS (
    INSERT INTO recipients (job_number, ordinal, batch_number, address)
    SELECT 1, o, o / %(batch_size)s, 'recipient' || o || '@campus.example'
    FROM generate_series(0, %(recipients)s - 1) AS o
)
INSERT INTO batches (job_number, number, first_ordinal, size, state, due_at, leased_by, lease_epoch)
SELECT 1, n, n * %(batch_size)s, %(batch_size)s, 'leased', now(), %(worker_id)s, 1
FROM generate_series(0, %(recipients)s / %(batch_size)s - 1) AS n;

-- name: multirange_mark
UPDATE batches b
SET in_flight = b.in_flight + v.mask
FROM unnest(%(numbers)s::integer[], %(masks)s::int4multirange[]) AS v (number, mask)
WHERE b.job_number = 1 AND b.number = v.number
  AND b.state = 'leased' AND b.leased_by = %(worker_id)s AND b.lease_epoch = 1;

-- name: multirange_settle
UPDATE batches b
SET sent = b.sent + v.sent, in_flight = b.in_flight - v.settled
FROM unnest(%(numbers)s::integer[], %(sents)s::int4multirange[], %(settleds)s::int4multirange[])
         AS v (number, sent, settled)
WHERE b.job_number = 1 AND b.number = v.number;

-- name: multirange_count
SELECT (SELECT coalesce(sum(upper(r) - lower(r)), 0)
        FROM batches b, unnest(b.sent) AS r WHERE b.job_number = 1),
       (SELECT coalesce(sum(upper(r) - lower(r)), 0)
        FROM batches b, unnest(b.in_flight - b.sent) AS r WHERE b.job_number = 1);

-- name: bit_string_tables
CREATE TABLE recipients (
    job_number   bigint NOT NULL,
    ordinal      integer NOT NULL,
    batch_number integer NOT NULL,
    address      text NOT NULL,
    PRIMARY KEY (job_number, ordinal)
) WITH (autovacuum_enabled = false);
CREATE TABLE batches (
    job_number    bigint NOT NULL,
    number        integer NOT NULL,
    first_ordinal integer NOT NULL,
    size          smallint NOT NULL,
    state         text NOT NULL,
    due_at        timestamptz NOT NULL,
    leased_by     uuid,
    lease_epoch   bigint NOT NULL,
    sent          bit varying(1000) NOT NULL,
    in_flight     bit varying(1000) NOT NULL,
    PRIMARY KEY (job_number, number),
    CHECK (length(sent) = size AND length(in_flight) = size)
) WITH (fillfactor = 60, autovacuum_enabled = false);
CREATE INDEX ON batches (job_number, due_at, number) WHERE state = 'due';
CREATE INDEX ON batches (leased_by) WHERE state = 'leased';
CREATE INDEX ON batches (job_number) WHERE state <> 'done';

-- name: bit_string_fill
WITH filled AS (
    INSERT INTO recipients (job_number, ordinal, batch_number, address)
    SELECT 1, o, o / %(batch_size)s, 'recipient' || o || '@campus.example'
    FROM generate_series(0, %(recipients)s - 1) AS o
)
INSERT INTO batches (job_number, number, first_ordinal, size, state, due_at, leased_by, lease_epoch, sent, in_flight)
SELECT 1, n, n * %(batch_size)s, %(batch_size)s, 'leased', now(), %(worker_id)s, 1,
       repeat('0', %(batch_size)s)::varbit, repeat('0', %(batch_size)s)::varbit
FROM generate_series(0, %(recipients)s / %(batch_size)s - 1) AS n;

-- name: bit_string_mark
UPDATE batches b
SET in_flight = b.in_flight | v.mask
FROM unnest(%(numbers)s::integer[], %(masks)s::varbit[]) AS v (number, mask)
WHERE b.job_number = 1 AND b.number = v.number
  AND b.state = 'leased' AND b.leased_by = %(worker_id)s AND b.lease_epoch = 1;

-- name: bit_string_settle
UPDATE batches b
SET sent = b.sent | v.sent, in_flight = b.in_flight & ~v.settled
FROM unnest(%(numbers)s::integer[], %(sents)s::varbit[], %(settleds)s::varbit[]) AS v (number, sent, settled)
WHERE b.job_number = 1 AND b.number = v.number;

-- name: bit_string_count
SELECT coalesce(sum(bit_count(sent)), 0), coalesce(sum(bit_count(in_flight & ~sent)), 0)
FROM batches WHERE job_number = 1;

-- name: copy_tables
CREATE TABLE recipients (
    job_number   bigint NOT NULL,
    ordinal      integer NOT NULL,
    batch_number integer NOT NULL,
    address      text NOT NULL,
    PRIMARY KEY (job_number, ordinal)
) WITH (autovacuum_enabled = false);

-- name: copy_second_index
CREATE UNIQUE INDEX ON recipients (job_number, address);

-- name: copy_recipients
COPY recipients (job_number, ordinal, batch_number, address) FROM STDIN;

-- name: wal_position
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0');

-- name: size_of_tables
SELECT sum(pg_total_relation_size(c.oid))
FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r';
