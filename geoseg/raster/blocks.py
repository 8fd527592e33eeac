"""Blocks: how a scene is cut for the staging folder, and how one finished block is stored in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from affine import Affine
from pydantic import BaseModel, ConfigDict
from rasterio.io import MemoryFile

from geoseg.errors import InputError
from geoseg.grid.window import Window
from geoseg.legend import NODATA
from geoseg.raster.handles import limit_gdal_cache
from geoseg.raster.record import canonical_json
from geoseg.raster.stores import Store

Block: TypeAlias = tuple[int, int]
Note: TypeAlias = Mapping[str, Any]
TILE = 512
MARKERS = "done"
_MARKER = re.compile(rf"{MARKERS}/(\d+)/(\d+)\.json")
_PIXELS = Affine.scale(2, -2)  # any but the identity, of which rasterio would warn; the mosaic does not use it


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """How a scene is cut in blocks, and what each block holds.

    Attributes:
        shape: rows and columns of the scene.
        block: rows and columns of a block; those at the far edges are clipped.
        layers: band count by layer name.
        phase: rows and columns of the first block that lie outside, where the scene is cut from a larger one.
    """

    shape: tuple[int, int]
    block: tuple[int, int]
    layers: Mapping[str, int]
    phase: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if min(*self.shape, *self.block) < 1:
            raise InputError(f"Scene and block are 1 px or more, not {self.shape} and {self.block}.")
        if not all(0 <= phase < side for phase, side in zip(self.phase, self.block, strict=True)):
            raise InputError(f"The phase of a layout lies inside a block of {self.block}, not at {self.phase}.")

    @property
    def count(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        rows, cols = (
            -(-(size + phase) // side) for size, phase, side in zip(self.shape, self.phase, self.block, strict=True)
        )
        return rows, cols

    @property
    def blocks(self) -> Iterator[Block]:
        """Row-major indices of all blocks."""
        rows, cols = self.count
        return ((i, j) for i in range(rows) for j in range(cols))

    def window(self, block: Block) -> Window:
        height, width = self.block
        row, col = block[0] * height - self.phase[0], block[1] * width - self.phase[1]
        return Window(row, col, height, width).clipped(self.shape)

    def to_dict(self) -> dict[str, Any]:
        pairs = {"shape": self.shape, "block": self.block, "phase": self.phase}
        return {**{name: list(pair) for name, pair in pairs.items()}, "layers": dict(self.layers)}


class Marker(BaseModel):
    """What one finished block consists of; the last file of a block to be published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sizes: dict[str, int]
    note: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BlockWriter:
    """Stores finished blocks; can be pickled and used from any thread or process that sees the store.

    Attributes:
        store: the place of this run's blocks; it must have been begun, so that a straggler of a discarded run fails.
        layout: the blocks and layers expected.
    """

    store: Store
    layout: BlockLayout

    def write(self, block: Block, layers: Mapping[str, npt.NDArray[np.uint8]], note: Note | None = None) -> None:
        """Publish one block: all its layers, then the marker that makes it count.

        Args:
            block: row and column of the block.
            layers: (bands, height, width) or (height, width) pixels of every layer of the layout; an empty mapping
                where nothing in the block was measured.
            note: small JSON values to keep with the block.

        Raises:
            GeosegError: the block could not be written; those finished before are kept.
        """
        self.write_contents(block, {name: content for name, content in self._encoded(block, layers) if content}, note)

    def write_contents(self, block: Block, encoded: Mapping[str, bytes], note: Note | None = None) -> None:
        """Publish one block whose layers are bytes already; see `write`."""
        note = json.loads(canonical_json(note)) if note else None
        marker = Marker(sizes={name: len(content) for name, content in encoded.items()}, note=note)
        with self.store.errors(f"staging the block at {self.layout.window(block)}"):
            for name, content in encoded.items():
                self.store.publish(block_name(name, block), content)
            self.store.publish(marker_name(block), marker.model_dump_json().encode())

    def _encoded(self, block: Block, layers: Mapping[str, npt.NDArray[np.uint8]]) -> Iterator[tuple[str, bytes]]:
        if layers and set(layers) != set(self.layout.layers):
            raise ValueError(f"block {block} has layers {sorted(layers)}, not {sorted(self.layout.layers)}")
        for name, pixels in layers.items():
            pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels
            expected = (self.layout.layers[name], *self.layout.window(block).shape)
            if pixels.shape != expected or pixels.dtype != np.uint8:
                raise ValueError(f"{name} of block {block} is {pixels.dtype} {pixels.shape}, not uint8 {expected}")
            yield name, _encode_block(pixels)


def block_name(layer: str, block: Block) -> str:
    """What one layer of one block is called in the store: a TIFF, unless the layer's name has a suffix of its own."""
    folder, _, suffix = layer.partition(".")
    return f"{folder}/{block[0]}/{block[1]}.{suffix or 'tif'}"


def layer_folder(layer: str) -> str:
    """The folder in the store that has a layer's blocks."""
    return layer.partition(".")[0]


def marker_name(block: Block) -> str:
    """The content that makes a block count, published after its layers."""
    return f"{MARKERS}/{block[0]}/{block[1]}.json"


def marked_block(name: str) -> Block | None:
    """The block that a content of the store marks, if it is a marker."""
    match = _MARKER.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def _encode_block(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The pixels as a small tiled GeoTIFF; no bytes where all are nodata.

    It is made in memory: GDAL does not report every failed write, Python does.
    """
    if (pixels == NODATA).all():
        return b""
    bands, height, width = pixels.shape
    limit_gdal_cache()
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            dtype="uint8",
            count=bands,
            height=height,
            width=width,
            nodata=NODATA,
            tiled=True,
            blockxsize=TILE,
            blockysize=TILE,
            compress="deflate",
            zlevel=1,
            interleave="band",
            transform=_PIXELS,
        ) as raster:
            raster.write(pixels)
        return bytes(memory.read())
