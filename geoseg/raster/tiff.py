"""How much of a TIFF is there: read from its own table of tiles, without opening a pixel.

GDAL opens a TIFF that was cut off, and takes a missing tile for an empty one. The table of the full-resolution image says
where each tile or strip ends; a file shorter than that is damaged. Layout: TIFF 6.0, section 2, and BigTIFF
(https://libtiff.gitlab.io/libtiff/specification/bigtiff.html).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

STRIP_OFFSETS, STRIP_SIZES, TILE_OFFSETS, TILE_SIZES = 273, 279, 324, 325
MAX_TABLE_BYTES = 1 << 28  # larger tables are not checked
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}  # TIFF field types that hold offsets


@dataclass(frozen=True, slots=True)
class Extent:
    """What a TIFF claims and has.

    Attributes:
        stored: number of tiles or strips that have data.
        end: first byte after the last of them.
        file_size: bytes in the file.
    """

    stored: int
    end: int
    file_size: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """Byte order ('<' or '>') and the widths of classic or BigTIFF directory entries."""

    order: str
    big: bool

    def read(self, file: BinaryIO, form: str) -> tuple[Any, ...]:
        return struct.unpack(self.order + form, file.read(struct.calcsize(self.order + form)))


def stored_extent(path: Path) -> Extent | None:
    """The extent of the first image in `path`; None where this is no TIFF that can be told."""
    try:
        with path.open("rb") as file:
            fields = _first_directory(file)
            size = path.stat().st_size
            if fields is None:
                return None
            layout, entries = fields
            offsets = _numbers(file, layout, entries.get(TILE_OFFSETS) or entries.get(STRIP_OFFSETS), size)
            sizes = _numbers(file, layout, entries.get(TILE_SIZES) or entries.get(STRIP_SIZES), size)
    except (OSError, struct.error):
        return None
    if offsets is None or sizes is None or len(offsets) != len(sizes):
        return None
    there = (offsets > 0) & (sizes > 0)
    ends = offsets[there] + sizes[there]
    return Extent(stored=int(there.sum()), end=int(ends.max()) if len(ends) else 0, file_size=size)


def _first_directory(file: BinaryIO) -> tuple[_Layout, dict[int, tuple[str, int, int]]] | None:
    """Layout, and for each integer field its number type, count and the position of its numbers."""
    order = {b"II": "<", b"MM": ">"}.get(file.read(2))
    if order is None:
        return None
    (version,) = _Layout(order, False).read(file, "H")
    if version not in (42, 43):
        return None
    layout = _Layout(order, version == 43)
    (start,) = layout.read(file, "4xQ" if layout.big else "I")
    file.seek(start)
    (count,) = layout.read(file, "Q" if layout.big else "H")
    form, inline = ("HHQ8x", 8) if layout.big else ("HHI4x", 4)
    entries: dict[int, tuple[str, int, int]] = {}
    for _ in range(min(count, 4096)):
        tag, kind, length = layout.read(file, form)
        number = _INTEGERS.get(kind)
        if number is None:
            continue
        here = file.tell() - inline
        entries[tag] = number, length, here if length * int(number[1]) <= inline else -here
    return layout, entries


def _numbers(
    file: BinaryIO, layout: _Layout, entry: tuple[str, int, int] | None, file_size: int
) -> NDArray[np.uint64] | None:
    """The numbers of one field; a negative position points at the offset of a table elsewhere in the file."""
    if entry is None:
        return None
    number, length, at = entry
    dtype = np.dtype(layout.order + number)
    if length * dtype.itemsize > MAX_TABLE_BYTES:
        return None
    file.seek(abs(at))
    if at < 0:
        file.seek(layout.read(file, "Q" if layout.big else "I")[0])
    data = file.read(length * dtype.itemsize)
    if len(data) < length * dtype.itemsize:  # the table itself is cut off: nothing after the end is stored
        return np.full(length, file_size, np.uint64)
    return np.frombuffer(data, dtype).astype(np.uint64)
