"""What a process counts of what it sends, and how boldly it pipelines."""

from __future__ import annotations

from dataclasses import replace

from tests.builders import a_sender_profile
from tocsin_schema.ledger.traffic import Counted
from tocsin_workers.sender.pipelining_memory import PipeliningMemory
from tocsin_workers.sender.traffic import Traffic
from tocsin_workers.smtp.pipelining import Pipelining, PipeliningWatch, Strain, Strained


def test_an_idle_process_has_nothing_to_tell():
    traffic = Traffic()
    assert traffic.take({}, 100.0) == []
    traffic.count(1, recipients=50, now=100.0)
    traffic.take({}, 101.0)
    assert traffic.take({}, 103.0) == []


def test_messages_are_counted_by_the_mailbox_with_what_is_open_and_how_long_it_took():
    traffic = Traffic()
    traffic.count(1, recipients=50, now=100.0)
    traffic.count(1, recipients=3, now=100.5)
    traffic.count(2, recipients=1, now=101.5)
    told = {one.mailbox_id: one for one in traffic.take({1: 2, 3: 1}, 102.0)}
    assert told == {1: Counted(1, 2, 53, 2, 2.0), 2: Counted(2, 1, 1, 0, 0.5), 3: Counted(3, 0, 0, 1, 0.0)}


def test_what_could_not_be_told_is_counted_again():
    traffic = Traffic()
    traffic.count(1, recipients=50, now=100.0)
    traffic.put_back(traffic.take({1: 1, 2: 1}, 102.0), 103.0)
    traffic.count(1, recipients=50, now=104.0)
    assert traffic.take({}, 105.0) == [Counted(1, 2, 100, 0, 4.0)]


def broken(form: Pipelining) -> PipeliningWatch:
    watch = PipeliningWatch(form)
    watch.strained = Strained(Strain.FINAL_REPLY_LOST, had_worked=False)
    return watch


def test_a_server_that_breaks_on_it_gets_less_pipelining_from_every_process():
    memory, bold = PipeliningMemory(), replace(a_sender_profile(), pipelining="full")
    assert memory.form_for(bold) is Pipelining.FULL
    assert memory.after(bold.mailbox_id, broken(Pipelining.FULL)) is Pipelining.ENVELOPE
    assert PipeliningMemory().form_for(replace(bold, learned_pipelining="envelope")) is Pipelining.ENVELOPE
    assert PipeliningMemory().form_for(replace(bold, learned_pipelining="off")) is Pipelining.OFF


def test_after_a_day_a_bolder_form_is_tried_again():
    memory, bold = PipeliningMemory(), replace(a_sender_profile(), pipelining="full")
    memory.form_for(replace(bold, learned_pipelining="envelope"))
    assert memory.form_for(bold) is Pipelining.FULL


def test_a_profile_that_wants_no_pipelining_gets_none():
    assert PipeliningMemory().form_for(replace(a_sender_profile(), pipelining="off")) is Pipelining.OFF
