"""Rows for Microsoft 365 (Exchange Online, smtp.office365.com) and outlook.com."""

from __future__ import annotations

from tocsin_schema.errors import Scope
from tocsin_workers.classification.rules import AFTER_RCPT, AT_AUTH, AT_RCPT, SENDING, Kind, Rule, code, text

_MANY_CAUSES = (
    "Check, in this order: the token's scope (https://outlook.office365.com/.default), New-ServicePrincipal "
    "with the object id of the Enterprise application, Add-MailboxPermission for it, and that SMTP AUTH is "
    "on for the mailbox."
)
_SEND_AS = (
    "Give the login Send As permission on the From address (Add-RecipientPermission), or send from another address."
)
_UNBLOCK = "An administrator has to find the cause and unblock the sender in the Microsoft 365 Defender portal."

TEXT_RULES = (
    # Throttles and quotas.
    Rule(
        "microsoft connections",
        Kind.TOO_MANY_CONNECTIONS,
        "MS-THR (432 4.3.2, mostly in reply to DATA)",
        scope=Scope.MAILBOX,
        text=text(r"concurrent connections? limit exceeded|sender thread limit exceeded"),
        meaning="More than three connections at once send for this mailbox.",
    ),
    Rule(
        "microsoft rate",
        Kind.TOO_FAST,
        "MS-THR; observed with 421 and 432 4.4.2",
        scope=Scope.MAILBOX,
        text=text(r"message submission rate for this client has exceeded"),
        meaning="Too many messages a minute for this mailbox.",
    ),
    Rule(
        "microsoft daily recipients",
        Kind.QUOTA,
        "MS-NDR (5.2.0 SubmissionQuotaExceededException, 5.2.2, 5.1.90)",
        scope=Scope.MAILBOX,
        text=text(r"SubmissionQuotaExceeded|submission quota exceeded|daily limit for message recipients"),
        meaning="The mailbox's recipients of 24 hours are used up.",
    ),
    Rule(
        "microsoft outbound spam quota",
        Kind.QUOTA,
        "observed (OutboundSpamException, WASCL verdict RefuseQuota)",
        scope=Scope.MAILBOX,
        text=text(r"OutboundSpamException.*RefuseQuota"),
        meaning="Microsoft's outbound spam policy limits what this mailbox may send.",
    ),
    Rule(
        "microsoft outbound spam",
        Kind.SENDER_REFUSED,
        "observed (OutboundSpamException, WASCL verdict Suspend); MS-NDR 5.1.8",
        scope=Scope.MAILBOX,
        text=text(r"OutboundSpamException|bad outbound sender"),
        meaning="Microsoft has blocked this sender for suspected spam.",
        advice=_UNBLOCK,
    ),
    Rule(
        "microsoft spam abuse",
        Kind.SENDER_REFUSED,
        "MS-NDR 5.7.501-503 (their text would pass for a verdict on the one message)",
        scope=Scope.MAILBOX,
        text=text(r"spam abuse detected|banned sender"),
        enhanced=code(r"5.7.50[1-3]"),
        meaning="Microsoft has banned this sender or tenant.",
        advice=_UNBLOCK,
    ),
    Rule(
        "microsoft own mailbox full",
        Kind.TRANSIENT,
        "MS-THR (what is sent is kept in Sent Items, which fills up)",
        scope=Scope.MAILBOX,
        # STOREDRV.Deliver would be a recipient's mailbox.
        text=text(
            r"^(?!.*STOREDRV\.Deliver).*(QuotaExceeded|STOREDRV\..*mailbox (is )?full|mailbox (is )?full.*STOREDRV\.)"
        ),
        phases=AFTER_RCPT,
        meaning="The sending mailbox is full: Microsoft keeps a copy of every message in Sent Items.",
        advice="Empty Sent Items and give the mailbox a retention policy.",
    ),
    # Who may send.
    Rule(
        "microsoft send as denied",
        Kind.SENDER_REFUSED,
        "MS-NDR 5.7.60; observed 5.2.252 and 5.2.0 SendAsDeniedException",
        scope=Scope.SENDER,
        text=text(r"SendAsDenied|permissions? to send as this sender"),
        meaning="The login may not send as the From address.",
        advice=_SEND_AS,
    ),
    # The log-in; most of these come as 535 5.7.139, told apart by their text only.
    Rule(
        "microsoft smtp auth off for tenant",
        Kind.NOT_AUTHENTICATED,
        "MS-OAUTH; observed text",
        scope=Scope.MAILBOX,
        text=text(r"SmtpClientAuthentication is disabled for the Tenant"),
        meaning="SMTP AUTH is switched off for the whole organisation.",
        advice="Set-CASMailbox -Identity <mailbox> -SmtpClientAuthenticationDisabled $false, or for "
        "everybody with Set-TransportConfig.",
    ),
    Rule(
        "microsoft smtp auth off for mailbox",
        Kind.NOT_AUTHENTICATED,
        "MS-OAUTH; observed text",
        scope=Scope.MAILBOX,
        text=text(r"SmtpClientAuthentication is disabled for the Mailbox"),
        meaning="SMTP AUTH is switched off for this mailbox.",
        advice="Set-CASMailbox -Identity <mailbox> -SmtpClientAuthenticationDisabled $false.",
    ),
    Rule(
        "microsoft security defaults",
        Kind.NOT_AUTHENTICATED,
        "observed (535 5.7.139)",
        scope=Scope.MAILBOX,
        text=text(r"locked by your organization'?s security defaults"),
        meaning="The organisation's security defaults forbid a password here.",
        advice="Let the profile log in by OAuth.",
    ),
    Rule(
        "microsoft basic off",
        Kind.NOT_AUTHENTICATED,
        "MS-BASIC (550 5.7.30); observed 535 5.7.139",
        scope=Scope.MAILBOX,
        text=text(r"basic authentication is (disabled|not supported)"),
        meaning="Microsoft takes no passwords for this mailbox any more.",
        advice="Let the profile log in by OAuth.",
    ),
    Rule(
        "microsoft conditional access",
        Kind.NOT_AUTHENTICATED,
        "observed (535 5.7.139)",
        scope=Scope.MAILBOX,
        text=text(r"did not meet the criteria to be authenticated"),
        meaning="A conditional access or authentication policy of the organisation refuses this log-in.",
        advice="Ask an administrator to look at the sign-in log of the mailbox in Entra.",
    ),
    Rule(
        "microsoft wrong password",
        Kind.NOT_AUTHENTICATED,
        "observed (535 5.7.139)",
        scope=Scope.MAILBOX,
        text=text(r"user credentials were incorrect"),
        meaning="User name or password is wrong.",
        advice="Give the profile the right password.",
    ),
    Rule(
        "microsoft not authenticated",
        Kind.NOT_AUTHENTICATED,
        "MS-NDR 5.7.57",
        scope=Scope.MAILBOX,
        text=text(r"client (was )?not authenticated"),
        meaning="The server does not take us as logged in.",
        advice="See to it that the profile logs in, and that SMTP AUTH is on for the mailbox.",
    ),
    # Recipients.
    Rule(
        "microsoft address unknown at the edge",
        Kind.REFUSED,
        "MS-NDR 5.4.1 (directory based edge blocking)",
        scope=Scope.RECIPIENT,
        text=text(r"recipient address rejected: access denied"),
        enhanced=code(r"5.4.1"),
        phases=AT_RCPT | AFTER_RCPT,
        meaning="The address does not exist.",
        dead_address=True,
    ),
    Rule(
        "outlook.com user unknown",
        Kind.REFUSED,
        "MS-NDR 5.5.0",
        scope=Scope.RECIPIENT,
        text=text(r"mailbox unavailable"),
        enhanced=code(r"5.5.0"),
        phases=AT_RCPT | AFTER_RCPT,
        dead_address=True,
    ),
    Rule(
        "microsoft try again later",
        Kind.TRANSIENT,
        "MS-NDR (4.7.500-699 and 4.7.850-899)",
        scope=Scope.MAILBOX,
        text=text(r"access denied, please try again later"),
        meaning="Microsoft holds our mail back because of the sender's or network's reputation.",
    ),
    # What is left of submission: 5.2.0 and its like would pass for a recipient's mailbox.
    Rule(
        "microsoft submission",
        Kind.REFUSED,
        "observed (554 5.2.0 STOREDRV.Submission.Exception, of which the daily limit, spam and Send As have rows)",
        scope=Scope.MESSAGE,
        text=text(r"STOREDRV\.(Submission|ClientSubmit)"),
        enhanced=code(r"[45].2.\d+"),
        phases=AFTER_RCPT,
        meaning="The sending mailbox could not submit the message.",
    ),
)

ENHANCED_RULES = (
    Rule(
        "microsoft 432 4.3.2",
        Kind.TOO_MANY_CONNECTIONS,
        "MS-THR (432 4.3.2)",
        scope=Scope.MAILBOX,
        codes=frozenset({432}),
        enhanced=code(r"4.3.2"),
        phases=SENDING,
        meaning="More than three connections at once send for this mailbox.",
    ),
    Rule(
        "microsoft 432 4.4.2",
        Kind.TOO_FAST,
        "MS-THR (432 4.4.2; a 421 4.4.2 may be a mere timeout)",
        scope=Scope.MAILBOX,
        codes=frozenset({432}),
        enhanced=code(r"4.4.2"),
        phases=SENDING,
        meaning="Too many messages a minute for this mailbox.",
    ),
    Rule("microsoft 5.1.90", Kind.QUOTA, "MS-NDR 5.1.90", scope=Scope.MAILBOX, enhanced=code(r"5.1.90")),
    Rule(
        "microsoft tenant external recipients",
        Kind.TENANT_QUOTA,
        "MS-NDR 5.7.232 (trial) and 5.7.233",
        scope=Scope.MAILBOX,
        enhanced=code(r"[45].7.23[23]"),
        meaning="The organisation has sent to its external recipients of the last 24 hours.",
    ),
    Rule(
        "microsoft banned sender",
        Kind.SENDER_REFUSED,
        "MS-NDR 5.7.501-503 (banned sender), 5.7.705 and 5.7.708 (tenant, network)",
        scope=Scope.MAILBOX,
        enhanced=code(r"5.7.50[1-3]|5.7.70[58]"),
        meaning="Microsoft has banned this sender or tenant.",
        advice=_UNBLOCK,
    ),
    Rule(
        "microsoft 4.7.5xx",
        Kind.TRANSIENT,
        "MS-NDR (4.7.500-699 and 4.7.850-899)",
        scope=Scope.MAILBOX,
        enhanced=code(r"4.7.[56]\d\d|4.7.8[5-9]\d"),
        meaning="Microsoft holds our mail back because of the sender's or network's reputation.",
    ),
    Rule(
        "microsoft 5.7.60",
        Kind.SENDER_REFUSED,
        "MS-NDR 5.7.60; observed 5.2.252",
        scope=Scope.SENDER,
        enhanced=code(r"5.7.60|5.2.252"),
        meaning="The login may not send as the From address.",
        advice=_SEND_AS,
    ),
    Rule(
        "microsoft 5.7.57",
        Kind.NOT_AUTHENTICATED,
        "MS-NDR 5.7.57; MS-BASIC 5.7.30; 5.7.139",
        scope=Scope.MAILBOX,
        enhanced=code(r"5.7.57|5.7.30|5.7.139"),
        meaning="Microsoft refuses this way of logging in.",
        advice=_MANY_CAUSES,
    ),
    Rule(
        "microsoft 5.7.3",
        Kind.NOT_AUTHENTICATED,
        "MS-OAUTH (535 5.7.3 Authentication unsuccessful, for many causes)",
        scope=Scope.MAILBOX,
        enhanced=code(r"5.7.3"),
        phases=AT_AUTH,
        meaning="Microsoft says the same for an expired token, a wrong scope and a missing permission.",
        advice=_MANY_CAUSES,
    ),
    Rule(
        "microsoft bad xoauth2 data",
        Kind.NOT_AUTHENTICATED,
        "observed (501 5.5.124 Invalid XOAUTH2 auth data)",
        scope=Scope.MAILBOX,
        enhanced=code(r"5.5.124"),
        meaning="The server could not read the XOAUTH2 response.",
        advice="The profile must log in as the mailbox's full address.",
    ),
    Rule(
        "microsoft recipient rate",
        Kind.TRANSIENT,
        "MS-NDR 5.2.121 and 5.2.122 (hourly limit from one sender to one recipient)",
        scope=Scope.RECIPIENT,
        enhanced=code(r"[45].2.12[12]"),
        meaning="This recipient has had as many messages from us in an hour as Microsoft lets through.",
    ),
    Rule(
        "microsoft recipient unknown",
        Kind.REFUSED,
        "MS-NDR 5.1.10",
        scope=Scope.RECIPIENT,
        enhanced=code(r"5.1.10"),
        phases=AT_RCPT | AFTER_RCPT,
        meaning="The address does not exist, or its domain takes no mail (RFC 7505).",
        dead_address=True,
    ),
    Rule(
        "outlook.com unauthenticated domain",
        Kind.SENDER_REFUSED,
        "Outlook.com's rules for bulk senders (550 5.7.515)",
        scope=Scope.SENDER,
        enhanced=code(r"5.7.515"),
        meaning="The sender's domain lacks SPF, DKIM or an aligned DMARC record.",
        advice="Publish SPF, DKIM and DMARC for the From domain.",
    ),
)
