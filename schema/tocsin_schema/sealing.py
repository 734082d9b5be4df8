"""Sealed secrets: what may stand in the ledger of client secrets, passwords and tokens.

A value is sealed with AES-256-GCM. The key is derived (HKDF-SHA256, RFC 5869) from a master key that lies outside
the database, with the installation's `DatabaseUniqueID` as salt and the purpose as info, so that a stolen dump
opens nothing and a value from another ledger does not open here. Purpose and row id are authenticated with the
value, so that it opens in its own row only.

Master keys have ids, and several may be open: the first of the master key file seals, every one of them opens.
A sealed value says in clear which key it needs:

    1 byte   form, now 1
    1 byte   length of the key id
    n bytes  key id, ASCII
    12 bytes nonce, random (good for 2**32 values a key and purpose, NIST SP 800-38D section 8.3)
    rest     ciphertext and 16 bytes tag
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tocsin_schema.errors import LedgerError, SealError
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from pathlib import Path

    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow

    from tocsin_schema.settings import Settings

KEY_BYTES = 32
MAX_KEY_FILE_BYTES = 64 * 1024

_FORM = 1
_NONCE_BYTES = 12
_TAG_BYTES = 16
_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CHECK_PURPOSE = "settings.MasterKeyCheck"
_CHECK_VALUE = "tocsin"
_QUERIES = named_queries("sealing")


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One master key: 32 random bytes and the id that sealed values name it by."""

    id: str
    material: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keyring:
    """The master keys that are open. The first is the primary: it seals; every one opens."""

    keys: tuple[MasterKey, ...]

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """Read the content of a master key file: a line `key-id base64` a key, the primary first.

        Empty lines and lines that begin with `#` are passed over. Raises SealError, which names the line and
        never its content.
        """
        keys: list[MasterKey] = []
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            key = _parse_key(line, number)
            if any(key.id == other.id for other in keys):
                raise SealError(
                    f"The master key in line {number} has the id of an earlier one.",
                    fix="Give every key an id of its own.",
                )
            keys.append(key)
        if not keys:
            raise SealError("The master key file holds no key.", fix="Restore it from its backup.")
        return cls(tuple(keys))

    @classmethod
    def generate(cls) -> Keyring:
        """Make a keyring with one new random key."""
        return cls((MasterKey(f"key-{secrets.token_hex(4)}", secrets.token_bytes(KEY_BYTES)),))

    @property
    def primary(self) -> MasterKey:
        """The key that seals."""
        return self.keys[0]

    def get(self, key_id: str) -> MasterKey | None:
        """Give the key of that id, or None."""
        return next((key for key in self.keys if key.id == key_id), None)

    def text(self) -> str:
        """Give the keys as the content of a master key file. This is the secret itself."""
        return "".join(f"{key.id} {base64.b64encode(key.material).decode()}\n" for key in self.keys)


class Sealer:
    """Seals and opens the secrets of one ledger."""

    __slots__ = ("_ciphers", "_database_unique_id", "_keyring")

    def __init__(self, keyring: Keyring, database_unique_id: str) -> None:
        self._keyring = keyring
        self._database_unique_id = database_unique_id
        self._ciphers: dict[tuple[str, str], AESGCM] = {}

    def __repr__(self) -> str:
        return f"Sealer(keys={[key.id for key in self._keyring.keys]})"

    def seal(self, value: str, *, purpose: str, row_id: str) -> bytes:
        """Seal a value with the primary key, for one purpose (`table.column`) and one row.

        Raises SealError where the value is not text that UTF-8 can hold.
        """
        try:
            plain = value.encode()
        except UnicodeEncodeError:
            raise SealError("The secret holds a character that is not valid Unicode.", fix="Enter it again.") from None
        key = self._keyring.primary
        header = bytes((_FORM, len(key.id))) + key.id.encode("ascii")
        nonce = os.urandom(_NONCE_BYTES)
        return header + nonce + self._cipher(key, purpose).encrypt(nonce, plain, _bound_to(header, purpose, row_id))

    def open(self, sealed: bytes, *, purpose: str, row_id: str) -> str:
        """Open a sealed value. Raises SealError with the reason: no such key, another row or ledger, damaged."""
        header, nonce, ciphertext = _take_apart(sealed, purpose)
        key_id = header[2:].decode("ascii")
        key = self._keyring.get(key_id)
        if key is None:
            raise SealError(
                f"The value of {purpose} is sealed with key {key_id}, which is not in the master key file.",
                fix="Add that key to the file again, or enter the secret anew.",
            )
        try:
            plain = self._cipher(key, purpose).decrypt(nonce, ciphertext, _bound_to(header, purpose, row_id))
            return plain.decode()
        except (InvalidTag, UnicodeDecodeError):
            raise SealError(
                f"The value of {purpose} does not open in this row or database, or master key {key_id} is another"
                " than the one that sealed it.",
                fix="Restore the right master key file, or enter the secret anew.",
            ) from None

    def _cipher(self, key: MasterKey, purpose: str) -> AESGCM:
        cipher = self._ciphers.get((key.id, purpose))
        if cipher is None:
            derivation = HKDF(
                algorithm=SHA256(),
                length=KEY_BYTES,
                salt=self._database_unique_id.encode(),
                info=b"tocsin sealing 1\0" + purpose.encode(),
            )
            cipher = self._ciphers[key.id, purpose] = AESGCM(derivation.derive(key.material))
        return cipher


def read_keyring(settings: Settings) -> Keyring:
    """Read the master keys: from TOCSIN_MASTER_KEY, else from the master key file.

    Raises SealError where there is none, the file can be read by every user of the machine, or it is malformed.
    """
    if settings.master_key is not None and settings.master_key.get_secret_value().strip():
        return Keyring.parse(settings.master_key.get_secret_value())
    return Keyring.parse(_read_key_file(settings.key_file))


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
        raise SealError(f"The master key file {path} cannot be written: {error.strerror}.") from None
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(keyring.text())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key would be taken for the key
        raise SealError(f"The master key file {path} cannot be written: {error.strerror}.") from None
    return keyring


async def load_sealer(connection: AsyncConnection[TupleRow], settings: Settings, *, is_to_seal: bool = False) -> Sealer:
    """Make the sealer of the ledger that the connection leads to, and try its key.

    Whoever `is_to_seal` the ledger's first secret leaves a sealed mark; every key has to open it from then on, so that
    a process with a wrong master key says so at once. Raises SealError or LedgerError.
    """
    keyring = read_keyring(settings)
    row = await (await connection.execute(_QUERIES["read_database_unique_id"])).fetchone()
    if row is None or not row[0]:
        raise LedgerError("The ledger has no DatabaseUniqueID.", fix="Run `tocsin migrate`.")
    sealer = Sealer(keyring, str(row[0]))
    mark = await (await connection.execute(_QUERIES["read_key_check"])).fetchone()
    if mark is None and is_to_seal:
        row_id = uuid4()
        sealed = sealer.seal(_CHECK_VALUE, purpose=_CHECK_PURPOSE, row_id=str(row_id))
        await connection.execute(_QUERIES["write_key_check"], {"row_id": row_id, "sealed_value": sealed})
        # Somebody else may have been first.
        mark = await (await connection.execute(_QUERIES["read_key_check"])).fetchone()
    if mark is not None:
        _try_key(sealer, row_id=str(mark[0]), sealed=bytes(mark[1]))
    return sealer


def _try_key(sealer: Sealer, *, row_id: str, sealed: bytes) -> None:
    try:
        sealer.open(sealed, purpose=_CHECK_PURPOSE, row_id=row_id)
    except SealError as error:
        raise SealError(
            "The master key is not the one that this ledger's secrets are sealed with.",
            fix="Give the key file that was made for this ledger (TOCSIN_MASTER_KEY_FILE or TOCSIN_MASTER_KEY).",
        ) from error


def _parse_key(line: str, number: int) -> MasterKey:
    malformed = SealError(
        f"Line {number} of the master key file is not `key-id base64` with {KEY_BYTES} bytes of key.",
        fix="Restore the file from its backup.",
    )
    try:
        key_id, encoded = line.split()
        material = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise malformed from None
    if not _KEY_ID.fullmatch(key_id) or len(material) != KEY_BYTES:
        raise malformed
    return MasterKey(key_id, material)


def _read_key_file(path: Path) -> str:
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


def _open_without_waiting(name: str, flags: int) -> int:
    # A named pipe in the file's place would hold the process for ever.
    return os.open(name, flags | os.O_NONBLOCK)


def _take_apart(sealed: bytes, purpose: str) -> tuple[bytes, bytes, bytes]:
    """Give header, nonce and ciphertext of a sealed value."""
    if sealed[:1] not in (b"", bytes((_FORM,))):
        raise SealError(
            f"The value of {purpose} is sealed in form {sealed[0]}, which this release does not know.",
            fix="Use the release that sealed it, or enter the secret anew.",
        )
    header_bytes = 2 + sealed[1] if len(sealed) > 1 else 0
    header, nonce = sealed[:header_bytes], sealed[header_bytes : header_bytes + _NONCE_BYTES]
    ciphertext = sealed[header_bytes + _NONCE_BYTES :]
    if len(ciphertext) < _TAG_BYTES or not _KEY_ID.fullmatch(header[2:].decode("latin-1")):
        raise SealError(f"The value of {purpose} is damaged.", fix="Enter the secret anew.")
    return header, nonce, ciphertext


def _bound_to(header: bytes, purpose: str, row_id: str) -> bytes:
    # The length keeps ("ab", "c") apart from ("a", "bc").
    return header + len(purpose).to_bytes(2, "big") + purpose.encode() + row_id.encode()
