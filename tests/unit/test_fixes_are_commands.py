"""What a fix tells a person to type is taken by the command line, with every name in its place."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from tests.builders import THEN, an_oauth_profile
from tests.typed_commands import take_command
from tests.unit.test_check_verdicts import GOOGLE, MAILBOX, refusal
from tests.unit.test_check_verdicts_microsoft import app_token, persons_token
from tests.unit.test_refusal_causes import SAMPLES
from tocsin_schema.errors import TokenError
from tocsin_workers.classification import RULES
from tocsin_workers.diagnosis.connecting import bad_ca_file, explain_failed_session, unknown_host
from tocsin_workers.diagnosis.verdicts import (
    doubt_token,
    explain_no_credentials,
    explain_no_token,
    explain_refused_login,
    explain_refused_message,
)
from tocsin_workers.smtp.errors import SmtpAuthError, SmtpConnectError, Trouble
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import Reply
from tocsin_workers.smtp.tls import TlsMode
from tocsin_workers.tokens.refusals import not_an_answer, refused, unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tocsin_workers.tokens.token_facts import TokenFacts

COMMAND = re.compile(r"`(tocsin [^`]*)`")
#: What only the person knows; a name of a profile is not among them.
LEFT_OPEN = {
    "PORT": "587", "HOST": "mail.example", "FILE": "f", "F": "f", "URL": "https://sso.example/token", "SCOPE": "mail",
    "ADDRESS": "a@campus.example", "OAUTH": "campus", "ID": "99999999-8888-4777-8666-555555555555",
}  # fmt: skip
MACHINE = an_oauth_profile(grant_type="managed_identity", client_id=None, tenant_id=None)


def fixes() -> Iterator[str]:
    yield from of_ways()
    yield from of_tokens()
    yield from of_log_ins()
    yield from of_senders()


def of_ways() -> Iterator[str]:
    yield unknown_host("news")
    yield bad_ca_file("news")
    for trouble in Trouble:
        error = SmtpConnectError("No.", phase=Phase.CONNECT, trouble=trouble)
        for tls in TlsMode:
            for uses_oauth in (False, True):
                yield explain_failed_session(error, profile_name="news", tls=tls, uses_oauth=uses_oauth).fix


def of_tokens() -> Iterator[str]:
    yield explain_no_credentials(TokenError("No."), profile_name="news").fix
    profile = an_oauth_profile()
    for error in (unreachable(profile, "no"), not_an_answer(profile, 404), not_an_answer(MACHINE, 403)):
        yield explain_no_token(error, profile, profile_name="news", login=MAILBOX).fix
    for sample in SAMPLES:
        error = refused(sample.profile, sample.refusal, ())
        yield explain_no_token(error, sample.profile, profile_name="news", login=MAILBOX).fix
    for facts in (
        app_token(audience=("https://graph.microsoft.com",)),
        app_token(tenant="22222222-2222-4333-8444-555555555555"),
        persons_token(scopes=()),
    ):
        for scope in ("mail", "https://outlook.office365.com/.default"):
            doubt = doubt_token(
                "microsoft365", facts, now=THEN, oauth_profile=an_oauth_profile(scope=scope), login=MAILBOX
            )
            assert doubt is not None
            yield doubt.fix


def of_log_ins() -> Iterator[str]:
    person = an_oauth_profile(grant_type="device_code")
    cases: tuple[tuple[str, TokenFacts | None, Any, str], ...] = (
        ("google", None, GOOGLE, "535 5.7.8 no"),
        ("google", None, None, "534 5.7.9 Application-specific password required"),
        ("google", None, None, "535 5.7.8 no"),
        ("google", None, GOOGLE, "555 5.5.2 Syntax error"),
        ("microsoft365", app_token(), an_oauth_profile(), "535 5.7.3 no"),
        ("microsoft365", persons_token(user="ada@campus.example"), person, "535 5.7.3 no"),
        ("microsoft365", None, None, "535 5.7.139 basic authentication is disabled"),
        ("microsoft365", None, None, "535 5.7.139 the user credentials were incorrect"),
        ("microsoft365", None, None, "535 5.7.3 no"),
        ("custom", None, an_oauth_profile(provider="custom"), "535 5.7.8 no"),
        ("custom", None, None, "535 5.7.8 no"),
    )
    for provider, facts, oauth_profile, said in cases:
        code, enhanced, text = said.split(" ", 2)
        error: SmtpAuthError = refusal(
            Reply(int(code), enhanced, text), mechanism="LOGIN" if oauth_profile is None else "XOAUTH2"
        )
        verdict = explain_refused_login(
            provider, MAILBOX, facts, error, now=THEN, oauth_profile=oauth_profile, profile_name="news"
        )
        assert verdict is not None
        yield verdict.fix


def of_senders() -> Iterator[str]:
    for phase, reply in (
        (Phase.MAIL, Reply(550, "5.7.60", "no permissions to send as this sender")),
        (Phase.MAIL, Reply(553, "5.7.1", "Sender address rejected: not owned by user")),
        (Phase.MAIL, Reply(530, None, "Authentication required")),
        (Phase.RCPT, Reply(550, "5.1.1", "No such user")),
    ):
        for sender in (MAILBOX, "dean@campus.example"):
            yield explain_refused_message(
                phase, reply, login=MAILBOX, from_address=sender, token_facts=None, profile_name="news"
            ).fix


ALL = sorted({command for fix in fixes() for command in COMMAND.findall(fix)})


@pytest.mark.parametrize("typed", ALL)
def test_the_command_line_takes_what_a_fix_says(typed: str):
    words = [LEFT_OPEN.get(word, word) for word in shlex.split(typed)[1:]]
    assert not [word for word in words if word.isupper()], "a name was left open"
    take_command(words)


def test_fixes_of_every_kind_are_among_them():
    for beginning in ("oauth acquire", "oauth check", "oauth set", "profile set", "profile replace-password"):
        assert any(command.startswith(f"tocsin {beginning} ") for command in ALL), beginning


def test_no_advice_of_the_tables_of_microsoft_and_google_is_half_a_command():
    halves = [
        rule.name for rule in RULES if rule.name.startswith(("microsoft", "google")) and "--" in (rule.advice or "")
    ]
    assert halves == []
