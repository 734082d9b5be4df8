"""The mail server and the token endpoint, as the suite handles them: a process that does what it is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import msgspec

from tests.servers.faults import mail_control
from tests.servers.faults.mail_moods import Kindly, Mood

_ROOT = Path(__file__).parents[3]
_STOP_SECONDS = 10.0

T = TypeVar("T")


class MailServerProcess:
    """Starts with its constructor; `stop` ends it, and so does the end of this process."""

    def __init__(self, configuration: mail_control.Configuration) -> None:
        log = Path(configuration.directory) / "mail.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.servers.faults.mail_process"],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self._log = log
        self.whereabouts = self._ask(configuration, mail_control.Whereabouts)

    def behave(self, mood: Mood | None = None) -> int:
        """Change its mood, by default to taking everything; give how often the one before has struck."""
        return self._tell(mail_control.Behave(mood or Kindly())).strikes

    def hang_up(self) -> None:
        """End every session before its next message."""
        self._tell(mail_control.HangUp())

    def leave(self) -> None:
        """Be gone."""
        self._tell(mail_control.Leave())

    def come_back(self) -> None:
        """Be there again."""
        self._tell(mail_control.Return())

    def fail_tokens(self, *, by_hanging: bool) -> None:
        """Take every token back and give no new one."""
        self._tell(mail_control.FailTokens(by_hanging))

    def give_tokens(self) -> None:
        """Give tokens again."""
        self._tell(mail_control.GiveTokens())

    def count(self) -> mail_control.Done:
        """Give how often it has struck."""
        return self._tell(mail_control.Count())

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def _tell(self, command: mail_control.Command) -> mail_control.Done:
        return self._ask(command, mail_control.Done)

    def _ask(self, question: msgspec.Struct, kind: type[T]) -> T:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(question) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the mail server has ended: {self._log.read_text(errors='replace')[-3000:]}")
        return msgspec.json.decode(line, type=kind)
