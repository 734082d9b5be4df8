"""Standard output that knows why it did not take an answer: a disk is full, a pipe's reader is gone."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Descriptor(io.FileIO):
    """The open file under it; keeps the first error of writing."""

    trouble: OSError | None = None

    def write(self, octets: Buffer, /) -> int:
        try:
            return super().write(octets)
        except OSError as error:
            self.trouble = self.trouble or error
            raise


def prepare() -> None:
    """Put it in the place of Python's own, for a process that begins."""
    plain = sys.stdout
    if not isinstance(plain, io.TextIOWrapper):
        return
    descriptor = _Descriptor(plain.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        # Unbuffered where Python's own is (PYTHONUNBUFFERED).
        descriptor if plain.write_through else io.BufferedWriter(descriptor),
        encoding=plain.encoding,
        errors=plain.errors,
        line_buffering=plain.line_buffering,
        write_through=plain.write_through,
    )


def trouble_of_output() -> OSError | None:
    """Say why standard output did not take something; None where it took all so far, or is not ours."""
    buffer = getattr(sys.stdout, "buffer", None)
    descriptor = getattr(buffer, "raw", buffer)
    return descriptor.trouble if isinstance(descriptor, _Descriptor) else None


def finish() -> OSError | None:
    """Write what is left of the answer; say why it, or what came before, could not be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        trouble = error
    else:
        trouble = trouble_of_output()
    if trouble is not None:
        # Python tries once more at its end, and would say so in words of its own.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return trouble
