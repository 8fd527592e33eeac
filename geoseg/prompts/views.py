"""A chip seen in several views, flipped and turned: the mean of what a network answers is better than one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.models.ensemble import VIEWS
from geoseg.prompts.networks import ChipPrompts, Embedded, Floats, Found, Network


@dataclass(frozen=True, slots=True)
class View:
    """One of the eight ways to lay down a square.

    Attributes:
        turned: rows and columns change places first.
        flipped: axes that run the other way then, of 0 (rows) and 1 (columns).
    """

    turned: bool
    flipped: tuple[int, ...]

    def of(self, maps: NDArray[Any]) -> NDArray[Any]:
        """Maps (..., side, side) in this view."""
        return np.ascontiguousarray(self._flip(maps.swapaxes(-2, -1) if self.turned else maps))

    def back(self, seen: NDArray[Any]) -> NDArray[Any]:
        """What `of` was given."""
        maps = self._flip(seen)
        return maps.swapaxes(-2, -1) if self.turned else maps

    def _flip(self, maps: NDArray[Any]) -> NDArray[Any]:
        flipped: NDArray[Any] = np.flip(maps, tuple(axis - 2 for axis in self.flipped))
        return flipped

    def places(self, places: Floats, side: int) -> Floats:
        """Places (..., 2) of a chip, row and column, in this view."""
        seen = places[..., ::-1].copy() if self.turned else places.copy()
        for axis in self.flipped:
            seen[..., axis] = side - seen[..., axis]
        return seen

    def prompts(self, prompts: ChipPrompts, side: int) -> ChipPrompts:
        """Prompts of a chip in this view."""
        corners = self.places(prompts.boxes.reshape(-1, 2, 2), side)
        boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
        earlier = None if prompts.earlier is None else self.of(prompts.earlier)
        return ChipPrompts(self.places(prompts.points, side), prompts.labels, boxes, earlier)


FLIPS: Sequence[tuple[int, ...]] = ((), (1,), (0,), (0, 1))


class Views:
    """A network that sees each chip in several views; masks and scores are means, candidate by candidate.

    Args:
        network: that is asked.
        count: 4 for the flips, 8 for their quarter turns too.
    """

    def __init__(self, network: Network, count: int) -> None:
        self.network, self.card = network, network.card
        self.digest = f"{network.digest}-{count}-views"
        self.has_prompts, self.has_text = network.has_prompts, network.has_text
        self.views = [View(turned, flipped) for turned in (False, True)[: count // 4] for flipped in FLIPS]

    def embed(self, chip: Floats) -> Embedded:
        seen = (self.network.embed(view.of(chip)) for view in self.views)
        return {f"{number} {name}": part for number, parts in enumerate(seen) for name, part in parts.items()}

    def decode(self, embedded: Embedded, prompts: ChipPrompts) -> Found:
        found = [
            self.network.decode(_parts(embedded, number), view.prompts(prompts, self.card.chip_px))
            for number, view in enumerate(self.views)
        ]
        logits = [view.back(one.logits) for view, one in zip(self.views, found, strict=True)]
        return Found(np.mean(logits, axis=0), np.mean([one.scores for one in found], axis=0))

    def find(self, embedded: Embedded, text: str) -> Found:
        """In the first view alone: how many objects there are differs from view to view."""
        return self.network.find(_parts(embedded, 0), text)


def seen_in(network: Network, views: int) -> Network:
    """The network, asked about so many views of each chip.

    Raises:
        InputError: there are not so many.
    """
    if views not in VIEWS:
        raise InputError(f"Views are {', '.join(map(str, VIEWS))}, not {views}.")
    return network if views == 1 else Views(network, views)


def _parts(embedded: Embedded, number: int) -> Embedded:
    start = f"{number} "
    return {name.removeprefix(start): part for name, part in embedded.items() if name.startswith(start)}
