"""Rows for Google Workspace and Gmail (smtp.gmail.com, smtp-relay.gmail.com)."""

from __future__ import annotations

from tocsin_schema.errors import Scope
from tocsin_workers.classification.rules import AFTER_RCPT, AT_AUTH, AT_RCPT, SENDING, Kind, Rule, code, text

TEXT_RULES = (
    # Throttles and quotas.
    Rule(
        "google relay limit of the customer",
        Kind.TENANT_QUOTA,
        "G-ERR (550 5.7.1); G-RELAY",
        scope=Scope.MAILBOX,
        text=text(r"daily smtp relay (sending )?limit exceeded for customer"),
        meaning="The organisation has used up its relay limit of the last 24 hours.",
    ),
    Rule(
        "google peak relay limit",
        Kind.TOO_FAST,
        "G-ERR (450 4.2.1)",
        scope=Scope.MAILBOX,
        text=text(r"peak smtp relay limit exceeded"),
    ),
    Rule(
        "google daily limit",
        Kind.QUOTA,
        "G-ERR (550 5.4.5 and 550 5.7.1 Email quota exceeded)",
        scope=Scope.MAILBOX,
        text=text(
            r"daily (user )?sending (limit|quota)|daily smtp relay (sending )?limit exceeded for user"
            r"|email quota exceeded"
        ),
        meaning="The account has used up what it may send in 24 hours.",
    ),
    Rule(
        "google too many logins",
        Kind.TOO_FAST,
        "observed (454 4.7.0)",
        scope=Scope.MAILBOX,
        text=text(r"too many login attempts"),
        meaning="Too many log-ins in a short time: connections should be kept longer.",
    ),
    Rule(
        "google unusual rate",
        Kind.TOO_FAST,
        "G-ERR (421 4.7.0)",
        scope=Scope.MAILBOX,
        text=text(r"unusual rate of"),
    ),
    Rule(
        "google busy",
        Kind.TRANSIENT,
        "G-ERR (421 4.3.0 and 4.4.5, 454 4.7.0)",
        scope=Scope.SESSION,
        text=text(r"server busy|temporary system problem"),
        enhanced=code(r"4.3.0|4.4.5|4.7.0"),
    ),
    # One transaction's shape.
    Rule(
        "google domains in one transaction",
        Kind.TOO_MANY_RECIPIENTS,
        "G-ERR (451 4.3.0)",
        scope=Scope.RECIPIENT,
        text=text(r"multiple destination domains per transaction"),
        phases=AT_RCPT | AFTER_RCPT,
    ),
    Rule(
        "google domain policy size",
        Kind.TOO_MANY_RECIPIENTS,
        "G-ERR (452 4.5.3)",
        scope=Scope.RECIPIENT,
        text=text(r"domain policy size per transaction"),
        phases=AT_RCPT | AFTER_RCPT,
    ),
    # Recipients. 5.2.1 is a throttle or a dead account, told apart by its text only.
    Rule(
        "google recipient receives too fast",
        Kind.TRANSIENT,
        "G-ERR (450 4.2.1 and 550 5.2.1)",
        scope=Scope.RECIPIENT,
        text=text(r"receiving (mail|email|messages) (at a rate|too quickly)"),
        meaning="This recipient is getting more mail than Google lets through just now.",
    ),
    Rule(
        "google account disabled",
        Kind.REFUSED,
        "G-ERR (550 5.2.1)",
        scope=Scope.RECIPIENT,
        text=text(r"account that you tried to reach is (disabled|inactive)"),
        dead_address=True,
    ),
    Rule(
        "google no such user",
        Kind.REFUSED,
        "G-ERR (550 5.1.1)",
        scope=Scope.RECIPIENT,
        text=text(r"account that you tried to reach does not exist"),
        dead_address=True,
    ),
    Rule(
        "google recipient over quota",
        Kind.REFUSED,
        "G-ERR (452 4.2.2 and 552 5.2.2)",
        scope=Scope.RECIPIENT,
        text=text(r"account that you tried to reach is over quota|recipient'?s inbox is out of storage"),
        meaning="The recipient's mailbox is full.",
    ),
    # Who may send, and the log-in.
    Rule(
        "google relay credentials",
        Kind.NOT_AUTHENTICATED,
        "G-ERR (550 5.7.1); G-RELAY",
        scope=Scope.MAILBOX,
        text=text(r"invalid credentials for relay"),
        meaning="The relay knows neither our network address nor a log-in.",
        advice="Register the address in the Admin console (Gmail, Routing, SMTP relay service), or let the profile "
        "log in.",
    ),
    Rule(
        "google sending denied",
        Kind.SENDER_REFUSED,
        "G-ERR (550 5.7.0)",
        scope=Scope.MAILBOX,
        text=text(r"mail (relay|sending) denied"),
        meaning="Google lets this account or network send nothing.",
        advice="An administrator has to look at the account in the Admin console.",
    ),
    Rule(
        "google app password",
        Kind.NOT_AUTHENTICATED,
        "G-ERR (534 5.7.9, 535 5.7.1)",
        scope=Scope.MAILBOX,
        text=text(r"application-specific password|log ?in (with|via) your web browser"),
        meaning="Google takes no ordinary password here.",
        advice="Let the profile log in by OAuth, or give it an app password.",
    ),
    Rule(
        "google unauthenticated domain",
        Kind.SENDER_REFUSED,
        "G-ERR (550 5.7.26)",
        scope=Scope.SENDER,
        text=text(r"unauthenticated email from|sender is unauthenticated"),
        meaning="The sender's domain fails SPF, DKIM or DMARC.",
        advice="Publish SPF, DKIM and DMARC for the From domain, and let this provider sign for it.",
    ),
    Rule(
        "google sender authentication",
        Kind.SENDER_REFUSED,
        "G-ERR (5.7.25 to 5.7.32; Microsoft says 5.7.30 of a log-in by password)",
        scope=Scope.SENDER,
        text=text(r"\b(SPF|DKIM|DMARC)\b"),
        enhanced=code(r"5.7.(2[5-9]|3[0-2])"),
        phases=SENDING,
        meaning="The sender's domain fails SPF, DKIM or DMARC.",
        advice="Publish SPF, DKIM and DMARC for the From domain, and let this provider sign for it.",
    ),
    # Messages.
    Rule(
        "google blocked attachment",
        Kind.REFUSED,
        "G-ERR (552 5.7.0)",
        scope=Scope.MESSAGE,
        text=text(r"content presents a potential security issue"),
        meaning="An attachment of this type is not let through.",
    ),
)

ENHANCED_RULES = (
    Rule("google 5.4.5", Kind.QUOTA, "G-ERR (550 5.4.5)", scope=Scope.MAILBOX, enhanced=code(r"5.4.5")),
    Rule(
        "google bad xoauth2 data",
        Kind.NOT_AUTHENTICATED,
        "G-ERR (555 5.5.2)",
        scope=Scope.MAILBOX,
        enhanced=code(r"5.5.2"),
        phases=AT_AUTH,
        meaning="The server could not read the authentication response.",
        advice="The profile must log in as the mailbox's full address.",
    ),
)
