"""All objects that a text names, over a whole scene: each from the chip that shows it whole, and each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from geoseg.errors import InputError
from geoseg.prompts.chips import ChipAt
from geoseg.prompts.follow import Follower, Mask, Reply
from geoseg.prompts.networks import no_text
from geoseg.prompts.outline import one_part

# Chips overlap by half: what is smaller than that is whole on one of them, and what is larger is from farther away.
SAME = 0.5  # IoU from which two polygons are one object, seen twice


class HasPolygon(Protocol):
    """What was found: at least a polygon and how sure that is."""

    @property
    def polygon(self) -> Polygon: ...

    @property
    def score(self) -> float: ...


T = TypeVar("T", bound=HasPolygon)
Make = Callable[[Mask, float, bool], T]


def find_named(follower: Follower, words: str, make: Make[T]) -> list[T]:
    """What a text names, the surest first; seen on several chips, the surest view counts.

    Args:
        follower: scene and network.
        words: as in `swimming pool`.
        make: from mask, score and whether it is whole to what is returned; it has `polygon` and `score`.

    Raises:
        InputError: the model takes no text, or there is none.
    """
    if not follower.network.has_text:
        raise InputError(no_text(follower.network.card))
    if not words.strip():
        raise InputError("The text names nothing; give a word or two, as in 'swimming pool'.")
    found = [make(*seen) for seen in _seen(follower, words)]
    return without_repeats(found)


def without_repeats(found: list[T]) -> list[T]:
    """The surest of those that overlap by more than SAME, in that order; equals keep their order."""
    ranked = sorted((one for one in found if not one.polygon.is_empty), key=lambda one: -one.score)
    polygons = np.array([one.polygon for one in ranked], dtype=object)
    tree, areas = shapely.STRtree(polygons), shapely.area(polygons)
    dropped = np.zeros(len(ranked), np.bool_)
    for number, polygon in enumerate(polygons):
        if dropped[number]:
            continue
        near = tree.query(polygon, predicate="intersects")
        near = near[near > number]
        both = shapely.area(shapely.intersection(polygon, polygons[near]))
        dropped[near] |= both / (areas[number] + areas[near] - both) > SAME
    return [one for one, gone in zip(ranked, dropped, strict=True) if not gone]


def _seen(follower: Follower, words: str) -> Iterator[tuple[Mask, float, bool]]:
    """Mask, score and wholeness of each object on each chip that shows it whole, or on the farthest."""
    waiting = follower.lattice.all_of(0)
    while waiting:
        farther: set[ChipAt] = set()
        for at in waiting:
            found = follower.network.find(follower.embedded(at), words)
            for logits, scores in zip(found.logits, found.scores, strict=True):
                reply = Reply(at, logits, scores)
                above = follower.beyond(reply, _nowhere())
                if isinstance(above, ChipAt):
                    farther.add(above)
                else:
                    yield one_part(follower.mask(reply, 0), None), float(scores[0]), above
        waiting = sorted(farther)


def _nowhere() -> NDArray[np.float64]:
    """Bounds that add nothing to those of a mask."""
    return np.array([np.inf, np.inf, -np.inf, -np.inf])
