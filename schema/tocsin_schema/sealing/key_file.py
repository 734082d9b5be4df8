"""Where the master keys lie: the environment, or a file that only its owner may change."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tocsin_schema.errors import SealError
from tocsin_schema.sealing.keyring import Keyring

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tocsin_schema.settings import Settings

MAX_KEY_FILE_BYTES = 64 * 1024


def read_keyring(settings: Settings) -> Keyring:
    """Read the master keys: from TOCSIN_MASTER_KEY, else from the master key file.

    Raises SealError where there is none, the file can be read by every user of the machine, or it is malformed.
    """
    given = environment_text(settings)
    return Keyring.parse(read_key_text(settings.key_file) if given is None else given)


def environment_text(settings: Settings) -> str | None:
    """Give the keys in TOCSIN_MASTER_KEY as they are written there; None where they lie in the file."""
    given = "" if settings.master_key is None else settings.master_key.get_secret_value()
    return given if given.strip() else None


def write_new_key_file(path: Path) -> Keyring:
    """Make a master key and write it to a new file that only its owner can read; give the keyring.

    Never overwrites: raises SealError where the file is there already or cannot be written.
    """
    keyring = Keyring.generate()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SealError(
            f"{path} is there already and is not overwritten: every stored secret needs it.",
            fix="Keep it, or name another file with TOCSIN_MASTER_KEY_FILE.",
        ) from None
    except OSError as error:
        raise _cannot_write(path, error) from None
    try:
        _write_through(descriptor, keyring.text())
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key would be taken for the key
        raise _cannot_write(path, error) from None
    return keyring


def replace_key_text(path: Path, *, before: str, after: str) -> None:
    """Put another text in place of the one that a key file holds now, in one step: there is never half a file.

    Owner and mode stay; a symbolic link is followed. Raises SealError, and changes nothing, where the file holds
    another text than `before` meanwhile or cannot be written.
    """
    Keyring.parse(after)
    try:
        target = path.resolve(strict=True)
        with _only_one_writer(target.parent) as directory:
            if read_key_text(target) != before:
                raise SealError(f"{path} was changed by somebody else just now.", fix="Run the command again.")
            _put_in_place(target, after)
            os.fsync(directory)
    except OSError as error:
        raise _cannot_write(path, error) from None


def read_key_text(path: Path) -> str:
    """Read a master key file. Raises SealError where it is not there, open to everybody, or something else."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_KEY_FILE_BYTES + 1) if stat.S_ISREG(mode) else b""
    except FileNotFoundError:
        raise SealError(
            f"There is no master key: {path} does not exist and TOCSIN_MASTER_KEY is not set.",
            fix="Run `tocsin key init`, or restore the file that sealed this ledger's secrets.",
        ) from None
    except OSError as error:
        raise SealError(f"The master key file {path} cannot be read: {error.strerror}.") from None
    if stat.S_ISREG(mode) and mode & stat.S_IRWXO:
        raise SealError(
            f"The master key file {path} can be read by every user of this machine.",
            fix=f"Run `chmod o= {path}`; in a Kubernetes secret volume set `defaultMode: 0440`.",
        )
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if not text or len(content) > MAX_KEY_FILE_BYTES:
        raise SealError(f"{path} is not a master key file.", fix="Restore it from its backup.")
    return text


class KeyFileWatch:
    """Tells when the master key file is another than it was: after a rotation, or where a new copy was laid there.

    Make it before the file is read for the first time, so that no change falls in between. TOCSIN_MASTER_KEY never
    changes.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen = self._look()

    def has_changed(self) -> bool:
        """Whether the file is another than when this watch began, or last gave keys."""
        return self._look() != self._seen

    def changed_keys(self) -> Keyring | None:
        """Read the file if it has changed; None where it has not, or holds no keys at the moment."""
        look = self._look()
        if look == self._seen:
            return None
        with suppress(SealError):
            keyring = read_keyring(self._settings)
            self._seen = look
            return keyring
        return None

    def _look(self) -> tuple[int, int, int, int] | None:
        if environment_text(self._settings) is not None:
            return None
        try:
            found = self._settings.key_file.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def _only_one_writer(directory: Path) -> Generator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _put_in_place(target: Path, text: str) -> None:
    """Write a new file beside the old one and rename it over that. Raises OSError; the old one stays then."""
    before = target.stat()
    new = target.with_name(f".{target.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _write_through(descriptor, text, like=before)
        new.rename(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _write_through(descriptor: int, text: str, *, like: os.stat_result | None = None) -> None:
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        if like is not None:
            made = os.fstat(descriptor)
            if (made.st_uid, made.st_gid) != (like.st_uid, like.st_gid):
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _cannot_write(path: Path, error: OSError) -> SealError:
    return SealError(
        f"The master key file {path} cannot be written: {error.strerror}.",
        fix="Run this as the user whom the file belongs to, where its directory can be written.",
    )


def _open_without_waiting(name: str, flags: int) -> int:
    # A named pipe in the file's place would hold the process for ever.
    return os.open(name, flags | os.O_NONBLOCK)
