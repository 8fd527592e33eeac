"""Accuracies and areas from a stratified random sample, with standard errors.

Counting the pixels of a map repeats its errors as bias. A sample of pixels with reference labels, drawn at random
within strata of known size, tells the true areas and how sure they are:

- Stehman 2014, doi:10.1080/01431161.2014.930207: strata of any kind, by means and ratios of indicators. Where the
  strata are the classes of the map, his estimators are those of
- Olofsson et al. 2013, doi:10.1016/j.rse.2012.10.031, and
- Olofsson et al. 2014, doi:10.1016/j.rse.2014.02.015, whose worked tables are reproduced in the tests.

Strata are taken as large against their samples: no finite population correction, as in the papers' tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its standard error; NaN where the sample says nothing of it.

    Attributes:
        value: the number.
        standard_error: of it.
        least: below which it cannot lie.
        most: above which it cannot lie.
    """

    value: float
    standard_error: float
    least: float = -math.inf
    most: float = math.inf

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Normal confidence interval, clipped to what can be: accuracies and shares to 0..1, areas to 0..all."""
        half = self.half_width(confidence)
        low, high = np.clip((self.value - half, self.value + half), self.least, self.most)
        return float(low), float(high)

    def half_width(self, confidence: float = 0.95) -> float:
        """Of the interval before it is clipped: one that reaches beyond says that the sample is too small."""
        return NormalDist().inv_cdf(0.5 + confidence / 2) * self.standard_error

    def times(self, factor: float) -> Estimate:
        """The same in other units; `factor` is positive."""
        return Estimate(self.value * factor, self.standard_error * factor, self.least * factor, self.most * factor)


@dataclass(frozen=True, slots=True)
class StratifiedSample:
    """Sampled pixels.

    Attributes:
        strata: (pixel,) the stratum that each was drawn from.
        mapped: (pixel,) the class of the map there.
        reference: (pixel,) the true class.
        sizes: pixels, or area, of each stratum in the whole map.
    """

    strata: Sequence[str]
    mapped: Sequence[str]
    reference: Sequence[str]
    sizes: Mapping[str, float]

    def __post_init__(self) -> None:
        lengths = {len(self.strata), len(self.mapped), len(self.reference)}
        if len(lengths) > 1:
            raise InputError(f"Strata, map and reference are of {sorted(lengths)} pixels; they must agree.")
        strange = sorted(set(self.strata) - set(self.sizes))
        if strange:
            raise InputError(f"The sample has the stratum {strange[0]!r}, whose size is not given.")
        for name, size in self.sizes.items():
            drawn = sum(stratum == name for stratum in self.strata)
            if size > 0 and drawn < 2:
                raise InputError(
                    f"Stratum {name!r} has {size:g} of {sum(self.sizes.values()):g} in size and {drawn} sampled "
                    "pixels; a standard error needs 2 or more. Sample more, or merge it with another stratum."
                )

    @classmethod
    def of_matrix(cls, counts: Any, classes: Sequence[str], sizes: Sequence[float]) -> StratifiedSample:
        """A sample whose strata are the classes of the map, from its error matrix.

        Args:
            counts: (class, class) sampled pixels; rows are the map, columns the reference.
            classes: their names.
            sizes: mapped pixels or area of each.
        """
        rows, cols = np.indices(np.shape(counts))
        often = np.ravel(counts)
        mapped = [classes[i] for i in np.repeat(rows.ravel(), often)]
        reference = [classes[i] for i in np.repeat(cols.ravel(), often)]
        return cls(mapped, mapped, reference, dict(zip(classes, sizes, strict=True)))


@dataclass(frozen=True, slots=True)
class AreaReport:
    """What a sample tells of a map.

    Attributes:
        classes: names, in the order of everything else.
        matrix: (class, class) estimated share of the area; rows are the map, columns the reference.
        counts: (class, class) sampled pixels.
        overall: overall accuracy.
        users: user's accuracy of each class: of what is mapped as it, the share that is it.
        producers: producer's accuracy of each class: of what is it, the share that is mapped as it.
        shares: of the whole area that each class truly has.
        mapped_shares: of the whole area that the map gives each class, as the sample sees it.
        total: size of all strata.
    """

    classes: tuple[str, ...]
    matrix: NDArray[np.float64]
    counts: NDArray[np.int64]
    overall: Estimate
    users: tuple[Estimate, ...]
    producers: tuple[Estimate, ...]
    shares: tuple[Estimate, ...]
    mapped_shares: tuple[float, ...]
    total: float

    def areas(self, unit: float = 1.0) -> tuple[Estimate, ...]:
        """True areas, in units of the strata's sizes times `unit`."""
        return tuple(share.times(self.total * unit) for share in self.shares)


def estimate_areas(sample: StratifiedSample, classes: Sequence[str] | None = None) -> AreaReport:
    """Accuracies and areas with standard errors.

    Args:
        sample: see StratifiedSample.
        classes: order of the classes; those of the sample, sorted, where None.

    Raises:
        InputError: the sample has a class that `classes` lacks.
    """
    found = sorted({*sample.mapped, *sample.reference})
    names = tuple(found if classes is None else classes)
    strange = [name for name in found if name not in names]
    if strange:
        raise InputError(f"The sample has the class {strange[0]!r}, which is none of {', '.join(names)}.")
    index = {name: i for i, name in enumerate(names)}
    mapped = np.array([index[name] for name in sample.mapped], np.intp)
    reference = np.array([index[name] for name in sample.reference], np.intp)
    strata = _Strata.of(sample)
    is_mapped, is_true = (np.eye(len(names))[codes].T for codes in (mapped, reference))  # (class, pixel)
    right = is_mapped * is_true
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (mapped, reference), 1)
    return AreaReport(
        names,
        np.array([[strata.mean(m * t) for t in is_true] for m in is_mapped]),
        counts,
        strata.share(right.sum(0)),
        tuple(strata.ratio(both, of) for both, of in zip(right, is_mapped, strict=True)),
        tuple(strata.ratio(both, of) for both, of in zip(right, is_true, strict=True)),
        tuple(strata.share(values) for values in is_true),
        tuple(strata.mean(values) for values in is_mapped),
        float(sum(sample.sizes.values())),
    )


@dataclass(frozen=True, slots=True)
class _Strata:
    """Which pixels belong to each stratum, and its share of the whole."""

    members: tuple[NDArray[np.bool_], ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, sample: StratifiedSample) -> _Strata:
        total = float(sum(sample.sizes.values()))
        if not total > 0:
            raise InputError("All strata are empty; there is no area to estimate.")
        names = [name for name, size in sample.sizes.items() if size > 0]
        strata = np.array(sample.strata, dtype=object)
        return cls(tuple(strata == name for name in names), tuple(sample.sizes[name] / total for name in names))

    def mean(self, values: NDArray[np.float64]) -> float:
        """Of a number known at each sampled pixel, over the whole map: equation 3 of Stehman 2014."""
        return float(sum(w * values[own].mean() for own, w in zip(self.members, self.weights, strict=True)))

    def variance(self, values: NDArray[np.float64]) -> float:
        """Of that mean: equation 25."""
        return float(
            sum(w**2 * values[own].var(ddof=1) / own.sum() for own, w in zip(self.members, self.weights, strict=True))
        )

    def share(self, values: NDArray[np.float64]) -> Estimate:
        return Estimate(self.mean(values), float(np.sqrt(self.variance(values))), 0.0, 1.0)

    def ratio(self, part: NDArray[np.float64], whole: NDArray[np.float64]) -> Estimate:
        """Of two means: equations 27 and 28, the variance by that of the residuals."""
        size = self.mean(whole)
        if size == 0:
            return Estimate(float("nan"), float("nan"))
        value = self.mean(part) / size
        return Estimate(value, float(np.sqrt(self.variance(part - value * whole)) / size), 0.0, 1.0)
