"""Whom `tocsin send` writes to: a CSV file, standard input, or addresses on the command line.

A list is read twice: once to check everything before anything is published, and once to publish.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from tocsin_console.reading.inputs import STANDARD_INPUT
from tocsin_producers import Mode, Recipient, RecipientsFile, RecipientsFileError
from tocsin_schema.contract.addresses import parse_address
from tocsin_schema.errors import AddressError, UsageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from tocsin_console.sending.request import SendRequest

MAX_LIST_OCTETS = 2 * 1024 * 1024 * 1024
"""Octets that are taken from standard input; some twenty million recipients."""

_CHUNK_OCTETS = 1024 * 1024


class RecipientList(Protocol):
    """Recipients that can be read any number of times, and what is known of them."""

    @property
    def columns(self) -> frozenset[str]:
        """What `{{ recipient.… }}` may name."""
        ...

    @property
    def data_columns(self) -> tuple[str, ...]:
        """Those that only individual mode can use, besides the name."""
        ...

    @property
    def duplicates(self) -> int:
        """How many entries the latest reading has dropped."""
        ...

    def read(self, mode: Mode) -> Iterator[Recipient]:
        """Read it from the start; in shared mode without the recipients' own data. Raises UsageError."""
        ...


def mode_of(wanted: Mode | None, recipients: RecipientList) -> Mode:
    """Give the mode asked for; else individual where the list says more of a recipient than the address."""
    if wanted is not None:
        return wanted
    return Mode.INDIVIDUAL if len(recipients.columns) > 1 else Mode.SHARED


@contextmanager
def open_recipients(request: SendRequest) -> Generator[RecipientList]:
    """Open what the request names, for as long as it is read. Raises UsageError, which names file and line."""
    if request.recipients is None:
        yield AddressList(request.to)
        return
    with _opened(request.recipients) as stream:
        name = "standard input" if request.recipients == STANDARD_INPUT else request.recipients
        if stream.seekable():
            yield CsvList(stream, name)
            return
        with tempfile.TemporaryFile() as kept:
            _keep(stream, kept, name)
            yield CsvList(kept, name)


class CsvList:
    """The recipients in a CSV file."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._reading = self._from_the_start(Mode.INDIVIDUAL)

    @property
    def columns(self) -> frozenset[str]:
        """The header."""
        return frozenset(self._reading.columns)

    @property
    def data_columns(self) -> tuple[str, ...]:
        """All but address and name."""
        return self._reading.data_columns

    @property
    def duplicates(self) -> int:
        """Rows whose address stood earlier in the file."""
        return self._reading.duplicates

    def read(self, mode: Mode) -> Iterator[Recipient]:
        """Read the file from the start."""
        self._reading = self._from_the_start(mode)
        try:
            yield from self._reading
        except OSError as error:
            raise RecipientsFileError(
                f"Reading {self._name} failed after {self._reading.rows} rows: {error.strerror}."
            ) from None
        if not self._reading.rows:
            raise RecipientsFileError(f"There is no recipient in {self._name}.", fix="Give at least one row.")

    def _from_the_start(self, mode: Mode) -> RecipientsFile:
        self._stream.seek(0)
        return RecipientsFile(self._stream, name=self._name, personal=mode is Mode.INDIVIDUAL)


class AddressList:
    """Addresses that somebody typed. A malformed one is refused at once, since nobody else is affected."""

    columns = frozenset({"address"})
    data_columns = ()

    def __init__(self, addresses: Sequence[str]) -> None:
        """Check the addresses. Raises UsageError."""
        try:
            known = dict.fromkeys(parse_address(address.strip()).key for address in addresses)
        except AddressError as error:
            raise UsageError(f"--to: {error.problem}", fix=error.fix) from None
        self._recipients = [Recipient(address) for address in known]
        self.duplicates = len(addresses) - len(known)

    def read(self, mode: Mode) -> Iterator[Recipient]:
        """Give the addresses."""
        del mode
        yield from self._recipients


@contextmanager
def _opened(source: str) -> Generator[BinaryIO]:
    if source == STANDARD_INPUT:
        # Not closed, since it is not ours, and never read in place, since a terminal claims to be seekable at times.
        with tempfile.TemporaryFile() as kept:
            _keep(sys.stdin.buffer, kept, "standard input")
            yield kept
        return
    try:
        stream = Path(source).open("rb")  # noqa: SIM115  closed below, outside of what the except clause is about
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else "that is no file name"
        raise RecipientsFileError(
            f"The recipients cannot be read from {source}: {reason}.", fix="Check the name and the permissions."
        ) from None
    with stream:
        yield stream


def _keep(stream: BinaryIO, kept: BinaryIO, name: str) -> None:
    """Copy what can be read only once to where it can be read twice."""
    size = 0
    while octets := stream.read(_CHUNK_OCTETS):
        size += len(octets)
        if size > MAX_LIST_OCTETS:
            raise RecipientsFileError(f"{name} is longer than {MAX_LIST_OCTETS:,} bytes.", fix="Cut it into several.")
        kept.write(octets)
