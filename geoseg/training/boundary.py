"""How well the edges of classes agree: boundary F-score and boundary IoU, counted window by window.

Both look a fixed distance around a contour, so a window with that much around it is enough, and counts of windows add
up to those of the scene. A contour runs between two pixels of which one is of the class and one is not; where labels
end no contour is known, nor at the edge of the scene. A pixel counts where all around it is known, out to the distance
plus one pixel. Eight classes are looked at together, a bit each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError

Bits = NDArray[np.uint8]
COUNTS = 6  # pixels of each kind, see `Boundaries.counts`
_PER_VALUE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.int64)


@dataclass(frozen=True, slots=True)
class Targets:
    """Sets of channels that are looked for, each a class or a group; they are the codes that labels may have.

    Attributes:
        members: of each target, its channels.
        channels: number of channels.
    """

    members: tuple[tuple[int, ...], ...]
    channels: int

    @property
    def has(self) -> NDArray[np.bool_]:
        """(target, channel): whether the channel is one of the target's."""
        found = np.zeros((len(self.members), self.channels), np.bool_)
        for target, channels in enumerate(self.members):
            found[target, list(channels)] = True
        return found

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(target, code): whether a pixel with that label is certainly of the target."""
        has = self.has
        within: NDArray[np.bool_] = ~np.any(has[None] & ~has[:, None], axis=-1)
        return within

    @property
    def outside(self) -> NDArray[np.bool_]:
        """(target, code): whether it is certainly not."""
        has = self.has
        apart: NDArray[np.bool_] = ~np.any(has[None] & has[:, None], axis=-1)
        return apart


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Where the contours of reference and prediction lie in a window, and what is near them.

    Attributes:
        kinds: for each eight targets six arrays (height, width) of bits, as `counts` has them.
        targets: number of them.
    """

    kinds: tuple[tuple[Bits, ...], ...]
    targets: int

    def counts(self, part: tuple[slice, slice]) -> NDArray[np.int64]:
        """Pixels in a part of the window, (target, 6): predicted contour, and of it near the reference's; reference
        contour, and of it near the predicted; intersection and union of the strips within both contours.
        """
        rows = [np.stack([_per_bit(kind[part]) for kind in eight], axis=1) for eight in self.kinds]
        return np.concatenate(rows)[: self.targets]


def find_boundaries(
    reference: NDArray[np.uint8], predicted: NDArray[np.uint8], targets: Targets, distance: float
) -> Boundaries:
    """Contours of all targets; good where `halo(distance)` pixels lie around.

    The boundary F-score is that of Csurka et al. (2013), the boundary IoU that of Cheng et al. (2021), with a distance
    in pixels in place of a share of the image's diagonal, which says nothing on scenes.

    Args:
        reference: (height, width) label codes, others than the targets' where unknown.
        predicted: (height, width) channels, others where unknown.
        targets: what to look for.
        distance: in pixels, at least 1.
    """
    check_distance(distance)
    kinds = []
    for first in range(0, len(targets.members), 8):
        inside, outside = (_table(part[first : first + 8]) for part in (targets.inside, targets.outside))
        has = _table(targets.has[first : first + 8])
        is_channel = np.zeros(256, np.uint8)
        is_channel[: targets.channels] = 255
        known = (inside | outside)[reference] & is_channel[predicted]
        kinds.append(_kinds(inside[reference], has[predicted], known, distance))
    return Boundaries(tuple(kinds), len(targets.members))


def halo(distance: float) -> int:
    """Pixels that a window needs around it."""
    return math.floor(distance) + 1


def check_distance(distance: float) -> None:
    """Refuse a distance within which nothing lies.

    Raises:
        InputError: it is less than a pixel, or no number.
    """
    if not 1 <= distance <= 1000:
        raise InputError(f"Boundaries are compared within 1 to 1000 pixels, not {distance:g}; 2 is usual.")


def scores(counts: NDArray[np.number]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boundary F-score and boundary IoU from counts (..., target, 6); NaN where there is no contour."""
    predicted, right, reference, found, shared, union = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = right / predicted, found / reference
        f_score = np.where(right + found == 0, np.where(predicted + reference == 0, np.nan, 0.0), 0.0)
        both = (precision > 0) & (recall > 0)
        f_score = np.where(both, 2 * precision * recall / (precision + recall), f_score)
        return f_score, shared / union


def _kinds(reference: Bits, predicted: Bits, known: Bits, distance: float) -> tuple[Bits, ...]:
    counted = ~_dilated(~known, distance + 1)
    reference_line, predicted_line = (inside & _dilated(~inside, 1) for inside in (reference, predicted))
    reference_strip, predicted_strip = (inside & _dilated(~inside, distance) for inside in (reference, predicted))
    return tuple(
        bits & counted
        for bits in (
            predicted_line,
            predicted_line & _dilated(reference_line, distance),
            reference_line,
            reference_line & _dilated(predicted_line, distance),
            reference_strip & predicted_strip,
            reference_strip | predicted_strip,
        )
    )


def _dilated(bits: Bits, radius: float) -> Bits:
    """Each bit set wherever a pixel within `radius` has it: a disc, row by row from strips that grow in width."""
    strip, wide = bits.copy(), 0
    result = bits.copy()
    for row in range(math.floor(radius), -1, -1):
        half = math.floor(math.sqrt(radius**2 - row**2) + 1e-9)
        while wide < min(half, bits.shape[1] - 1):
            wide += 1
            strip[:, wide:] |= bits[:, :-wide]
            strip[:, :-wide] |= bits[:, wide:]
        if row == 0:
            result |= strip
        elif row < bits.shape[0]:
            result[row:] |= strip[:-row]
            result[:-row] |= strip[row:]
    return result


def _table(members: NDArray[np.bool_]) -> Bits:
    """(256,) bits by value from (target, value) of at most eight targets."""
    table = np.zeros(256, np.uint8)
    packed = np.packbits(members, axis=0, bitorder="little")[0]
    table[: len(packed)] = packed
    return table


def _per_bit(bits: Bits) -> NDArray[np.int64]:
    """(8,) pixels that have each bit."""
    counts: NDArray[np.int64] = np.bincount(bits.ravel(), minlength=256) @ _PER_VALUE
    return counts
