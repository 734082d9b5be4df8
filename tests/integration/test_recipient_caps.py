"""How many recipients a server takes at once: what it offers, and what it says when they are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.servers.office import Office

#: Two batches of the office's profile, which has 50 in one, and they come in one claim.
PEOPLE = [f"r{number}@campus.example" for number in range(100)]
CAP = 20


def no_more_than_the_cap(office: Office) -> None:
    """Let the server refuse every RCPT of a transaction after so many."""
    office.server.answers["RCPT"] = lambda _: "452 4.5.3 Too many recipients" if office.transactions[-1] > CAP else None


async def assert_all_were_sent_to_once(office: Office, job: int) -> None:
    assert {state for state, _ in (await office.states(job)).values()} == {"sent"}
    got = [address for message in office.server.messages for address in message.recipients]
    assert sorted(got) == sorted(PEOPLE)


async def test_the_rest_of_a_claim_keeps_to_what_a_refusal_taught(office: Office):
    no_more_than_the_cap(office)
    job = await office.send(*PEOPLE)
    await assert_all_were_sent_to_once(office, job)
    first, *others = office.transactions
    assert first == 50
    assert max(others) <= CAP


async def test_what_the_server_offers_is_kept_from_the_first_message_on(office: Office):
    office.server.extensions = (*office.server.extensions, f"LIMITS RCPTMAX={CAP}")
    no_more_than_the_cap(office)
    job = await office.send(*PEOPLE)
    await assert_all_were_sent_to_once(office, job)
    assert max(office.transactions) <= CAP
