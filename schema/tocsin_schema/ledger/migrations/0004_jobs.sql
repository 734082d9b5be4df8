-- Jobs and all that piles up with them, keyed and partitioned by the time-ordered job number.
--
-- Recipients are written once and never changed. A batch row says in two bit strings which of its recipients
-- are in flight and which were sent; only exceptions have rows of their own. No foreign keys lead to or from the
-- partitions: COPY would pay for each, and retired partitions are detached concurrently.

CREATE TABLE job_ids (
    id         uuid PRIMARY KEY,
    job_number bigint NOT NULL UNIQUE,
    digest     bytea NOT NULL
);
COMMENT ON TABLE job_ids IS 'The caller''s idempotency key, unique for as long as it is kept; maps to the job number.';

CREATE TABLE jobs (
    number           bigint NOT NULL,
    id               uuid NOT NULL,
    source           text,
    key              text,
    event            text,
    correlation_id   text,
    profile_id       uuid NOT NULL,
    template_id      uuid,
    template_version integer,
    mode             text NOT NULL CHECK (mode IN ('shared', 'individual')),
    rank             smallint NOT NULL CHECK (rank BETWEEN 0 AND 2),
    on_unknown       text NOT NULL CHECK (on_unknown IN ('resend', 'hold')),
    state            text NOT NULL CHECK (state IN ('receiving', 'running', 'paused', 'cancelled', 'finished')),
    state_reason     text,
    last_part        integer CHECK (last_part >= 1),
    send_after       timestamptz,
    expires_at       timestamptz NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz,
    PRIMARY KEY (number),
    CHECK (state <> 'finished' OR finished_at IS NOT NULL)
) PARTITION BY RANGE (number);
COMMENT ON COLUMN jobs.rank IS '0 urgent, 1 normal, 2 bulk.';
COMMENT ON COLUMN jobs.last_part IS 'Known when the part that says so has come; receiving ends when all parts up to it have.';
CREATE INDEX jobs_open ON jobs (profile_id, rank) WHERE state IN ('receiving', 'running', 'paused');

CREATE TABLE job_parts (
    job_number  bigint NOT NULL,
    number      integer NOT NULL CHECK (number >= 1),
    digest      bytea NOT NULL,
    recipients  integer NOT NULL CHECK (recipients BETWEEN 0 AND 1000),
    duplicates  integer NOT NULL CHECK (duplicates >= 0),
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_number, number)
) PARTITION BY RANGE (job_number);
COMMENT ON COLUMN job_parts.duplicates IS 'Second entries of an address in this part, dropped and counted.';

CREATE TABLE message_contents (
    job_number   bigint NOT NULL,
    rendered     boolean NOT NULL,
    subject      text NOT NULL,
    text_body    text,
    html_body    text,
    from_name    text,
    reply_to     text,
    visible_to   text,
    headers      json NOT NULL,
    data         json NOT NULL,
    PRIMARY KEY (job_number)
) PARTITION BY RANGE (job_number);
COMMENT ON TABLE message_contents IS 'Once a job. shared: as rendered at intake. individual: the pinned sources and shared data.';

CREATE TABLE attachments (
    job_number   bigint NOT NULL,
    position     smallint NOT NULL,
    filename     text NOT NULL,
    content_type text NOT NULL,
    content      bytea NOT NULL,
    PRIMARY KEY (job_number, position)
) PARTITION BY RANGE (job_number);

CREATE TABLE batches (
    job_number    bigint NOT NULL,
    number        integer NOT NULL,
    first_ordinal integer NOT NULL,
    size          smallint NOT NULL CHECK (size BETWEEN 1 AND 1000),
    state         text NOT NULL CHECK (state IN ('due', 'leased', 'done')),
    due_at        timestamptz NOT NULL,
    leased_by     uuid,
    lease_epoch   bigint NOT NULL DEFAULT 0,
    leased_at     timestamptz,
    sent          bit varying(1000) NOT NULL,
    in_flight     bit varying(1000) NOT NULL,
    failed        smallint NOT NULL DEFAULT 0,
    unknown       smallint NOT NULL DEFAULT 0,
    suppressed    smallint NOT NULL DEFAULT 0,
    deaths        smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (job_number, number),
    CHECK ((state = 'leased') = (leased_by IS NOT NULL)),
    CHECK (length(sent) = size AND length(in_flight) = size),
    CHECK (failed + unknown + suppressed <= size)
) PARTITION BY RANGE (job_number);
COMMENT ON COLUMN batches.sent IS 'Bit i: recipient first_ordinal + i was accepted by the provider.';
COMMENT ON COLUMN batches.in_flight IS 'Bit i: its body may have been written and no outcome is recorded yet.';
COMMENT ON COLUMN batches.deaths IS 'How often a worker died that had it: it may be what kills them, and waits longer each time.';
COMMENT ON COLUMN batches.failed IS 'Exceptions by state, so that a job''s counts are sums over its batches.';
CREATE INDEX batches_due ON batches (job_number, due_at, number) WHERE state = 'due';
CREATE INDEX batches_leased ON batches (leased_by) WHERE state = 'leased';
CREATE INDEX batches_open ON batches (job_number) WHERE state <> 'done';

CREATE FUNCTION batch_is_settled(batch batches) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT bit_count(batch.sent) + batch.failed + batch.unknown + batch.suppressed >= batch.size
$$;
COMMENT ON FUNCTION batch_is_settled IS 'Whether nothing is left to do for any of its recipients.';

CREATE TABLE recipients (
    job_number   bigint NOT NULL,
    ordinal      integer NOT NULL,
    batch_number integer NOT NULL,
    address      text NOT NULL,
    name         text,
    data         json,
    PRIMARY KEY (job_number, ordinal)
) PARTITION BY RANGE (job_number);

CREATE TABLE recipient_exceptions (
    job_number    bigint NOT NULL,
    ordinal       integer NOT NULL,
    batch_number  integer NOT NULL,
    state         text NOT NULL CHECK (state IN ('pending', 'failed', 'unknown', 'suppressed')),
    attempts      smallint NOT NULL CHECK (attempts >= 0),
    due_at        timestamptz,
    phase         text,
    code          smallint,
    enhanced_code text,
    reply         text,
    reason        text NOT NULL,
    alone         boolean NOT NULL DEFAULT false,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_number, ordinal),
    CHECK ((state = 'pending') = (due_at IS NOT NULL))
) PARTITION BY RANGE (job_number);
COMMENT ON TABLE recipient_exceptions IS 'Only recipients whose way was not straight: deferred (pending), failed, unknown, suppressed.';
COMMENT ON COLUMN recipient_exceptions.alone IS
    'Sent in a transaction of its own next time: the server blamed somebody of its batch without saying whom.';
CREATE INDEX recipient_exceptions_batch ON recipient_exceptions (job_number, batch_number);

CREATE SEQUENCE email_copy_ids;

CREATE TABLE email_copies (
    id            bigint NOT NULL DEFAULT nextval('email_copy_ids'),
    job_number    bigint NOT NULL,
    batch_number  integer NOT NULL,
    lease_epoch   bigint NOT NULL,
    first_index   smallint NOT NULL,
    recipients    bit varying(1000) NOT NULL,
    profile       text NOT NULL,
    from_address  text NOT NULL,
    reply_to      text,
    visible_to    text NOT NULL,
    subject       text NOT NULL,
    message_id    text NOT NULL,
    provider_id   text,
    dated_at      timestamptz NOT NULL,
    accepted_at   timestamptz NOT NULL,
    reply_code    smallint NOT NULL,
    enhanced_code text,
    reply         text NOT NULL,
    size          integer NOT NULL,
    sha256        bytea NOT NULL CHECK (length(sha256) = 32),
    content       bytea,
    PRIMARY KEY (job_number, batch_number, lease_epoch, first_index)
) PARTITION BY RANGE (job_number);
COMMENT ON TABLE email_copies IS 'One row a message that a provider accepted.';
COMMENT ON COLUMN email_copies.first_index IS
    'The first of its recipients. With the epoch of the claim it names the message, so that a commit whose reply was lost is known again.';
COMMENT ON COLUMN email_copies.recipients IS 'Bit i: the batch''s recipient first_ordinal + i is one that it was accepted for.';
COMMENT ON COLUMN email_copies.dated_at IS 'The Date header, needed to make the exact bytes again.';
COMMENT ON COLUMN email_copies.content IS 'Every byte, where the profile says copies: full; else made again from message_contents.';
CREATE INDEX email_copies_id ON email_copies (id);

CREATE TABLE dead_letters (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    queue       text NOT NULL,
    code        text NOT NULL,
    reason      text NOT NULL,
    job_id      uuid,
    body        bytea NOT NULL,
    digest      bytea NOT NULL,
    details     json NOT NULL,
    state       text NOT NULL DEFAULT 'kept' CHECK (state IN ('kept', 'requeued', 'discarded')),
    requeues    integer NOT NULL DEFAULT 0,
    settled_at  timestamptz
);
COMMENT ON TABLE dead_letters IS 'What intake could not understand or had to refuse, with its raw bytes.';
CREATE UNIQUE INDEX dead_letters_once ON dead_letters (digest, code) WHERE state = 'kept';
COMMENT ON INDEX dead_letters_once IS 'A redelivered message becomes one dead letter, not several.';
