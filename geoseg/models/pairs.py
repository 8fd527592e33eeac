"""Bundles that see two dates at once: what their bands and classes are called.

Bands are those of the first date and then the same of the second, `before_red, ..., after_red, ...`. A class is one of
the legend of both dates, for what stays, or `X to Y`, for what was X and is Y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geoseg.errors import InputError
from geoseg.legend import Legend, LegendClass
from geoseg.models.card import ModelCard

BEFORE, AFTER = "before_", "after_"
BETWEEN = " to "


@dataclass(frozen=True, slots=True)
class PairClasses:
    """What the channels of such a bundle stand for.

    Attributes:
        bands: of each date.
        legend: of each date.
        pairs: of each channel, the indices of its classes on the first and on the second date.
    """

    bands: tuple[str, ...]
    legend: Legend
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, card: ModelCard) -> PairClasses | None:
        """None for a bundle that sees one date.

        Raises:
            InputError: its classes are no such pairs.
        """
        bands = date_bands([band.name for band in card.bands])
        if bands is None:
            return None
        stays = [entry for entry in card.legend.classes if BETWEEN not in entry.name]
        names = [entry.name for entry in stays]
        if not stays or len(stays) == len(card.legend.classes):
            raise InputError(f"Model {card.name} sees two dates, but none of its classes is a change: A{BETWEEN}B.")
        return cls(bands, Legend(classes=tuple(stays)), tuple(_pair(entry, names) for entry in card.legend.classes))


def date_bands(bands: Sequence[str]) -> tuple[str, ...] | None:
    """The bands of each of two dates; None where they are of one."""
    half = tuple(name.removeprefix(BEFORE) for name in bands[: len(bands) // 2])
    return half if list(bands) == both_dates(half) and half else None


def both_dates(bands: Sequence[str]) -> list[str]:
    """Names of the bands of both dates."""
    return [date + name for date in (BEFORE, AFTER) for name in bands]


def _pair(entry: LegendClass, names: Sequence[str]) -> tuple[int, int]:
    before, _, after = entry.name.partition(BETWEEN)
    missing = [name for name in (before, after or before) if name not in names]
    if missing:
        raise InputError(
            f"Class {entry.name!r} names {missing[0]!r}, which is no class that stays: {', '.join(names)}."
        )
    return names.index(before), names.index(after or before)
