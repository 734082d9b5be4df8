"""What a refusal means for the mailbox and the profile."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import THEN, a_sender_profile
from tocsin_schema.errors import Scope
from tocsin_schema.ledger.learned_limits import CountedBy
from tocsin_schema.ledger.pausing import PauseCause, Probe
from tocsin_workers.classification import Kind, Outcome
from tocsin_workers.sender.reacting import (
    FIRST_TROUBLE_SECONDS,
    LONGEST_TROUBLE_SECONDS,
    QUOTA_SECONDS,
    THROTTLED_SECONDS,
    FewerConnections,
    Park,
    Pause,
    Reaction,
    Slow,
    next_probe,
    to_failed_session,
    to_refusal,
    trouble_seconds,
)
from tocsin_workers.smtp.errors import SmtpAuthError, SmtpConnectError, SmtpDisconnected, SmtpSessionError, SmtpTlsError
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import Reply


def outcome(kind: Kind, *, scope: Scope = Scope.MAILBOX, permanent: bool = False, advice: str | None = None) -> Outcome:
    return Outcome(kind, scope, permanent=permanent, rule="test", advice=advice)


SAID = "550 5.7.0 no"


@pytest.mark.parametrize(
    ("given_outcome", "reaction"),
    [
        (outcome(Kind.TOO_FAST), Slow(SAID)),
        (replace(outcome(Kind.TOO_FAST), per_second=True), Slow(SAID, CountedBy.SECOND)),
        (outcome(Kind.TOO_MANY_CONNECTIONS), FewerConnections(SAID)),
        (outcome(Kind.QUOTA), Park(QUOTA_SECONDS, SAID)),
        (outcome(Kind.TENANT_QUOTA), Park(QUOTA_SECONDS, SAID, is_tenants=True)),
        (outcome(Kind.NOT_AUTHENTICATED, permanent=True), Pause(SAID)),
        (outcome(Kind.SENDER_REFUSED, permanent=True), Pause(SAID, PauseCause.SENDER)),
        (outcome(Kind.SENDER_REFUSED), Park(THROTTLED_SECONDS, SAID)),
        (outcome(Kind.TRANSIENT), Park(THROTTLED_SECONDS, SAID)),
        (outcome(Kind.TRANSIENT, scope=Scope.SESSION), None),
        (outcome(Kind.TRANSIENT, scope=Scope.RECIPIENT), None),
        (outcome(Kind.REFUSED, scope=Scope.RECIPIENT, permanent=True), None),
        (outcome(Kind.TOO_MANY_RECIPIENTS), None),
        (outcome(Kind.DOUBTFUL), None),
        (outcome(Kind.ACCEPTED), None),
    ],
    ids=str,
)
def test_each_kind_has_its_answer(given_outcome: Outcome, reaction: Reaction):
    assert to_refusal(given_outcome, SAID) == reaction


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("permanent", [True, False])
def test_no_kind_is_without_an_answer_and_only_a_permanent_one_needs_a_person(
    kind: Kind, scope: Scope, *, permanent: bool
):
    reaction = to_refusal(outcome(kind, scope=scope, permanent=permanent), SAID)
    if isinstance(reaction, Pause) and kind is not Kind.NOT_AUTHENTICATED:
        assert permanent


def test_the_reason_tells_what_the_server_said_and_what_to_do():
    reaction = to_refusal(outcome(Kind.SENDER_REFUSED, permanent=True, advice="Grant Send As."), SAID)
    assert reaction == Pause(f"{SAID} Grant Send As.", PauseCause.SENDER)


@pytest.mark.parametrize(
    "error",
    [
        SmtpAuthError("No password over plain text."),
        SmtpAuthError("The server refuses the token.", reply=Reply(535, "5.7.3", "Authentication unsuccessful")),
        SmtpAuthError(
            "Blocked.", reply=Reply(535, "5.7.139", "Authentication unsuccessful, SmtpClientAuth is disabled")
        ),
    ],
    ids=str,
)
def test_refused_credentials_need_a_person(error: SmtpSessionError):
    assert to_failed_session(error, 1) == Pause(str(error))


@pytest.mark.parametrize(
    "error",
    [
        SmtpAuthError("Not now.", reply=Reply(454, "4.7.0", "Temporary authentication failure")),
        SmtpConnectError("No answer.", phase=Phase.CONNECT),
        SmtpConnectError("Not today.", phase=Phase.GREETING, reply=Reply(554, None, "No SMTP service here")),
        SmtpDisconnected("Gone.", phase=Phase.AUTH),
    ],
    ids=str,
)
def test_what_may_pass_lets_the_mailbox_rest_ever_longer(error: SmtpSessionError):
    assert to_failed_session(error, 1) == Park(5.0, str(error))
    assert to_failed_session(error, 3) == Park(20.0, str(error))


def test_a_connection_that_is_refused_at_the_greeting_is_one_too_many():
    reply = Reply(421, None, "Too many concurrent SMTP connections")
    error = SmtpConnectError("Refused.", phase=Phase.GREETING, reply=reply)
    assert to_failed_session(error, 1) == FewerConnections("Refused.", at_greeting=True)


def test_too_many_log_ins_lower_no_rate_of_messages():
    error = SmtpAuthError("Refused.", reply=Reply(454, "4.7.0", "Too many login attempts, please try again later"))
    assert to_failed_session(error, 1) == Park(5.0, "Refused.")


def test_a_bad_certificate_is_tried_again_in_a_minute():
    error = SmtpTlsError("Wrong name.", phase=Phase.TLS, fix="Check --host.")
    assert to_failed_session(error, 5) == Park(THROTTLED_SECONDS, "Wrong name. Check --host.")


def test_trouble_doubles_up_to_five_minutes():
    assert [trouble_seconds(count) for count in (1, 2, 3, 4, 5, 6, 7, 8, 50)] == [5, 10, 20, 40, 80, 160, 300, 300, 300]


@given(st.integers(1, 1000))
def test_more_trouble_never_means_less_rest(count: int):
    assert FIRST_TROUBLE_SECONDS <= trouble_seconds(count) <= trouble_seconds(count + 1) <= LONGEST_TROUBLE_SECONDS


def test_a_server_that_is_away_for_a_week_is_still_left_alone():
    assert trouble_seconds(5000) == LONGEST_TROUBLE_SECONDS


def test_refused_credentials_are_tried_again_after_1_2_4_up_to_60_minutes():
    paused = a_sender_profile(paused_reason="refused")
    waits = [next_probe(replace(paused, probes=count)).in_seconds for count in range(9)]
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_the_waits_go_on_growing_where_the_trouble_comes_back_within_the_hour():
    resumed = a_sender_profile(probes=3, resumed_at=THEN - timedelta(minutes=59))
    assert next_probe(resumed) == Probe(480, 4)
    assert next_probe(replace(resumed, resumed_at=THEN - timedelta(minutes=61))) == Probe(60, 1)


def test_an_endpoint_that_wants_to_be_left_alone_is_not_probed_earlier():
    assert next_probe(a_sender_profile(), wish_seconds=900).in_seconds == 900
