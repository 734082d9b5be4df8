from __future__ import annotations

import pytest

from tocsin_schema.message_broker import topology
from tocsin_schema.message_broker.topology import Role


def test_every_queue_has_one_actor_of_its_own() -> None:
    assert set(topology.ACTORS) == set(topology.QUEUES)
    assert len(set(topology.ACTORS.values())) == len(topology.QUEUES)


def test_the_roles_together_consume_every_queue_once() -> None:
    parts = [queue for role in Role if role is not Role.ALL for queue in topology.queues_of(role)]
    assert sorted(parts) == sorted(topology.queues_of(Role.ALL)) == sorted(topology.QUEUES)


@pytest.mark.parametrize("threads", range(3, 65))
def test_a_quarter_of_the_slices_is_always_left_to_urgent(threads: int) -> None:
    normal = topology.prefetch("tocsin.send.normal", threads)
    bulk = topology.prefetch("tocsin.send.bulk", threads)
    assert normal >= bulk >= 1
    assert threads - normal - bulk >= max(1, threads / 4) - 1e-9
    assert topology.prefetch("tocsin.send.urgent", threads) == threads


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("threads", [4, 8, 32])
def test_what_is_held_besides_urgent_wake_ups_never_fills_all_threads(role: Role, threads: int) -> None:
    queues = topology.queues_of(role)
    held = sum(topology.prefetch(queue, threads) for queue in queues if queue != "tocsin.send.urgent")
    spare = topology.worker_threads(queues, threads) - held
    assert spare >= (threads / 4 if "tocsin.send.urgent" in queues else 0)


def test_intake_holds_one_part_a_queue_so_that_a_death_counts_against_one() -> None:
    assert {topology.prefetch(queue, 64) for queue in (*topology.INTAKE_QUEUES, topology.DEAD_QUEUE)} == {1}


def test_an_intake_queue_dead_letters_at_least_once() -> None:
    arguments = topology.queue_arguments("tocsin.intake.urgent", rabbitmq_major=3)
    assert arguments["x-dead-letter-strategy"] == "at-least-once"
    assert arguments["x-overflow"] == "reject-publish"
    assert arguments["x-dead-letter-routing-key"] == topology.DEAD_QUEUE


@pytest.mark.parametrize("major", [3, 4])
def test_nothing_leaves_the_dead_letter_queue_by_itself(major: int) -> None:
    arguments = topology.queue_arguments(topology.DEAD_QUEUE, rabbitmq_major=major)
    assert arguments.pop("x-delivery-limit", -1) == -1
    assert arguments == {"x-queue-type": "quorum"}


def test_only_rabbitmq_4_is_told_that_dead_letters_have_no_delivery_limit() -> None:
    assert "x-delivery-limit" not in topology.queue_arguments(topology.DEAD_QUEUE, rabbitmq_major=3)
    assert topology.queue_arguments(topology.DEAD_QUEUE, rabbitmq_major=4)["x-delivery-limit"] == -1


@pytest.mark.parametrize("name", [topology.intake_queue, topology.send_queue])
def test_an_unknown_rank_has_no_queue(name: object) -> None:
    assert callable(name)
    with pytest.raises(ValueError, match="no such rank: 'soon'"):
        name("soon")
