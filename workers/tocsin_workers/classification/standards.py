"""Rows for what the standards define and many servers say, looked at after every provider's own."""

from __future__ import annotations

from tocsin_schema.errors import Scope
from tocsin_workers.classification.rules import (
    AFTER_RCPT,
    AN_ADDRESS,
    AT_AUTH,
    AT_RCPT,
    SENDING,
    Kind,
    Rule,
    code,
    text,
)

_RECIPIENTS = AT_RCPT | AFTER_RCPT
_SPAM = (
    rf"(?<![\w@.+-])((anti-?)?spam\w*|junk|UCE|phish\w*|virus|malware)\b{AN_ADDRESS}"
    r"|unsolicited|(black|block|deny)[- ]?list|\[BL\d+\]|reputation|content (rejected|filter)"
)

TEXT_RULES = (
    # Postfix keeps what it has against client and sender until RCPT. Only where the reply begins with it: a server
    # that has asked the recipient's own (`… said: …`) quotes what that one has against somebody else.
    Rule(
        "sender address rejected",
        Kind.SENDER_REFUSED,
        "observed at Postfix (553 5.7.1, 550 5.1.0, 450 4.1.8) and Exim",
        scope=Scope.SENDER,
        text=text(r"^(<[^>]*>: )?sender (address rejected|verify failed)"),
        phases=SENDING,
        meaning="The server does not take the From address, at all or from this login.",
    ),
    Rule(
        "too many recipients",
        Kind.TOO_MANY_RECIPIENTS,
        "RFC 5321 section 4.5.3.1.10 (452, and 552 at RCPT where the text says recipients)",
        scope=Scope.RECIPIENT,
        text=text(r"too many (recipients|rcpts?)|recipients? (limit|count) (per|for) (message|transaction)"),
        phases=_RECIPIENTS,
    ),
    Rule(
        "too many connections",
        Kind.TOO_MANY_CONNECTIONS,
        "KUMO shaping.toml; observed at many servers",
        scope=Scope.MAILBOX,
        text=text(r"too many (concurrent |simultaneous )?(smtp )?(connections|sessions)"),
    ),
    Rule(
        "rate limited",
        Kind.TOO_FAST,
        "KUMO shaping.toml (throttle patterns); Yahoo 421 4.7.0 [TSS04]",
        scope=Scope.MAILBOX,
        text=text(r"rate limit|sending rate|too many (messages|emails)|too fast|throttl|\[TSS\d+\]"),
        codes=frozenset({421, 432, 450, 451, 452, 454}),
    ),
    Rule(
        "relaying denied",
        Kind.NOT_AUTHENTICATED,
        "observed at Postfix (554 5.7.1) and Exchange (550 5.7.54)",
        scope=Scope.MAILBOX,
        text=text(r"relay(ing)? (access )?(is )?(denied|not permitted)|unable to relay"),
        phases=SENDING,
        meaning="The server takes mail for foreign domains only after a log-in.",
        advice="Set --auth oauth or --auth basic for the profile.",
    ),
    Rule(
        "greylisted",
        Kind.TRANSIENT,
        "RFC 6647",
        scope=Scope.RECIPIENT,
        text=text(r"gr[ae]y-?list"),
        codes=frozenset({450, 451, 452}),
        phases=AT_RCPT,
    ),
    Rule(
        "client rejected",
        Kind.SENDER_REFUSED,
        "observed at Postfix (554 5.7.1, 450 4.7.25, 504 5.5.2)",
        scope=Scope.MAILBOX,
        text=text(r"^(<[^>]*>: )?(client host|helo command) rejected|^service unavailable; client host"),
        phases=SENDING,
        meaning="The server refuses our network address or its name, whoever the recipient is.",
        advice="Have the address taken off the list that the reply names, or send through another server.",
    ),
    Rule(
        "authentication required",
        Kind.NOT_AUTHENTICATED,
        "observed (503 and 550 where RFC 4954 section 6 has 530)",
        scope=Scope.MAILBOX,
        text=text(
            r"^(error: )?(smtp )?authentication (is )?required|\bAUTH (command )?(first|required)"
            r"|server requires authentication|(must|need to) authenticate (first|before)"
        ),
        phases=SENDING,
        meaning="The server wants a log-in.",
        advice="Set --auth oauth or --auth basic for the profile.",
    ),
    Rule(
        "spam verdict",
        Kind.REFUSED,
        "RFC 3463 section 3.8 (x.7.1); Yahoo 553 5.7.1 [BLxx]; observed at many servers",
        scope=Scope.MESSAGE,
        text=text(_SPAM),
        phases=AFTER_RCPT,
        meaning="The server takes the message for spam.",
    ),
    # Some say "no such address" of whom they do not like to hear from: such an address is not dead.
    Rule(
        "address refused by policy",
        Kind.REFUSED,
        "RFC 3463 section 3.8 (x.7.1 would be right); observed with 5.1.0, 5.1.1 and 5.2.1",
        scope=Scope.RECIPIENT,
        text=text(
            rf"{_SPAM}|\bpolic(y|ies)\b|blocked|access denied|restricted|prohibited"
            r"|not (allowed|permitted|authori[sz]ed)"
        ),
        enhanced=code(r"[45].1.([0-6]|10)|[45].2.[01]"),
        phases=AT_RCPT,
    ),
    Rule(
        "mailbox full",
        Kind.REFUSED,
        "RFC 3463 section 3.3 (x.2.2)",
        scope=Scope.RECIPIENT,
        text=text(r"mailbox (is )?full|over ?quota|quota exceeded"),
        phases=_RECIPIENTS,
        meaning="The recipient's mailbox is full.",
    ),
    Rule(
        "mailbox disabled",
        Kind.REFUSED,
        "RFC 3463 section 3.3 (x.2.1, which Google uses for a throttle too)",
        scope=Scope.RECIPIENT,
        text=text(r"^(?!.*temporar).*\b(disabled|inactive|deactivated|suspended|closed|discontinued|no longer)\b"),
        enhanced=code(r"5.2.1"),
        phases=_RECIPIENTS,
        dead_address=True,
    ),
    Rule(
        "user unknown",
        Kind.REFUSED,
        "RFC 5321 section 4.2.3 (550); observed at servers without enhanced codes, or that look only after the dot",
        scope=Scope.RECIPIENT,
        text=text(
            r"user unknown|unknown (user|recipient|mailbox)|no such (user|recipient|mailbox)"
            r"|\b(user|mailbox) (does not exist|doesn't exist|not found)|no mailbox (here )?by that name"
        ),
        phases=_RECIPIENTS,
        dead_address=True,
    ),
    Rule(
        "recipient refused after the dot",
        Kind.REFUSED,
        "RFC 5321 section 4.2.3 (550 mailbox unavailable); observed at servers that look only after the dot",
        scope=Scope.RECIPIENT,
        text=text(r"recipient (address )?rejected|mailbox unavailable"),
        phases=AFTER_RCPT,
    ),
)

ENHANCED_RULES = (
    Rule(
        "x.5.3",
        Kind.TOO_MANY_RECIPIENTS,
        "RFC 3463 section 3.6; MS-NDR 4.5.3; G-ERR 452 4.5.3",
        scope=Scope.RECIPIENT,
        enhanced=code(r"[45].5.3"),
        phases=_RECIPIENTS,
    ),
    Rule(
        "x.1.1",
        Kind.REFUSED,
        "RFC 3463 section 3.2 (1-3, 6), RFC 7505 (10)",
        scope=Scope.RECIPIENT,
        enhanced=code(r"[45].1.([1236]|10)"),
        phases=_RECIPIENTS,
        dead_address=True,
    ),
    Rule(
        "x.2.1",
        Kind.REFUSED,
        "RFC 3463 section 3.3 (mailbox disabled, or anything else); KUMO (x.7.17, x.7.18: owner changed)",
        scope=Scope.RECIPIENT,
        enhanced=code(r"[45].2.1|[45].7.1[78]"),
        phases=_RECIPIENTS,
    ),
    Rule(
        "x.1.7",
        Kind.SENDER_REFUSED,
        "RFC 3463 section 3.2 (7, 8); RFC 7505 (x.7.27: the sender's domain takes no mail)",
        scope=Scope.SENDER,
        enhanced=code(r"[45].1.[78]|[45].7.27"),
    ),
    Rule(
        "x.2.3",
        Kind.REFUSED,
        "RFC 3463 sections 3.3 and 3.4 (message too big, for the mailbox or the system)",
        scope=Scope.MESSAGE,
        enhanced=code(r"[45].2.3|[45].3.4"),
        phases=SENDING,
        meaning="The message is too big.",
    ),
    Rule(
        "x.2.2",
        Kind.REFUSED,
        "RFC 3463 section 3.3 (mailbox full)",
        scope=Scope.RECIPIENT,
        enhanced=code(r"[45].2.2"),
        phases=_RECIPIENTS,
        meaning="The recipient's mailbox is full.",
    ),
    Rule(
        "x.1.0",
        Kind.REFUSED,
        "RFC 3463 sections 3.2 and 3.3 (what is left of address and mailbox)",
        scope=Scope.RECIPIENT,
        enhanced=code(r"[45].[12].\d+"),
        phases=_RECIPIENTS,
    ),
    Rule(
        "x.6",
        Kind.REFUSED,
        "RFC 3463 section 3.7; RFC 6531 section 3.5 (x.6.7: needs SMTPUTF8)",
        enhanced=code(r"[45].6.\d+"),
        phases=SENDING,
    ),
    Rule(
        "sender authentication",
        Kind.SENDER_REFUSED,
        "RFC 7372 (x.7.20-26: DKIM, SPF, reverse DNS)",
        scope=Scope.SENDER,
        enhanced=code(r"[45].7.2[0-6]"),
        phases=SENDING,
        meaning="The sender's domain fails SPF, DKIM or DMARC.",
        advice="Publish SPF, DKIM and DMARC for the From domain, and let this provider sign for it.",
    ),
    Rule(
        "authentication refused",
        Kind.NOT_AUTHENTICATED,
        "RFC 4954 section 6 (5.7.8, 5.7.9, 5.7.11, 5.5.6); RFC 5248 (525 5.7.13 account disabled)",
        scope=Scope.MAILBOX,
        enhanced=code(r"5.7.([89]|1[0-3])|5.5.6"),
        meaning="The server refuses the log-in.",
        advice="Check --user, and the password or token that goes with it.",
    ),
    Rule(
        "530",
        Kind.NOT_AUTHENTICATED,
        "RFC 4954 section 6 (530 5.7.0 at any command, 534, 535, 538)",
        scope=Scope.MAILBOX,
        codes=frozenset({530, 534, 535, 538}),
        advice="Check --auth, --user, and the password or token that goes with it.",
    ),
    Rule(
        "authentication temporarily",
        Kind.TRANSIENT,
        "RFC 4954 section 6 (454 4.7.0)",
        scope=Scope.SESSION,
        codes=frozenset({454}),
        phases=AT_AUTH,
    ),
)
