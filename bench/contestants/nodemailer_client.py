"""Nodemailer, what most would take for bulk mail in Node.js: a pool of connections, no queue and no record.

Node.js comes from where the tests' OAuth server has it; the npm package of `nodemailer/package-lock.json` is installed
once under `.cache/nodemailer`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.contestants.client_process import ROOT, ClientProcess
from bench.mail import BATCH_SIZE, SENDER, SHARED_SUBJECT, SHARED_TEXT, individual_subject, individual_text
from tests.servers.oauth_server_packages import find_node

if TYPE_CHECKING:
    from bench.contestants.contestant import MailServer

SOURCES: Final = Path(__file__).with_name("nodemailer")
CACHE: Final = ROOT / ".cache" / "nodemailer"
INSTALL_SECONDS: Final = 120.0

_NAME_TAG: Final = "{name}"


class Nodemailer(ClientProcess):
    """One Node.js process.

    `name` is the package in `package.json`: `nodemailer`, or `nodemailer-7`, which sends one command at
    a time.
    """

    def __init__(self, mail_server: MailServer, *, name: str = "nodemailer", connections: int = 20) -> None:
        """Install the packages. RuntimeError where that is not possible."""
        super().__init__()
        self.name = name
        node = find_node()
        if node is None:
            raise RuntimeError("there is no Node.js for nodemailer")
        self._node = node
        self._program = installed(node) / "client.mjs"
        self._mail_server = mail_server
        self._connections = connections

    def command(self) -> list[Path | str]:
        return [self._node, self._program]

    def configuration(self) -> dict[str, Any]:
        server = self._mail_server
        transport: dict[str, Any] = {"host": server.host, "port": server.port, "name": "client.campus.example"}
        if server.sign_in is None:
            transport["ignoreTLS"] = True
        else:
            transport["requireTLS"] = True
            transport["tls"] = {"ca": server.sign_in.ca_pem}
            user, token = server.sign_in.mailbox, server.sign_in.token()
            transport["auth"] = {"type": "OAuth2", "user": user, "accessToken": token}
        return {
            "package": self.name,
            "transport": transport,
            "connections": self._connections,
            "sender": SENDER if server.sign_in is None else server.sign_in.mailbox,
            "batchSize": BATCH_SIZE,
            "nameTag": _NAME_TAG,
            "shared": {"subject": SHARED_SUBJECT, "text": SHARED_TEXT},
            "individual": {"subject": individual_subject(_NAME_TAG), "text": individual_text(_NAME_TAG)},
        }


def installed(node: Path) -> Path:
    """Give the directory with the program and what it needs, installed once."""
    content = b"".join(file.read_bytes() for file in sorted(SOURCES.iterdir()))
    home = CACHE / hashlib.sha256(content).hexdigest()[:16]
    if not home.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="installing-", dir=CACHE) as place:
            making = Path(place) / "made"
            shutil.copytree(SOURCES, making)
            _install(node, making)
            making.rename(home)
    return home


def _install(node: Path, directory: Path) -> None:
    # The wheel's script does not find its own library, so go to that at once.
    beside = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    npm = [node, beside] if beside.exists() else ["npm"]
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1")
    path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    answer = subprocess.run(
        [*npm, "ci", *options], cwd=directory, env={**os.environ, "PATH": path},
        capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False,
    )  # fmt: skip
    if answer.returncode:
        raise RuntimeError(f"nodemailer cannot be installed: {answer.stderr.strip()[-500:]}")
