from __future__ import annotations

import json
from typing import Any

import pytest
from dramatiq import Message
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.message_broker.deaths import Death
from tocsin_schema.message_broker.encoder import (
    encode_message,
    message_for,
    open_envelope,
)
from tocsin_schema.message_broker.topology import ACTORS, DEAD_QUEUE, QUEUES, WAKE_UP_QUEUES

NORMAL = "tocsin.intake.normal"
DEATH = Death(reason="rejected", queue=NORMAL, count=1, headers={})


def envelope(queue: str = NORMAL, actor: str | None = None, **changes: Any) -> bytes:
    message: Message[Any] = Message(
        queue_name=queue, actor_name=actor or ACTORS[queue], args=(b"a part",), kwargs={}, options={}
    )
    return json.dumps({**json.loads(encode_message(message)), **changes}).encode()


def part(queue: str, body: bytes, death: Death | None = None) -> object:
    message = message_for(queue, body, death=death)
    assert message is not None
    assert message.actor_name == ACTORS[queue]
    assert message.queue_name == queue
    assert message.options == {}
    return message.args[0]


@given(st.binary())
def test_any_bytes_reach_the_intake_actor_unchanged(body: bytes) -> None:
    assert part(NORMAL, body) == body


@given(st.binary())
def test_bytes_survive_an_envelope(body: bytes) -> None:
    message: Message[Any] = Message(queue_name=NORMAL, actor_name=ACTORS[NORMAL], args=(body,), kwargs={}, options={})
    encoded = encode_message(message)
    assert b"\\u0000" not in encoded
    json.loads(encoded)
    assert part(NORMAL, encoded) == body


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json_that_is_no_envelope_is_a_part(value: object) -> None:
    body = json.dumps(value).encode()
    assert open_envelope(body) is None
    assert part(NORMAL, body) == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"\xff\xfe",
        b'{"args": ["\xff"]}',
        b"[" * 100_000,
        b'{"args":' + b"[" * 100_000,
        b'{"message_timestamp": 1e999}',
        envelope(actor="somebody_elses"),
        envelope(message_id="not a uuid"),
        envelope(args=[{"$bytes": "not base64!"}]),
        envelope(args=[1, 2, 3]),
        envelope(kwargs={"surplus": 1}),
        envelope(surplus=1),
        envelope(queue=DEAD_QUEUE, args=[{"$bytes": "eA=="}, {"reason": "forged"}]),
        envelope(queue="tocsin.tokens"),
    ],
    ids=lambda body: repr(body[:40]),
)
def test_what_only_looks_like_an_envelope_is_a_part(body: bytes) -> None:
    assert part(NORMAL, body) == body
    assert part(DEAD_QUEUE, body, DEATH) == body


def test_a_stranger_cannot_park_a_queue_with_an_eta() -> None:
    message = message_for(NORMAL, envelope(options={"eta": 9_999_999_999_999}))
    assert message is not None
    assert message.options == {}


def test_a_part_of_one_rank_cannot_name_the_actor_of_another() -> None:
    assert part("tocsin.intake.bulk", envelope("tocsin.intake.urgent")) == b"a part"


def test_a_dead_letter_carries_its_part_and_why_it_died() -> None:
    message = message_for(DEAD_QUEUE, b"broken", death=DEATH)
    assert message is not None
    assert message.args == (b"broken", DEATH)
    again = message_for(DEAD_QUEUE, encode_message(message))
    assert again is not None
    assert again.args == (b"broken", DEATH)
    assert again.message_id == message.message_id


def test_a_dead_letter_is_taken_out_of_the_envelope_that_it_died_in() -> None:
    assert part(DEAD_QUEUE, envelope(), DEATH) == b"a part"


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", envelope()])
def test_what_is_no_wake_up_wakes_nobody(body: bytes) -> None:
    assert message_for("tocsin.tokens", body) is None


@given(st.sampled_from(QUEUES), st.binary() | st.binary(max_size=20).map(lambda more: envelope()[:-1] + more))
def test_no_body_on_any_queue_raises(queue: str, body: bytes) -> None:
    message = message_for(queue, body)
    assert message is None or (message.queue_name, message.actor_name) == (queue, ACTORS[queue])
    assert message is not None or queue in WAKE_UP_QUEUES


def test_a_wake_up_comes_back_with_its_hints() -> None:
    body = envelope("tocsin.sweep", args=[], kwargs={"job": 7})
    message = message_for("tocsin.sweep", body)
    assert message is not None
    assert (message.actor_name, message.args, message.kwargs) == ("sweeper", (), {"job": 7})
    assert message_for("tocsin.sweep", encode_message(message)) == message
