"""Where polygons come from: scene, date and model, as columns that tell several sources in one file apart."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pandas as pd
import pyarrow as pa

from geoseg.errors import InputError
from geoseg.raster.handles import dataset, gdal_settings
from geoseg.raster.remote import plain_name

COLUMNS = ("source", "date", "model")
_DIGITS = 12  # of the model's digest


@dataclass(frozen=True, slots=True)
class Origin:
    """What a land cover was made from, as far as its tags tell.

    Attributes:
        scene: file names of the scene; for a raster without tags, its own.
        date: when the scene was taken; None where nobody said.
        model: name and first digits of the digest; None for a raster without tags.
    """

    scene: str
    date: dt.date | None = None
    model: str | None = None

    @classmethod
    def of(cls, path: str | Path, stated: str | None = None) -> Self:
        """Read it from the tags of a class raster; see `of_tags`."""
        with gdal_settings(str(path)):
            tags = dataset(str(path)).tags()
        return cls.of_tags(tags, Path(plain_name(str(path))).name, stated)

    @classmethod
    def of_tags(cls, tags: Mapping[str, str], name: str, stated: str | None = None) -> Self:
        """From the tags of a land cover; a date that is stated counts more than one in the tags.

        Args:
            tags: of the file.
            name: what to call a raster whose tags do not tell.
            stated: a date.

        Raises:
            InputError: the date is none.
        """
        model, digest = tags.get("GEOSEG_MODEL"), tags.get("GEOSEG_MODEL_DIGEST", "")
        return cls(
            tags.get("GEOSEG_SCENE") or name,
            parse_date(stated or tags.get("GEOSEG_DATE")),
            None if model is None else f"{model} {digest[:_DIGITS]}".strip(),
        )

    @property
    def columns(self) -> dict[str, str | dt.date]:
        """What is known, by the names of its columns."""
        known: tuple[str | dt.date | None, ...] = (self.scene, self.date, self.model)
        return {name: value for name, value in zip(COLUMNS, known, strict=True) if value is not None}

    def columns_of(self, rows: int) -> dict[str, pd.api.extensions.ExtensionArray]:
        """The same for so many rows; of the same types for none as for many."""
        kinds = {name: pa.date32() if name == "date" else pa.string() for name in self.columns}
        return {
            name: pd.arrays.ArrowExtensionArray(pa.array([value] * rows, type=kinds[name]))
            for name, value in self.columns.items()
        }

    def __str__(self) -> str:
        return ", ".join(str(value) for value in self.columns.values())


def parse_date(text: str | None) -> dt.date | None:
    """A date as in 2024-06-30; what follows it, as a time does, is passed over.

    Raises:
        InputError: it is none.
    """
    if text is None:
        return None
    try:
        return dt.date.fromisoformat(text[:10])
    except ValueError:
        raise InputError(f"The date is given as in 2024-06-30, not as {text!r}.") from None
