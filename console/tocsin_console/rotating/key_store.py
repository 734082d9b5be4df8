"""Where this machine's master keys lie, and changing them there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tocsin_schema.errors import UsageError
from tocsin_schema.sealing import Keyring, replace_key_text
from tocsin_schema.sealing.key_file import environment_text, read_key_text
from tocsin_schema.sealing.keyring import text_with_key_first, text_with_key_last, text_without_keys

if TYPE_CHECKING:
    from collections.abc import Collection

    from tocsin_schema.sealing import MasterKey
    from tocsin_schema.settings import Settings


class KeyStore:
    """The master key file, or TOCSIN_MASTER_KEY, which only a person can change."""

    def __init__(self, settings: Settings) -> None:
        self._file = settings.key_file
        self._given = environment_text(settings)

    @property
    def place(self) -> str:
        """Where the keys lie, for a person."""
        return str(self._file) if self._given is None else "TOCSIN_MASTER_KEY"

    @property
    def is_writable(self) -> bool:
        """Whether keys can be changed here; not in the environment, nor in a secret store's read-only volume."""
        return self._given is None and os.access(self._file.resolve().parent, os.W_OK)

    def read(self) -> Keyring:
        """Give the keys as they are now. Raises SealError."""
        return Keyring.parse(self._text())

    def open_key(self, key: MasterKey) -> None:
        """Put a new key at the end. Raises SealError, and UsageError where only a person can."""
        self._ask_person(
            f"Make a key with `env -u TOCSIN_MASTER_KEY TOCSIN_MASTER_KEY_FILE=new.key tocsin key init`, put its line"
            f" behind what {self.place} holds on every machine, and run `tocsin key rotate` again."
        )
        text = self._text()
        self._replace(text, text_with_key_last(text, key))

    def promote(self, key_id: str) -> None:
        """Put a key first. Raises SealError, and UsageError where only a person can."""
        self._ask_person(
            f"Every worker has key {key_id} open: put its line first in {self.place} on every machine, and run"
            " `tocsin key rotate` again."
        )
        text = self._text()
        self._replace(text, text_with_key_first(text, key_id))

    def remove(self, key_ids: Collection[str]) -> None:
        """Take keys out. Raises SealError."""
        text = self._text()
        rest = text_without_keys(text, key_ids)
        if rest != text:
            self._replace(text, rest)

    def _text(self) -> str:
        return read_key_text(self._file) if self._given is None else self._given

    def _replace(self, before: str, after: str) -> None:
        replace_key_text(self._file, before=before, after=after)

    def _ask_person(self, fix: str) -> None:
        if not self.is_writable:
            raise UsageError(f"The keys in {self.place} cannot be changed by this command.", fix=fix)
