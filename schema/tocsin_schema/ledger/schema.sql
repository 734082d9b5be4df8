-- The whole ledger, as the migrations build it. Written by `make schema`: change a migration, never this file.
--
-- To read, and to build an empty database from. The rows that migrations insert (the providers' defaults,
-- DatabaseUniqueID) are not in it, nor are the months' partitions: SELECT make_partitions(now(), 2).

-- Functions stand before the tables that they use.
SET check_function_bodies = off;

CREATE TABLE public.batches (
    job_number bigint NOT NULL,
    number integer NOT NULL,
    first_ordinal integer NOT NULL,
    size smallint NOT NULL,
    state text NOT NULL,
    due_at timestamp with time zone NOT NULL,
    leased_by uuid,
    lease_epoch bigint DEFAULT 0 NOT NULL,
    leased_at timestamp with time zone,
    sent bit varying(1000) NOT NULL,
    in_flight bit varying(1000) NOT NULL,
    failed smallint DEFAULT 0 NOT NULL,
    unknown smallint DEFAULT 0 NOT NULL,
    suppressed smallint DEFAULT 0 NOT NULL,
    deaths smallint DEFAULT 0 NOT NULL,
    CONSTRAINT batches_check CHECK (((state = 'leased'::text) = (leased_by IS NOT NULL))),
    CONSTRAINT batches_check1 CHECK (((length((sent)::"bit") = size) AND (length((in_flight)::"bit") = size))),
    CONSTRAINT batches_check2 CHECK ((((failed + unknown) + suppressed) <= size)),
    CONSTRAINT batches_size_check CHECK (((size >= 1) AND (size <= 1000))),
    CONSTRAINT batches_state_check CHECK ((state = ANY (ARRAY['due'::text, 'leased'::text, 'done'::text])))
)
PARTITION BY RANGE (job_number);

COMMENT ON COLUMN public.batches.sent IS 'Bit i: recipient first_ordinal + i was accepted by the provider.';

COMMENT ON COLUMN public.batches.in_flight IS 'Bit i: its body may have been written and no outcome is recorded yet.';

COMMENT ON COLUMN public.batches.failed IS 'Exceptions by state, so that a job''s counts are sums over its batches.';

COMMENT ON COLUMN public.batches.deaths IS 'How often a worker died that had it: it may be what kills them, and waits longer each time.';

CREATE FUNCTION public.batch_is_settled(batch public.batches) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT bit_count(batch.sent) + batch.failed + batch.unknown + batch.suppressed >= batch.size
$$;

COMMENT ON FUNCTION public.batch_is_settled(batch public.batches) IS 'Whether nothing is left to do for any of its recipients.';

CREATE FUNCTION public.claim_due_batches(of_profile uuid, by_worker uuid, most integer) RETURNS TABLE(job_number bigint, number integer, first_ordinal integer, size smallint, lease_epoch bigint, sent text, rank smallint)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    best      smallint;
    start     integer := floor(random() * 4294967296) - 2147483648;
    jobs_due  bigint[];
BEGIN
    IF NOT EXISTS (
        SELECT
        FROM sending_profiles p
        JOIN mailbox_rests r ON r.mailbox_id = p.mailbox_id AND r.parked_until IS NULL
        WHERE p.id = of_profile AND p.paused_at IS NULL
    ) THEN
        RETURN;
    END IF;
    -- A claim that a crash of Postgres forgets does no harm: no body is written before a mark is on the disk, and with it
    -- all that came before.
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT s.rank INTO best FROM sendable_jobs s WHERE s.profile_id = of_profile ORDER BY s.rank LIMIT 1;
    IF best IS NULL THEN
        RETURN;
    END IF;
    -- From a place by chance and once round: of very many jobs, each gets its turn.
    SELECT array_agg(c.number) INTO jobs_due
    FROM (
        (SELECT s.number FROM sendable_jobs s
         WHERE s.profile_id = of_profile AND s.rank = best AND hashint8(s.number) >= start
         ORDER BY hashint8(s.number) LIMIT most)
        UNION ALL
        (SELECT s.number FROM sendable_jobs s
         WHERE s.profile_id = of_profile AND s.rank = best AND hashint8(s.number) < start
         ORDER BY hashint8(s.number) LIMIT most)
        LIMIT most
    ) c;
    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT d.job_number, d.number
        FROM unnest(jobs_due) AS j (number)
        CROSS JOIN LATERAL (
            SELECT b.job_number, b.number
            FROM batches b
            WHERE b.job_number = j.number AND b.state = 'due' AND b.due_at <= now()
            ORDER BY b.due_at, b.number
            -- Jobs of one rank share a claim evenly, so that a long job does not hold up a short one.
            LIMIT ceil(most::numeric / cardinality(jobs_due))
            FOR UPDATE SKIP LOCKED
        ) d
    )
    UPDATE batches b
    SET state = 'leased', leased_by = by_worker, lease_epoch = b.lease_epoch + 1, leased_at = now()
    FROM due
    WHERE b.job_number = due.job_number AND b.number = due.number
    RETURNING b.job_number, b.number, b.first_ordinal, b.size, b.lease_epoch, b.sent::text, best;
END $$;

COMMENT ON FUNCTION public.claim_due_batches(of_profile uuid, by_worker uuid, most integer) IS 'Leases due batches of a profile: best rank first, jobs of one rank in turns.';

CREATE FUNCTION public.claimed_exceptions(job_numbers bigint[], batch_numbers integer[]) RETURNS TABLE(job_number bigint, ordinal integer, batch_number integer, state text, attempts smallint, due_in_seconds double precision, alone boolean)
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT e.job_number, e.ordinal, e.batch_number, e.state, e.attempts,
           extract(epoch FROM e.due_at - now())::float8, e.alone
    FROM unnest(job_numbers, batch_numbers) AS c (job_number, batch_number)
    CROSS JOIN LATERAL (
        SELECT *
        FROM recipient_exceptions o
        WHERE o.job_number = c.job_number AND o.batch_number = c.batch_number
        OFFSET 0
    ) e;
END $$;

COMMENT ON FUNCTION public.claimed_exceptions(job_numbers bigint[], batch_numbers integer[]) IS 'What is known of those recipients of batches whose way was not straight.';

CREATE FUNCTION public.claimed_recipients(job_numbers bigint[], first_ordinals integer[], sizes integer[]) RETURNS TABLE(job_number bigint, batch_number integer, ordinal integer, address text, name text, data json)
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT r.job_number, r.batch_number, r.ordinal, r.address, r.name, r.data
    FROM unnest(job_numbers, first_ordinals, sizes) AS c (job_number, first_ordinal, size)
    CROSS JOIN LATERAL (
        SELECT *
        FROM recipients o
        WHERE o.job_number = c.job_number AND o.ordinal >= c.first_ordinal AND o.ordinal < c.first_ordinal + c.size
        ORDER BY o.ordinal
    ) r;
END $$;

COMMENT ON FUNCTION public.claimed_recipients(job_numbers bigint[], first_ordinals integer[], sizes integer[]) IS 'The recipients of batches, in the order of these and of their ordinals.';

CREATE FUNCTION public.claimed_suppressions(job_numbers bigint[], first_ordinals integer[], sizes integer[]) RETURNS TABLE(job_number bigint, ordinal integer, since timestamp with time zone, reason text)
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT FROM suppressions) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT r.job_number, r.ordinal, s.created_at, s.reason
    FROM unnest(job_numbers, first_ordinals, sizes) AS c (job_number, first_ordinal, size)
    -- Urgent jobs write to everybody.
    CROSS JOIN LATERAL (SELECT o.source FROM jobs o WHERE o.number = c.job_number AND o.rank > 0 OFFSET 0) j
    CROSS JOIN LATERAL (
        SELECT o.job_number, o.ordinal, o.address
        FROM recipients o
        WHERE o.job_number = c.job_number AND o.ordinal >= c.first_ordinal AND o.ordinal < c.first_ordinal + c.size
        OFFSET 0
    ) r
    CROSS JOIN LATERAL (
        SELECT o.created_at, o.reason
        FROM suppressions o
        WHERE o.address = r.address AND (o.source = coalesce(j.source, '') OR o.source IS NULL)
        ORDER BY o.created_at
        LIMIT 1
    ) s;
END $$;

COMMENT ON FUNCTION public.claimed_suppressions(job_numbers bigint[], first_ordinals integer[], sizes integer[]) IS 'Which recipients of batches are suppressed, for the source of their job or for all.';

CREATE FUNCTION public.claimed_waits(job_numbers bigint[], batch_numbers integer[]) RETURNS TABLE(job_number bigint, batch_number integer, since_published double precision, since_due double precision)
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT b.job_number, b.number,
           extract(epoch FROM clock_timestamp() - greatest(j.published_at, j.send_after))::float8,
           -- Whom a person wants tried again have no time of their own.
           CASE WHEN isfinite(b.due_at)
               THEN extract(epoch FROM clock_timestamp() - greatest(b.due_at, j.send_after))::float8
               ELSE 0
           END
    FROM unnest(job_numbers, batch_numbers) AS c (job_number, batch_number)
    CROSS JOIN LATERAL (
        SELECT o.job_number, o.number, o.due_at
        FROM batches o
        WHERE o.job_number = c.job_number AND o.number = c.batch_number
        OFFSET 0
    ) b
    CROSS JOIN LATERAL (
        SELECT coalesce(o.published_at, o.created_at) AS published_at, o.send_after
        FROM jobs o
        WHERE o.number = c.job_number
        OFFSET 0
    ) j;
END $$;

COMMENT ON FUNCTION public.claimed_waits(job_numbers bigint[], batch_numbers integer[]) IS 'How many seconds batches have waited: since their job was published, or taken in where that was not told, and since they were due; neither before the time that the job is to begin.';

CREATE FUNCTION public.complete_pause() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF NEW.paused_at IS NULL THEN
        NEW.pause_cause := NULL;
        NEW.probe_at := NULL;
    ELSIF NEW.pause_cause IS NULL THEN
        NEW.pause_cause := 'credentials';
    END IF;
    IF NEW.pause_cause IS DISTINCT FROM 'by_hand' THEN
        NEW.paused_by_kind := NULL;
        NEW.paused_by := NULL;
    END IF;
    RETURN NEW;
END $$;

COMMENT ON FUNCTION public.complete_pause() IS 'Workers and commands of releases before, which run on beside this schema for a while, know no causes, or not who paused.';

CREATE FUNCTION public.finish_jobs(job_numbers bigint[]) RETURNS SETOF bigint
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    ended bigint[];
BEGIN
    ended := ARRAY(
        SELECT n FROM unnest(job_numbers) AS n
        WHERE NOT EXISTS (SELECT FROM batches b WHERE b.job_number = n AND b.state <> 'done')
        ORDER BY n
    );
    IF cardinality(ended) = 0 THEN
        RETURN;
    END IF;
    PERFORM FROM jobs j
    WHERE j.number = ANY (ended) AND j.state IN ('running', 'paused')
    ORDER BY j.number
    FOR NO KEY UPDATE;
    -- A statement of its own sees what whoever held the lock has committed.
    RETURN QUERY
    UPDATE jobs j
    SET state = 'finished', state_reason = NULL, finished_at = now()
    WHERE j.number = ANY (ended)
      AND (j.state = 'running'
           OR (j.state = 'paused'
               AND j.last_part = (SELECT count(*) FROM job_parts p WHERE p.job_number = j.number)))
      AND NOT EXISTS (SELECT FROM batches b WHERE b.job_number = j.number AND b.state <> 'done')
    RETURNING j.number;
END $$;

COMMENT ON FUNCTION public.finish_jobs(job_numbers bigint[]) IS 'Finishes the jobs of which no batch is left; a paused one too, if nothing more can come of it. Called after the batches are committed: then at least the last of several workers sees them all done.';

CREATE FUNCTION public.has_due_work(of_profile uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
BEGIN
    RETURN EXISTS (SELECT FROM sendable_jobs s WHERE s.profile_id = of_profile);
END $$;

COMMENT ON FUNCTION public.has_due_work(of_profile uuid) IS 'Whether the profile has a batch that is due now.';

CREATE FUNCTION public.job_number_at(instant timestamp with time zone) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT (floor(extract(epoch FROM instant) * 1000)::bigint << 12)
$$;

COMMENT ON FUNCTION public.job_number_at(instant timestamp with time zone) IS 'The lowest job number of an instant: milliseconds since 1970, then 12 bits.';

CREATE FUNCTION public.keep_template_version() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO email_template_versions
        (template_id, version, subject, text_body, html_body, from_name, reply_to_address)
    VALUES
        (NEW.id, NEW.version, NEW.subject, NEW.text_body, NEW.html_body, NEW.from_name, NEW.reply_to_address);
    RETURN NULL;
END $$;

COMMENT ON FUNCTION public.keep_template_version() IS 'Every version of a template stays readable, whoever writes the table.';

CREATE FUNCTION public.make_partitions(from_instant timestamp with time zone, months integer) RETURNS integer
    LANGUAGE plpgsql
    AS $$
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

COMMENT ON FUNCTION public.make_partitions(from_instant timestamp with time zone, months integer) IS 'Makes what is missing of a month''s partitions and of the months after it; returns how many.';

CREATE FUNCTION public.may_be_marked(batch public.batches, worker uuid, epoch bigint) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT batch.state = 'leased' AND batch.leased_by = worker AND batch.lease_epoch = epoch
$$;

COMMENT ON FUNCTION public.may_be_marked(batch public.batches, worker uuid, epoch bigint) IS 'Whether the batch is still the worker''s, by the claim of that epoch.';

CREATE FUNCTION public.next_job_number() RETURNS bigint
    LANGUAGE sql
    AS $$
    SELECT job_number_at(clock_timestamp()) | nextval('job_number_low_bits')
$$;

CREATE FUNCTION public.note_ended_job() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO ended_jobs (job_number) VALUES (NEW.number)
    ON CONFLICT (job_number) DO UPDATE SET noted_at = now();
    RETURN NULL;
END $$;

CREATE FUNCTION public.note_wakeup(of_profile uuid, of_rank smallint, most integer, patience_seconds double precision) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
BEGIN
    -- The row is one for a profile's whole fleet: nobody holds it while a disk is written to.
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO wakeups AS w (profile_id, rank, under_way, sent_at)
    VALUES (of_profile, of_rank, 1, now())
    ON CONFLICT (profile_id, rank) DO UPDATE
    SET under_way = CASE
            WHEN w.sent_at < now() - make_interval(secs => patience_seconds) THEN 1
            ELSE w.under_way + 1
        END,
        sent_at = now()
    WHERE w.under_way < most OR w.sent_at < now() - make_interval(secs => patience_seconds);
    RETURN FOUND;
END $$;

COMMENT ON FUNCTION public.note_wakeup(of_profile uuid, of_rank smallint, most integer, patience_seconds double precision) IS 'Whether a wake-up is to be sent: a few on the queue are enough, however many slices want successors, and those under way for too long are taken for lost.';

CREATE FUNCTION public.partitioned_tables() RETURNS text[]
    LANGUAGE sql IMMUTABLE
    AS $$
    SELECT ARRAY['jobs', 'job_parts', 'job_events', 'message_contents', 'attachments', 'batches', 'recipients',
                 'recipient_exceptions', 'delivery_attempts', 'email_copies']
$$;

COMMENT ON FUNCTION public.partitioned_tables() IS 'All that piles up with jobs; jobs first, since a job whose row is away is away.';

CREATE FUNCTION public.refuse_change_of_read_only_setting() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'setting % is read-only', OLD.key USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION public.release_leased_batches(by_worker uuid, job_numbers bigint[], numbers integer[], epochs bigint[], due_in_seconds double precision[]) RETURNS TABLE(job_number bigint, state text)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
    -- A lease whose end a crash of Postgres forgets is found again beside the heartbeat.
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN QUERY
    UPDATE batches b
    SET state = CASE WHEN batch_is_settled(b) THEN 'done' ELSE 'due' END,
        -- Its owner does not know of whom a person wants tried again meanwhile: those have left a mark there.
        due_at = CASE WHEN b.due_at = '-infinity' THEN now() ELSE now() + make_interval(secs => v.due_in_seconds) END,
        leased_by = NULL,
        -- Whatever is still marked was never written: its owner says so by releasing.
        in_flight = b.in_flight & repeat('0', b.size)::varbit
    FROM unnest(job_numbers, numbers, epochs, due_in_seconds) AS v (job_number, number, epoch, due_in_seconds)
    WHERE b.job_number = v.job_number AND b.number = v.number
      -- Not by the index of a worker's leases, which has all of them and, for a while, those that ended.
      AND b.state = 'leased' AND b.leased_by IS NOT DISTINCT FROM by_worker AND b.lease_epoch = v.epoch
    RETURNING b.job_number, b.state;
END $$;

COMMENT ON FUNCTION public.release_leased_batches(by_worker uuid, job_numbers bigint[], numbers integer[], epochs bigint[], due_in_seconds double precision[]) IS 'Gives leases back, and tells what state each batch has then.';

CREATE FUNCTION public.sending_is_allowed() RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    SELECT NOT EXISTS (SELECT FROM sending_halt)
       AND EXISTS (SELECT FROM ledger_origin o
                   JOIN current_origin c USING (system_identifier, database_oid, timeline))
$$;

COMMENT ON FUNCTION public.sending_is_allowed() IS 'Whether nobody has halted all sending, and this ledger still lives where it did. Asked by every claim.';

CREATE FUNCTION public.take_wakeups(of_profile uuid, of_rank smallint, taken integer) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE wakeups SET under_way = greatest(under_way - taken, 0)
    WHERE profile_id = of_profile AND rank = of_rank AND under_way > 0;
END $$;

COMMENT ON FUNCTION public.take_wakeups(of_profile uuid, of_rank smallint, taken integer) IS 'Notes that a sender has wake-ups in hand: others may be sent.';

CREATE FUNCTION public.urgent_share(recipients_per_day integer) RETURNS integer
    LANGUAGE sql STABLE
    AS $$
    SELECT (recipients_per_day
            * coalesce((SELECT value::bigint FROM settings WHERE key = 'UrgentSharePercent'), 20) / 100)::integer
$$;

COMMENT ON FUNCTION public.urgent_share(recipients_per_day integer) IS 'How many of a day''s recipients are kept for urgent jobs.';

CREATE FUNCTION public.write_batches(by_worker uuid, job_numbers bigint[], numbers integer[], epochs bigint[], sents bit varying[], settleds bit varying[], marks bit varying[], mark_epochs bigint[], jobs_to_mark bigint[]) RETURNS TABLE(job_number bigint, number integer, counts_exceptions boolean, is_marked boolean, is_outranked boolean)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    sendable bigint[];
    outranked bigint[];
BEGIN
    IF cardinality(jobs_to_mark) > 0 AND sending_is_allowed() THEN
        sendable := ARRAY(
            SELECT j.number
            FROM unnest(jobs_to_mark) AS m (number)
            CROSS JOIN LATERAL (
                SELECT o.number, o.profile_id
                FROM jobs o
                WHERE o.number = m.number AND o.state IN ('receiving', 'running') AND o.expires_at > now()
                OFFSET 0
            ) j
            JOIN sending_profiles p ON p.id = j.profile_id AND p.paused_at IS NULL
            -- Once a provider has asked for a rest, nobody begins what was reserved before.
            JOIN mailbox_rests r ON r.mailbox_id = p.mailbox_id AND r.parked_until IS NULL
        );
        outranked := ARRAY(
            SELECT j.number
            FROM unnest(sendable) AS m (number)
            CROSS JOIN LATERAL (
                SELECT o.number, o.profile_id, o.rank FROM jobs o WHERE o.number = m.number AND o.rank > 0 OFFSET 0
            ) j
            WHERE EXISTS (
                SELECT FROM sendable_jobs s WHERE s.profile_id = j.profile_id AND s.rank < j.rank OFFSET 0
            )
        );
    END IF;
    RETURN QUERY
    UPDATE batches b
    SET sent = b.sent | v.sent,
        in_flight = CASE
                WHEN v.job_number = ANY (sendable) AND may_be_marked(b, by_worker, v.mark_epoch)
                    THEN b.in_flight | v.mark
                ELSE b.in_flight
            END & ~CASE WHEN b.lease_epoch = v.epoch THEN v.settled ELSE v.settled # v.settled END
    FROM unnest(job_numbers, numbers, epochs, sents, settleds, marks, mark_epochs)
             AS v (job_number, number, epoch, sent, settled, mark, mark_epoch)
    WHERE b.job_number = v.job_number AND b.number = v.number
    RETURNING b.job_number, b.number, b.failed + b.unknown + b.suppressed > 0,
              coalesce(v.job_number = ANY (sendable) AND may_be_marked(b, by_worker, v.mark_epoch), false),
              coalesce(v.job_number = ANY (outranked), false);
END $$;

COMMENT ON FUNCTION public.write_batches(by_worker uuid, job_numbers bigint[], numbers integer[], epochs bigint[], sents bit varying[], settleds bit varying[], marks bit varying[], mark_epochs bigint[], jobs_to_mark bigint[]) IS 'Writes what became of recipients and marks others in flight. What the provider accepted is true, whoever owns the batch by now; marks are cleared only by who made them, and given only to who owns the batch, by the epoch of the claim, while its job and profile may be sent for. A message that is marked again and has ended since is not in flight. Outranked is a batch whose profile has mail of a better rank that is due.';

CREATE TABLE public.access_tokens (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    oauth_profile_id uuid NOT NULL,
    subject text NOT NULL,
    version bigint DEFAULT 0 NOT NULL,
    sealed_token bytea,
    obtained_at timestamp with time zone,
    expires_at timestamp with time zone,
    refresh_leased_by uuid,
    refresh_leased_until timestamp with time zone,
    failure text,
    failure_permanent boolean DEFAULT false NOT NULL,
    failed_at timestamp with time zone,
    retry_at timestamp with time zone,
    used_at timestamp with time zone,
    failure_fix text,
    failure_code text,
    refresh_outdated boolean DEFAULT false NOT NULL,
    refused_version bigint,
    retry_wished boolean DEFAULT false NOT NULL
);

COMMENT ON TABLE public.access_tokens IS 'One sealed token for the whole fleet a (OAuth profile, subject).';

COMMENT ON COLUMN public.access_tokens.subject IS 'The mailbox where the grant has one, else empty.';

COMMENT ON COLUMN public.access_tokens.version IS 'Grows with every token obtained or invalidated; compare-and-swap works on it.';

COMMENT ON COLUMN public.access_tokens.failure IS 'What was wrong with the last token request; NULL where it succeeded.';

COMMENT ON COLUMN public.access_tokens.refresh_outdated IS 'The request under way asks with what the profile was before: what comes of it is dropped, and only then asked anew.';

COMMENT ON COLUMN public.access_tokens.refused_version IS 'The version that a mail server refused last: where it is the present one, another is asked for; who is not refused goes on with it meanwhile.';

COMMENT ON COLUMN public.access_tokens.retry_wished IS 'retry_at is the endpoint''s own wish (Retry-After), which nobody overrules.';

CREATE TABLE public.oauth_profiles (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    provider text NOT NULL,
    grant_type text NOT NULL,
    token_endpoint text NOT NULL,
    scope text,
    tenant_id text,
    client_id text,
    sealed_client_secret bytea,
    ca_pem text,
    secret_set_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    client_auth text DEFAULT 'client_secret_post'::text NOT NULL,
    device_endpoint text,
    certificate_pem text,
    sealed_private_key bytea,
    private_key_set_at timestamp with time zone,
    key_id text,
    delegation_client_id text,
    token_file text,
    secret_expires_at timestamp with time zone,
    certificate_expires_at timestamp with time zone,
    CONSTRAINT oauth_profiles_client_auth_check CHECK ((client_auth = ANY (ARRAY['client_secret_post'::text, 'client_secret_basic'::text])))
);

COMMENT ON COLUMN public.oauth_profiles.token_endpoint IS 'May hold {tenantId}, filled in from tenant_id at run time.';

COMMENT ON COLUMN public.oauth_profiles.client_id IS 'The application; with jwt_bearer the issuer (Google: the service account).';

COMMENT ON COLUMN public.oauth_profiles.client_auth IS 'Where a client secret goes: into the body or a Basic header (RFC 6749 section 2.3.1).';

COMMENT ON COLUMN public.oauth_profiles.device_endpoint IS 'RFC 8628; NULL where the provider''s discovery names it.';

COMMENT ON COLUMN public.oauth_profiles.key_id IS 'The kid of the private key in JWT headers (Google: private_key_id).';

COMMENT ON COLUMN public.oauth_profiles.delegation_client_id IS 'Google: the service account''s number, which domain-wide delegation is granted to.';

COMMENT ON COLUMN public.oauth_profiles.token_file IS 'workload_identity: the projected token; NULL: where Azure''s webhook mounts it.';

COMMENT ON COLUMN public.oauth_profiles.secret_expires_at IS 'As entered by a person; no endpoint tells it.';

COMMENT ON COLUMN public.oauth_profiles.certificate_expires_at IS 'Read from certificate_pem.';

CREATE VIEW public.access_token_rows AS
 SELECT t.id,
    t.oauth_profile_id,
    t.subject,
    o.grant_type,
    t.version,
    t.refused_version,
    t.sealed_token,
    t.obtained_at,
    t.expires_at,
    t.refresh_leased_until,
    t.failure,
    t.failure_fix,
    t.failure_code,
    t.failure_permanent,
    t.failed_at,
    t.retry_at,
    t.used_at,
    clock_timestamp() AS now
   FROM (public.access_tokens t
     JOIN public.oauth_profiles o ON ((o.id = t.oauth_profile_id)));

COMMENT ON VIEW public.access_token_rows IS 'Access tokens as they stand at now, with the grant that they come by.';

CREATE TABLE public.attachments (
    job_number bigint NOT NULL,
    "position" smallint NOT NULL,
    filename text NOT NULL,
    content_type text NOT NULL,
    content bytea NOT NULL
)
PARTITION BY RANGE (job_number);

CREATE VIEW public.current_origin AS
 SELECT s.system_identifier,
    d.oid AS database_oid,
        CASE
            WHEN pg_is_in_recovery() THEN c.timeline_id
            ELSE ((('x'::text || "left"(pg_walfile_name(pg_current_wal_lsn()), 8)))::bit(32))::integer
        END AS timeline
   FROM ((pg_control_system() s(pg_control_version, catalog_version_no, system_identifier, pg_control_last_modified)
     CROSS JOIN pg_control_checkpoint() c(checkpoint_lsn, redo_lsn, redo_wal_file, timeline_id, prev_timeline_id, full_page_writes, next_xid, next_oid, next_multixact_id, next_multi_offset, oldest_xid, oldest_xid_dbid, oldest_active_xid, oldest_multi_xid, oldest_multi_dbid, oldest_commit_ts_xid, newest_commit_ts_xid, checkpoint_time))
     JOIN pg_database d ON ((d.datname = current_database())));

CREATE TABLE public.dead_letters (
    id bigint NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    queue text NOT NULL,
    code text NOT NULL,
    reason text NOT NULL,
    job_id uuid,
    body bytea NOT NULL,
    digest bytea NOT NULL,
    details json NOT NULL,
    state text DEFAULT 'kept'::text NOT NULL,
    requeues integer DEFAULT 0 NOT NULL,
    settled_at timestamp with time zone,
    CONSTRAINT dead_letters_state_check CHECK ((state = ANY (ARRAY['kept'::text, 'requeued'::text, 'discarded'::text])))
);

COMMENT ON TABLE public.dead_letters IS 'What intake could not understand or had to refuse, with its raw bytes.';

ALTER TABLE public.dead_letters ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.dead_letters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.delivery_attempts (
    job_number bigint NOT NULL,
    ordinal integer NOT NULL,
    lease_epoch bigint NOT NULL,
    state text NOT NULL,
    phase text,
    code smallint,
    enhanced_code text,
    reply text,
    reason text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT delivery_attempts_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'failed'::text, 'unknown'::text])))
)
PARTITION BY RANGE (job_number);

COMMENT ON TABLE public.delivery_attempts IS 'Every try of a recipient that did not end in an acceptance; one that did has an email copy.';

COMMENT ON COLUMN public.delivery_attempts.lease_epoch IS 'A recipient is tried at most once under a claim, so this names the try.';

COMMENT ON COLUMN public.delivery_attempts.state IS 'What the recipient became by it.';

CREATE SEQUENCE public.email_copy_ids
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.email_copies (
    id bigint DEFAULT nextval('public.email_copy_ids'::regclass) NOT NULL,
    job_number bigint NOT NULL,
    batch_number integer NOT NULL,
    lease_epoch bigint NOT NULL,
    first_index smallint NOT NULL,
    recipients bit varying(1000) NOT NULL,
    profile text NOT NULL,
    from_address text NOT NULL,
    reply_to text,
    visible_to text NOT NULL,
    subject text NOT NULL,
    message_id text NOT NULL,
    provider_id text,
    dated_at timestamp with time zone NOT NULL,
    accepted_at timestamp with time zone NOT NULL,
    reply_code smallint NOT NULL,
    enhanced_code text,
    reply text NOT NULL,
    size integer NOT NULL,
    sha256 bytea NOT NULL,
    content bytea,
    CONSTRAINT email_copies_sha256_check CHECK ((length(sha256) = 32))
)
PARTITION BY RANGE (job_number);

COMMENT ON TABLE public.email_copies IS 'One row a message that a provider accepted.';

COMMENT ON COLUMN public.email_copies.first_index IS 'The first of its recipients. With the epoch of the claim it names the message, so that a commit whose reply was lost is known again.';

COMMENT ON COLUMN public.email_copies.recipients IS 'Bit i: the batch''s recipient first_ordinal + i is one that it was accepted for.';

COMMENT ON COLUMN public.email_copies.dated_at IS 'The Date header, needed to make the exact bytes again.';

COMMENT ON COLUMN public.email_copies.content IS 'Every byte, where the profile says copies: full; else made again from message_contents.';

CREATE TABLE public.email_template_versions (
    template_id uuid NOT NULL,
    version integer NOT NULL,
    subject text NOT NULL,
    text_body text,
    html_body text,
    from_name text,
    reply_to_address text,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.email_templates (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    version integer DEFAULT 1 NOT NULL,
    subject text NOT NULL,
    text_body text,
    html_body text,
    from_name text,
    reply_to_address text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT email_templates_check CHECK (((text_body IS NOT NULL) OR (html_body IS NOT NULL)))
);

CREATE TABLE public.ended_jobs (
    job_number bigint NOT NULL,
    noted_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE public.ended_jobs IS 'Jobs that have ended and of which batches may still be open: the sweeper closes those, and need not look at all jobs.';

CREATE TABLE public.jobs (
    number bigint NOT NULL,
    id uuid NOT NULL,
    source text,
    key text,
    event text,
    correlation_id text,
    profile_id uuid NOT NULL,
    template_id uuid,
    template_version integer,
    mode text NOT NULL,
    rank smallint NOT NULL,
    on_unknown text NOT NULL,
    state text NOT NULL,
    state_reason text,
    last_part integer,
    send_after timestamp with time zone,
    expires_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    published_at timestamp with time zone,
    CONSTRAINT jobs_check CHECK (((state <> 'finished'::text) OR (finished_at IS NOT NULL))),
    CONSTRAINT jobs_last_part_check CHECK ((last_part >= 1)),
    CONSTRAINT jobs_mode_check CHECK ((mode = ANY (ARRAY['shared'::text, 'individual'::text]))),
    CONSTRAINT jobs_on_unknown_check CHECK ((on_unknown = ANY (ARRAY['resend'::text, 'hold'::text]))),
    CONSTRAINT jobs_rank_check CHECK (((rank >= 0) AND (rank <= 2))),
    CONSTRAINT jobs_state_check CHECK ((state = ANY (ARRAY['receiving'::text, 'running'::text, 'paused'::text, 'cancelled'::text, 'finished'::text])))
)
PARTITION BY RANGE (number);

COMMENT ON COLUMN public.jobs.rank IS '0 urgent, 1 normal, 2 bulk.';

COMMENT ON COLUMN public.jobs.last_part IS 'Known when the part that says so has come; receiving ends when all parts up to it have.';

COMMENT ON COLUMN public.jobs.published_at IS 'When the part that came first was published, as its message told; never later than created_at. NULL: it did not.';

CREATE VIEW public.job_counts AS
 WITH sums AS (
         SELECT batches.job_number,
            sum(batches.size) AS total,
            sum(bit_count((batches.sent)::"bit")) AS sent,
            sum(bit_count(((batches.in_flight)::"bit" & (~ (batches.sent)::"bit")))) AS in_flight,
            sum(batches.failed) AS failed,
            sum(batches.unknown) AS unknown,
            sum(batches.suppressed) AS suppressed
           FROM public.batches
          GROUP BY batches.job_number
        )
 SELECT j.number AS job_number,
    COALESCE(s.total, (0)::bigint) AS total,
    (COALESCE(s.sent, (0)::numeric))::bigint AS sent,
    (COALESCE(s.in_flight, (0)::numeric))::bigint AS in_flight,
    COALESCE(s.failed, (0)::bigint) AS failed,
    COALESCE(s.unknown, (0)::bigint) AS unknown,
    COALESCE(s.suppressed, (0)::bigint) AS suppressed,
    (COALESCE(((((((s.total)::numeric - s.sent) - s.in_flight) - (s.failed)::numeric) - (s.unknown)::numeric) - (s.suppressed)::numeric), (0)::numeric))::bigint AS unsettled,
        CASE j.state
            WHEN 'cancelled'::text THEN 'cancelled'::text
            WHEN 'finished'::text THEN 'expired'::text
            ELSE 'pending'::text
        END AS unsettled_state
   FROM (public.jobs j
     LEFT JOIN sums s ON ((s.job_number = j.number)));

COMMENT ON VIEW public.job_counts IS 'A job''s recipients by state, as sums over its batches.';

CREATE SEQUENCE public.job_event_ids
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.job_events (
    id bigint DEFAULT nextval('public.job_event_ids'::regclass) NOT NULL,
    job_number bigint NOT NULL,
    event text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    actor_kind text,
    actor text,
    details json DEFAULT '{}'::json NOT NULL,
    CONSTRAINT job_events_actor_kind_check CHECK ((actor_kind = ANY (ARRAY['login'::text, 'api_key'::text]))),
    CONSTRAINT job_events_check CHECK (((actor IS NULL) = (actor_kind IS NULL))),
    CONSTRAINT job_events_event_check CHECK ((event = ANY (ARRAY['paused'::text, 'resumed'::text, 'cancelled'::text, 'retried'::text, 'settled'::text, 'expires_soon'::text, 'expired'::text, 'incomplete'::text, 'reopened'::text])))
)
PARTITION BY RANGE (job_number);

COMMENT ON TABLE public.job_events IS 'What was done to a job and by whom, and what it could not do; the outbox of events about it.';

COMMENT ON COLUMN public.job_events.actor IS 'A login name or the name of an API key; NULL where Tocsin itself acted.';

CREATE TABLE public.job_ids (
    id uuid NOT NULL,
    job_number bigint NOT NULL,
    digest bytea NOT NULL
);

COMMENT ON TABLE public.job_ids IS 'The caller''s idempotency key, unique for as long as it is kept; maps to the job number.';

CREATE SEQUENCE public.job_number_low_bits
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    MAXVALUE 4095
    CACHE 1
    CYCLE;

CREATE TABLE public.job_parts (
    job_number bigint NOT NULL,
    number integer NOT NULL,
    digest bytea NOT NULL,
    recipients integer NOT NULL,
    duplicates integer NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT job_parts_duplicates_check CHECK ((duplicates >= 0)),
    CONSTRAINT job_parts_number_check CHECK ((number >= 1)),
    CONSTRAINT job_parts_recipients_check CHECK (((recipients >= 0) AND (recipients <= 1000)))
)
PARTITION BY RANGE (job_number);

COMMENT ON COLUMN public.job_parts.duplicates IS 'Second entries of an address in this part, dropped and counted.';

CREATE TABLE public.ledger_origin (
    only_row boolean DEFAULT true NOT NULL,
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    timeline integer NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    swept_at timestamp with time zone,
    CONSTRAINT ledger_origin_only_row_check CHECK (only_row)
);

COMMENT ON TABLE public.ledger_origin IS 'The server, database and timeline that this ledger lives in, and when the sweeper was last here.';

COMMENT ON COLUMN public.ledger_origin.swept_at IS 'When the sweeper last came to its end, to a few seconds.';

CREATE TABLE public.mailbox_connections (
    mailbox_id bigint NOT NULL,
    slot integer NOT NULL,
    worker_id uuid NOT NULL,
    taken_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT mailbox_connections_slot_check CHECK ((slot >= 1))
);

COMMENT ON TABLE public.mailbox_connections IS 'Open connections to a limited mailbox over the fleet, one row each.';

CREATE TABLE public.mailboxes (
    id bigint NOT NULL,
    host text NOT NULL,
    login text NOT NULL,
    connections integer,
    messages_per_minute integer,
    recipients_per_day integer,
    next_message_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    parked_until timestamp with time zone,
    parked_reason text,
    tenant_id bigint,
    kept_for_urgent_until timestamp with time zone,
    kept_for_urgent_reason text,
    connection_wanted_by uuid,
    connection_wanted_rank smallint,
    learned_connections integer,
    connections_lowered_at timestamp with time zone,
    connections_raised_at timestamp with time zone,
    connections_failures smallint DEFAULT 0 NOT NULL,
    connections_reason text,
    learned_per_minute double precision,
    per_minute_before double precision,
    per_minute_lowered_at timestamp with time zone,
    per_minute_raised_at timestamp with time zone,
    per_minute_steps smallint DEFAULT 0 NOT NULL,
    per_minute_counted_by text,
    per_minute_needed_at timestamp with time zone,
    per_minute_reason text,
    learned_recipients_per_message integer,
    learned_recipients_at timestamp with time zone,
    learned_pipelining text,
    learned_pipelining_at timestamp with time zone,
    CONSTRAINT mailboxes_connections_check CHECK ((connections >= 1)),
    CONSTRAINT mailboxes_connections_failures_check CHECK ((connections_failures >= 0)),
    CONSTRAINT mailboxes_learned_connections CHECK (((learned_connections IS NULL) = (connections_lowered_at IS NULL))),
    CONSTRAINT mailboxes_learned_connections_check CHECK ((learned_connections >= 1)),
    CONSTRAINT mailboxes_learned_per_minute CHECK (((learned_per_minute IS NULL) = (per_minute_lowered_at IS NULL))),
    CONSTRAINT mailboxes_learned_per_minute_check CHECK ((learned_per_minute > (0)::double precision)),
    CONSTRAINT mailboxes_learned_pipelining CHECK (((learned_pipelining IS NULL) = (learned_pipelining_at IS NULL))),
    CONSTRAINT mailboxes_learned_pipelining_check CHECK ((learned_pipelining = ANY (ARRAY['envelope'::text, 'off'::text]))),
    CONSTRAINT mailboxes_learned_recipients CHECK (((learned_recipients_per_message IS NULL) = (learned_recipients_at IS NULL))),
    CONSTRAINT mailboxes_learned_recipients_per_message_check CHECK ((learned_recipients_per_message >= 1)),
    CONSTRAINT mailboxes_messages_per_minute_check CHECK ((messages_per_minute >= 1)),
    CONSTRAINT mailboxes_per_minute_counted_by_check CHECK ((per_minute_counted_by = ANY (ARRAY['minute'::text, 'second'::text]))),
    CONSTRAINT mailboxes_per_minute_steps_check CHECK ((per_minute_steps >= 0)),
    CONSTRAINT mailboxes_recipients_per_day_check CHECK ((recipients_per_day >= 1))
);

COMMENT ON TABLE public.mailboxes IS 'What a provider limits: one login at one host, shared by all profiles that use it.';

COMMENT ON COLUMN public.mailboxes.next_message_at IS 'The next free slot of messages_per_minute; reserving moves it on.';

COMMENT ON COLUMN public.mailboxes.kept_for_urgent_until IS 'Until then what is left of its 24 hours is kept for urgent jobs.';

COMMENT ON COLUMN public.mailboxes.connection_wanted_by IS 'The profile that last found no free connection, until it has one or one was closed for it.';

COMMENT ON COLUMN public.mailboxes.learned_connections IS 'As many as the server was seen to take; the limit in force is the lesser of this and connections.';

COMMENT ON COLUMN public.mailboxes.connections_failures IS 'How often the server has refused one more; the wait before the next try doubles with each.';

COMMENT ON COLUMN public.mailboxes.learned_per_minute IS 'The rate that the server was seen to take; the limit in force is the lesser of this and messages_per_minute.';

COMMENT ON COLUMN public.mailboxes.per_minute_before IS 'The rate in force before it was lowered last; NULL where there was none.';

COMMENT ON COLUMN public.mailboxes.per_minute_steps IS 'How often the rate was raised since it was lowered; the steps grow.';

COMMENT ON COLUMN public.mailboxes.per_minute_counted_by IS 'Whether the server''s words were about minutes or seconds.';

COMMENT ON COLUMN public.mailboxes.per_minute_needed_at IS 'When the rate was last more than a little used.';

COMMENT ON COLUMN public.mailboxes.learned_recipients_per_message IS 'As many as the server takes in one transaction; believed for a day.';

COMMENT ON COLUMN public.mailboxes.learned_pipelining IS 'What the server did not break on; believed for a day.';

CREATE TABLE public.tenants (
    id bigint NOT NULL,
    name text NOT NULL,
    external_recipients_per_day integer,
    parked_until timestamp with time zone,
    parked_reason text,
    kept_for_urgent_until timestamp with time zone,
    kept_for_urgent_reason text,
    CONSTRAINT tenants_external_recipients_per_day_check CHECK ((external_recipients_per_day >= 1))
);

COMMENT ON TABLE public.tenants IS 'Organisations at a provider, which limits all their mailboxes together.';

COMMENT ON COLUMN public.tenants.external_recipients_per_day IS 'Recipients outside of InternalDomains in 24 hours; NULL means no limit.';

CREATE VIEW public.mailbox_rests AS
 SELECT m.id AS mailbox_id,
    NULLIF(GREATEST(m.parked_until, t.parked_until, now()), now()) AS parked_until,
        CASE
            WHEN (t.parked_until > GREATEST(m.parked_until, now())) THEN t.parked_reason
            WHEN (m.parked_until > now()) THEN m.parked_reason
            ELSE NULL::text
        END AS parked_reason,
    NULLIF(GREATEST(m.kept_for_urgent_until, t.kept_for_urgent_until, now()), now()) AS kept_for_urgent_until,
        CASE
            WHEN (t.kept_for_urgent_until > GREATEST(m.kept_for_urgent_until, now())) THEN t.kept_for_urgent_reason
            WHEN (m.kept_for_urgent_until > now()) THEN m.kept_for_urgent_reason
            ELSE NULL::text
        END AS kept_for_urgent_reason
   FROM (public.mailboxes m
     LEFT JOIN public.tenants t ON ((t.id = m.tenant_id)));

COMMENT ON VIEW public.mailbox_rests IS 'Whether a mailbox rests now, or only urgent jobs may use it, for its own sake or its tenant''s; until when, and why.';

CREATE TABLE public.mailbox_traffic (
    mailbox_id bigint NOT NULL,
    bucket timestamp with time zone NOT NULL,
    worker_id uuid NOT NULL,
    messages integer NOT NULL,
    recipients integer NOT NULL,
    connections integer NOT NULL,
    busy_seconds real NOT NULL
);

COMMENT ON TABLE public.mailbox_traffic IS 'What a mailbox''s provider accepted in the last minutes: a row for 5 seconds and a worker, none where it is idle.';

COMMENT ON COLUMN public.mailbox_traffic.connections IS 'The most that this worker had open.';

COMMENT ON COLUMN public.mailbox_traffic.busy_seconds IS 'How long of the 5 seconds this worker was at it.';

CREATE TABLE public.mailbox_usage (
    mailbox_id bigint NOT NULL,
    minute timestamp with time zone NOT NULL,
    recipients integer NOT NULL,
    urgent integer DEFAULT 0 NOT NULL
);

COMMENT ON TABLE public.mailbox_usage IS 'Recipients tried a minute, for the rolling 24 hours of recipients_per_day.';

COMMENT ON COLUMN public.mailbox_usage.urgent IS 'Those of them that belong to urgent jobs.';

CREATE TABLE public.tenant_usage (
    tenant_id bigint NOT NULL,
    minute timestamp with time zone NOT NULL,
    recipients integer NOT NULL,
    urgent integer DEFAULT 0 NOT NULL
);

COMMENT ON TABLE public.tenant_usage IS 'External recipients tried a minute, for the rolling 24 hours of external_recipients_per_day.';

COMMENT ON COLUMN public.tenant_usage.urgent IS 'Those of them that belong to urgent jobs.';

CREATE VIEW public.mailbox_budgets AS
 SELECT m.id,
    m.host,
    m.login,
    LEAST(m.connections, m.learned_connections) AS connections,
    m.connections AS connections_set,
    m.learned_connections,
    m.connections_lowered_at,
    m.connections_reason,
    (( SELECT count(*) AS count
           FROM public.mailbox_connections c
          WHERE (c.mailbox_id = m.id)))::integer AS connections_open,
    LEAST((m.messages_per_minute)::double precision, m.learned_per_minute) AS messages_per_minute,
    m.messages_per_minute AS per_minute_set,
    m.learned_per_minute,
    m.per_minute_lowered_at,
    m.per_minute_reason,
        CASE
            WHEN (m.learned_recipients_at > (now() - '1 day'::interval)) THEN m.learned_recipients_per_message
            ELSE NULL::integer
        END AS recipients_per_message,
        CASE
            WHEN (m.learned_pipelining_at > (now() - '1 day'::interval)) THEN m.learned_pipelining
            ELSE NULL::text
        END AS learned_pipelining,
    m.recipients_per_day,
    d.recipients AS recipients_of_the_day,
    d.urgent AS urgent_of_the_day,
    public.urgent_share(m.recipients_per_day) AS share_for_urgent,
    d.frees_at,
    t.name AS tenant,
    t.external_recipients_per_day AS tenant_recipients_per_day,
    e.recipients AS tenant_recipients_of_the_day,
    e.urgent AS tenant_urgent_of_the_day,
    public.urgent_share(t.external_recipients_per_day) AS tenant_share_for_urgent,
    e.frees_at AS tenant_frees_at,
    r.parked_until,
    r.parked_reason,
    r.kept_for_urgent_until,
    r.kept_for_urgent_reason,
    l.messages AS messages_last_minute,
    l.recipients AS recipients_last_minute
   FROM (((((public.mailboxes m
     JOIN public.mailbox_rests r ON ((r.mailbox_id = m.id)))
     LEFT JOIN public.tenants t ON ((t.id = m.tenant_id)))
     CROSS JOIN LATERAL ( SELECT (COALESCE(sum(mailbox_usage.recipients), (0)::bigint))::integer AS recipients,
            (COALESCE(sum(mailbox_usage.urgent), (0)::bigint))::integer AS urgent,
            (min(mailbox_usage.minute) + '24:01:00'::interval) AS frees_at
           FROM public.mailbox_usage
          WHERE ((mailbox_usage.mailbox_id = m.id) AND (mailbox_usage.minute > (now() - '24:01:00'::interval)))) d)
     CROSS JOIN LATERAL ( SELECT (COALESCE(sum(tenant_usage.recipients), (0)::bigint))::integer AS recipients,
            (COALESCE(sum(tenant_usage.urgent), (0)::bigint))::integer AS urgent,
            (min(tenant_usage.minute) + '24:01:00'::interval) AS frees_at
           FROM public.tenant_usage
          WHERE ((tenant_usage.tenant_id = m.tenant_id) AND (tenant_usage.minute > (now() - '24:01:00'::interval)))) e)
     CROSS JOIN LATERAL ( SELECT (COALESCE(sum(mailbox_traffic.messages), (0)::bigint))::integer AS messages,
            (COALESCE(sum(mailbox_traffic.recipients), (0)::bigint))::integer AS recipients
           FROM public.mailbox_traffic
          WHERE ((mailbox_traffic.mailbox_id = m.id) AND (mailbox_traffic.bucket > (now() - '00:01:00'::interval)))) l);

COMMENT ON VIEW public.mailbox_budgets IS 'What a mailbox may use, what it has used, and what holds it up; limits as they are in force, NULL where there is none.';

COMMENT ON COLUMN public.mailbox_budgets.frees_at IS 'When the oldest recipients of the last 24 hours count no more; NULL where none count.';

ALTER TABLE public.mailboxes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.mailboxes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.master_keys (
    id text NOT NULL,
    opened_at timestamp with time zone DEFAULT now() NOT NULL,
    promoted_at timestamp with time zone,
    retired_at timestamp with time zone
);

COMMENT ON TABLE public.master_keys IS 'Which master keys there are and were, by id; the keys themselves lie outside the database.';

CREATE TABLE public.message_contents (
    job_number bigint NOT NULL,
    rendered boolean NOT NULL,
    subject text NOT NULL,
    text_body text,
    html_body text,
    from_name text,
    reply_to text,
    visible_to text,
    headers json NOT NULL,
    data json NOT NULL
)
PARTITION BY RANGE (job_number);

COMMENT ON TABLE public.message_contents IS 'Once a job. shared: as rendered at intake. individual: the pinned sources and shared data.';

CREATE TABLE public.oauth_profile_defaults (
    provider text NOT NULL,
    title text NOT NULL,
    grant_type text NOT NULL,
    token_endpoint text,
    scope text,
    wants_tenant boolean NOT NULL,
    guid_ids boolean NOT NULL,
    sending_defaults text NOT NULL,
    grants text[] NOT NULL,
    delegated_scope text,
    source text NOT NULL
);

COMMENT ON TABLE public.oauth_profile_defaults IS 'Templates for new OAuth profiles; {tenantId} is filled in at run time.';

COMMENT ON COLUMN public.oauth_profile_defaults.grants IS 'What the provider''s token endpoint knows; the usual one is grant_type.';

COMMENT ON COLUMN public.oauth_profile_defaults.delegated_scope IS 'The scope of a token that acts for a person who signed in; scope is that of an application''s own.';

CREATE VIEW public.oauth_profile_facts AS
 SELECT id,
    name,
    provider,
    grant_type,
    token_endpoint,
    scope,
    tenant_id,
    client_id,
    ca_pem,
    client_auth,
    device_endpoint,
    certificate_pem,
    key_id,
    delegation_client_id,
    token_file,
    secret_set_at,
    secret_expires_at,
    private_key_set_at,
    certificate_expires_at,
    created_at,
    updated_at
   FROM public.oauth_profiles;

COMMENT ON VIEW public.oauth_profile_facts IS 'OAuth profiles without their sealed secrets.';

CREATE TABLE public.sending_profiles (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    provider text NOT NULL,
    host text NOT NULL,
    port integer NOT NULL,
    tls text NOT NULL,
    auth text NOT NULL,
    from_address text NOT NULL,
    oauth_profile_id uuid,
    login text NOT NULL,
    sealed_password bytea,
    ca_pem text,
    allow_plaintext_auth boolean DEFAULT false NOT NULL,
    batch_size integer NOT NULL,
    copies text DEFAULT 'reference'::text NOT NULL,
    mailbox_id bigint NOT NULL,
    paused_at timestamp with time zone,
    paused_reason text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    pause_cause text,
    probe_at timestamp with time zone,
    probes integer DEFAULT 0 NOT NULL,
    resumed_at timestamp with time zone,
    pipelining text DEFAULT 'envelope'::text NOT NULL,
    paused_by_kind text,
    paused_by text,
    CONSTRAINT sending_profiles_auth_check CHECK ((auth = ANY (ARRAY['oauth'::text, 'basic'::text, 'none'::text]))),
    CONSTRAINT sending_profiles_batch_size_check CHECK (((batch_size >= 1) AND (batch_size <= 1000))),
    CONSTRAINT sending_profiles_check CHECK (((auth <> 'oauth'::text) OR (oauth_profile_id IS NOT NULL))),
    CONSTRAINT sending_profiles_check1 CHECK (((paused_at IS NULL) = (paused_reason IS NULL))),
    CONSTRAINT sending_profiles_copies_check CHECK ((copies = ANY (ARRAY['reference'::text, 'full'::text]))),
    CONSTRAINT sending_profiles_pause_cause_check CHECK ((pause_cause = ANY (ARRAY['by_hand'::text, 'credentials'::text, 'sender'::text]))),
    CONSTRAINT sending_profiles_pause_has_cause CHECK (((paused_at IS NULL) = (pause_cause IS NULL))),
    CONSTRAINT sending_profiles_paused_by_hand CHECK (((paused_by IS NULL) OR (NOT (pause_cause IS DISTINCT FROM 'by_hand'::text)))),
    CONSTRAINT sending_profiles_paused_by_kind_check CHECK ((paused_by_kind = ANY (ARRAY['login'::text, 'api_key'::text]))),
    CONSTRAINT sending_profiles_paused_by_kind_known CHECK (((paused_by IS NULL) = (paused_by_kind IS NULL))),
    CONSTRAINT sending_profiles_pipelining_check CHECK ((pipelining = ANY (ARRAY['full'::text, 'envelope'::text, 'off'::text]))),
    CONSTRAINT sending_profiles_port_check CHECK (((port >= 1) AND (port <= 65535))),
    CONSTRAINT sending_profiles_probe_of_pause CHECK (((probe_at IS NULL) OR (paused_at IS NOT NULL))),
    CONSTRAINT sending_profiles_probes_check CHECK ((probes >= 0)),
    CONSTRAINT sending_profiles_tls_check CHECK ((tls = ANY (ARRAY['starttls'::text, 'implicit'::text, 'none'::text])))
);

COMMENT ON COLUMN public.sending_profiles.login IS 'Whom we log in as; the From address unless said otherwise.';

COMMENT ON COLUMN public.sending_profiles.copies IS 'reference: content is made again from the pinned sources; full: every byte is kept.';

COMMENT ON COLUMN public.sending_profiles.probe_at IS 'When a worker tries by itself whether the credentials are taken again.';

COMMENT ON COLUMN public.sending_profiles.probes IS 'How often in a row the credentials were refused; the wait for the next probe grows with it.';

COMMENT ON COLUMN public.sending_profiles.pipelining IS 'How many commands may be under way at once; a server that breaks on it gets fewer (mailboxes.learned_pipelining).';

COMMENT ON COLUMN public.sending_profiles.paused_by IS 'A login name or the name of an API key; NULL where Tocsin itself paused it, or a release from before this column.';

CREATE VIEW public.sendable_jobs AS
 SELECT number,
    profile_id,
    rank
   FROM public.jobs j
  WHERE ((state = ANY (ARRAY['receiving'::text, 'running'::text])) AND ((send_after IS NULL) OR (send_after <= now())) AND (expires_at > now()) AND ( SELECT public.sending_is_allowed() AS sending_is_allowed) AND ((rank = 0) OR (NOT (profile_id IN ( SELECT p.id
           FROM (public.mailbox_rests r
             JOIN public.sending_profiles p ON ((p.mailbox_id = r.mailbox_id)))
          WHERE (r.kept_for_urgent_until IS NOT NULL))))) AND (EXISTS ( SELECT
           FROM public.batches b
          WHERE ((b.job_number = j.number) AND (b.state = 'due'::text) AND (b.due_at <= now()))
         OFFSET 0)));

COMMENT ON VIEW public.sendable_jobs IS 'Jobs of which a batch may be sent now, as far as the job is concerned.';

CREATE VIEW public.profile_backlogs AS
 SELECT o.profile_id,
    count(*) FILTER (WHERE (o.state = 'receiving'::text)) AS receiving_jobs,
    count(*) FILTER (WHERE (o.state = 'running'::text)) AS running_jobs,
    count(*) FILTER (WHERE (o.state = 'paused'::text)) AS paused_jobs,
    (COALESCE(sum(b.due) FILTER (WHERE o.may_be_sent), (0)::numeric))::bigint AS due_batches,
    (COALESCE((sum((b.due + b.later)) - COALESCE(sum(b.due) FILTER (WHERE o.may_be_sent), (0)::numeric)), (0)::numeric))::bigint AS waiting_batches,
    (COALESCE(sum(b.leased), (0)::numeric))::bigint AS leased_batches,
    (COALESCE(sum(b.due_unsettled) FILTER (WHERE o.may_be_sent), (0)::numeric))::bigint AS due_recipients,
    (COALESCE(sum(b.leased_unsettled), (0)::numeric))::bigint AS leased_recipients,
    (COALESCE((sum((b.due_unsettled + b.later_unsettled)) - COALESCE(sum(b.due_unsettled) FILTER (WHERE o.may_be_sent), (0)::numeric)), (0)::numeric))::bigint AS waiting_recipients,
    (COALESCE(sum((b.due_unsettled + b.later_unsettled)) FILTER (WHERE (o.state = 'paused'::text)), (0)::numeric))::bigint AS paused_recipients,
    (COALESCE(sum(((((((b.size)::numeric - b.sent) - b.in_flight) - (b.failed)::numeric) - (b.unknown)::numeric) - (b.suppressed)::numeric)), (0)::numeric))::bigint AS pending,
    (COALESCE(sum(b.in_flight), (0)::numeric))::bigint AS in_flight,
    (COALESCE(sum(b.sent), (0)::numeric))::bigint AS sent,
    (COALESCE(sum(b.failed), (0)::numeric))::bigint AS failed,
    (COALESCE(sum(b.unknown), (0)::numeric))::bigint AS unknown,
    (COALESCE(sum(b.suppressed), (0)::numeric))::bigint AS suppressed
   FROM (( SELECT j.number,
            j.profile_id,
            j.state,
            COALESCE(((p.paused_at IS NULL) AND (r.parked_until IS NULL) AND (EXISTS ( SELECT
                   FROM public.sendable_jobs s
                  WHERE (s.number = j.number)
                 OFFSET 0))), false) AS may_be_sent
           FROM ((public.jobs j
             LEFT JOIN public.sending_profiles p ON ((p.id = j.profile_id)))
             LEFT JOIN public.mailbox_rests r ON ((r.mailbox_id = p.mailbox_id)))
          WHERE (j.state = ANY (ARRAY['receiving'::text, 'running'::text, 'paused'::text]))) o
     CROSS JOIN LATERAL ( SELECT count(*) FILTER (WHERE c.is_due) AS due,
            count(*) FILTER (WHERE c.is_later) AS later,
            count(*) FILTER (WHERE c.is_leased) AS leased,
            COALESCE(sum(c.unsettled) FILTER (WHERE c.is_due), (0)::numeric) AS due_unsettled,
            COALESCE(sum(c.unsettled) FILTER (WHERE c.is_later), (0)::numeric) AS later_unsettled,
            COALESCE(sum(c.unsettled) FILTER (WHERE c.is_leased), (0)::numeric) AS leased_unsettled,
            sum(c.size) AS size,
            sum(c.sent) AS sent,
            sum(c.in_flight) AS in_flight,
            sum(c.failed) AS failed,
            sum(c.unknown) AS unknown,
            sum(c.suppressed) AS suppressed
           FROM ( SELECT ((a.state = 'due'::text) AND (a.due_at <= now())) AS is_due,
                    ((a.state = 'due'::text) AND (a.due_at > now())) AS is_later,
                    (a.state = 'leased'::text) AS is_leased,
                    ((((a.size - bit_count((a.sent)::"bit")) - a.failed) - a.unknown) - a.suppressed) AS unsettled,
                    a.size,
                    bit_count((a.sent)::"bit") AS sent,
                    bit_count(((a.in_flight)::"bit" & (~ (a.sent)::"bit"))) AS in_flight,
                    a.failed,
                    a.unknown,
                    a.suppressed
                   FROM public.batches a
                  WHERE (a.job_number = o.number)) c) b)
  GROUP BY o.profile_id;

COMMENT ON VIEW public.profile_backlogs IS 'What lies in the ledger for each profile that has open jobs: their batches and recipients. Due is what may be sent now: nothing holds up its job, its profile, its mailbox or all sending. Unsettled recipients are due, leased (in work) or waiting; paused ones are among those that wait. It reads all batches of open jobs.';

CREATE TABLE public.recipient_exceptions (
    job_number bigint NOT NULL,
    ordinal integer NOT NULL,
    batch_number integer NOT NULL,
    state text NOT NULL,
    attempts smallint NOT NULL,
    due_at timestamp with time zone,
    phase text,
    code smallint,
    enhanced_code text,
    reply text,
    reason text NOT NULL,
    alone boolean DEFAULT false NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT recipient_exceptions_attempts_check CHECK ((attempts >= 0)),
    CONSTRAINT recipient_exceptions_check CHECK (((state = 'pending'::text) = (due_at IS NOT NULL))),
    CONSTRAINT recipient_exceptions_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'failed'::text, 'unknown'::text, 'suppressed'::text])))
)
PARTITION BY RANGE (job_number);

COMMENT ON TABLE public.recipient_exceptions IS 'Only recipients whose way was not straight: deferred (pending), failed, unknown, suppressed.';

COMMENT ON COLUMN public.recipient_exceptions.alone IS 'Sent in a transaction of its own next time: the server blamed somebody of its batch without saying whom.';

CREATE TABLE public.recipients (
    job_number bigint NOT NULL,
    ordinal integer NOT NULL,
    batch_number integer NOT NULL,
    address text NOT NULL,
    name text,
    data json
)
PARTITION BY RANGE (job_number);

CREATE VIEW public.recipient_states AS
 SELECT r.job_number,
    r.ordinal,
    r.batch_number,
    r.address,
    r.name,
        CASE
            WHEN (get_bit((b.sent)::"bit", (r.ordinal - b.first_ordinal)) = 1) THEN 'sent'::text
            WHEN (e.state = ANY (ARRAY['failed'::text, 'unknown'::text, 'suppressed'::text])) THEN e.state
            WHEN (get_bit((b.in_flight)::"bit", (r.ordinal - b.first_ordinal)) = 1) THEN 'in_flight'::text
            WHEN (j.state = 'cancelled'::text) THEN 'cancelled'::text
            WHEN (j.state = 'finished'::text) THEN 'expired'::text
            ELSE 'pending'::text
        END AS state,
    e.attempts AS exception_attempts,
    e.due_at,
    e.phase,
    e.code,
    e.enhanced_code,
    e.reply,
    e.reason
   FROM (((public.recipients r
     JOIN public.jobs j ON ((j.number = r.job_number)))
     JOIN public.batches b ON (((b.job_number = r.job_number) AND (b.number = r.batch_number))))
     LEFT JOIN public.recipient_exceptions e ON (((e.job_number = r.job_number) AND (e.ordinal = r.ordinal))));

COMMENT ON VIEW public.recipient_states IS 'The state of every recipient. A recorded acceptance wins over everything.';

CREATE TABLE public.refresh_tokens (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    oauth_profile_id uuid NOT NULL,
    subject text NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    sealed_token bytea NOT NULL,
    account text,
    signed_in_at timestamp with time zone DEFAULT now() NOT NULL,
    renewed_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone
);

COMMENT ON TABLE public.refresh_tokens IS 'What lets us ask for tokens in a person''s name: one a mailbox, replaced at every use.';

COMMENT ON COLUMN public.refresh_tokens.subject IS 'The mailbox that it is for.';

COMMENT ON COLUMN public.refresh_tokens.version IS 'Grows with every replacement; compare-and-swap works on it.';

COMMENT ON COLUMN public.refresh_tokens.account IS 'Who signed in, as the provider told.';

COMMENT ON COLUMN public.refresh_tokens.expires_at IS 'NULL where the provider does not tell.';

CREATE TABLE public.removed_suppressions (
    suppression_id bigint NOT NULL,
    address text NOT NULL,
    source text,
    reason text NOT NULL,
    job_number bigint,
    actor text,
    created_at timestamp with time zone NOT NULL,
    removed_by_kind text NOT NULL,
    removed_by text NOT NULL,
    removed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT removed_suppressions_removed_by_kind_check CHECK ((removed_by_kind = ANY (ARRAY['login'::text, 'api_key'::text])))
);

COMMENT ON TABLE public.removed_suppressions IS 'Suppressions that a person took back: who, and when. Nobody asks it who may be written to.';

CREATE TABLE public.schema_migrations (
    name text NOT NULL,
    digest text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.sending_halts (
    id bigint NOT NULL,
    cause text NOT NULL,
    reason text NOT NULL,
    actor_kind text,
    actor text,
    halted_at timestamp with time zone DEFAULT now() NOT NULL,
    lifted_by_kind text,
    lifted_by text,
    lifted_at timestamp with time zone,
    CONSTRAINT sending_halts_actor_kind_check CHECK ((actor_kind = ANY (ARRAY['login'::text, 'api_key'::text]))),
    CONSTRAINT sending_halts_cause_check CHECK ((cause = ANY (ARRAY['by_hand'::text, 'restored'::text]))),
    CONSTRAINT sending_halts_check CHECK (((actor IS NULL) = (actor_kind IS NULL))),
    CONSTRAINT sending_halts_check1 CHECK (((cause <> 'by_hand'::text) OR (actor IS NOT NULL))),
    CONSTRAINT sending_halts_check2 CHECK (((lifted_by IS NULL) = (lifted_by_kind IS NULL))),
    CONSTRAINT sending_halts_check3 CHECK (((lifted_by IS NULL) = (lifted_at IS NULL))),
    CONSTRAINT sending_halts_lifted_by_kind_check CHECK ((lifted_by_kind = ANY (ARRAY['login'::text, 'api_key'::text])))
);

COMMENT ON TABLE public.sending_halts IS 'Times in which nothing was sent, by nobody: why, and who let it go on.';

CREATE VIEW public.sending_halt AS
 SELECT cause,
    reason,
    actor_kind,
    actor,
    halted_at
   FROM public.sending_halts
  WHERE (lifted_at IS NULL);

COMMENT ON VIEW public.sending_halt IS 'The halt in force: one row or none.';

ALTER TABLE public.sending_halts ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.sending_halts_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.sending_profile_defaults (
    provider text NOT NULL,
    title text NOT NULL,
    host text,
    port integer NOT NULL,
    tls text NOT NULL,
    auth text NOT NULL,
    batch_size integer NOT NULL,
    connections integer,
    messages_per_minute integer,
    recipients_per_day integer,
    source text NOT NULL,
    CONSTRAINT sending_profile_defaults_auth_check CHECK ((auth = ANY (ARRAY['oauth'::text, 'basic'::text, 'none'::text]))),
    CONSTRAINT sending_profile_defaults_batch_size_check CHECK (((batch_size >= 1) AND (batch_size <= 1000))),
    CONSTRAINT sending_profile_defaults_connections_check CHECK ((connections >= 1)),
    CONSTRAINT sending_profile_defaults_messages_per_minute_check CHECK ((messages_per_minute >= 1)),
    CONSTRAINT sending_profile_defaults_recipients_per_day_check CHECK ((recipients_per_day >= 1)),
    CONSTRAINT sending_profile_defaults_tls_check CHECK ((tls = ANY (ARRAY['starttls'::text, 'implicit'::text, 'none'::text])))
);

COMMENT ON TABLE public.sending_profile_defaults IS 'Templates for new sending profiles; NULL limits mean no limit.';

CREATE TABLE public.settings (
    key text NOT NULL,
    value text,
    sealed_value bytea,
    bound_to text,
    row_id uuid DEFAULT gen_random_uuid() NOT NULL,
    read_only boolean DEFAULT false NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT settings_check CHECK (((value IS NULL) OR (sealed_value IS NULL)))
);

COMMENT ON TABLE public.settings IS 'Operators'' settings of the whole installation. Secrets stand sealed in sealed_value.';

COMMENT ON COLUMN public.settings.bound_to IS 'EmailPassword: the one mail host that it may be sent to.';

COMMENT ON COLUMN public.settings.row_id IS 'Authenticated with the sealed value, so that it opens in this row only.';

CREATE TABLE public.suppressions (
    id bigint NOT NULL,
    address text NOT NULL,
    source text,
    reason text NOT NULL,
    code smallint,
    enhanced_code text,
    reply text,
    job_number bigint,
    actor_kind text,
    actor text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT suppressions_actor_kind_check CHECK ((actor_kind = ANY (ARRAY['login'::text, 'api_key'::text]))),
    CONSTRAINT suppressions_check CHECK (((actor IS NULL) = (actor_kind IS NULL)))
);

COMMENT ON TABLE public.suppressions IS 'Addresses that are not written to any more, but by urgent jobs.';

COMMENT ON COLUMN public.suppressions.source IS 'Whose jobs it holds for: a source, '''' for jobs without one, NULL for all.';

COMMENT ON COLUMN public.suppressions.job_number IS 'The job whose recipient was refused; NULL where a person added it.';

ALTER TABLE public.suppressions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.suppressions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE public.tenants ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.tenants_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.wakeups (
    profile_id uuid NOT NULL,
    rank smallint NOT NULL,
    under_way integer DEFAULT 0 NOT NULL,
    sent_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT wakeups_rank_check CHECK (((rank >= 0) AND (rank <= 2))),
    CONSTRAINT wakeups_under_way_check CHECK ((under_way >= 0))
);

COMMENT ON TABLE public.wakeups IS 'How many wake-ups are on the queue and not yet taken, so that further ones are spared.';

CREATE TABLE public.workers (
    id uuid NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    role text NOT NULL,
    lease_seconds double precision NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    heartbeat_at timestamp with time zone DEFAULT now() NOT NULL,
    key_ids text[] DEFAULT '{}'::text[] NOT NULL,
    schema_version integer,
    CONSTRAINT workers_schema_version_check CHECK ((schema_version > 0))
);

COMMENT ON TABLE public.workers IS 'One row a worker process. All its leases lapse when heartbeat_at is lease_seconds old.';

COMMENT ON COLUMN public.workers.key_ids IS 'The master keys that this process has open, the one that it seals with first.';

COMMENT ON COLUMN public.workers.schema_version IS 'Number of the newest migration that the worker''s release has. NULL: a release from before this column.';

ALTER TABLE ONLY public.access_tokens
    ADD CONSTRAINT access_tokens_id_key UNIQUE (id);

ALTER TABLE ONLY public.access_tokens
    ADD CONSTRAINT access_tokens_pkey PRIMARY KEY (oauth_profile_id, subject);

ALTER TABLE ONLY public.attachments
    ADD CONSTRAINT attachments_pkey PRIMARY KEY (job_number, "position");

ALTER TABLE ONLY public.batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (job_number, number);

ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.delivery_attempts
    ADD CONSTRAINT delivery_attempts_pkey PRIMARY KEY (job_number, ordinal, lease_epoch);

ALTER TABLE ONLY public.email_copies
    ADD CONSTRAINT email_copies_pkey PRIMARY KEY (job_number, batch_number, lease_epoch, first_index);

ALTER TABLE ONLY public.email_template_versions
    ADD CONSTRAINT email_template_versions_pkey PRIMARY KEY (template_id, version);

ALTER TABLE ONLY public.email_templates
    ADD CONSTRAINT email_templates_name_key UNIQUE (name);

ALTER TABLE ONLY public.email_templates
    ADD CONSTRAINT email_templates_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.ended_jobs
    ADD CONSTRAINT ended_jobs_pkey PRIMARY KEY (job_number);

ALTER TABLE ONLY public.job_events
    ADD CONSTRAINT job_events_pkey PRIMARY KEY (job_number, id);

ALTER TABLE ONLY public.job_ids
    ADD CONSTRAINT job_ids_job_number_key UNIQUE (job_number);

ALTER TABLE ONLY public.job_ids
    ADD CONSTRAINT job_ids_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.job_parts
    ADD CONSTRAINT job_parts_pkey PRIMARY KEY (job_number, number);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.ledger_origin
    ADD CONSTRAINT ledger_origin_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY public.mailbox_connections
    ADD CONSTRAINT mailbox_connections_pkey PRIMARY KEY (mailbox_id, slot);

ALTER TABLE ONLY public.mailbox_traffic
    ADD CONSTRAINT mailbox_traffic_pkey PRIMARY KEY (mailbox_id, bucket, worker_id);

ALTER TABLE ONLY public.mailbox_usage
    ADD CONSTRAINT mailbox_usage_pkey PRIMARY KEY (mailbox_id, minute);

ALTER TABLE ONLY public.mailboxes
    ADD CONSTRAINT mailboxes_host_login_key UNIQUE (host, login);

ALTER TABLE ONLY public.mailboxes
    ADD CONSTRAINT mailboxes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.master_keys
    ADD CONSTRAINT master_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.message_contents
    ADD CONSTRAINT message_contents_pkey PRIMARY KEY (job_number);

ALTER TABLE ONLY public.oauth_profile_defaults
    ADD CONSTRAINT oauth_profile_defaults_pkey PRIMARY KEY (provider);

ALTER TABLE ONLY public.oauth_profiles
    ADD CONSTRAINT oauth_profiles_name_key UNIQUE (name);

ALTER TABLE ONLY public.oauth_profiles
    ADD CONSTRAINT oauth_profiles_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.recipient_exceptions
    ADD CONSTRAINT recipient_exceptions_pkey PRIMARY KEY (job_number, ordinal);

ALTER TABLE ONLY public.recipients
    ADD CONSTRAINT recipients_pkey PRIMARY KEY (job_number, ordinal);

ALTER TABLE ONLY public.refresh_tokens
    ADD CONSTRAINT refresh_tokens_oauth_profile_id_subject_key UNIQUE (oauth_profile_id, subject);

ALTER TABLE ONLY public.refresh_tokens
    ADD CONSTRAINT refresh_tokens_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.removed_suppressions
    ADD CONSTRAINT removed_suppressions_pkey PRIMARY KEY (suppression_id);

ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.sending_halts
    ADD CONSTRAINT sending_halts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.sending_profile_defaults
    ADD CONSTRAINT sending_profile_defaults_pkey PRIMARY KEY (provider);

ALTER TABLE ONLY public.sending_profiles
    ADD CONSTRAINT sending_profiles_name_key UNIQUE (name);

ALTER TABLE ONLY public.sending_profiles
    ADD CONSTRAINT sending_profiles_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.settings
    ADD CONSTRAINT settings_pkey PRIMARY KEY (key);

ALTER TABLE ONLY public.suppressions
    ADD CONSTRAINT suppressions_address_source_key UNIQUE NULLS NOT DISTINCT (address, source);

ALTER TABLE ONLY public.suppressions
    ADD CONSTRAINT suppressions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.tenant_usage
    ADD CONSTRAINT tenant_usage_pkey PRIMARY KEY (tenant_id, minute);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_name_key UNIQUE (name);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.wakeups
    ADD CONSTRAINT wakeups_pkey PRIMARY KEY (profile_id, rank);

ALTER TABLE ONLY public.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (id);

CREATE INDEX batches_due ON ONLY public.batches USING btree (job_number, due_at, number) WHERE (state = 'due'::text);

CREATE INDEX batches_leased ON ONLY public.batches USING btree (leased_by) WHERE (state = 'leased'::text);

CREATE INDEX batches_open ON ONLY public.batches USING btree (job_number) WHERE (state <> 'done'::text);

CREATE INDEX batches_unknown ON ONLY public.batches USING btree (job_number) WHERE (unknown > 0);

CREATE UNIQUE INDEX dead_letters_once ON public.dead_letters USING btree (digest, code) WHERE (state = 'kept'::text);

COMMENT ON INDEX public.dead_letters_once IS 'A redelivered message becomes one dead letter, not several.';

CREATE INDEX email_copies_id ON ONLY public.email_copies USING btree (id);

CREATE INDEX jobs_open ON ONLY public.jobs USING btree (profile_id, rank, hashint8(number)) WHERE (state = ANY (ARRAY['receiving'::text, 'running'::text, 'paused'::text]));

CREATE INDEX mailboxes_kept_for_urgent ON public.mailboxes USING btree (id) WHERE (kept_for_urgent_until IS NOT NULL);

CREATE INDEX mailboxes_tenant ON public.mailboxes USING btree (tenant_id) WHERE (tenant_id IS NOT NULL);

CREATE INDEX recipient_exceptions_batch ON ONLY public.recipient_exceptions USING btree (job_number, batch_number);

CREATE UNIQUE INDEX sending_halts_in_force ON public.sending_halts USING btree ((true)) WHERE (lifted_at IS NULL);

CREATE INDEX sending_profiles_mailbox ON public.sending_profiles USING btree (mailbox_id);

CREATE TRIGGER email_templates_version AFTER INSERT OR UPDATE OF version ON public.email_templates FOR EACH ROW EXECUTE FUNCTION public.keep_template_version();

CREATE TRIGGER jobs_ended AFTER UPDATE OF state ON public.jobs FOR EACH ROW WHEN (((new.state = ANY (ARRAY['cancelled'::text, 'finished'::text])) AND (new.state <> old.state))) EXECUTE FUNCTION public.note_ended_job();

CREATE TRIGGER sending_profiles_pause BEFORE INSERT OR UPDATE OF paused_at ON public.sending_profiles FOR EACH ROW EXECUTE FUNCTION public.complete_pause();

CREATE TRIGGER settings_read_only BEFORE DELETE OR UPDATE ON public.settings FOR EACH ROW WHEN (old.read_only) EXECUTE FUNCTION public.refuse_change_of_read_only_setting();

ALTER TABLE ONLY public.access_tokens
    ADD CONSTRAINT access_tokens_oauth_profile_id_fkey FOREIGN KEY (oauth_profile_id) REFERENCES public.oauth_profiles(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.email_template_versions
    ADD CONSTRAINT email_template_versions_template_id_fkey FOREIGN KEY (template_id) REFERENCES public.email_templates(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.mailbox_connections
    ADD CONSTRAINT mailbox_connections_mailbox_id_fkey FOREIGN KEY (mailbox_id) REFERENCES public.mailboxes(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.mailbox_traffic
    ADD CONSTRAINT mailbox_traffic_mailbox_id_fkey FOREIGN KEY (mailbox_id) REFERENCES public.mailboxes(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.mailbox_usage
    ADD CONSTRAINT mailbox_usage_mailbox_id_fkey FOREIGN KEY (mailbox_id) REFERENCES public.mailboxes(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.mailboxes
    ADD CONSTRAINT mailboxes_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.oauth_profile_defaults
    ADD CONSTRAINT oauth_profile_defaults_sending_defaults_fkey FOREIGN KEY (sending_defaults) REFERENCES public.sending_profile_defaults(provider);

ALTER TABLE ONLY public.oauth_profiles
    ADD CONSTRAINT oauth_profiles_provider_fkey FOREIGN KEY (provider) REFERENCES public.oauth_profile_defaults(provider);

ALTER TABLE ONLY public.refresh_tokens
    ADD CONSTRAINT refresh_tokens_oauth_profile_id_fkey FOREIGN KEY (oauth_profile_id) REFERENCES public.oauth_profiles(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.sending_profiles
    ADD CONSTRAINT sending_profiles_mailbox_id_fkey FOREIGN KEY (mailbox_id) REFERENCES public.mailboxes(id);

ALTER TABLE ONLY public.sending_profiles
    ADD CONSTRAINT sending_profiles_oauth_profile_id_fkey FOREIGN KEY (oauth_profile_id) REFERENCES public.oauth_profiles(id);

ALTER TABLE ONLY public.sending_profiles
    ADD CONSTRAINT sending_profiles_provider_fkey FOREIGN KEY (provider) REFERENCES public.sending_profile_defaults(provider);

ALTER TABLE ONLY public.tenant_usage
    ADD CONSTRAINT tenant_usage_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.wakeups
    ADD CONSTRAINT wakeups_profile_id_fkey FOREIGN KEY (profile_id) REFERENCES public.sending_profiles(id) ON DELETE CASCADE;
