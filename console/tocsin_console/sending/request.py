"""What `tocsin send` was asked for: the flags, checked against one another, and the job that they describe."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tocsin_console.reading.inputs import STANDARD_INPUT, read_pairs, read_text
from tocsin_producers import Attachment, Content, JobFields, JobPart, Mode, OnUnknown, Priority, job_of
from tocsin_schema.contract.part import MAX_OCTETS
from tocsin_schema.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

_PLAIN_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRequest:
    """The flags of one `tocsin send`, as they were given; `timeout` is in seconds."""

    profile: str
    template: str | None = None
    subject: str | None = None
    text_file: str | None = None
    html_file: str | None = None
    recipients: str | None = None
    to: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    mode: Mode | None = None
    priority: Priority = Priority.NORMAL
    id: UUID | None = None
    source: str | None = None
    key: str | None = None
    attach: tuple[Path, ...] = ()
    send_after: datetime | None = None
    expires_at: datetime | None = None
    on_unknown: OnUnknown = OnUnknown.RESEND
    dry_run: bool = False
    wait: bool = False
    timeout: float | None = None

    @property
    def has_own_identity(self) -> bool:
        """Whether the caller said which job this is, so that it may have been published before."""
        return self.id is not None or self.key is not None


def read_time(text: str | None, flag: str) -> datetime | None:
    """Read an RFC 3339 time, which has a time zone. Raises UsageError."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise UsageError(
            f"{flag} {text[:60]!r} is no time with a time zone.", fix="Write for instance 2026-11-21T08:00:00Z."
        )
    return time


def check_flags(request: SendRequest, now: datetime) -> None:
    """Raise UsageError for flags that do not go together."""
    _check_content(request)
    _check_recipients(request)
    _check_identity(request)
    _check_times(request, now)
    if request.timeout is not None and not request.wait:
        raise UsageError("--timeout is for --wait.", fix="Give --wait as well, or leave it out.")
    if request.dry_run and request.wait:
        raise UsageError("--dry-run and --wait exclude each other.", fix="Give one of them.")


def job_template(request: SendRequest, mode: Mode) -> JobPart:
    """Give the job without its recipients, with an id. Reads the files. Raises UsageError and ContractError."""
    fields: JobFields = {
        "profile": request.profile,
        "data": dict(read_pairs(request.data, "--data")),
        "mode": mode,
        "priority": request.priority,
        "on_unknown": request.on_unknown,
        "attachments": tuple(_attachment(path) for path in request.attach),
    }
    if request.template is not None:
        fields["template"] = request.template
    elif request.subject is not None:
        fields["content"] = Content(
            subject=request.subject,
            text=None if request.text_file is None else read_text(request.text_file, "The text"),
            html=None if request.html_file is None else read_text(request.html_file, "The HTML"),
        )
    if request.id is not None:
        fields["id"] = request.id
    if request.source is not None and request.key is not None:
        fields["source"], fields["key"] = request.source, request.key
    if request.send_after is not None:
        fields["send_after"] = request.send_after
    if request.expires_at is not None:
        fields["expires_at"] = request.expires_at
    return job_of(None, fields)


def _check_content(request: SendRequest) -> None:
    inline = [request.subject, request.text_file, request.html_file]
    if request.template is not None:
        if any(given is not None for given in inline):
            raise UsageError(
                "--template and --subject, --text-file or --html-file exclude each other.",
                fix="Give a template, or the content.",
            )
        return
    if request.subject is None or (request.text_file is None and request.html_file is None):
        raise UsageError(
            "There is nothing to send.", fix="Give --template, or --subject with --text-file or --html-file, or both."
        )


def _check_recipients(request: SendRequest) -> None:
    if request.recipients is not None and request.to:
        raise UsageError("--recipients and --to exclude each other.", fix="Give one of them.")
    if request.recipients is None and not request.to:
        raise UsageError("There is nobody to send to.", fix="Give --recipients FILE.csv, or --to ADDRESS.")
    sources = [request.recipients, request.text_file, request.html_file]
    if sources.count(STANDARD_INPUT) > 1:
        raise UsageError("Standard input can be read for one thing only.", fix="Give the others as files.")


def _check_identity(request: SendRequest) -> None:
    if (request.source is None) != (request.key is None):
        raise UsageError("--source and --key belong together.", fix="Give both, or neither.")
    if request.id is not None and request.key is not None:
        raise UsageError("--id and --key exclude each other.", fix="Give --id, or --source and --key.")


def _check_times(request: SendRequest, now: datetime) -> None:
    if request.expires_at is None:
        return
    if request.expires_at <= now:
        raise UsageError("--expires-at has passed, so nothing would be sent.", fix="Give a later time.")
    if request.send_after is not None and request.expires_at <= request.send_after:
        raise UsageError("--expires-at is not later than --send-after.", fix="Give a later time.")


def _attachment(path: Path) -> Attachment:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_OCTETS + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else "that is no file name"
        raise UsageError(
            f"The attachment {path} cannot be read: {reason}.", fix="Check the name and the permissions."
        ) from None
    if len(content) > MAX_OCTETS:
        raise UsageError(
            f"The attachment {path} is longer than {MAX_OCTETS:,} bytes.", fix="Make it smaller, or send a link."
        )
    guessed, packed = mimetypes.guess_type(path.name)
    # multipart and message types may not travel as base64 (RFC 2045 section 6.4).
    is_usable = guessed is not None and packed is None and not guessed.startswith(("multipart/", "message/"))
    return Attachment(path.name, guessed if guessed is not None and is_usable else _PLAIN_TYPE, content)
