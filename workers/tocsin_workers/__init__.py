"""The work: intake, token broker, sender and sweeper.

What holds when something breaks:

- A part on the queue is acknowledged only after its transaction in the ledger has committed. Taken in twice, it
  changes nothing.
- A wake-up may be lost or doubled: what is due stands in the ledger, and the sweeper wakes whoever was forgotten.
- A body is written only while the lease holds and after its recipients are marked in flight. What was accepted is
  committed as it comes. A killed worker therefore puts at most one window of messages a connection in doubt; the
  job's `on_unknown` says whether they are sent again or held.
- With Postgres away nothing is acknowledged and nothing is forgotten: outcomes wait in memory, work resumes by itself.
"""
