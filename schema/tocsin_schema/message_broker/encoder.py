"""What lies on a queue, and the message that an actor gets for it. Pure, and never raises on what comes in.

On an intake queue lies either plain JSON from any AMQP client or our own dramatiq envelope; either way the
intake actor gets the part's bytes as its one argument, however broken they are. Which actor that is depends
only on the queue, never on what the envelope says, and an envelope's options are dropped: `eta` in one from a
stranger would park the queue for ever. Only when it was published and its trace context go on.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import Any, Final, cast
from uuid import UUID  # noqa: TC003 - msgspec reads the annotation at run time

import msgspec
from dramatiq import Message

from tocsin_schema.message_broker.deaths import Death
from tocsin_schema.message_broker.topology import ACTORS, DEAD_QUEUE, INTAKE_QUEUES
from tocsin_schema.trace_context import TRACEPARENT, read_traceparent

#: The one key of the object that stands for bytes: JSON has none, and Postgres' JSONB refuses NUL even in
#: text.
_BYTES_KEY: Final = "$bytes"


class Envelope(msgspec.Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """dramatiq's message as JSON. A part of a job fails to be one at its first field, however long it is."""

    queue_name: str
    actor_name: str
    args: tuple[object, ...]
    kwargs: dict[str, object]
    options: dict[str, object]
    message_id: UUID
    message_timestamp: int


_envelopes: Final = msgspec.json.Decoder(Envelope)


def open_envelope(body: bytes) -> Envelope | None:
    """Read an envelope that names one of our actors; None for anything else."""
    try:
        envelope = _envelopes.decode(body)
        if envelope.actor_name not in ACTORS.values():
            return None
        return msgspec.structs.replace(
            envelope,
            args=tuple(_unwrap(value) for value in envelope.args),
            kwargs={name: _unwrap(value) for name, value in envelope.kwargs.items()},
        )
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def message_for(
    queue: str,
    body: bytes,
    *,
    death: Death | None = None,
    published_ms: int | None = None,
    traceparent: object = None,
) -> Message[Any] | None:
    """Give the message that the queue's actor gets for a body; None where a wake-up makes no sense.

    `death` is what the broker told about a dead letter; without it the dead-letter queue holds our own
    envelopes, which carry it inside. `published_ms` is when a part was published, as the broker told; an envelope tells
    it by itself. So with `traceparent`, the trace context that came with it, whatever stands in it.
    """
    envelope = open_envelope(body)
    if queue in INTAKE_QUEUES:
        told = published_ms if published_ms is not None or envelope is None else envelope.message_timestamp
        published: dict[str, object] = {} if told is None else {"published_ms": told}
        return _message(queue, (_part_in(envelope, body),), {**published, **_trace(envelope, traceparent)}, envelope)
    if queue == DEAD_QUEUE:
        if death is None:
            return _message(queue, _dead_letter_in(envelope, body), {}, envelope)
        return _message(queue, (_part_in(envelope, body), death), {}, envelope)
    if envelope is None or envelope.actor_name != ACTORS[queue]:
        return None
    return _message(queue, envelope.args, envelope.kwargs, envelope)


def encode_message(message: Message[Any]) -> bytes:
    """Turn a message into its envelope. Arguments are plain JSON or bytes."""
    fields = cast("dict[str, object]", message.asdict())
    wrapped: dict[str, object] = {
        "args": [_wrap(value) for value in message.args],
        "kwargs": {name: _wrap(value) for name, value in message.kwargs.items()},
    }
    return msgspec.json.encode({**fields, **wrapped})


def with_id(message: Message[Any], message_id: str) -> Message[Any]:
    """Give the same message under another id."""
    return replace(message, message_id=message_id)


def _message(
    queue: str, args: tuple[object, ...], kwargs: dict[str, object], envelope: Envelope | None
) -> Message[Any]:
    message: Message[Any] = Message(queue_name=queue, actor_name=ACTORS[queue], args=args, kwargs=kwargs, options={})
    return message if envelope is None else with_id(message, str(envelope.message_id))


def _part_in(envelope: Envelope | None, body: bytes) -> bytes:
    """Take the part out of an intake actor's envelope; anything else is the part itself."""
    if envelope is None or envelope.kwargs or not envelope.actor_name.startswith("intake_"):
        return body
    match envelope.args:
        case (bytes() as part,):
            return part
        case _:
            return body


def _trace(envelope: Envelope | None, told: object) -> dict[str, object]:
    """Give the trace context that came with a part, if it is one."""
    if told is None and envelope is not None:
        told = envelope.options.get(TRACEPARENT)
    parent = read_traceparent(told)
    return {} if parent is None else {TRACEPARENT: str(parent)}


def _dead_letter_in(envelope: Envelope | None, body: bytes) -> tuple[object, ...]:
    if envelope is not None and envelope.actor_name == ACTORS[DEAD_QUEUE]:
        args = envelope.args
        if len(args) == 2 and isinstance(args[0], bytes) and isinstance(args[1], dict):  # noqa: PLR2004 - part, death
            return cast("tuple[object, ...]", args)
    return (_part_in(envelope, body), Death(reason="unknown", queue=None, count=1, headers={}))


def _wrap(value: object) -> object:
    if isinstance(value, bytes):
        return {_BYTES_KEY: b64encode(value).decode("ascii")}
    return value


def _unwrap(value: object) -> object:
    """Give wrapped bytes back; ValueError where they are not base64."""
    match value:
        case {"$bytes": str() as text} if len(cast("dict[str, object]", value)) == 1:
            try:
                return b64decode(text, validate=True)
            except binascii.Error as error:
                raise ValueError("not base64") from error
        case _:
            return value
