"""Why something was refused, and how to mend it: pure functions, for `tocsin profile check` and for senders alike.

causes        the closed set of causes, and what a verdict is
verdicts      from an error, a reply or a token's claims to a verdict
connecting    the same for a session that cannot be opened
microsoft     the same for what only Microsoft 365 does
google        and for Google
naming        the fix of an error with the names of the profile that it stopped
certificate   what a server's certificate says
"""
