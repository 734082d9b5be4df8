"""The demo agrees with its mail server on every delivery, or says which one differs."""

from __future__ import annotations

from tocsin_console.demo.comparison import compare
from tocsin_console.demo.mail_sink import ReceivedMessage
from tocsin_schema.ledger.deliveries import Delivery

ANN = Delivery("<1@example.org>", "aa", "ann@example.org")
BOB = Delivery("<1@example.org>", "aa", "bob@example.org")
SENT = [(1, ANN.address), (1, BOB.address)]


def received(*recipients: str, message_id: str | None = ANN.message_id, sha256: str = ANN.sha256) -> ReceivedMessage:
    return ReceivedMessage(
        queue_id="q", mail_from="news@example.org", recipients=recipients, message_id=message_id, sha256=sha256,
        size=10, tls=True, user="news@example.org", session=1, received_at=0.0,
    )  # fmt: skip


def test_they_agree_where_each_delivery_came_once() -> None:
    found = compare([ANN, BOB], SENT, [received(ANN.address, BOB.address)])
    assert found.agree
    assert (found.deliveries, found.messages) == (2, 1)


def test_nothing_sent_and_nothing_received_agree() -> None:
    assert compare([], [], []).agree


def test_what_only_the_ledger_knows_is_named() -> None:
    found = compare([ANN, BOB], SENT, [received(ANN.address)])
    assert not found.agree
    assert (found.only_in_ledger, found.only_received) == ((BOB,), ())


def test_what_only_the_mail_server_knows_is_named() -> None:
    found = compare([ANN], [(1, ANN.address)], [received(ANN.address, BOB.address)])
    assert not found.agree
    assert (found.only_in_ledger, found.only_received) == ((), (BOB,))
    assert found.doubled == ()


def test_a_delivery_that_came_twice_is_doubled_and_received_once_too_often() -> None:
    found = compare([ANN, BOB], SENT, [received(ANN.address, BOB.address), received(BOB.address)])
    assert not found.agree
    assert (found.doubled, found.only_received) == ((BOB,), (BOB,))


def test_a_delivery_that_came_twice_is_doubled_even_where_the_ledger_has_both() -> None:
    found = compare([ANN, ANN], [(1, ANN.address), (2, ANN.address)], [received(ANN.address), received(ANN.address)])
    assert not found.agree
    assert (found.doubled, found.only_in_ledger, found.only_received) == ((ANN,), (), ())


def test_other_bytes_or_another_message_id_are_another_delivery() -> None:
    for other in (received(ANN.address, sha256="bb"), received(ANN.address, message_id=None)):
        found = compare([ANN], [(1, ANN.address)], [other])
        assert found.only_in_ledger == (ANN,)
        assert len(found.only_received) == 1


def test_a_recipient_called_sent_without_a_copy_is_named() -> None:
    found = compare([ANN], SENT, [received(ANN.address)])
    assert not found.agree
    assert found.without_copy == (BOB.address,)


def test_a_copy_of_a_recipient_who_is_not_called_sent_is_named() -> None:
    found = compare([ANN, BOB], [(1, ANN.address)], [received(ANN.address, BOB.address)])
    assert not found.agree
    assert found.without_copy == (BOB.address,)


def test_an_address_in_two_jobs_needs_a_copy_of_each() -> None:
    found = compare([ANN], [(1, ANN.address), (2, ANN.address)], [received(ANN.address)])
    assert found.without_copy == (ANN.address,)
