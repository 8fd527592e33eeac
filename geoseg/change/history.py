"""Many dates of one place: how often and when each pixel changed its class, and how large each class was on each date.

A date on which a pixel is not known (nodata, a cloud) says nothing of it: the dates before and after it are compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.legend import NODATA

NEVER = 0
MOST_DATES = 2000
MOST_IN_A_BYTE = 254  # numbers of dates, beside NEVER and nodata
Numbers = NDArray[np.unsignedinteger[Any]]


class History(NamedTuple):
    """Of a window; where no date is known, NODATA in bytes, 65535 in the wider numbers of many dates.

    Attributes:
        changes: (height, width), how often the class is another one than on the last date known before.
        first: likewise, number of the first date with a new class, counted from 1; NEVER where there is none.
        last: likewise, of the last one.
        most: (height, width) int16 index of the most frequent class, of equals the first in the legend; -1 where no
            date is known.
    """

    changes: Numbers
    first: Numbers
    last: Numbers
    most: NDArray[np.int16]


def number_type(dates: int) -> tuple[type[np.uint8] | type[np.uint16], int]:
    """In which numbers of dates are kept, and what stands for nodata there."""
    return (np.uint8, NODATA) if dates <= MOST_IN_A_BYTE else (np.uint16, 65535)


def history(indices: Iterable[NDArray[np.int16]], classes: int, dates: int) -> History:
    """What happened to the pixels of a window.

    Args:
        indices: of each date, (height, width) index of the class, -1 where unknown.
        classes: how many there are.
        dates: how many there are, 1 to `MOST_DATES`.
    """
    kind, nodata = number_type(dates)
    parts = iter(indices)
    before = next(parts).copy()
    changes, first, last = (np.zeros(before.shape, kind) for _ in range(3))
    counts = np.stack([before == index for index in range(classes)]).astype(kind)
    for number, now in enumerate(parts, 2):
        known = now >= 0
        moved = known & (before >= 0) & (now != before)
        changes += moved
        first[moved & (first == NEVER)] = number
        last[moved] = number
        before = np.where(known, now, before)
        for index in range(classes):
            counts[index] += now == index
    unknown = before < 0
    for layer in (changes, first, last):
        layer[unknown] = nodata
    return History(changes, first, last, np.where(unknown, -1, counts.argmax(0)).astype(np.int16))
