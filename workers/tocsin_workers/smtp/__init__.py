"""Everything that speaks SMTP, and what it promises when things break.

A session is opened once (`connection.open_session`: connect, greet, secure, authenticate) and then carries
many messages one behind the other (`session.Session.deliver`), pipelined as RFC 2920 allows and the profile wants.
The protocol is apart from the waiting: `replies`, `envelope`, `dialogue`, `series` and `body` do no I/O, `wire` does
it, in the transport's callbacks.

What happens on a failure:

- A transaction never raises for what a server says or for a connection that breaks. It gives a
  `dialogue.Transaction` that holds every reply that came, and a `Cut` that says where and why it ended early.
- `Transaction.body_written` tells the two sorts of loss apart: False, and the message cannot have been
  accepted, because its final dot was never written; True without a final reply, and nobody can know.
- Whatever happens, also on cancellation, each message that was begun is told its transaction, once.
- With the next envelope written behind a body (`pipelining.Pipelining.FULL`), a lost connection leaves the body in
  doubt as ever, and the next message untouched. A server that breaks on it is remembered (`PipeliningRecord`).
- A cut, a cancellation or an exception of a delivery always closes the connection, because replies could no longer
  be matched to commands.
- Opening a session raises one of these, each an `SmtpError` with `phase`, `reply` and `scope`:

      SmtpError                   (tocsin_schema.errors)
      └── SmtpSessionError        the session with a mail server cannot be opened or has ended
          ├── SmtpConnectError    no connection, or the server did not greet us as it should
          ├── SmtpTlsError        no TLS, or a certificate that is not to be trusted
          ├── SmtpAuthError       the server refused our credentials, or we refuse to send them
          ├── SmtpDisconnected    the connection was lost
          ├── SmtpDeadline        the server took too long
          └── SmtpProtocolError   the server said something that is not SMTP

- No secret stands in any of their texts, also where the server echoes it.
"""
