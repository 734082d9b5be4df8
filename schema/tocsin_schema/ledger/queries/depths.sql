-- name: ledger_depths
-- due: what pods may be scaled on; neither a halt, a pause, a resting mailbox nor a later time holds it up.
SELECT coalesce(sum(due_batches), 0)::bigint AS due,
       coalesce(sum(waiting_batches), 0)::bigint AS waiting,
       coalesce(sum(leased_batches), 0)::bigint AS leased,
       (SELECT count(*) FROM dead_letters WHERE state = 'kept') AS dead_letters,
       coalesce(sum(receiving_jobs + running_jobs + paused_jobs), 0)::bigint AS open_jobs
FROM profile_backlogs;

-- name: backlog
-- All of it in one pass over the open jobs.
SELECT coalesce(sum(due_batches), 0)::bigint AS due_batches,
       coalesce(sum(waiting_batches), 0)::bigint AS waiting_batches,
       coalesce(sum(leased_batches), 0)::bigint AS leased_batches,
       coalesce(sum(receiving_jobs), 0)::bigint AS receiving_jobs,
       coalesce(sum(running_jobs), 0)::bigint AS running_jobs,
       coalesce(sum(paused_jobs), 0)::bigint AS paused_jobs,
       coalesce(sum(pending), 0)::bigint AS pending,
       coalesce(sum(in_flight), 0)::bigint AS in_flight,
       coalesce(sum(sent), 0)::bigint AS sent,
       coalesce(sum(failed), 0)::bigint AS failed,
       coalesce(sum(unknown), 0)::bigint AS unknown,
       coalesce(sum(suppressed), 0)::bigint AS suppressed
FROM profile_backlogs;

-- name: unknown_of_ended_jobs
-- By an index that has only these. Of older jobs nobody knows any more.
SELECT coalesce(sum(b.unknown), 0)::bigint
FROM batches b
JOIN jobs j ON j.number = b.job_number
WHERE b.unknown > 0 AND b.job_number >= job_number_at(now() - make_interval(days => %(days)s))
  AND j.state IN ('cancelled', 'finished');
