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
- The mail server refuses the token: it is thrown away by compare-and-swap on its version, once for the fleet. A
  token that was only just obtained is not: the sender pauses the profile instead.

No secret and no token stands in a log line, an error or a repr.
"""
