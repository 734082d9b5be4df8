"""Access tokens: how the fleet gets them, shares them, and does without for a while.

A sender calls `access.TokenAccess.get`: process memory, then the ledger's row, then the token broker, and where no
broker answers, the same single flight by itself. What can go wrong, and what it costs:

- The token endpoint is away, slow, throttled or talks nonsense: while the token lives nobody notices. After that
  every asker gets a `TokenError` that says when to come again, and the endpoint sees one request a wait, which
  doubles. Every request has a hard total deadline; no thread outlives it.
- The endpoint refuses us (a wrong secret, an unknown tenant): a permanent `TokenError` that names the fix. It is
  kept in the row, so that a thousand askers do not ask again, and forgotten when the profile changes.
- Who holds the refresh lease dies: the lease lapses after 12 s and the next asker goes on. The lease is longer
  than the deadline of the request, so that no key is ever asked for twice at a time.
- The mail server refuses the token: its version is noted by compare-and-swap, once for the fleet, and another is
  asked for; whom the server does not refuse goes on with the old one meanwhile. A token that was only just obtained
  is not replaced: the sender pauses the profile instead.
- Whoever asks with a refresh token goes, or Postgres does: the request goes on by itself, and its lease holds, until
  the refresh token that came is stored.

No secret and no token stands in a log line, an error or a repr.
"""
