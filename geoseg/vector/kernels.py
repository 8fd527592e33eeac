"""What the compiled loops share: the compiler's settings and a union-find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """The function compiled by numba; the machine code is cached on disk where a folder for it is writable."""
    try:
        return cast(Kernel, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # "cannot cache function": read-only installation and no home folder
        return cast(Kernel, numba.njit(nogil=True)(function))


@compiled
def find(parent: NDArray[Any], i: int) -> int:
    """The representative of the set that `i` is in: its smallest member."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled
def union(parent: NDArray[Any], i: int, j: int) -> None:
    """Make one set of the sets of `i` and `j`."""
    root_i, root_j = find(parent, i), find(parent, j)
    if root_i < root_j:
        parent[root_j] = root_i
    else:
        parent[root_i] = root_j


@compiled
def union_pairs(parent: NDArray[Any], first: NDArray[Any], second: NDArray[Any]) -> None:
    """Make one set of `first[k]` and `second[k]` for every k; negative numbers (background) are left out."""
    for k in range(first.size):
        if first[k] >= 0 and second[k] >= 0:
            union(parent, first[k], second[k])


@compiled
def roots(parent: NDArray[Any]) -> NDArray[np.int64]:
    """The representative of each member."""
    root = np.empty(parent.size, np.int64)
    for i in range(parent.size):
        root[i] = find(parent, i)
    return root
