"""How many pixels to sample, and in which strata."""

from __future__ import annotations

import math
from collections.abc import Mapping

from geoseg.errors import InputError


def sample_size(sizes: Mapping[str, float], users: Mapping[str, float], standard_error: float) -> int:
    """Pixels that give overall accuracy a standard error: equation 13 of Olofsson et al. 2014.

    Args:
        sizes: pixels, or area, of each stratum.
        users: user's accuracy that is expected in each.
        standard_error: of overall accuracy that is wanted.

    Raises:
        InputError: a number is out of its range, or a stratum has no expected accuracy.
    """
    if not 0 < standard_error < 1:
        raise InputError(f"A standard error of overall accuracy lies between 0 and 1, not at {standard_error}.")
    total = sum(sizes.values())
    spread = 0.0
    for name, size in sizes.items():
        if name not in users or not 0 <= users[name] <= 1:
            raise InputError(f"Stratum {name!r} needs an expected user's accuracy from 0 to 1.")
        spread += size / total * math.sqrt(users[name] * (1 - users[name]))
    return math.ceil((spread / standard_error) ** 2 - 1e-9)


def allocate(sizes: Mapping[str, float], n: int, *, least: int = 50) -> dict[str, int]:
    """Pixels to draw from each stratum: rare ones get `least`, the others what is left by size (Olofsson et al. 2014).

    No stratum gets more than it has, or fewer than 2; where n does not suffice for that, all get alike.

    Args:
        sizes: pixels of each stratum.
        n: pixels in all.
        least: of a stratum whose share by size would be less.

    Raises:
        InputError: n is less than 2 for each stratum.
    """
    sizes = {name: size for name, size in sizes.items() if size > 0}
    if n < 2 * len(sizes):
        raise InputError(f"{n} points are too few for {len(sizes)} strata; a standard error needs 2 in each.")
    least = max(2, min(least, n // len(sizes)))
    fixed: dict[str, int] = {}
    while True:
        rest = {name: size for name, size in sizes.items() if name not in fixed}
        left, whole = n - sum(fixed.values()), sum(rest.values())
        rare = [name for name, size in rest.items() if left * size / whole < least]
        if not rare or len(rare) == len(rest):
            break
        fixed |= dict.fromkeys(rare, least)
    shares = {name: left * size / whole for name, size in rest.items()} if len(rare) < len(rest) else {}
    shares = shares or {name: left / len(rest) for name in rest}
    drawn = {name: int(share) for name, share in shares.items()}
    for name in sorted(shares, key=lambda name: drawn[name] - shares[name])[: left - sum(drawn.values())]:
        drawn[name] += 1
    given = fixed | drawn
    return {name: int(min(given[name], size)) for name, size in sizes.items()}
