"""Where the files of one scene lie on its grid: the grid of the finest file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from affine import Affine

from geoseg.errors import InputError
from geoseg.raster.files import FileFacts
from geoseg.raster.reader import PlacedFile
from geoseg.raster.resample import Axis, Kernel

PHASE_TOLERANCE = 0.02  # of the scene's pixels, at either end of the scene: rounding in a transform is no shift


def finest(facts: Sequence[FileFacts]) -> FileFacts:
    """The file with the smallest pixels; the first of equals, whose transform is then kept bit for bit."""
    smallest = min(abs(one.transform.determinant) for one in facts)
    return next(one for one in facts if abs(one.transform.determinant) <= smallest * (1 + 1e-6))


def place(one: FileFacts, grid: FileFacts) -> PlacedFile:
    """Rows and columns of `one` on the grid: copied where pixels nest exactly, else bilinear.

    Raises:
        InputError: another CRS, turned or mirrored axes, or it does not cover the grid.
    """
    if one is grid:
        rows, cols = (Axis(1, 0, size, "nearest") for size in one.shape)
        return PlacedFile(one.path, rows, cols)
    _check_crs(one, grid)
    to_file = ~one.transform @ grid.transform
    size = max(grid.shape)
    if max(abs(to_file.b), abs(to_file.d)) * size > PHASE_TOLERANCE or to_file.a <= 0 or to_file.e <= 0:
        raise InputError(
            f"The pixel axes of {one.path} and {grid.path} point in different directions. {_warp_advice(one, grid)}"
        )
    rows = _axis(to_file.e, to_file.f, one.shape[0], grid.shape[0])
    cols = _axis(to_file.a, to_file.c, one.shape[1], grid.shape[1])
    _check_covered(one, grid, rows, cols)
    return PlacedFile(one.path, rows, cols)


def _axis(scale: float, offset: float, size: int, grid_size: int) -> Axis:
    """Exact where a whole number of the grid's pixels make up one of the file's, and their edges meet."""
    ratio = max(1, round(1 / scale))
    shift = offset * ratio  # in pixels of the grid
    drift = abs(scale * ratio - 1) * grid_size
    if drift + abs(shift - round(shift)) <= PHASE_TOLERANCE:
        return Axis(1 / ratio, round(shift) / ratio, size, "nearest")
    kernel: Kernel = "average" if scale > 1 else "bilinear"
    return Axis(scale, offset, size, kernel)


def _check_crs(one: FileFacts, grid: FileFacts) -> None:
    if one.crs == grid.crs:
        return
    names = [str(facts.crs) if facts.crs else "no CRS" for facts in (one, grid)]
    raise InputError(
        f"{one.path} is in {names[0]}, but {grid.path} is in {names[1]}; the files of a scene share one CRS. "
        + _warp_advice(one, grid)
    )


def _check_covered(one: FileFacts, grid: FileFacts, rows: Axis, cols: Axis) -> None:
    """The file may stop short of the grid's edge by one pixel of the coarser of both."""
    for axis, size in ((rows, grid.shape[0]), (cols, grid.shape[1])):
        slack = max(1.0, axis.scale) + PHASE_TOLERANCE
        if axis.offset < -slack or axis.offset + size * axis.scale > axis.size + slack:
            raise InputError(
                f"{one.path} does not cover the scene: its extent is {_extent(one)}, that of {grid.path} is "
                f"{_extent(grid)} (left, bottom, right, top). {_warp_advice(one, grid)}"
            )


def check_same_grid(mask: FileFacts, grid: FileFacts) -> None:
    """Refuse a valid mask that is not on the scene's own grid."""
    if mask.shape != grid.shape:
        raise InputError(
            f"The valid mask {mask.path} has {mask.shape[0]} rows x {mask.shape[1]} columns, the scene has "
            f"{grid.shape[0]} x {grid.shape[1]}. Give a mask on the scene's grid."
        )
    if len(mask.bands) != 1:
        raise InputError(f"The valid mask {mask.path} has {len(mask.bands)} bands; give a raster with one.")
    if mask.transform == Affine.identity() or grid.transform == Affine.identity():
        return
    shift = ~grid.transform @ mask.transform
    corners = [((col, row), shift @ (col, row)) for row in (0, grid.shape[0]) for col in (0, grid.shape[1])]
    if max(abs(x - at[0]) + abs(y - at[1]) for at, (x, y) in corners) > 2 * PHASE_TOLERANCE:
        raise InputError(
            f"The valid mask {mask.path} covers {_extent(mask)}, the scene covers {_extent(grid)} "
            "(left, bottom, right, top). Give a mask on the scene's grid."
        )


def _extent(facts: FileFacts) -> str:
    return "(" + ", ".join(f"{number:.10g}" for number in facts.bounds) + ")"


def _warp_advice(one: FileFacts, grid: FileFacts) -> str:
    """The gdalwarp line that puts one file on the other's grid."""
    left, bottom, right, top = grid.bounds
    epsg = grid.crs.to_epsg() if grid.crs else None
    target = f"-t_srs EPSG:{epsg} " if epsg and one.crs else ""
    extent = " ".join(f"{number:.12g}" for number in (left, bottom, right, top))
    size = f"-ts {grid.shape[1]} {grid.shape[0]}"
    line = f"gdalwarp {target}-te {extent} {size} -r bilinear '{Path(one.path).name}' warped.tif"
    return f"Put it on the same grid first: {line}"
