"""Recipients from a CSV file, one at a time: checked, told apart, and never all in memory.

A header line names the columns. `address` is required, `name` is known, every other column becomes a value of the
recipient's own data (`{{ recipient.column }}`). The delimiter is a comma, a semicolon or a tab, whichever the header
shows. UTF-8, with or without a byte order mark.

What is wrong with the file's form is an error that names the line, since the rest of the file cannot be trusted
either. A malformed address is not: it goes through as it stands, and becomes a failed recipient with its reason.
"""

from __future__ import annotations

import codecs
import csv
import re
from contextlib import contextmanager
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Final

from tocsin_schema.contract.addresses import parse_address, shorten
from tocsin_schema.contract.part import Recipient
from tocsin_schema.contract.plain_data import MAX_DATA_KEY
from tocsin_schema.contract.recipient_list import MAX_RECIPIENT_NAME
from tocsin_schema.errors import AddressError, Scope, UsageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

ADDRESS_COLUMN: Final = "address"
NAME_COLUMN: Final = "name"
DELIMITERS: Final = (",", ";", "\t")

MAX_ROW_OCTETS: Final = 1024 * 1024
"""Octets of one row. More is a quote that was not closed, or no CSV at all."""
MAX_COLUMNS: Final = 256

_KEY_OCTETS: Final = 16
_LINE_BREAK = re.compile(r"[\r\n]")


class RecipientsFileError(UsageError):
    """A recipients file cannot be used. `line` counts from 1; a row of several lines is called by its first."""

    scope = Scope.JOB

    def __init__(self, problem: str, *, line: int | None = None, fix: str | None = None) -> None:
        super().__init__(problem, fix=fix)
        self.line = line


class RecipientsFile:
    """The recipients in a CSV file; iterate over it once.

    The constructor reads the header. The counters say what has been read so far. Memory is flat, but for 16 octets
    of digest a distinct address, by which duplicates are known over the whole file.

    With `personal` off (shared mode, where all get the same message) the other columns are not looked at.
    """

    def __init__(self, stream: BinaryIO, *, name: str = "the recipients file", personal: bool = True) -> None:
        """Read the header of an open binary stream; `name` is what errors call it. Raises RecipientsFileError."""
        self._stream = stream
        self._name = name
        self._personal = personal
        self._row_octets = 0
        lines = self._lines()
        first = next(lines, "")
        self._rows = csv.reader(chain([first], lines), delimiter=delimiter_of(first), strict=True)
        self.columns = self._header()
        """The header, without the spaces around names."""
        self.rows = 0
        """Rows that are not empty, duplicates included."""
        self.duplicates = 0
        """Rows that were dropped, since their address stood earlier in the file."""
        self.invalid = 0
        """Recipients with a malformed address or name."""
        self._seen: set[bytes] = set()

    @property
    def data_columns(self) -> tuple[str, ...]:
        """The columns that become the recipient's own data."""
        return tuple(column for column in self.columns if column not in (ADDRESS_COLUMN, NAME_COLUMN))

    def __iter__(self) -> Iterator[Recipient]:
        """Yield recipients lazily. Raises RecipientsFileError, and OSError where the stream cannot be read."""
        while (row := self._next_row()) is not None:
            recipient = self._recipient(row)
            self.rows += 1
            if self._is_duplicate(recipient):
                self.duplicates += 1
            else:
                yield recipient

    def _recipient(self, row: Sequence[str]) -> Recipient:
        values = dict(zip(self.columns, row, strict=True))
        address = values.pop(ADDRESS_COLUMN).strip()
        name = values.pop(NAME_COLUMN, "").strip()
        return Recipient(address, name or None, values if self._personal else {})

    def _is_duplicate(self, recipient: Recipient) -> bool:
        """Say whether this address came before. Those that fail anyway are each reported, so they do not count."""
        try:
            address = parse_address(recipient.address)
        except AddressError:
            self.invalid += 1
            return False
        if recipient.name is not None and (
            len(recipient.name) > MAX_RECIPIENT_NAME or _LINE_BREAK.search(recipient.name)
        ):
            self.invalid += 1
            return False
        # Of 16 octets, so that nobody is ever left out because two digests happen to be the same.
        key = blake2b(address.key.encode(), digest_size=_KEY_OCTETS).digest()
        if key in self._seen:
            return True
        self._seen.add(key)
        return False

    def _next_row(self) -> list[str] | None:
        """Give the next row with something in it; None at the end."""
        while True:
            begins_at = self._rows.line_num + 1
            row = self._parsed_row(begins_at)
            if row is None:
                return None
            if not any(value.strip() for value in row):
                continue
            if len(row) != len(self.columns):
                raise self._error(
                    begins_at,
                    f"the row has {len(row)} fields, and the header {len(self.columns)}",
                    fix="Give each row a field for each column; put quotes around a field with a delimiter in it.",
                )
            return row

    def _parsed_row(self, begins_at: int) -> list[str] | None:
        self._row_octets = 0
        try:
            return next(self._rows, None)
        except csv.Error as error:
            raise self._error(begins_at, _what_is_wrong(error), fix="Check its quotes.") from None

    def _header(self) -> tuple[str, ...]:
        columns = tuple(column.strip() for column in self._parsed_row(1) or ())
        if len(columns) > MAX_COLUMNS:
            raise self._error(1, f"there are {len(columns)} columns; {MAX_COLUMNS} are allowed", fix="Leave some out.")
        for number, column in enumerate(columns, start=1):
            if len(columns) > 1 and not column:
                raise self._error(1, f"column {number} has no name", fix="Name it, or leave it out.")
            if len(column) > MAX_DATA_KEY:
                raise self._error(1, f"the name of column {number} has {len(column)} characters", fix="Shorten it.")
            if column in columns[: number - 1]:
                raise self._error(1, f"the column {shorten(column)!r} stands twice", fix="Give each a name of its own.")
        if ADDRESS_COLUMN not in columns:
            found = ", ".join(shorten(column, 40) for column in columns[:20] if column) or "none at all"
            raise self._error(
                1,
                f"there is no column `{ADDRESS_COLUMN}`, but {found}",
                fix="The first line names the columns; call the one with the mail addresses `address`.",
            )
        return columns

    def _lines(self) -> Iterator[str]:
        number = 0
        while octets := self._stream.readline(MAX_ROW_OCTETS + 1):
            number += 1
            self._row_octets += len(octets)
            if self._row_octets > MAX_ROW_OCTETS:
                raise self._error(
                    number,
                    f"the row has more than {MAX_ROW_OCTETS:,} bytes",
                    fix="Is a quote not closed, or is this no CSV file?",
                )
            yield self._decoded(octets, number)

    def _decoded(self, octets: bytes, number: int) -> str:
        if number == 1:
            if octets.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise self._error(1, "the file is UTF-16, not UTF-8", fix="Save the file as `CSV UTF-8`.")
            octets = octets.removeprefix(codecs.BOM_UTF8)
        try:
            text = octets.decode()
        except UnicodeDecodeError as error:
            raise self._error(
                number, f"byte {error.start + 1} of the line is not UTF-8", fix="Save the file as UTF-8."
            ) from None
        if "\0" in text:
            raise self._error(number, "there is a NUL character", fix="Save the file as plain CSV in UTF-8.")
        return text

    def _error(self, line: int, problem: str, *, fix: str) -> RecipientsFileError:
        return RecipientsFileError(f"{self._name}, line {line}: {problem}.", line=line, fix=fix)


@contextmanager
def open_recipients_file(path: Path, *, personal: bool = True) -> Generator[RecipientsFile]:
    """Open a CSV file for as long as its recipients are read. Raises RecipientsFileError."""
    try:
        stream = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else "that is no file name"
        raise RecipientsFileError(
            f"The recipients cannot be read from {path}: {reason}.", fix="Check the name and the permissions."
        ) from None
    with stream:
        yield RecipientsFile(stream, name=str(path), personal=personal)


def delimiter_of(header: str) -> str:
    """Tell the delimiter from the header line: the one that shows a column `address`, else most columns."""

    def promise(delimiter: str) -> tuple[bool, int]:
        try:
            row = next(csv.reader([header], delimiter=delimiter), None)
        except csv.Error:
            return False, 0
        names = [name.strip() for name in row or ()]
        return ADDRESS_COLUMN in names, len(names)

    return max(DELIMITERS, key=promise)


def _what_is_wrong(error: csv.Error) -> str:
    text = str(error)
    if "new-line" in text:
        return "a line end is neither LF nor CRLF"
    if "field limit" in text:
        return f"a field has more than {csv.field_size_limit():,} characters"
    if "unexpected end" in text:
        return "a quote is opened and not closed"
    return f"this is not CSV: {text}"
