"""Georef: where a raster lies, and silence where it is known that nobody knows.

`warnings.catch_warnings` swaps a list that all threads share: a thread that leaves it takes the filter of another away.
So the filter here is never taken away; it asks the thread that is about to warn whether it expects that.
"""

from __future__ import annotations

import threading
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


_thread = threading.local()


class _AsksThread(type):
    """What warning filters compare categories with."""

    def __subclasscheck__(cls, category: type) -> bool:
        return getattr(_thread, "expecting", False) and issubclass(category, NotGeoreferencedWarning)


class _Expected(Warning, metaclass=_AsksThread):
    """NotGeoreferencedWarning in threads that expect it, nothing in all others."""


_FILTER = ("ignore", None, _Expected, None, 0)


@contextmanager
def ignore_not_georeferenced() -> Iterator[None]:
    """No warning for a raster without georeference inside the block, in this thread: the caller expects one."""
    if warnings.filters[:1] != [_FILTER]:
        warnings.simplefilter("ignore", _Expected)
    before, _thread.expecting = getattr(_thread, "expecting", False), True
    try:
        yield
    finally:
        _thread.expecting = before
