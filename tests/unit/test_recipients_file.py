"""Recipients from CSV: what is read, what is refused and where."""

from __future__ import annotations

import codecs
import io
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from tocsin_producers.recipients_file import (
    MAX_ROW_OCTETS,
    RecipientsFile,
    RecipientsFileError,
    delimiter_of,
    open_recipients_file,
)
from tocsin_schema.contract.part import Recipient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read(content: bytes, *, personal: bool = True) -> list[Recipient]:
    return list(RecipientsFile(io.BytesIO(content), name="staff.csv", personal=personal))


def refusal(content: bytes) -> RecipientsFileError:
    with pytest.raises(RecipientsFileError) as caught:
        read(content)
    return caught.value


def test_columns_other_than_address_and_name_become_the_recipients_data() -> None:
    assert read(b"address,name,room\nada@example.org,Ada,12\nalan@example.org,,\n") == [
        Recipient("ada@example.org", "Ada", {"room": "12"}),
        Recipient("alan@example.org", None, {"room": ""}),
    ]


def test_without_the_personal_columns_only_address_and_name_are_read() -> None:
    assert read(b"room,name,address\n12,Ada,ada@example.org\n", personal=False) == [Recipient("ada@example.org", "Ada")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_told_from_the_header(delimiter: str) -> None:
    content = f"address{delimiter}name\nada@example.org{delimiter}Ada\n".encode()
    assert read(content) == [Recipient("ada@example.org", "Ada")]


def test_a_delimiter_that_shows_no_address_column_loses_to_one_that_does() -> None:
    assert delimiter_of("address;a, b, c, d\n") == ";"


def test_a_byte_order_mark_is_no_part_of_the_first_column() -> None:
    assert read(codecs.BOM_UTF8 + "address\nzoë@example.org\n".encode()) == [Recipient("zoë@example.org")]


def test_crlf_line_ends_and_a_missing_last_one_are_fine() -> None:
    assert len(read(b"address\r\na@example.org\r\nb@example.org")) == 2


def test_quoted_fields_may_hold_delimiters_quotes_and_line_ends() -> None:
    (recipient,) = read(b'address,note\nada@example.org,"one, ""two""\nthree"\n')
    assert recipient.data == {"note": 'one, "two"\nthree'}


def test_empty_lines_are_skipped_and_do_not_shift_the_line_numbers() -> None:
    assert len(read(b"address,name\n\na@example.org,A\n , \n\n")) == 1
    assert refusal(b"address,name\n\na@example.org,A\n\nb@example.org\n").line == 5


def test_an_address_that_stood_earlier_anywhere_in_the_file_is_dropped_and_counted() -> None:
    rows = [f"r{number}@example.org" for number in range(5000)]
    file = RecipientsFile(io.BytesIO("\n".join(["address", *rows, "r0@EXAMPLE.org", *rows]).encode()))
    assert len(list(file)) == 5000
    assert (file.rows, file.duplicates) == (10001, 5001)


def test_local_parts_in_another_case_are_other_addresses() -> None:
    assert len(read(b"address\nAda@example.org\nada@example.org\n")) == 2


def test_a_malformed_address_goes_through_and_is_counted() -> None:
    file = RecipientsFile(io.BytesIO(b"address\nnonsense\nada@example.org\nnonsense\n\n"))
    assert [recipient.address for recipient in file] == ["nonsense", "ada@example.org", "nonsense"]
    assert (file.invalid, file.duplicates) == (2, 0)


def test_an_entry_that_fails_for_its_name_does_not_displace_a_good_one() -> None:
    long_name = "x" * 201
    file = RecipientsFile(io.BytesIO(f"address,name\na@example.org,{long_name}\na@example.org,Ada\n".encode()))
    assert [recipient.name for recipient in file] == [long_name, "Ada"]


def test_spaces_around_addresses_and_names_are_dropped() -> None:
    assert read(b" address , name \n ada@example.org , Ada \n") == [Recipient("ada@example.org", "Ada")]


def test_a_missing_address_column_is_named_with_the_columns_that_are_there() -> None:
    error = refusal(b"Address,Name\nada@example.org,Ada\n")
    assert error.line == 1
    assert "staff.csv, line 1: there is no column `address`, but Address, Name." in str(error)


@pytest.mark.parametrize("content", [b"", b"\n", codecs.BOM_UTF8])
def test_a_file_without_a_header_is_refused(content: bytes) -> None:
    assert "none at all" in str(refusal(content))


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"address,name\na@example.org,A\nb@example.org\n", 3, "the row has 1 fields, and the header 2"),
        (b"address\na@example.org, b@example.org\n", 2, "has 2 fields"),
        (b"address,room,room\n", 1, "'room' stands twice"),
        (b"address,,room\n", 1, "column 2 has no name"),
        (b"address\na@example.org\nzo\xeb@example.org\n", 3, "byte 3 of the line is not UTF-8"),
        (b"\xff\xfea\0d\0", 1, "UTF-16"),
        (b"address\na\0@example.org\n", 2, "NUL"),
        (b'address,note\na@example.org,"never closed\nb@example.org,x\n', 2, "not closed"),
        (b'address,note\na@example.org,"a"b\n', 2, "this is not CSV"),
        (b"address\ra@example.org\r", 1, "line end"),
        (b"address,note\na@example.org," + b"x" * 200_000, 2, "more than"),
        (b"address\n" + b"x" * (MAX_ROW_OCTETS + 1), 2, "more than"),
        (b'address,note\na@example.org,"\n' + b"\n" * MAX_ROW_OCTETS, None, "more than"),
        (b"address," + b",".join(b"c%d" % number for number in range(300)), 1, "columns"),
        (b"address," + b"c" * 201, 1, "201 characters"),
    ],
)
def test_what_is_wrong_with_the_files_form_is_told_with_its_line(content: bytes, line: int | None, words: str) -> None:
    error = refusal(content)
    assert words in str(error)
    assert error.fix
    assert line is None or error.line == line


def test_rows_before_a_bad_line_have_been_yielded_already() -> None:
    rows = iter(RecipientsFile(io.BytesIO(b"address,name\na@example.org,A\nbroken\n")))
    assert next(rows).address == "a@example.org"
    with pytest.raises(RecipientsFileError):
        next(rows)


class GeneratedCsv(io.RawIOBase):
    """A long file that is never in memory."""

    def __init__(self, rows: int) -> None:
        self._lines = self._generate(rows)

    @staticmethod
    def _generate(rows: int) -> Iterator[bytes]:
        yield b"address,note\n"
        for number in range(rows):
            yield b"r%d@example.org,%s\n" % (number, b"n" * 400)

    def readline(self, size: int | None = -1, /) -> bytes:
        return next(self._lines, b"")


def test_a_long_file_is_read_in_flat_memory() -> None:
    file = RecipientsFile(GeneratedCsv(30_000))  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        assert sum(1 for _ in file) == 30_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000  # the file itself has 13 MB; the digests of its addresses 4


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RecipientsFileError, match="No such file"), open_recipients_file(tmp_path / "none.csv"):
        pass


def test_a_file_is_opened_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "staff.csv"
    path.write_bytes(b"address,name\nada@example.org,Ada\n")
    with open_recipients_file(path) as file:
        assert (file.columns, file.data_columns) == (("address", "name"), ())
        assert [recipient.address for recipient in file] == ["ada@example.org"]
