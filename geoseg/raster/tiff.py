"""How much of a TIFF is there: read from its own table of tiles, without opening a pixel.

GDAL opens a TIFF that was cut off, and takes a missing tile for an empty one. The table of the full-resolution image
says where each tile or strip ends; a file shorter than that is damaged. Layout: TIFF 6.0, section 2, and BigTIFF
(https://libtiff.gitlab.io/libtiff/specification/bigtiff.html).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

STRIP_OFFSETS, STRIP_SIZES, TILE_OFFSETS, TILE_SIZES = 273, 279, 324, 325
MAX_TABLE_BYTES = 1 << 28  # larger tables are not checked
MAX_FIELDS = 4096
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}  # TIFF field types that hold offsets


@dataclass(frozen=True, slots=True)
class Extent:
    """What a TIFF claims and has.

    Attributes:
        blocks: number of tiles or strips.
        stored: number of tiles or strips that have data.
        end: first byte after the last of them.
        file_size: bytes in the file.
    """

    blocks: int
    stored: int
    end: int
    file_size: int


class _Field(NamedTuple):
    """One entry of a directory: `length` numbers of `dtype` at byte `at` of the file."""

    dtype: np.dtype[Any]
    length: int
    at: int

    @property
    def end(self) -> int:
        return self.at + self.length * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class _Layout:
    """Byte order ('<' or '>') and the widths of classic or BigTIFF directory entries."""

    order: str
    big: bool

    def read(self, file: BinaryIO, form: str) -> tuple[Any, ...]:
        return struct.unpack(self.order + form, file.read(struct.calcsize(self.order + form)))


def stored_extent(path: Path) -> Extent | None:
    """The extent of the first image in `path`; None where this is no TIFF that can be told."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            fields = _first_directory(file)
            offsets = fields.get(TILE_OFFSETS) or fields.get(STRIP_OFFSETS)
            sizes = fields.get(TILE_SIZES) or fields.get(STRIP_SIZES)
            if offsets is None or sizes is None or offsets.length != sizes.length:
                return None
            table_end = max(offsets.end, sizes.end)
            if table_end > size:
                return Extent(blocks=offsets.length, stored=offsets.length, end=table_end, file_size=size)
            if offsets.end - offsets.at > MAX_TABLE_BYTES:
                return None
            return _extent(_numbers(file, offsets), _numbers(file, sizes), size)
    except (OSError, struct.error):
        return None


def directory_start(path: Path) -> int | None:
    """Byte at which the first directory of a TIFF begins, in the file or past its end; None where this is no TIFF."""
    try:
        with path.open("rb") as file:
            layout = _layout(file)
            return layout.read(file, "4xQ" if layout.big else "I")[0] if layout else None
    except (OSError, struct.error):
        return None


def _extent(offsets: NDArray[np.uint64], sizes: NDArray[np.uint64], file_size: int) -> Extent:
    there = (offsets > 0) & (sizes > 0)
    ends = offsets[there] + sizes[there]
    return Extent(blocks=len(offsets), stored=len(ends), end=int(ends.max()) if len(ends) else 0, file_size=file_size)


def _numbers(file: BinaryIO, field: _Field) -> NDArray[np.uint64]:
    file.seek(field.at)
    return np.frombuffer(file.read(field.end - field.at), field.dtype).astype(np.uint64)


def _layout(file: BinaryIO) -> _Layout | None:
    """What the first four bytes say; None where they are not a TIFF's."""
    order = {b"II": "<", b"MM": ">"}.get(file.read(2))
    if order is None:
        return None
    (version,) = _Layout(order, False).read(file, "H")
    return _Layout(order, version == 43) if version in (42, 43) else None


def _first_directory(file: BinaryIO) -> dict[int, _Field]:
    """The fields of whole numbers by their tag; empty where the file is no TIFF."""
    layout = _layout(file)
    if layout is None:
        return {}
    file.seek(layout.read(file, "4xQ" if layout.big else "I")[0])
    (count,) = layout.read(file, "Q" if layout.big else "H")
    entries = (_entry(file, layout) for _ in range(min(count, MAX_FIELDS)))
    return {tag: field for tag, field in entries if field is not None}


def _entry(file: BinaryIO, layout: _Layout) -> tuple[int, _Field | None]:
    """A directory entry; numbers that fit stand in it, others at the position that it holds."""
    tag, kind, count = layout.read(file, "HHQ" if layout.big else "HHI")
    here = file.tell()
    (elsewhere,) = layout.read(file, "Q" if layout.big else "I")
    if kind not in _INTEGERS:
        return tag, None
    dtype = np.dtype(layout.order + _INTEGERS[kind])
    fits = count * dtype.itemsize <= (8 if layout.big else 4)
    return tag, _Field(dtype, count, here if fits else elsewhere)
