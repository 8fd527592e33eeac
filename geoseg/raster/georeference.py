"""Georef: where a raster lies, and silence where it is known that nobody knows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning


@dataclass(frozen=True, slots=True)
class Georef:
    """Shape, transform and CRS of a raster.

    Attributes:
        shape: rows and columns.
        transform: pixel to CRS coordinates; the identity where unknown.
        crs: None where unknown.
    """

    shape: tuple[int, int]
    transform: Affine
    crs: CRS | None

    @property
    def has_transform(self) -> bool:
        return bool(self.transform != Affine.identity())


@contextmanager
def ignore_not_georeferenced() -> Iterator[None]:
    """No warning for a raster without georeference inside the block: the caller expects one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
