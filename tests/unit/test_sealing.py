"""Sealed secrets open where they were sealed and nowhere else."""

from __future__ import annotations

import base64
import os
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.errors import Scope, SealError, UnknownKeyError
from tocsin_schema.ledger import resealing
from tocsin_schema.sealing import (
    KeyFileWatch,
    Keyring,
    MasterKey,
    Sealer,
    read_keyring,
    replace_key_text,
    write_new_key_file,
)
from tocsin_schema.sealing.keyring import text_with_key_first, text_with_key_last, text_without_keys
from tocsin_schema.sealing.purposes import PURPOSES
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
    with pytest.raises(SealError, match="does not open in this row or database") as caught:
        opener.open(sealed, purpose=purpose, row_id=row_id)
    assert not isinstance(caught.value, UnknownKeyError)


def test_an_error_names_what_does_not_open_where_it_stands_and_what_to_do():
    sealed = sealer(NEW).seal(SECRET, purpose=PURPOSE, row_id=ROW)
    password = "sending_profiles.sealed_password"
    with pytest.raises(SealError) as caught:
        sealer(NEW).open(sealed, purpose=password, row_id=ROW)
    assert f"password in {password}, row {ROW}" in caught.value.problem
    assert "tocsin profile replace-password" in str(caught.value.fix)
    assert caught.value.scope is Scope.PROFILE


def test_every_sealed_column_is_told_in_words_and_can_be_sealed_anew():
    assert resealing.SWAPS.keys() == PURPOSES.keys()


def test_a_value_whose_key_is_gone_names_the_key():
    sealed = sealer(OLD).seal(SECRET, purpose=PURPOSE, row_id=ROW)
    with pytest.raises(UnknownKeyError, match="sealed with key old, which is not in the master key file"):
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


def test_keys_are_added_moved_and_taken_out_without_losing_a_comment():
    text = f"# ours\n{OLD}\n"
    key = Keyring.parse(NEW).primary
    opened = text_with_key_last(text.rstrip(), key)
    promoted = text_with_key_first(opened, "new")
    assert Keyring.parse(opened).ids == ("old", "new")
    assert Keyring.parse(promoted).ids == ("new", "old")
    assert text_without_keys(promoted, {"old"}) == f"{NEW}\n# ours\n"


def key_file(tmp_path: Path, text: str = f"{OLD}\n", mode: int = 0o640) -> Path:
    path = tmp_path / "master.key"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_key_file_is_replaced_as_a_whole_and_stays_whose_it_is(tmp_path: Path):
    path = key_file(tmp_path)
    before = path.stat()
    link = tmp_path / "link.key"
    link.symlink_to(path)
    replace_key_text(link, before=f"{OLD}\n", after=f"{OLD}\n{NEW}\n")
    after = path.stat()
    assert link.is_symlink()
    assert read_keyring(Settings(master_key_file=link)).ids == ("old", "new")
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link.key", "master.key"]


def test_a_key_file_that_somebody_else_changed_meanwhile_is_left_alone(tmp_path: Path):
    path = key_file(tmp_path, f"{NEW}\n")
    with pytest.raises(SealError, match="changed by somebody else"):
        replace_key_text(path, before=f"{OLD}\n", after=f"{OLD}\n{NEW}\n")
    assert path.read_text() == f"{NEW}\n"


def test_a_replacement_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = key_file(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SealError, match="cannot be written: No space left"):
        replace_key_text(path, before=f"{OLD}\n", after=f"{OLD}\n{NEW}\n")
    assert path.read_text() == f"{OLD}\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_file_is_never_replaced_by_one_without_a_key(tmp_path: Path):
    path = key_file(tmp_path)
    with pytest.raises(SealError, match="holds no key"):
        replace_key_text(path, before=f"{OLD}\n", after="# empty\n")
    assert path.read_text() == f"{OLD}\n"


def test_a_watch_tells_of_another_file_once_and_of_a_broken_one_not_at_all(tmp_path: Path):
    path = key_file(tmp_path)
    watch = KeyFileWatch(Settings(master_key_file=path))
    assert watch.changed_keys() is None
    replace_key_text(path, before=f"{OLD}\n", after=f"{OLD}\n{NEW}\n")
    assert watch.has_changed()
    changed = watch.changed_keys()
    assert changed is not None
    assert changed.ids == ("old", "new")
    assert watch.changed_keys() is None
    path.write_text("half a ke")
    assert watch.has_changed()
    assert watch.changed_keys() is None
    assert watch.has_changed()


class Changing:
    """A key file that a test changes, as `Sealer` sees it."""

    def __init__(self) -> None:
        self.changed: Keyring | None = None

    def __call__(self) -> Keyring | None:
        changed, self.changed = self.changed, None
        return changed


def test_a_value_sealed_with_a_key_that_has_just_come_opens_without_a_restart():
    file = Changing()
    ours = Sealer(Keyring.parse(OLD), LEDGER, reread=file)
    sealed = sealer(NEW).seal(SECRET, purpose=PURPOSE, row_id=ROW)
    with pytest.raises(SealError, match="which is not in the master key file"):
        ours.open(sealed, purpose=PURPOSE, row_id=ROW)
    file.changed = Keyring.parse(f"{OLD}\n{NEW}")
    assert ours.open(sealed, purpose=PURPOSE, row_id=ROW) == SECRET


@pytest.mark.parametrize(
    ("ours", "in_file", "seals"),
    [(f"{OLD}\n{NEW}", f"{NEW}\n{OLD}", OLD), (NEW, f"{OLD}\n{NEW}", NEW)],
    ids=["a key that was promoted", "an old copy of the file, whose first key is retired"],
)
def test_another_first_key_in_the_file_seals_only_once_the_ledger_was_asked(ours: str, in_file: str, seals: str):
    file = Changing()
    one = Sealer(Keyring.parse(ours), LEDGER, reread=file)
    file.changed = Keyring.parse(in_file)
    assert sealer(seals).open(one.seal(SECRET, purpose=PURPOSE, row_id=ROW), purpose=PURPOSE, row_id=ROW) == SECRET
    assert one.keyring == Keyring.parse(ours)
    one.use(Keyring.parse(in_file))
    first = in_file.splitlines()[0]
    assert sealer(first).open(one.seal(SECRET, purpose=PURPOSE, row_id=ROW), purpose=PURPOSE, row_id=ROW) == SECRET


def test_a_value_that_was_read_just_before_its_key_was_retired_still_opens():
    ours = sealer(NEW, OLD)
    sealed = sealer(OLD).seal(SECRET, purpose=PURPOSE, row_id=ROW)
    ours.use(Keyring.parse(NEW))
    assert ours.open(sealed, purpose=PURPOSE, row_id=ROW) == SECRET
    assert ours.keyring.ids == ("new",)


def test_nothing_is_sealed_with_a_key_of_which_the_file_holds_nothing_any_more():
    file = Changing()
    ours = Sealer(Keyring.parse(OLD), LEDGER, reread=file)
    before = ours.seal(SECRET, purpose=PURPOSE, row_id=ROW)
    # Also where an old copy of the file comes back.
    for file.changed in (Keyring.parse(NEW), None, Keyring.parse(f"{OLD}\n{NEW}")):
        with pytest.raises(UnknownKeyError, match="changed while this was under way"):
            ours.seal(SECRET, purpose=PURPOSE, row_id=ROW)
    assert ours.open(before, purpose=PURPOSE, row_id=ROW) == SECRET
    ours.use(Keyring.parse(NEW))
    assert ours.seal(SECRET, purpose=PURPOSE, row_id=ROW)


def test_a_new_key_has_an_id_of_its_own_and_is_not_shown():
    one, other = MasterKey.generate(), MasterKey.generate()
    assert one.id != other.id
    assert one.line.split()[1] not in repr(one)
