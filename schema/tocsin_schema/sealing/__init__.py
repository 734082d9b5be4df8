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

from tocsin_schema.sealing.key_file import KeyFileWatch, read_keyring, replace_key_text, write_new_key_file
from tocsin_schema.sealing.keyring import KEY_BYTES, Keyring, MasterKey
from tocsin_schema.sealing.loading import load_sealer
from tocsin_schema.sealing.sealer import Sealer

__all__ = [
    "KEY_BYTES",
    "KeyFileWatch",
    "Keyring",
    "MasterKey",
    "Sealer",
    "load_sealer",
    "read_keyring",
    "replace_key_text",
    "write_new_key_file",
]
