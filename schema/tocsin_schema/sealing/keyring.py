"""Master keys, and the text that a master key file holds of them: a line `key-id base64` a key, the primary first."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tocsin_schema.errors import SealError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

KEY_BYTES = 32
KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One master key: 32 random bytes and the id that sealed values name it by."""

    id: str
    material: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> MasterKey:
        """Make a new random key."""
        return cls(f"key-{secrets.token_hex(4)}", secrets.token_bytes(KEY_BYTES))

    @property
    def line(self) -> str:
        """The key as a line of a master key file, without its end. This is the secret itself."""
        return f"{self.id} {base64.b64encode(self.material).decode()}"


@dataclass(frozen=True, slots=True)
class Keyring:
    """The master keys that are open. The first is the primary: it seals; every one opens."""

    keys: tuple[MasterKey, ...]

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """Read the content of a master key file.

        Empty lines and lines that begin with `#` are passed over. Raises SealError, which names the line and
        never its content.
        """
        keys: list[MasterKey] = []
        for number, line in enumerate(text.splitlines(), start=1):
            if not _is_key(line):
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
        return cls((MasterKey.generate(),))

    @property
    def primary(self) -> MasterKey:
        """The key that seals."""
        return self.keys[0]

    @property
    def ids(self) -> tuple[str, ...]:
        """The keys' ids, the primary's first."""
        return tuple(key.id for key in self.keys)

    def get(self, key_id: str) -> MasterKey | None:
        """Give the key of that id, or None."""
        return next((key for key in self.keys if key.id == key_id), None)

    def text(self) -> str:
        """Give the keys as the content of a master key file. This is the secret itself."""
        return "".join(f"{key.line}\n" for key in self.keys)

    def with_also(self, others: Iterable[MasterKey]) -> Keyring:
        """Give these keys, and behind them those others whose id is not among them."""
        return Keyring((*self.keys, *(key for key in others if self.get(key.id) is None)))


def text_with_key_last(text: str, key: MasterKey) -> str:
    """Add a key at the end of a key file's text, comments kept: there it opens and does not seal."""
    return _joined([*text.splitlines(), key.line])


def text_with_key_first(text: str, key_id: str) -> str:
    """Move a key to the front of a key file's text, comments kept: there it seals."""
    lines = text.splitlines()
    [moved] = [line for line in lines if _id_of(line) == key_id]
    return _joined([moved, *(line for line in lines if line is not moved)])


def text_without_keys(text: str, key_ids: Collection[str]) -> str:
    """Take keys out of a key file's text, comments kept."""
    return _joined([line for line in text.splitlines() if _id_of(line) not in key_ids])


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _is_key(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _id_of(line: str) -> str | None:
    return line.split(maxsplit=1)[0] if _is_key(line) else None


def _parse_key(line: str, number: int) -> MasterKey:
    malformed = SealError(
        f"Line {number} of the master keys is not `key-id base64` with {KEY_BYTES} bytes of key.",
        fix="Restore the master key file, or what TOCSIN_MASTER_KEY holds, from its backup.",
    )
    try:
        key_id, encoded = line.split()
        material = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise malformed from None
    if not KEY_ID.fullmatch(key_id) or len(material) != KEY_BYTES:
        raise malformed
    return MasterKey(key_id, material)
