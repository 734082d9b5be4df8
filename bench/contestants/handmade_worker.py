"""The hand-made pipeline's worker, as a good engineer writes it in a day: dramatiq, smtplib, psycopg.

Run by `dramatiq`. Each thread keeps its connections to Postgres and to the mail server; a job's template is read once
and the personal parts are put into ready-made text; what was sent before is not sent again; recipients' states and
the copy are written in one transaction and one round trip, before the task is acknowledged.
"""

from __future__ import annotations

import hashlib
import json
import os
import smtplib
import threading
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import dramatiq
import psycopg
from dramatiq.brokers.rabbitmq import RabbitmqBroker

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTINGS_VARIABLE: Final = "HANDMADE_SETTINGS"
NAME_TAG: Final = "{name}"

_JOB: Final = "SELECT sender, subject, body FROM handmade_jobs WHERE id = %s"
_PENDING: Final = (
    "SELECT number, address, name FROM handmade_recipients"
    " WHERE job_id = %s AND number >= %s AND number < %s AND state = 'pending' ORDER BY number"
)
_SETTLE: Final = (
    "UPDATE handmade_recipients SET state = %s, reply = %s, sent_at = now() WHERE job_id = %s AND number = ANY(%s)"
)
_COPY: Final = (
    "INSERT INTO handmade_copies (job_id, first, recipients, subject, message_id, size, digest)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s)"
)

_settings: dict[str, Any] = json.loads(os.environ[SETTINGS_VARIABLE])
_own = threading.local()
_broker = RabbitmqBroker(url=_settings["broker_url"], confirm_delivery=True)
dramatiq.set_broker(_broker)


@dataclass(frozen=True, slots=True)
class Job:
    """What all messages of a job share."""

    sender: str
    subject: str
    template: str


@dramatiq.actor(queue_name="handmade", max_retries=20, min_backoff=1_000)
def send(job_id: str, first: int, count: int) -> None:
    """Send one message to the `count` recipients from number `first`."""
    ledger = _ledger()
    pending = ledger.execute(_PENDING, (job_id, first, first + count)).fetchall()
    if not pending:
        return
    job = _job(job_id)
    name = pending[0][2] or ""
    subject = job.subject.replace(NAME_TAG, name)
    message_id = f"<{job_id}.{first}@campus.example>"
    visible_to = pending[0][1] if count == 1 else job.sender
    headers = f"To: {visible_to}\r\nSubject: {subject}\r\nDate: {formatdate()}\r\nMessage-ID: {message_id}\r\n"
    message = (headers + job.template.replace(NAME_TAG, name)).encode()
    refused = _sent(job.sender, [address for _, address, _ in pending], message)
    sent = [number for number, address, _ in pending if address not in refused]
    with ledger.pipeline(), ledger.transaction():
        ledger.execute(_SETTLE, ("sent", "250", job_id, sent))
        for number, address, _ in pending:
            if address in refused:
                ledger.execute(_SETTLE, ("failed", repr(refused[address]), job_id, [number]))
        digest = hashlib.sha256(message).digest()
        ledger.execute(_COPY, (job_id, first, len(sent), subject, message_id, len(message), digest))


def _sent(sender: str, addresses: Sequence[str], message: bytes) -> dict[str, tuple[int, bytes]]:
    """Send over this thread's connection, or a new one where the server has closed it; give who was refused."""
    try:
        return _smtp().sendmail(sender, addresses, message)
    except smtplib.SMTPServerDisconnected:
        del _own.smtp
        return _smtp().sendmail(sender, addresses, message)
    except smtplib.SMTPRecipientsRefused as error:
        return cast("dict[str, tuple[int, bytes]]", error.recipients)


def _smtp() -> smtplib.SMTP:
    if not hasattr(_own, "smtp"):
        _own.smtp = smtplib.SMTP(_settings["host"], _settings["port"], local_hostname="campus.example", timeout=30)
        _own.smtp.ehlo()
    return _own.smtp


def _ledger() -> psycopg.Connection[Any]:
    if not hasattr(_own, "ledger"):
        _own.ledger = psycopg.connect(_settings["database_url"], autocommit=True)
    return _own.ledger


@lru_cache(maxsize=100)
def _job(job_id: str) -> Job:
    row = _ledger().execute(_JOB, (job_id,)).fetchone()
    assert row is not None
    sender, subject, body = row
    headers = (
        f"From: {sender}\nMIME-Version: 1.0\n"
        'Content-Type: text/plain; charset="utf-8"\nContent-Transfer-Encoding: 7bit\n\n'
    )
    return Job(sender, subject, (headers + body).replace("\n", "\r\n"))
