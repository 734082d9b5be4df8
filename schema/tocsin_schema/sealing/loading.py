"""Making the sealer of a ledger from this process's master keys, and trying them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from tocsin_schema.errors import LedgerError, SealError
from tocsin_schema.ledger.sql import named_queries
from tocsin_schema.sealing.key_file import KeyFileWatch, environment_text, read_keyring
from tocsin_schema.sealing.purposes import KEY_CHECK_PURPOSE
from tocsin_schema.sealing.sealer import Sealer

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow

    from tocsin_schema.settings import Settings

_CHECK_VALUE = "tocsin"
_QUERIES = named_queries("sealing")


async def load_sealer(connection: AsyncConnection[TupleRow], settings: Settings, *, is_to_seal: bool = False) -> Sealer:
    """Make the sealer of the ledger that the connection leads to, and try its key.

    Whoever `is_to_seal` the ledger's first secret leaves a sealed mark; every key has to open it from then on, so that
    a process with a wrong master key says so at once. Raises SealError or LedgerError.
    """
    mark = await (await connection.execute(_QUERIES["read_key_check"])).fetchone()
    if mark is not None:
        refuse_missing_key(settings)
    watch = KeyFileWatch(settings)
    keyring = read_keyring(settings)
    row = await (await connection.execute(_QUERIES["read_database_unique_id"])).fetchone()
    if row is None or not row[0]:
        raise LedgerError("The ledger has no DatabaseUniqueID.", fix="Run `tocsin migrate`.")
    sealer = Sealer(keyring, str(row[0]), reread=watch.changed_keys)
    if mark is None and is_to_seal:
        row_id = uuid4()
        sealed = sealer.seal(_CHECK_VALUE, purpose=KEY_CHECK_PURPOSE, row_id=str(row_id))
        await connection.execute(_QUERIES["write_key_check"], {"row_id": row_id, "sealed_value": sealed})
        # Somebody else may have been first.
        mark = await (await connection.execute(_QUERIES["read_key_check"])).fetchone()
    if mark is not None:
        _try_key(sealer, row_id=str(mark[0]), sealed=bytes(mark[1]))
    await _refuse_retired_key(connection, keyring.primary.id)
    return sealer


def refuse_missing_key(settings: Settings) -> None:
    """Raise SealError where there is no master key file, for a ledger that has seen a key: a new one opens nothing."""
    if is_key_missing(settings):
        raise SealError(
            f"{settings.key_file} does not exist, and the ledger's secrets are sealed with a master key.",
            fix="Name the file with that key in TOCSIN_MASTER_KEY_FILE, or restore it from its backup.",
        )


def is_key_missing(settings: Settings) -> bool:
    """Whether there is no master key: neither in the environment nor a file, readable or not."""
    if environment_text(settings) is not None:
        return False
    try:
        settings.key_file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _try_key(sealer: Sealer, *, row_id: str, sealed: bytes) -> None:
    try:
        sealer.open(sealed, purpose=KEY_CHECK_PURPOSE, row_id=row_id)
    except SealError as error:
        raise SealError(
            "The master key is not the one that this ledger's secrets are sealed with.",
            fix="Give this machine the key file that belongs to this ledger, as it is now: `tocsin key rotate` changes"
            " it (TOCSIN_MASTER_KEY_FILE or TOCSIN_MASTER_KEY).",
        ) from error


async def _refuse_retired_key(connection: AsyncConnection[TupleRow], key_id: str) -> None:
    """Let nobody seal with a key that is taken out of the key files: others could not open it."""
    retired = await (await connection.execute(_QUERIES["read_retirement"], {"key_id": key_id})).fetchone()
    if retired is not None:
        raise SealError(
            f"Master key {key_id}, the first in this machine's key file, was retired by `tocsin key rotate`.",
            fix="Give this machine the key file as it is now (TOCSIN_MASTER_KEY_FILE or TOCSIN_MASTER_KEY).",
        )
