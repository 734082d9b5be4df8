"""The blocks of the documentation that are marked `<!-- run -->`, run in an installation of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs_blocks import PAGES, ROOT, SHELL, Block, blocks, commands, shell_text
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.ports import free_port
from tocsin_console.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.command_line import CommandLine

#: In one installation: the other pages go on from what the first has made.
RUN = ("quick-start.md", "operations.md", "job-controls.md", "suppression.md", "key-rotation.md")
MICROSOFT = ROOT / "docs" / "providers" / "microsoft365.md"
GOOGLES_ENDPOINT = "https://oauth2.googleapis.com/token"
#: What is said to the ledger only; the rest needs a provider.
SETTING_UP_IN = ("providers/microsoft365.md", "providers/google.md", "providers/ses.md", "signing-in.md")
SETTING_UP = (["oauth", "add"], ["profile", "add"], ["profile", "set"], ["setting", "set"])
IDS = {
    "TENANT": "11111111-8888-4777-8666-555555555555", "CLIENT": "99999999-8888-4777-8666-555555555555",
    "IDENTITY": "99999999-8888-4777-8666-555555555555", "OAUTH": "m365", "HOST": "mail.example",
}  # fmt: skip
MAIL_SERVER_PORT = "2525"
SECONDS = 120


def marked(page: Path, *marks: str) -> list[Block]:
    return [block for block in blocks(page) if block.mark in marks and block.language in SHELL]


class Shell:
    """One bash after the other in one directory; variables do not outlast a page."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = str(free_port())
        programs = directory / "bin"
        programs.mkdir()
        for name, call in (("tocsin", f'"{sys.executable}" -m tocsin_console'), ("python", f'"{sys.executable}"')):
            (programs / name).write_text(f'#!/bin/sh\nexec {call} "$@"\n')
            (programs / name).chmod(0o755)
        # A reader's Python keeps back what it writes into a file, and says nothing of that.
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("TOCSIN_", "PYTHONUNBUFFERED"))
        }
        self.environment = {
            **inherited,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "TOCSIN_DATA_DIR": str(directory / "data"),
            "TOCSIN_METRICS_PORT": str(free_port()),
            "TOCSIN_WORKER_PROCESSES": "1",
        }

    def run(self, *told: Block) -> str:
        """Run blocks as a reader types them, one after the other, up to the first that fails."""
        script = "".join(f"echo '# {block.where}'\n{block.text}" for block in told)
        # What a reader leaves running in the background outlasts the page here as well.
        script = re.sub(r" &$", " 2>/dev/null & echo $! >> background", script, flags=re.MULTILINE)
        script = re.sub(r"^kill %1.*$", "kill $(cat background)", script, flags=re.MULTILINE)
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace(MAIL_SERVER_PORT, self.port)],
            cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout
        return ended.stdout


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    # Not under tmp_path, whose closed directories the server's own user cannot pass when the tests run as root.
    directory = Path(tempfile.mkdtemp(prefix="tocsin-test-docs-"))
    directory.chmod(0o711)
    shell = Shell(directory)
    try:
        yield shell
    finally:
        subprocess.run(
            [directory / "bin" / "tocsin", "down"],
            env=shell.environment,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        background = directory / "background"
        for process in background.read_text().split() if background.exists() else ():
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGTERM)
        EmbeddedPostgres(directory / "data").destroy()
        shutil.rmtree(directory, ignore_errors=True)


def test_what_the_pages_tell_to_run_runs(shell: Shell) -> None:
    def run(name: str, mark: str = "") -> str:
        return shell.run(*marked(ROOT / "docs" / name, mark))

    with ThreadPoolExecutor() as pool:
        began = run("quick-start.md")
        # Everything goes on while keys are rotated.
        rotating = pool.submit(run, "key-rotation.md")
        paused, controlled, suppressed = map(run, ("operations.md", "job-controls.md", "suppression.md"))
        rotated = rotating.result()
    ended = run("quick-start.md", "last")
    assert "2 of 2 done; finished; 2 sent" in began
    assert "the water is off in Hall 7 until 18:00." in began
    assert "ALL HALTED" not in paused.rpartition("goes on")[2]
    assert "cancelled by" in controlled
    assert "exit code 3" in suppressed
    assert "2 of 2 done; finished; 2 sent" in suppressed
    assert "Done: everything is sealed" in rotated
    assert "Tocsin is down" in ended


def test_every_marked_block_is_run_by_some_test() -> None:
    with_marks = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:] if marked(page, "", "last")}
    assert with_marks == set(RUN)
    assert not marked(ROOT / "README.md", "", "last")


@pytest.fixture
def filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that the providers' own commands make."""
    monkeypatch.chdir(tmp_path)
    [openssl] = [words for words in commands(shell_text(MICROSOFT)) if words[0] == "openssl"]
    subprocess.run(openssl, check=True, capture_output=True)
    key = {"type": "service_account", "client_email": "tocsin@p.iam.gserviceaccount.com", "client_id": "1" * 21}
    more = {"private_key": Path("key.pem").read_text(), "private_key_id": "1", "token_uri": GOOGLES_ENDPOINT}
    Path("service-account.json").write_text(json.dumps({**key, **more}))
    for name in ("secret.txt", "refresh-token.txt"):
        Path(name).write_text("a-secret")
    Path("mail.pfx").write_bytes(b"")
    return tmp_path


@pytest.mark.usefixtures("filled_in")
def test_what_the_pages_tell_to_set_up_can_be_set_up(tocsin: CommandLine) -> None:
    made: set[tuple[str, ...]] = set()
    for name in SETTING_UP_IN:
        told = [words[1:] for words in commands(shell_text(ROOT / "docs" / name)) if words[0] == "tocsin"]
        set_up = [words for words in told if words[:2] in SETTING_UP]
        assert set_up, name
        for words in set_up:
            if words[1] == "add" and tuple(words[:3]) in made:
                words[2] += str(len(made))  # a page shows another way to make it
            made.add(tuple(words[:3]))
            given = [IDS.get(word, "AKIAEXAMPLE" if word.startswith("$(") else word) for word in words]
            tocsin.ok(*given, stdin=b"a-secret")


def test_the_program_that_makes_an_ses_password_makes_it(tmp_path: Path) -> None:
    [program] = [block for block in blocks(ROOT / "docs" / "providers" / "ses.md") if block.mark == "ses_password.py"]
    (tmp_path / "ses_password.py").write_text(program.text)
    ended = subprocess.run(
        [sys.executable, "ses_password.py", "eu-central-1"], cwd=tmp_path, check=True, capture_output=True, text=True,
        input='{"AccessKey": {"AccessKeyId": "AKIA", "SecretAccessKey": "some+secret+key"}}',
    )  # fmt: skip
    # The same as others make of it: a test of Terraform's AWS provider has this key.
    assert ended.stdout == "BMXhUYlu5Z3gSXVQORxlVa7XPaz91aGWdfHxvkOZdWZ2\n"
