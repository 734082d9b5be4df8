"""What a person reads of a check: the whole of it, in the terminal's width, with something to do."""

from __future__ import annotations

import pytest

from tests.builders import an_oauth_profile
from tocsin_console.commands.oauth_check import what_time_may_mend
from tocsin_console.commands.profile_check import lines_beside
from tocsin_workers.checking.steps import Step, StepResult, StepVerdict

COMMAND = "`Set-CASMailbox -Identity news@example.org`"
FAILED = StepResult(
    Step.AUTH, StepVerdict.FAILED, "it says no\nand again no", "smtp_auth_disabled", f"Run {COMMAND} now."
)


def test_a_failed_step_hangs_below_its_beginning_and_is_not_wrapped_where_it_is_piped() -> None:
    assert lines_beside(FAILED, width=None) == [
        "it says no", "and again no", "cause: smtp_auth_disabled", f"fix:   Run {COMMAND} now.",
    ]  # fmt: skip


def test_a_failed_step_is_wrapped_on_a_terminal_with_words_in_one_piece() -> None:
    lines = lines_beside(FAILED, width=40)
    assert max(len(line) for line in lines) <= 40
    assert lines[3:] == ["fix:   Run `Set-CASMailbox -Identity", "       news@example.org` now."]


@pytest.mark.parametrize(("grant", "names_address"), [("client_credentials", True), ("managed_identity", False)])
def test_a_failure_that_nothing_is_known_against_has_a_fix_all_the_same(grant: str, names_address: bool) -> None:
    fix = what_time_may_mend(an_oauth_profile(grant_type=grant))
    assert "Try again in a while" in fix
    assert ("tocsin oauth set campus --token-endpoint URL" in fix) is names_address
