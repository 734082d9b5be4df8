-- What every slice asks of the ledger again and again, as functions: a session plans each of their statements once.
--
-- Sessions prepare no statements, since PgBouncer does not carry them in transaction mode; so the planning of a statement
-- over partitioned tables cost more than carrying it out, and grew with every month that is kept. A plan that is made
-- once, in an empty ledger maybe, has to be good for tables of any size: always by an index, and, where OFFSET 0 stands,
-- one look-up after the other.

DROP INDEX jobs_open;
-- The hash makes a ring of a profile's jobs, in which those that came at the same time do not stand together.
CREATE INDEX jobs_open ON jobs (profile_id, rank, hashint8(number)) WHERE state IN ('receiving', 'running', 'paused');

CREATE FUNCTION may_be_marked(batch batches, worker uuid, epoch bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT batch.state = 'leased' AND batch.leased_by = worker AND batch.lease_epoch = epoch
$$;
COMMENT ON FUNCTION may_be_marked IS 'Whether the batch is still the worker''s, by the claim of that epoch.';

CREATE FUNCTION has_due_work(of_profile uuid) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM sendable_jobs s WHERE s.profile_id = of_profile);
END $$;
COMMENT ON FUNCTION has_due_work IS 'Whether the profile has a batch that is due now.';

CREATE FUNCTION claim_due_batches(of_profile uuid, by_worker uuid, most integer)
RETURNS TABLE (job_number bigint, number integer, first_ordinal integer, size smallint, lease_epoch bigint, sent text,
               rank smallint)
LANGUAGE plpgsql AS $$
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
COMMENT ON FUNCTION claim_due_batches IS 'Leases due batches of a profile: best rank first, jobs of one rank in turns.';

CREATE FUNCTION claimed_recipients(job_numbers bigint[], first_ordinals integer[], sizes integer[])
RETURNS TABLE (job_number bigint, batch_number integer, ordinal integer, address text, name text, data json)
LANGUAGE plpgsql STABLE AS $$
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
COMMENT ON FUNCTION claimed_recipients IS 'The recipients of batches, in the order of these and of their ordinals.';

CREATE FUNCTION claimed_exceptions(job_numbers bigint[], batch_numbers integer[])
RETURNS TABLE (job_number bigint, ordinal integer, batch_number integer, state text, attempts smallint,
               due_in_seconds float8, alone boolean)
LANGUAGE plpgsql STABLE AS $$
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
COMMENT ON FUNCTION claimed_exceptions IS 'What is known of those recipients of batches whose way was not straight.';

CREATE FUNCTION claimed_suppressions(job_numbers bigint[], first_ordinals integer[], sizes integer[])
RETURNS TABLE (job_number bigint, ordinal integer, since timestamptz, reason text)
LANGUAGE plpgsql STABLE AS $$
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
COMMENT ON FUNCTION claimed_suppressions IS 'Which recipients of batches are suppressed, for the source of their job or for all.';

CREATE FUNCTION write_batches(by_worker uuid, job_numbers bigint[], numbers integer[], epochs bigint[], sents varbit[],
                              settleds varbit[], marks varbit[], mark_epochs bigint[], jobs_to_mark bigint[])
RETURNS TABLE (job_number bigint, number integer, counts_exceptions boolean, is_marked boolean, is_outranked boolean)
LANGUAGE plpgsql AS $$
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
COMMENT ON FUNCTION write_batches IS
    'Writes what became of recipients and marks others in flight. What the provider accepted is true, whoever owns the batch by now; marks are cleared only by who made them, and given only to who owns the batch, by the epoch of the claim, while its job and profile may be sent for. A message that is marked again and has ended since is not in flight. Outranked is a batch whose profile has mail of a better rank that is due.';

CREATE FUNCTION release_leased_batches(by_worker uuid, job_numbers bigint[], numbers integer[], epochs bigint[],
                                       due_in_seconds float8[])
RETURNS TABLE (job_number bigint, state text)
LANGUAGE plpgsql AS $$
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
COMMENT ON FUNCTION release_leased_batches IS 'Gives leases back, and tells what state each batch has then.';

CREATE FUNCTION finish_jobs(job_numbers bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql AS $$
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
COMMENT ON FUNCTION finish_jobs IS
    'Finishes the jobs of which no batch is left; a paused one too, if nothing more can come of it. Called after the batches are committed: then at least the last of several workers sees them all done.';

CREATE FUNCTION note_wakeup(of_profile uuid, of_rank smallint, most integer, patience_seconds float8) RETURNS boolean
LANGUAGE plpgsql AS $$
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
COMMENT ON FUNCTION note_wakeup IS
    'Whether a wake-up is to be sent: a few on the queue are enough, however many slices want successors, and those under way for too long are taken for lost.';

CREATE FUNCTION take_wakeups(of_profile uuid, of_rank smallint, taken integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE wakeups SET under_way = greatest(under_way - taken, 0)
    WHERE profile_id = of_profile AND rank = of_rank AND under_way > 0;
END $$;
COMMENT ON FUNCTION take_wakeups IS 'Notes that a sender has wake-ups in hand: others may be sent.';

-- How their statements are planned: once, and by indexes.
DO $$
DECLARE
    hot regprocedure;
BEGIN
    FOR hot IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = current_schema()::regnamespace
          AND proname IN ('has_due_work', 'claim_due_batches', 'claimed_recipients', 'claimed_exceptions',
                          'claimed_suppressions', 'write_batches', 'release_leased_batches', 'finish_jobs')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', hot);
        EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', hot);
        EXECUTE format('ALTER FUNCTION %s SET enable_hashjoin = off', hot);
        EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', hot);
        EXECUTE format('ALTER FUNCTION %s SET jit = off', hot);
    END LOOP;
END $$;
