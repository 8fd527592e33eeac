"""Many dates of one place: how often and when each pixel changed its class, and how large each class was on each date.

A date on which a pixel is not known (nodata, a cloud) says nothing of it: the dates before and after it are compared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.legend import NODATA

NEVER = 0
MOST_DATES = 254  # numbers of dates fit into a byte, beside NEVER and nodata


class History(NamedTuple):
    """Of a window; NODATA where no date is known.

    Attributes:
        changes: (height, width) uint8, how often the class is another one than on the last date known before.
        first: likewise, number of the first date with a new class, counted from 1; NEVER where there is none.
        last: likewise, of the last one.
        most: (height, width) int16 index of the most frequent class, of equals the first in the legend; -1 where no
            date is known.
    """

    changes: NDArray[np.uint8]
    first: NDArray[np.uint8]
    last: NDArray[np.uint8]
    most: NDArray[np.int16]


def history(indices: NDArray[np.int16], classes: int) -> History:
    """What happened to the pixels of a window.

    Args:
        indices: (date, height, width) index of the class, -1 where unknown; at most `MOST_DATES` dates.
        classes: how many there are.
    """
    shape = indices.shape[1:]
    changes, first, last = (np.zeros(shape, np.uint8) for _ in range(3))
    counts = np.zeros((classes, *shape), np.uint8)
    before = np.full(shape, -1, np.int16)
    for number, now in enumerate(indices, 1):
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
        layer[unknown] = NODATA
    return History(changes, first, last, np.where(unknown, -1, counts.argmax(0)).astype(np.int16))
