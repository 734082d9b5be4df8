"""Where the embedded Postgres listens: one Unix socket in a directory that only its own user may enter."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from tocsin_console.embedded.account import give

if TYPE_CHECKING:
    from tocsin_console.embedded.account import Account

DATABASE: Final = "tocsin"
USER: Final = "tocsin"
PORT: Final = 5432
"""It only names the socket's file: nothing listens on TCP."""

_PATH_BYTES: Final = 107
"""sun_path in `man 7 unix`, without its closing NUL."""
_FALLBACK_PREFIX: Final = "tocsin-"


def url_of(directory: Path) -> str:
    """Return the URL of the database behind the socket in `directory`."""
    # Port and user stand in it, or else PGPORT and PGUSER in the environment would be taken.
    return f"postgresql://{USER}@/{DATABASE}?host={quote(str(directory), safe='')}&port={PORT}"


def fits(directory: Path) -> bool:
    """Whether a socket can live there: its path is short, and libpq takes a comma for the path's end."""
    return len(os.fsencode(_socket(directory))) <= _PATH_BYTES and "," not in str(directory)


def make_socket_directory(home: Path, account: Account) -> Path:
    """Make a directory for the socket: in the server's home, or where that path is too long in `/tmp`.

    Its name is kept by the server itself, in `postmaster.pid`. Raises OSError.
    """
    directory = home / "socket"
    if not fits(directory):
        directory = Path(tempfile.mkdtemp(prefix=_FALLBACK_PREFIX, dir="/tmp"))
    directory.mkdir(mode=0o700, exist_ok=True)
    give(directory, account)
    return directory


def remove_sockets(directory: Path, home: Path, account: Account) -> None:
    """Remove what a server that is gone left in its socket directory, and the directory if it is in `/tmp`.

    Raises OSError.
    """
    if directory == home / "socket":
        for path in (_socket(directory), directory / f"{_socket(directory).name}.lock"):
            path.unlink(missing_ok=True)
        return
    is_ours = directory.name.startswith(_FALLBACK_PREFIX) and directory.exists()
    if is_ours and directory.lstat().st_uid in {os.geteuid(), account.uid}:
        shutil.rmtree(directory)


def _socket(directory: Path) -> Path:
    return directory / f".s.PGSQL.{PORT}"
