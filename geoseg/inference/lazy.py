"""Scenes as xarray in, land cover as xarray out; only what is asked for is computed."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoseg.grid import Window, needed
from geoseg.inference.fit import check_gsd, normalization_for, used_bands
from geoseg.inference.plan import Plan, RunOptions
from geoseg.inference.predictor import Predictor
from geoseg.inference.segment import Segmenter
from geoseg.models import Model
from geoseg.raster.reader import Pixels
from geoseg.raster.scene import open_scene


def segment(
    scene: xr.DataArray, model: Model, *, run: RunOptions | None = None, probabilities: bool = False
) -> xr.Dataset:
    """Land cover of a scene, one dask task per block.

    Args:
        scene: (band, y, x) with a geobox, as from `open_scene`, rioxarray, odc-stac, Zarr or netCDF.
        model: a loaded bundle.
        run: chip, halo, block, device and precision; the rest is for files.
        probabilities: also return those of all classes.

    Returns:
        `class_map` (y, x) uint8 class ids, `confidence` (y, x) float32 and, if asked, `probabilities` (class, y, x)
        float32; NaN and the legend's nodata where the scene has none. `class_map.attrs["legend"]` holds the legend.

    Raises:
        InputError: bands, dtype or resolution do not fit the model.
    """
    scene = open_scene(scene)
    card = model.card
    bands = used_bands(card, [str(name) for name in scene.band.values])
    check_gsd(card, scene.attrs.get("gsd_m"))
    scale, offset = scene.attrs.get("scale"), scene.attrs.get("offset")
    normalization = normalization_for(card, bands, str(scene.dtype), scale=scale, offset=offset)
    scene = scene.sel(band=list(bands))
    shape = scene.sizes["y"], scene.sizes["x"]
    plan = Plan.of(shape, card, run or RunOptions())
    segmenter = Segmenter(plan.grid, normalization, Predictor(model, plan.backend), probabilities)
    return _dataset(scene, segmenter)


def _dataset(scene: xr.DataArray, segmenter: Segmenter) -> xr.Dataset:
    shared = dask.delayed(segmenter, pure=False)
    rows, cols = segmenter.grid.block_counts
    parts = [[_lazy_block(scene, segmenter, shared, row, col) for col in range(cols)] for row in range(rows)]
    legend = segmenter.predictor.model.card.legend
    coords = {name: c for name, c in scene.coords.items() if set(c.dims) <= {"y", "x"} and name not in ("band", "valid")}
    layers = {
        "class_map": xr.DataArray(
            da.block([[part[0] for part in row] for row in parts]),
            dims=("y", "x"),
            coords=coords,
            attrs={"legend": legend.to_json(), "_FillValue": np.uint8(legend.nodata), "long_name": "land cover class"},
        ),
        "confidence": xr.DataArray(da.block([[part[1] for part in row] for row in parts]), dims=("y", "x"), coords=coords),
    }
    if segmenter.probabilities:
        layers["probabilities"] = xr.DataArray(
            da.block([[part[2] for part in row] for row in parts]),
            dims=("class", "y", "x"),
            coords={**coords, "class": list(legend.names)},
        )
    return xr.Dataset(layers)


def _lazy_block(scene: xr.DataArray, segmenter: Segmenter, shared: Any, row: int, col: int) -> list[da.Array]:
    """Class map, confidence and maybe probabilities of one block; its task holds the pixels around it alone."""
    block = segmenter.grid.block_at(row, col)
    held = needed(segmenter.grid.footprint(block.window), segmenter.grid.shape)
    around = scene.isel(y=slice(held.row, held.row_stop), x=slice(held.col, held.col_stop))
    valid = around.coords["valid"].data if "valid" in around.coords else None
    cover = dask.delayed(_segment_arrays, nout=3, pure=False)(shared, block.window, held, around.data, valid)
    height, width = block.window.shape
    classes = len(segmenter.predictor.model.card.legend.classes)
    layers = [
        da.from_delayed(cover[0], (height, width), np.uint8),
        da.from_delayed(cover[1], (height, width), np.float32),
    ]
    if segmenter.probabilities:
        layers.append(da.from_delayed(cover[2], (classes, height, width), np.float32))
    return layers


def _segment_arrays(
    segmenter: Segmenter, window: Window, held: Window, pixels: NDArray[Any], valid: NDArray[np.bool_] | None
) -> tuple[NDArray[Any], ...]:
    if valid is None:
        valid = np.ones(held.shape, np.bool_)

    def read(asked: Window) -> Pixels:
        rows, cols = asked.relative_to(held).slices
        return Pixels(pixels[:, rows, cols], valid[rows, cols])

    cover = segmenter(window, read)
    return cover.class_map, cover.confidence, cover.probabilities
