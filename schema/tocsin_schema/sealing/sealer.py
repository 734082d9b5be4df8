"""Sealing and opening the values of one ledger."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tocsin_schema.errors import SealError, UnknownKeyError
from tocsin_schema.sealing.keyring import KEY_BYTES, KEY_ID
from tocsin_schema.sealing.purposes import purpose_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tocsin_schema.sealing.keyring import Keyring, MasterKey

_FORM = 1
_NONCE_BYTES = 12
_TAG_BYTES = 16


class Sealer:
    """Seals and opens the secrets of one ledger.

    `reread` gives the keys of a key file that has changed since it was last asked, else None. It is asked before
    anything is sealed, and where a value names a key that is not open: a process that lives through a rotation of
    the keys neither seals with one that is gone nor fails at one that has come. Which key seals is changed by `use`
    alone, since a file may be an old copy: only the ledger knows which keys are retired.
    """

    __slots__ = ("_ciphers", "_database_unique_id", "_former", "_in_file", "_is_overtaken", "_keyring", "_reread")

    def __init__(
        self, keyring: Keyring, database_unique_id: str, *, reread: Callable[[], Keyring | None] | None = None
    ) -> None:
        self._keyring = keyring
        self._database_unique_id = database_unique_id
        self._reread = reread
        self._former = self._in_file = keyring
        self._is_overtaken = False
        self._ciphers: dict[tuple[MasterKey, str], AESGCM] = {}

    def __repr__(self) -> str:
        return f"Sealer(keys={list(self._keyring.ids)})"

    @property
    def keyring(self) -> Keyring:
        """The keys that were tried on the ledger: the first seals, all of them open."""
        return self._keyring

    @property
    def is_overtaken(self) -> bool:
        """Whether nothing is sealed until `use` says with which key."""
        return self._is_overtaken

    def stop_sealing(self) -> None:
        """Seal nothing until `use` says with which key: ours may be retired."""
        self._is_overtaken = True

    def use(self, keyring: Keyring) -> None:
        """Seal and open with these keys from now on, which were tried on the ledger.

        The keys before them go on opening until the next change: a row may have been read just before it was sealed
        anew.
        """
        self._is_overtaken = False
        if keyring != self._keyring:
            self._former, self._keyring = self._keyring, keyring
            self._ciphers.clear()

    def with_keys(self, keyring: Keyring) -> Sealer:
        """Give a sealer of the same ledger with these keys, whatever becomes of the key file."""
        return Sealer(keyring, self._database_unique_id)

    def seal(self, value: str, *, purpose: str, row_id: str) -> bytes:
        """Seal a value with the primary key, for one purpose (`table.column`) and one row.

        Raises SealError where the value is not text that UTF-8 can hold, UnknownKeyError where our primary key is no
        longer in the key file.
        """
        try:
            plain = value.encode()
        except UnicodeEncodeError:
            raise SealError("The secret holds a character that is not valid Unicode.", fix="Enter it again.") from None
        self._look_for_new_keys()
        if self._is_overtaken:
            raise UnknownKeyError(
                "The master keys were changed while this was under way.",
                fix="Do it again; should this come again, give this machine the key file as it is now.",
            )
        key = self._keyring.primary
        header = bytes((_FORM, len(key.id))) + key.id.encode("ascii")
        nonce = os.urandom(_NONCE_BYTES)
        return header + nonce + self._cipher(key, purpose).encrypt(nonce, plain, _bound_to(header, purpose, row_id))

    def open(self, sealed: bytes, *, purpose: str, row_id: str) -> str:
        """Open a sealed value.

        Raises UnknownKeyError where we lack the key, else SealError with the reason: another row or ledger, damaged.
        """
        header, nonce, ciphertext = _take_apart(sealed, purpose, row_id)
        key_id = header[2:].decode("ascii")
        key = self._key(key_id)
        told = purpose_of(purpose)
        if key is None:
            raise UnknownKeyError(
                f"The {told.what} in {_place(purpose, row_id)} is sealed with key {key_id}, which is not in the master"
                " key file.",
                fix=f"Put that key's line back into the file. Where it is lost: {told.fix}",
                scope=told.scope,
            )
        try:
            plain = self._cipher(key, purpose).decrypt(nonce, ciphertext, _bound_to(header, purpose, row_id))
            return plain.decode()
        except (InvalidTag, UnicodeDecodeError):
            raise SealError(
                f"The {told.what} in {_place(purpose, row_id)} does not open in this row or database: it was sealed for"
                f" another one, is damaged, or master key {key_id} is another than the one that sealed it.",
                fix=told.fix,
                scope=told.scope,
            ) from None

    def _key(self, key_id: str) -> MasterKey | None:
        known = self._keyring.get(key_id)
        if known is None:
            self._look_for_new_keys()
            known = self._former.get(key_id) or self._in_file.get(key_id)
        return known

    def _look_for_new_keys(self) -> None:
        changed = None if self._reread is None else self._reread()
        if changed is None:
            return
        self._in_file = changed
        if self._keyring.primary not in changed.keys:
            # Somebody else's file, or ours after a whole rotation. Not taken back where the key comes back: it may be
            # an old copy that does.
            self._is_overtaken = True

    def _cipher(self, key: MasterKey, purpose: str) -> AESGCM:
        cipher = self._ciphers.get((key, purpose))
        if cipher is None:
            derivation = HKDF(
                algorithm=SHA256(),
                length=KEY_BYTES,
                salt=self._database_unique_id.encode(),
                info=b"tocsin sealing 1\0" + purpose.encode(),
            )
            cipher = self._ciphers[key, purpose] = AESGCM(derivation.derive(key.material))
        return cipher


def _take_apart(sealed: bytes, purpose: str, row_id: str) -> tuple[bytes, bytes, bytes]:
    """Give header, nonce and ciphertext of a sealed value."""
    told = purpose_of(purpose)
    if sealed[:1] not in (b"", bytes((_FORM,))):
        raise SealError(
            f"The {told.what} in {_place(purpose, row_id)} is sealed in form {sealed[0]}, which this release does not"
            " know.",
            fix=f"Use the release that sealed it. Otherwise: {told.fix}",
            scope=told.scope,
        )
    header_bytes = 2 + sealed[1] if len(sealed) > 1 else 0
    header, nonce = sealed[:header_bytes], sealed[header_bytes : header_bytes + _NONCE_BYTES]
    ciphertext = sealed[header_bytes + _NONCE_BYTES :]
    if len(ciphertext) < _TAG_BYTES or not KEY_ID.fullmatch(header[2:].decode("latin-1")):
        raise SealError(
            f"The {told.what} in {_place(purpose, row_id)} is damaged.",
            fix=told.fix,
            scope=told.scope,
        )
    return header, nonce, ciphertext


def _place(purpose: str, row_id: str) -> str:
    return f"{purpose}, row {row_id},"


def _bound_to(header: bytes, purpose: str, row_id: str) -> bytes:
    # The length keeps ("ab", "c") apart from ("a", "bc").
    return header + len(purpose).to_bytes(2, "big") + purpose.encode() + row_id.encode()
