"""Which recipients of a batch are meant: an integer here, a bit string in the ledger.

Bit i of a mask is the batch's recipient `first_ordinal + i`, which is the i-th character of the bit string.
"""

from __future__ import annotations


def bit_string(mask: int, size: int) -> str:
    """Write a mask as Postgres does: recipient 0 first.

    >>> bit_string(0b011, 4)
    '1100'
    """
    return f"{mask:0{size}b}"[::-1] if size else ""


def lowest(mask: int) -> int:
    """Give the first recipient that a mask means.

    >>> lowest(0b1100)
    2
    """
    return (mask & -mask).bit_length() - 1
