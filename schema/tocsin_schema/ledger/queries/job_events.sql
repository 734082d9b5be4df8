-- name: record_event
INSERT INTO job_events (job_number, event, actor_kind, actor, details)
VALUES (%(job_number)s, %(event)s, %(actor_kind)s, %(actor)s, %(details)s)
RETURNING id;

-- name: change_details
-- Of what is done in several transactions: each says in its own how far it has come.
UPDATE job_events SET details = %(details)s WHERE job_number = %(job_number)s AND id = %(id)s;

-- name: newest_events
SELECT id, event, at, actor_kind, actor, details
FROM job_events
WHERE job_number = %(job_number)s
ORDER BY id DESC
LIMIT %(limit)s;
