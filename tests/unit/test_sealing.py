"""Sealed secrets open where they were sealed and nowhere else."""

from __future__ import annotations

import base64
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.errors import SealError
from tocsin_schema.sealing import Keyring, Sealer, read_keyring, write_new_key_file
from tocsin_schema.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

PURPOSE = "oauth_profiles.sealed_client_secret"
ROW = "2f6c8a0e-0000-4000-8000-000000000001"
LEDGER = "11111111-1111-4111-8111-111111111111"
SECRET = "correct horse battery staple"


def key_line(key_id: str, byte: int) -> str:
    return f"{key_id} {base64.b64encode(bytes([byte]) * 32).decode()}"


OLD, NEW = key_line("old", 1), key_line("new", 2)


def sealer(*lines: str, ledger: str = LEDGER) -> Sealer:
    return Sealer(Keyring.parse("\n".join(lines)), ledger)


def test_a_sealed_value_opens_in_its_own_row():
    sealed = sealer(NEW).seal(SECRET, purpose=PURPOSE, row_id=ROW)
    assert sealer(NEW).open(sealed, purpose=PURPOSE, row_id=ROW) == SECRET
    assert SECRET.encode() not in sealed


def test_the_same_value_is_sealed_otherwise_each_time():
    one = sealer(NEW)
    assert one.seal(SECRET, purpose=PURPOSE, row_id=ROW) != one.seal(SECRET, purpose=PURPOSE, row_id=ROW)


@pytest.mark.parametrize(
    ("opener", "purpose", "row_id"),
    [
        (sealer(NEW), PURPOSE, ROW.replace("1", "2")),
        (sealer(NEW), "sending_profiles.sealed_password", ROW),
        (sealer(NEW, ledger=LEDGER.replace("1", "2")), PURPOSE, ROW),
        (sealer(key_line("new", 3)), PURPOSE, ROW),
        (sealer(NEW), PURPOSE + ROW[:1], ROW[1:]),
    ],
    ids=["another row", "another column", "another ledger", "another key of the same id", "a shifted border"],
)
def test_a_value_that_was_moved_does_not_open_and_says_so(opener: Sealer, purpose: str, row_id: str):
    sealed = sealer(NEW).seal(SECRET, purpose=PURPOSE, row_id=ROW)
    with pytest.raises(SealError, match="does not open in this row or database, or master key new is another"):
        opener.open(sealed, purpose=purpose, row_id=row_id)


def test_a_value_whose_key_is_gone_names_the_key():
    sealed = sealer(OLD).seal(SECRET, purpose=PURPOSE, row_id=ROW)
    with pytest.raises(SealError, match="sealed with key old, which is not in the master key file"):
        sealer(NEW).open(sealed, purpose=PURPOSE, row_id=ROW)


def test_with_two_keys_both_open_and_the_first_seals():
    before = sealer(OLD).seal(SECRET, purpose=PURPOSE, row_id=ROW)
    both = sealer(NEW, OLD)
    after = both.seal(SECRET, purpose=PURPOSE, row_id=ROW)
    assert both.open(before, purpose=PURPOSE, row_id=ROW) == SECRET
    assert sealer(NEW).open(after, purpose=PURPOSE, row_id=ROW) == SECRET


def test_a_key_that_is_open_but_not_first_lets_a_fleet_change_over_one_by_one():
    promoted = sealer(NEW, OLD).seal(SECRET, purpose=PURPOSE, row_id=ROW)
    assert sealer(OLD, NEW).open(promoted, purpose=PURPOSE, row_id=ROW) == SECRET


@given(st.data())
def test_a_changed_byte_anywhere_is_noticed(data: st.DataObject):
    sealed = bytearray(sealer(NEW).seal(SECRET, purpose=PURPOSE, row_id=ROW))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealError):
        sealer(NEW, OLD).open(bytes(sealed), purpose=PURPOSE, row_id=ROW)


@given(st.binary(max_size=80))
def test_any_bytes_for_a_sealed_value_give_a_seal_error(sealed: bytes):
    with pytest.raises(SealError):
        sealer(NEW).open(sealed, purpose=PURPOSE, row_id=ROW)


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x01\x03new" + b"\0" * 20])
def test_a_cut_value_is_called_damaged(sealed: bytes):
    with pytest.raises(SealError, match="is damaged"):
        sealer(NEW).open(sealed, purpose=PURPOSE, row_id=ROW)


def test_a_value_of_a_later_form_is_not_guessed_at():
    with pytest.raises(SealError, match="sealed in form 2, which this release does not know"):
        sealer(NEW).open(b"\x02\x03new", purpose=PURPOSE, row_id=ROW)


def test_text_that_utf_8_cannot_hold_is_refused():
    with pytest.raises(SealError, match="not valid Unicode"):
        sealer(NEW).seal("\ud800", purpose=PURPOSE, row_id=ROW)


def test_a_keyring_is_what_its_text_says():
    keyring = Keyring.generate()
    assert Keyring.parse(keyring.text()) == keyring
    assert Keyring.parse(f"# ours\n\n{NEW}\n{OLD}\n").primary.id == "new"


def test_no_repr_shows_a_key():
    keyring = Keyring.parse(NEW)
    material = NEW.split()[1]
    for shown in (repr(keyring), str(keyring), repr(Sealer(keyring, LEDGER)), repr(keyring.primary)):
        assert material not in shown
        assert "\\x02" not in shown


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        ("new", "Line 1"),
        (f"{NEW} more", "Line 1"),
        (f"{OLD}\nnew c2hvcnQ=", "Line 2"),
        ("new ****", "Line 1"),
        (NEW.replace("new", "nü"), "Line 1"),
        (f"{NEW}\n{NEW}", "line 2 has the id of an earlier one"),
    ],
)
def test_a_malformed_key_file_names_the_line_and_not_the_key(text: str, reason: str):
    with pytest.raises(SealError, match=reason) as caught:
        Keyring.parse(text)
    assert NEW.split()[1] not in str(caught.value)


def test_a_new_key_file_is_its_owners_alone_and_is_read_back(tmp_path: Path):
    path = tmp_path / "keys" / "master.key"
    keyring = write_new_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keyring(Settings(data_dir=path.parent)) == keyring


def test_a_key_file_is_never_overwritten(tmp_path: Path):
    path = tmp_path / "master.key"
    path.write_text(OLD)
    with pytest.raises(SealError, match="is not overwritten"):
        write_new_key_file(path)
    assert path.read_text() == OLD


def test_a_missing_key_file_names_the_command_that_makes_one(tmp_path: Path):
    with pytest.raises(SealError, match="tocsin key init"):
        read_keyring(Settings(data_dir=tmp_path))


def test_a_key_file_that_everybody_can_read_is_refused(tmp_path: Path):
    path = tmp_path / "master.key"
    path.write_text(NEW)
    path.chmod(0o644)
    with pytest.raises(SealError, match="can be read by every user"):
        read_keyring(Settings(master_key_file=path))
    path.chmod(0o440)
    assert read_keyring(Settings(master_key_file=path)).primary.id == "new"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 70_000])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "master.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SealError, match="is not a master key file"):
        read_keyring(Settings(master_key_file=path))


def test_a_directory_in_the_key_files_place_is_refused(tmp_path: Path):
    with pytest.raises(SealError):
        read_keyring(Settings(master_key_file=tmp_path))


def test_the_environments_key_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOCSIN_MASTER_KEY", NEW)
    assert read_keyring(Settings(data_dir=tmp_path)).primary.id == "new"
