-- name: note_wakeup
SELECT note_wakeup(%(profile_id)s, %(rank)s::smallint, %(most)s, %(patience_seconds)s);

-- name: take_wakeups
SELECT take_wakeups(%(profile_id)s, %(rank)s::smallint, %(taken)s);
