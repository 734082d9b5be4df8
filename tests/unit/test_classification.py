"""The table of replies: every row with a reply that it was made for."""

# ruff: noqa: E501  # replies as they come over the wire

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.errors import Scope
from tocsin_workers.classification import RULES, Kind, Outcome, classify
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import Reply, ReplyParser

AUTH, MAIL, RCPT, DATA, FINAL = Phase.AUTH, Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.FINAL


def reply(line: str) -> Reply:
    return ReplyParser().feed(line.encode() + b"\r\n")[0]


# Row, phase, reply, kind, scope. Replies as they come over the wire.
MICROSOFT = [
    (
        "microsoft connections",
        DATA,
        "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information.",
        Kind.TOO_MANY_CONNECTIONS,
        Scope.MAILBOX,
    ),
    (
        "microsoft connections",
        DATA,
        "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
        Kind.TOO_MANY_CONNECTIONS,
        Scope.MAILBOX,
    ),
    (
        "microsoft rate",
        FINAL,
        "421 4.4.2 Message submission rate for this client has exceeded the configured limit",
        Kind.TOO_FAST,
        Scope.MAILBOX,
    ),
    (
        "microsoft rate",
        MAIL,
        "432 4.4.2 Message submission rate for this client has exceeded the configured limit",
        Kind.TOO_FAST,
        Scope.MAILBOX,
    ),
    (
        "microsoft daily recipients",
        FINAL,
        "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message due to a permanent exception",
        Kind.QUOTA,
        Scope.MAILBOX,
    ),
    ("microsoft daily recipients", FINAL, "550 5.2.2 Submission quota exceeded", Kind.QUOTA, Scope.MAILBOX),
    (
        "microsoft daily recipients",
        RCPT,
        "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
        Kind.QUOTA,
        Scope.MAILBOX,
    ),
    (
        "microsoft outbound spam quota",
        FINAL,
        "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; WASCL UserAction verdict is RefuseQuota",
        Kind.QUOTA,
        Scope.MAILBOX,
    ),
    (
        "microsoft outbound spam",
        FINAL,
        "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; WASCL UserAction verdict is Suspend",
        Kind.SENDER_REFUSED,
        Scope.MAILBOX,
    ),
    (
        "microsoft outbound spam",
        FINAL,
        "550 5.1.8 Access denied, bad outbound sender",
        Kind.SENDER_REFUSED,
        Scope.MAILBOX,
    ),
    (
        "microsoft own mailbox full",
        FINAL,
        "554 5.2.2 STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded; mailbox full",
        Kind.TRANSIENT,
        Scope.MAILBOX,
    ),
    (
        "microsoft own mailbox full",
        FINAL,
        "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:MapiExceptionShutoffQuotaExceeded",
        Kind.TRANSIENT,
        Scope.MAILBOX,
    ),
    (
        "microsoft own mailbox full",
        FINAL,
        "554 5.2.2 mailbox full; QuotaExceededException",
        Kind.TRANSIENT,
        Scope.MAILBOX,
    ),
    (
        "mailbox full",
        FINAL,
        "554 5.2.2 mailbox full;STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded",
        Kind.REFUSED,
        Scope.RECIPIENT,
    ),
    (
        "microsoft submission",
        FINAL,
        "554 5.2.0 STOREDRV.Submission.Exception:SomeOtherException; Failed to process message due to a permanent exception",
        Kind.REFUSED,
        Scope.MESSAGE,
    ),
    ("microsoft 432 4.3.2", DATA, "432 4.3.2 Trop de connexions", Kind.TOO_MANY_CONNECTIONS, Scope.MAILBOX),
    ("microsoft 432 4.4.2", MAIL, "432 4.4.2 Trop de messages", Kind.TOO_FAST, Scope.MAILBOX),
    ("closing", MAIL, "421 4.4.2 host Error: timeout exceeded", Kind.TRANSIENT, Scope.SESSION),
    (
        "microsoft send as denied",
        MAIL,
        "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
        Kind.SENDER_REFUSED,
        Scope.SENDER,
    ),
    (
        "microsoft send as denied",
        FINAL,
        "554 5.2.252 SendAsDenied; a@x.test not allowed to send as b@x.test",
        Kind.SENDER_REFUSED,
        Scope.SENDER,
    ),
    (
        "microsoft send as denied",
        FINAL,
        "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message",
        Kind.SENDER_REFUSED,
        Scope.SENDER,
    ),
    (
        "microsoft smtp auth off for tenant",
        AUTH,
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "microsoft smtp auth off for tenant",
        MAIL,
        "530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "microsoft smtp auth off for mailbox",
        AUTH,
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "microsoft security defaults",
        AUTH,
        "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. Contact your administrator.",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "microsoft basic off",
        AUTH,
        "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "microsoft basic off",
        MAIL,
        "550 5.7.30 Basic authentication is not supported for Client Submission.",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "microsoft conditional access",
        AUTH,
        "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully. Contact your administrator.",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "microsoft wrong password",
        AUTH,
        "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "microsoft not authenticated",
        MAIL,
        "530 5.7.57 Client not authenticated to send mail.",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "microsoft address unknown at the edge",
        RCPT,
        "550 5.4.1 Recipient address rejected: Access denied.",
        Kind.REFUSED,
        Scope.RECIPIENT,
    ),
    (
        "outlook.com user unknown",
        RCPT,
        "550 5.5.0 Requested action not taken: mailbox unavailable.",
        Kind.REFUSED,
        Scope.RECIPIENT,
    ),
    (
        "microsoft try again later",
        RCPT,
        "451 4.7.650 The mail server has been temporarily rate limited; Access denied, please try again later",
        Kind.TRANSIENT,
        Scope.MAILBOX,
    ),
    ("microsoft 5.1.90", FINAL, "550 5.1.90 Limite quotidienne atteinte", Kind.QUOTA, Scope.MAILBOX),
    (
        "microsoft tenant external recipients",
        FINAL,
        "550 5.7.233 Your message can't be sent because your tenant exceeded its tenant external recipient rate limit",
        Kind.TENANT_QUOTA,
        Scope.MAILBOX,
    ),
    ("microsoft tenant external recipients", FINAL, "550 5.7.232 trial tenant", Kind.TENANT_QUOTA, Scope.MAILBOX),
    (
        "microsoft spam abuse",
        FINAL,
        "550 5.7.501 Access denied, spam abuse detected",
        Kind.SENDER_REFUSED,
        Scope.MAILBOX,
    ),
    (
        "microsoft banned sender",
        FINAL,
        "550 5.7.705 Access denied, tenant has exceeded threshold",
        Kind.SENDER_REFUSED,
        Scope.MAILBOX,
    ),
    (
        "microsoft 4.7.5xx",
        MAIL,
        "451 4.7.500 Server busy. Please try again later from [192.0.2.1].",
        Kind.TRANSIENT,
        Scope.MAILBOX,
    ),
    (
        "microsoft banned sender",
        RCPT,
        "550 5.7.708 Access denied, traffic not accepted from this IP",
        Kind.SENDER_REFUSED,
        Scope.MAILBOX,
    ),
    ("microsoft 4.7.5xx", MAIL, "451 4.7.869 Held back", Kind.TRANSIENT, Scope.MAILBOX),
    ("microsoft 5.7.60", MAIL, "550 5.7.60 Refusé", Kind.SENDER_REFUSED, Scope.SENDER),
    ("microsoft 5.7.57", AUTH, "535 5.7.139 Authentication unsuccessful", Kind.NOT_AUTHENTICATED, Scope.MAILBOX),
    (
        "microsoft 5.7.3",
        AUTH,
        "535 5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "microsoft bad xoauth2 data",
        AUTH,
        "501 5.5.124 Invalid XOAUTH2 auth data",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "microsoft recipient rate",
        RCPT,
        "550 5.2.121 Recipient has exceeded their limit on the number of messages they can receive per hour from a specific sender",
        Kind.TRANSIENT,
        Scope.RECIPIENT,
    ),
    (
        "microsoft recipient rate",
        RCPT,
        "450 4.2.122 Recipient has exceeded their limit",
        Kind.TRANSIENT,
        Scope.RECIPIENT,
    ),
    (
        "microsoft recipient unknown",
        RCPT,
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
        Kind.REFUSED,
        Scope.RECIPIENT,
    ),
    (
        "outlook.com unauthenticated domain",
        FINAL,
        "550 5.7.515 Access denied, sending domain x.test does not meet the required authentication level",
        Kind.SENDER_REFUSED,
        Scope.SENDER,
    ),
]
GOOGLE = [
    (
        "google relay limit of the customer",
        MAIL,
        "550 5.7.1 Daily SMTP relay limit exceeded for customer. For more information on SMTP relay sending limits",
        Kind.TENANT_QUOTA,
        Scope.MAILBOX,
    ),
    (
        "google peak relay limit",
        MAIL,
        "450 4.2.1 Peak SMTP relay limit exceeded for customer.",
        Kind.TOO_FAST,
        Scope.MAILBOX,
    ),
    (
        "google daily limit",
        FINAL,
        "550-5.4.5 Daily user sending limit exceeded. For more information on Gmail\r\n550 5.4.5 sending limits go to https://support.google.com/a/answer/166852",
        Kind.QUOTA,
        Scope.MAILBOX,
    ),
    ("google daily limit", FINAL, "550 5.4.5 Daily sending quota exceeded", Kind.QUOTA, Scope.MAILBOX),
    ("google daily limit", MAIL, "550 5.4.5 Daily SMTP relay limit exceeded for user.", Kind.QUOTA, Scope.MAILBOX),
    ("google daily limit", FINAL, "550 5.7.1 Email quota exceeded.", Kind.QUOTA, Scope.MAILBOX),
    (
        "google too many logins",
        AUTH,
        "454 4.7.0 Too many login attempts, please try again later.",
        Kind.TOO_FAST,
        Scope.MAILBOX,
    ),
    (
        "google unusual rate",
        RCPT,
        "421 4.7.0 Our system has detected an unusual rate of unsolicited mail originating from your IP address.",
        Kind.TOO_FAST,
        Scope.MAILBOX,
    ),
    (
        "google busy",
        AUTH,
        "454 4.7.0 Cannot authenticate due to temporary system problem. Try again later.",
        Kind.TRANSIENT,
        Scope.SESSION,
    ),
    ("google busy", MAIL, "421 4.4.5 Server busy, try again later.", Kind.TRANSIENT, Scope.SESSION),
    (
        "google domains in one transaction",
        RCPT,
        "451 4.3.0 Multiple destination domains per transaction is unsupported. Please try again.",
        Kind.TOO_MANY_RECIPIENTS,
        Scope.RECIPIENT,
    ),
    (
        "google domain policy size",
        RCPT,
        "452 4.5.3 Domain policy size per transaction exceeded, please try this recipient in a separate transaction.",
        Kind.TOO_MANY_RECIPIENTS,
        Scope.RECIPIENT,
    ),
    (
        "google recipient receives too fast",
        RCPT,
        "450 4.2.1 The user you are trying to contact is receiving mail too quickly. Please resend your message at a later time.",
        Kind.TRANSIENT,
        Scope.RECIPIENT,
    ),
    (
        "google recipient receives too fast",
        RCPT,
        "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages from being delivered.",
        Kind.TRANSIENT,
        Scope.RECIPIENT,
    ),
    (
        "google account disabled",
        RCPT,
        "550 5.2.1 The email account that you tried to reach is disabled.",
        Kind.REFUSED,
        Scope.RECIPIENT,
    ),
    (
        "google no such user",
        RCPT,
        "550-5.1.1 The email account that you tried to reach does not exist. Please try\r\n550 5.1.1 double-checking the recipient's email address",
        Kind.REFUSED,
        Scope.RECIPIENT,
    ),
    (
        "google recipient over quota",
        RCPT,
        "552 5.2.2 The email account that you tried to reach is over quota.",
        Kind.REFUSED,
        Scope.RECIPIENT,
    ),
    (
        "google recipient over quota",
        RCPT,
        "452 4.2.2 The email account that you tried to reach is over quota.",
        Kind.TRANSIENT,
        Scope.RECIPIENT,
    ),
    (
        "google relay credentials",
        MAIL,
        "550 5.7.1 Invalid credentials for relay [192.0.2.1].",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "google sending denied",
        FINAL,
        "550 5.7.0 Mail Sending denied. This error occurs if the sender account is disabled",
        Kind.SENDER_REFUSED,
        Scope.MAILBOX,
    ),
    ("google sending denied", RCPT, "550 5.7.0 Mail relay denied [192.0.2.1].", Kind.SENDER_REFUSED, Scope.MAILBOX),
    (
        "google app password",
        AUTH,
        "534 5.7.9 Application-specific password required.",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "google app password",
        AUTH,
        "534 5.7.14 Please log in via your web browser and then try again.",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "google unauthenticated domain",
        FINAL,
        "550-5.7.26 Unauthenticated email from x.test is not accepted due to\r\n550 5.7.26 domain's DMARC policy.",
        Kind.SENDER_REFUSED,
        Scope.SENDER,
    ),
    (
        "google sender authentication",
        FINAL,
        "550-5.7.30 Your email has been rejected because DKIM authentication didn't pass.\r\n550 5.7.30 For more information",
        Kind.SENDER_REFUSED,
        Scope.SENDER,
    ),
    (
        "google blocked attachment",
        FINAL,
        "552 5.7.0 This message was blocked because its content presents a potential security issue.",
        Kind.REFUSED,
        Scope.MESSAGE,
    ),
    ("google 5.4.5", FINAL, "550 5.4.5 Limit", Kind.QUOTA, Scope.MAILBOX),
    (
        "google bad xoauth2 data",
        AUTH,
        "555 5.5.2 Syntax error, cannot decode response.",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
]
SES = [
    (
        "ses connections",
        Phase.GREETING,
        "421 Too many concurrent SMTP connections",
        Kind.TOO_MANY_CONNECTIONS,
        Scope.MAILBOX,
    ),
    ("ses daily quota", FINAL, "454 Throttling failure: Daily message quota exceeded.", Kind.QUOTA, Scope.MAILBOX),
    ("ses rate", FINAL, "454 Throttling failure: Maximum sending rate exceeded.", Kind.TOO_FAST, Scope.MAILBOX),
    ("ses temporary failure", AUTH, "454 Temporary authentication failure", Kind.TRANSIENT, Scope.SESSION),
    ("ses temporary failure", FINAL, "451 Temporary service failure", Kind.TRANSIENT, Scope.SESSION),
    ("ses temporary failure", MAIL, "451 Timeout waiting for data from client", Kind.TRANSIENT, Scope.SESSION),
    ("ses not subscribed", AUTH, "535 Account not subscribed to SES", Kind.NOT_AUTHENTICATED, Scope.MAILBOX),
    ("ses wrong credentials", AUTH, "535 Authentication Credentials Invalid", Kind.NOT_AUTHENTICATED, Scope.MAILBOX),
    (
        "ses not authorized",
        FINAL,
        "554 Access denied: User `arn:aws:iam::1:user/u' is not authorized to perform `ses:SendRawEmail' on resource",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "ses identity not verified",
        FINAL,
        "554 Message rejected: Email address is not verified. The following identities failed the check in region EU-WEST-1: x.test",
        Kind.SENDER_REFUSED,
        Scope.SENDER,
    ),
    (
        "ses sending paused",
        FINAL,
        "554 Message rejected: Sending paused for this account.",
        Kind.SENDER_REFUSED,
        Scope.MAILBOX,
    ),
    (
        "ses recipient count",
        FINAL,
        "554 Transaction failed: Recipient count exceeds 50.",
        Kind.TOO_MANY_RECIPIENTS,
        Scope.MESSAGE,
    ),
    ("ses message too long", FINAL, "552 Message is too long.", Kind.REFUSED, Scope.MESSAGE),
    ("ses invalid address", RCPT, "553 <a@y> Invalid email address", Kind.REFUSED, Scope.RECIPIENT),
    ("ses invalid address", FINAL, "553 <a@y> Invalid email address", Kind.REFUSED, Scope.RECIPIENT),
    ("ses daily quota", MAIL, "454 Throttling failure: Daily message quota exceeded.", Kind.QUOTA, Scope.MAILBOX),
    ("ses rate", DATA, "454 Throttling failure: Maximum sending rate exceeded.", Kind.TOO_FAST, Scope.MAILBOX),
    ("ses invalid sender", MAIL, "553 <a@y> address unknown", Kind.SENDER_REFUSED, Scope.SENDER),
    ("ses authentication required", MAIL, "530 Authentication required", Kind.NOT_AUTHENTICATED, Scope.MAILBOX),
]
STANDARDS = [
    (
        "sender address rejected",
        RCPT,
        "553 5.7.1 <s@x.test>: Sender address rejected: not owned by user u",
        Kind.SENDER_REFUSED,
        Scope.SENDER,
    ),
    (
        "sender address rejected",
        RCPT,
        "550 5.1.0 <s@x.test>: Sender address rejected: User unknown in virtual mailbox table",
        Kind.SENDER_REFUSED,
        Scope.SENDER,
    ),
    (
        "sender address rejected",
        RCPT,
        "450 4.1.8 <s@x.test>: Sender address rejected: Domain not found",
        Kind.TRANSIENT,
        Scope.SENDER,
    ),
    (
        "client rejected",
        RCPT,
        "554 5.7.1 <h.test[192.0.2.1]>: Client host rejected: Access denied",
        Kind.SENDER_REFUSED,
        Scope.MAILBOX,
    ),
    (
        "client rejected",
        RCPT,
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
        Kind.SENDER_REFUSED,
        Scope.MAILBOX,
    ),
    (
        "client rejected",
        RCPT,
        "450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.1]",
        Kind.TRANSIENT,
        Scope.MAILBOX,
    ),
    ("authentication required", MAIL, "503 AUTH first (#5.5.1)", Kind.NOT_AUTHENTICATED, Scope.MAILBOX),
    ("authentication required", RCPT, "550 5.7.1 Authentication required", Kind.NOT_AUTHENTICATED, Scope.MAILBOX),
    ("address refused by policy", RCPT, "550 5.1.1 <a@y.test>: blocked as spam", Kind.REFUSED, Scope.RECIPIENT),
    (
        "address refused by policy",
        RCPT,
        "550 5.1.0 <a@y.test>: Recipient address rejected: our policy",
        Kind.REFUSED,
        Scope.RECIPIENT,
    ),
    (
        "x.1.1",
        RCPT,
        "550 5.1.1 <a@y.test>: undeliverable address: host mx said: 550 <s@x.test>: Sender address rejected",
        Kind.REFUSED,
        Scope.RECIPIENT,
    ),
    ("mailbox disabled", RCPT, "550 5.2.1 <a@y.test>: mailbox disabled", Kind.REFUSED, Scope.RECIPIENT),
    ("x.2.1", RCPT, "550 5.2.1 <a@y.test>: mailbox temporarily disabled", Kind.REFUSED, Scope.RECIPIENT),
    ("too many recipients", RCPT, "452 Too many recipients", Kind.TOO_MANY_RECIPIENTS, Scope.RECIPIENT),
    ("too many recipients", RCPT, "552 5.0.0 too many recipients", Kind.TOO_MANY_RECIPIENTS, Scope.RECIPIENT),
    (
        "too many connections",
        Phase.GREETING,
        "421 4.7.0 Error: too many connections from 192.0.2.1",
        Kind.TOO_MANY_CONNECTIONS,
        Scope.MAILBOX,
    ),
    ("rate limited", MAIL, "450 4.7.1 Error: too many messages", Kind.TOO_FAST, Scope.MAILBOX),
    ("rate limited", MAIL, "421 4.7.0 [TSS04] Messages temporarily deferred", Kind.TOO_FAST, Scope.MAILBOX),
    ("relaying denied", RCPT, "554 5.7.1 <a@y.test>: Relay access denied", Kind.NOT_AUTHENTICATED, Scope.MAILBOX),
    (
        "relaying denied",
        RCPT,
        "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
        Kind.NOT_AUTHENTICATED,
        Scope.MAILBOX,
    ),
    (
        "greylisted",
        RCPT,
        "450 4.2.0 <a@y.test>: Recipient address rejected: Greylisted",
        Kind.TRANSIENT,
        Scope.RECIPIENT,
    ),
    ("spam verdict", FINAL, "554 5.7.1 Message rejected as spam by Content Filtering.", Kind.REFUSED, Scope.MESSAGE),
    ("spam verdict", FINAL, "553 5.7.1 [BL21] Connections will not be accepted", Kind.REFUSED, Scope.MESSAGE),
    ("mailbox full", RCPT, "552 5.2.2 <a@y.test>: mailbox full", Kind.REFUSED, Scope.RECIPIENT),
    ("mailbox full", RCPT, "452 4.2.2 <a@y.test>: Mailbox is full", Kind.TRANSIENT, Scope.RECIPIENT),
    ("spam verdict", FINAL, "550 5.1.1 Message looks like phishing", Kind.REFUSED, Scope.MESSAGE),
    ("spam verdict", FINAL, "550 5.2.0 Junk mail rejected", Kind.REFUSED, Scope.MESSAGE),
    (
        "spam verdict",
        FINAL,
        "550 5.7.1 Messages from [192.0.2.1] weren't sent: part of their network is on our block list (S3150)",
        Kind.REFUSED,
        Scope.MESSAGE,
    ),
    ("user unknown", FINAL, "550 <b@y.test>: User unknown", Kind.REFUSED, Scope.RECIPIENT),
    ("user unknown", FINAL, "550 5.1.1 <spam@y.test>: User unknown", Kind.REFUSED, Scope.RECIPIENT),
    ("user unknown", RCPT, "550 No such user here", Kind.REFUSED, Scope.RECIPIENT),
    (
        "recipient refused after the dot",
        FINAL,
        "550 Requested action not taken: mailbox unavailable",
        Kind.REFUSED,
        Scope.RECIPIENT,
    ),
    ("x.5.3", RCPT, "452 4.5.3 Try the rest later", Kind.TOO_MANY_RECIPIENTS, Scope.RECIPIENT),
    ("x.5.3", RCPT, "552 5.5.3 Genug", Kind.TOO_MANY_RECIPIENTS, Scope.RECIPIENT),
    ("x.1.1", RCPT, "550 5.1.1 <a@y.test>: no", Kind.REFUSED, Scope.RECIPIENT),
    ("x.1.1", RCPT, "450 4.1.2 <a@y.test>: Domain not found", Kind.TRANSIENT, Scope.RECIPIENT),
    ("x.2.1", RCPT, "550 5.2.1 zu", Kind.REFUSED, Scope.RECIPIENT),
    ("x.2.1", RCPT, "550 5.7.17 Mailbox owner has changed", Kind.REFUSED, Scope.RECIPIENT),
    ("x.1.7", MAIL, "501 5.1.7 Bad sender address syntax", Kind.SENDER_REFUSED, Scope.SENDER),
    ("x.1.7", RCPT, "550 5.7.27 Sender address has null MX", Kind.SENDER_REFUSED, Scope.SENDER),
    ("x.2.3", MAIL, "552 5.3.4 Message size exceeds fixed limit", Kind.REFUSED, Scope.MESSAGE),
    ("x.2.3", FINAL, "552 5.2.3 Too large", Kind.REFUSED, Scope.MESSAGE),
    ("x.2.2", RCPT, "552 5.2.2 voll", Kind.REFUSED, Scope.RECIPIENT),
    ("x.1.0", RCPT, "550 5.1.0 Address rejected.", Kind.REFUSED, Scope.RECIPIENT),
    ("x.6", FINAL, "550 5.6.0 Bad MIME", Kind.REFUSED, Scope.MESSAGE),
    ("x.6", RCPT, "553 5.6.7 SMTPUTF8 needed", Kind.REFUSED, Scope.RECIPIENT),
    ("sender authentication", FINAL, "550 5.7.23 SPF validation failed", Kind.SENDER_REFUSED, Scope.SENDER),
    ("authentication refused", AUTH, "535 5.7.8 Error: authentication failed", Kind.NOT_AUTHENTICATED, Scope.MAILBOX),
    ("authentication refused", MAIL, "525 5.7.13 User account disabled", Kind.NOT_AUTHENTICATED, Scope.MAILBOX),
    ("530", MAIL, "530 5.7.0 Must issue a STARTTLS command first", Kind.NOT_AUTHENTICATED, Scope.MAILBOX),
    ("530", AUTH, "535 5.7.1 Username and Password not accepted", Kind.NOT_AUTHENTICATED, Scope.MAILBOX),
    ("authentication temporarily", AUTH, "454 4.7.0 Later", Kind.TRANSIENT, Scope.SESSION),
]
FALLBACK = [
    ("first digit", MAIL, "550 No", Kind.SENDER_REFUSED, Scope.SENDER),
    ("first digit", RCPT, "550 No", Kind.REFUSED, Scope.RECIPIENT),
    ("first digit", RCPT, "599 9.9.9 What?", Kind.REFUSED, Scope.RECIPIENT),
    ("first digit", DATA, "554 No", Kind.REFUSED, Scope.MESSAGE),
    ("first digit", FINAL, "554 No", Kind.REFUSED, Scope.MESSAGE),
    ("first digit", AUTH, "550 No", Kind.NOT_AUTHENTICATED, Scope.MAILBOX),
    ("first digit", Phase.GREETING, "554 No", Kind.REFUSED, Scope.SESSION),
    ("first digit", RCPT, "450 Later", Kind.TRANSIENT, Scope.RECIPIENT),
    # 452 is "too many" only where code or text says so (RFC 5321 section 4.2.3: insufficient storage).
    ("first digit", RCPT, "452 4.3.1 Insufficient system storage", Kind.TRANSIENT, Scope.RECIPIENT),
    ("first digit", RCPT, "452 Requested action not taken", Kind.TRANSIENT, Scope.RECIPIENT),
    ("first digit", RCPT, "552 Requested action aborted: exceeded storage allocation", Kind.REFUSED, Scope.RECIPIENT),
    (
        "first digit",
        RCPT,
        "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required",
        Kind.REFUSED,
        Scope.RECIPIENT,
    ),
    ("first digit", FINAL, "451 4.3.0 Mail server temporarily rejected message", Kind.TRANSIENT, Scope.MESSAGE),
    # The reply code wins over an enhanced code that contradicts it.
    ("first digit", RCPT, "450 5.1.1 Not yet", Kind.TRANSIENT, Scope.RECIPIENT),
    ("first digit", RCPT, "550 4.5.3 No", Kind.REFUSED, Scope.RECIPIENT),
    ("closing", MAIL, "421 4.7.0 Try again later, closing connection.", Kind.TRANSIENT, Scope.SESSION),
    ("closing after the dot", FINAL, "421 4.2.1 Bye", Kind.DOUBTFUL, Scope.MESSAGE),
    ("google busy", FINAL, "421 4.3.0 Temporary System Problem. Try again later.", Kind.TRANSIENT, Scope.SESSION),
    ("first digit", FINAL, "451 Later", Kind.TRANSIENT, Scope.MESSAGE),
    ("first digit", DATA, "250 What?", Kind.TRANSIENT, Scope.MESSAGE),
    ("first digit", RCPT, "354 What?", Kind.TRANSIENT, Scope.RECIPIENT),
    ("closing", RCPT, "421 4.3.2 Shutting down", Kind.TRANSIENT, Scope.SESSION),
    ("closing after the dot", FINAL, "421 4.3.2 Shutting down", Kind.DOUBTFUL, Scope.MESSAGE),
    ("bad sequence of commands", RCPT, "503 5.5.1 MAIL first", Kind.TRANSIENT, Scope.SESSION),
    ("accepted", FINAL, "250 2.0.0 Ok", Kind.ACCEPTED, Scope.RECIPIENT),
    ("accepted", RCPT, "251 Forwarded", Kind.ACCEPTED, Scope.RECIPIENT),
    ("accepted", DATA, "354 Go", Kind.ACCEPTED, Scope.RECIPIENT),
]
EXAMPLES = [*MICROSOFT, *GOOGLE, *SES, *STANDARDS, *FALLBACK]


@pytest.mark.parametrize(("rule", "phase", "line", "kind", "scope"), EXAMPLES)
def test_a_known_reply_means_what_its_source_says(rule, phase, line, kind, scope):
    outcome = classify(phase, reply(line))
    assert (outcome.rule, outcome.kind, outcome.scope) == (rule, kind, scope)
    assert outcome.permanent is (kind in {Kind.REFUSED, Kind.SENDER_REFUSED, Kind.NOT_AUTHENTICATED})


def test_every_row_has_a_name_a_source_and_an_example():
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert {name for name, *_ in EXAMPLES} >= set(names)
    assert all(rule.source for rule in RULES)
    assert all(rule.text or rule.enhanced or rule.codes for rule in RULES)


def test_rows_by_text_come_before_rows_by_code():
    by_text = [rule.text is not None for rule in RULES]
    assert by_text == sorted(by_text, reverse=True)


@pytest.mark.parametrize(
    ("line", "dead"),
    [
        ("550 5.1.1 No such user", True),
        ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", True),
        ("553 5.1.2 We weren't able to find the recipient domain.", True),
        ("550 5.2.1 The email account that you tried to reach is disabled.", True),
        ("550 5.2.1 <a@y.test>: mailbox disabled", True),
        ("550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", True),
        ("550 5.5.0 Requested action not taken: mailbox unavailable.", True),
        ("550 User unknown", True),
        ("553 <a@y> Invalid email address", True),
        ("450 4.1.1 No such user yet", False),
        ("450 5.1.1 No such user yet", False),
        ("552 5.2.2 Mailbox full", False),
        ("552 5.2.2 The email account that you tried to reach is over quota.", False),
        ("550 5.2.1 The user you are trying to contact is receiving mail at a rate that", False),
        ("550 5.2.1 <a@y.test>: mailbox temporarily disabled", False),
        ("550 5.2.1 What it is, this code does not tell", False),
        ("550 5.2.121 Recipient has exceeded their limit", False),
        ("550 5.2.0 What it is, this code does not tell", False),
        ("550 5.7.1 We do not like you", False),
        ("550 5.7.1 <a@y.test>: user unknown to those whom we do not like", False),
        ("550 5.7.17 Mailbox owner has changed", False),
        ("554 5.7.1 <a@y.test>: Recipient address rejected: Access denied", False),
        ("550 5.1.1 <a@y.test>: refused as spam", False),
        ("550 5.1.1 <a@y.test>: blocked by our policy", False),
        ("550 5.1.1 <s@x.test>: Sender address rejected: User unknown", False),
        ("550 5.1.8 Access denied, bad outbound sender", False),
        ("550 5.4.5 Daily user sending limit exceeded.", False),
        ("550 5.7.0 Mail relay denied", False),
        ("525 5.7.13 User account disabled", False),
        ("553 5.6.7 SMTPUTF8 needed", False),
        ("555 5.5.2 Syntax error", False),
        ("503 5.5.1 MAIL first", False),
        ("550 No", False),
    ],
)
def test_only_an_address_that_takes_no_mail_at_all_is_dead(line, dead):
    assert classify(RCPT, reply(line)).dead_address is dead


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not RCPT])
def test_an_address_is_dead_only_where_the_server_was_asked_for_it(phase):
    assert not classify(phase, reply("550 5.1.1 No such user")).dead_address


CODES = st.integers(200, 599)
ENHANCED = st.none() | st.builds("{}.{}.{}".format, st.integers(2, 5), st.integers(0, 9), st.integers(0, 999))
TEXTS = st.text(max_size=30) | st.sampled_from([line for _, _, line, *_ in EXAMPLES])


@given(st.sampled_from(Phase), CODES, ENHANCED, TEXTS)
def test_a_4yz_is_never_for_good_and_a_2yz_never_a_refusal(phase, code, enhanced, text):
    said = Reply.of(code, [f"{enhanced} {text}" if enhanced else text])
    outcome = classify(phase, said)
    assert isinstance(outcome, Outcome)
    if code < 500:
        assert not outcome.permanent
    if code // 100 == 2 and phase is not Phase.DATA:
        assert outcome.kind is Kind.ACCEPTED
    if outcome.dead_address:
        assert (phase, outcome.kind, outcome.scope, code // 100) == (RCPT, Kind.REFUSED, Scope.RECIPIENT, 5)
    if code // 100 in {4, 5}:
        assert outcome.kind is not Kind.ACCEPTED
    assert outcome.scope in {Scope.SESSION, Scope.MAILBOX, Scope.SENDER, Scope.MESSAGE, Scope.RECIPIENT}
