"""Scenes as xarray in, land cover as xarray out; only what is asked for is computed."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import Window, needed
from geoseg.inference.fit import check_gsd, normalization_for, used_bands
from geoseg.inference.plan import Plan, RunOptions
from geoseg.inference.predictor import Predictor
from geoseg.inference.segment import Cover, Segmenter
from geoseg.models import Model
from geoseg.models.pooled import pool_factor, pooled
from geoseg.raster.arrays import normalized
from geoseg.raster.reader import Pixels, SceneOptions


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
        InputError: bands, dtype or resolution do not fit the model, or an area of interest is given.
    """
    run = run or RunOptions()
    if run.aoi is not None:
        raise InputError("An array takes no area of interest: clip it first, or segment its file with segment_file.")
    scene = normalized(scene, SceneOptions())
    card = model.card
    bands = used_bands(card, [str(name) for name in scene.band.values])
    check_gsd(card, scene.attrs.get("gsd_m"))
    scale, offset = scene.attrs.get("scale"), scene.attrs.get("offset")
    normalization = normalization_for(card, bands, str(scene.dtype), scale=scale, offset=offset)
    model = pooled(model, run.pool or pool_factor(card, scene.attrs.get("gsd_m")))
    plan = Plan.of((scene.sizes["y"], scene.sizes["x"]), model.card, run)
    segmenter = Segmenter(plan.grid, normalization, Predictor(model, plan.backend), probabilities=probabilities)
    names = [str(name) for name in scene.band.values]
    return _dataset(scene, [names.index(band) for band in bands], segmenter)


def _dataset(scene: xr.DataArray, bands: list[int], segmenter: Segmenter) -> xr.Dataset:
    shared = delayed(segmenter, pure=False)
    rows, cols = segmenter.grid.block_counts
    parts = [[_lazy_block(scene, bands, shared, segmenter, (i, j)) for j in range(cols)] for i in range(rows)]
    legend = segmenter.predictor.model.card.legend
    layers = [da.block([[part[layer] for part in row] for row in parts]) for layer in range(len(parts[0][0]))]
    coords = {name: c for name, c in scene.coords.items() if name not in ("band", "valid") and "band" not in c.dims}
    attrs = {"legend": legend.to_json(), "_FillValue": np.uint8(legend.nodata), "long_name": "land cover class"}
    cover = xr.Dataset({"class_map": (("y", "x"), layers[0], attrs), "confidence": (("y", "x"), layers[1])}, coords)
    if segmenter.probabilities:
        cover["probabilities"] = (("class", "y", "x"), layers[2])
        cover = cover.assign_coords({"class": list(legend.names)})
    return cover


def _lazy_block(
    scene: xr.DataArray, bands: list[int], shared: Any, segmenter: Segmenter, index: tuple[int, int]
) -> list[da.Array]:
    """Class map, confidence and maybe probabilities of one block; its task holds the pixels around it alone."""
    block = segmenter.grid.block_at(*index)
    held = needed(segmenter.grid.footprint(block.window), segmenter.grid.shape)
    rows, cols = held.slices
    around = scene.isel(band=bands, y=rows, x=cols)  # in one call, so that dask reads no more than this
    valid = around.coords["valid"].data if "valid" in around.coords else None
    cover = delayed(_segment_arrays, nout=3, pure=False)(shared, block.window, held, around.data, valid)
    shapes: list[tuple[tuple[int, ...], type]] = [(block.window.shape, np.uint8), (block.window.shape, np.float32)]
    if segmenter.probabilities:
        shapes.append(((len(segmenter.predictor.model.card.legend.classes), *block.window.shape), np.float32))
    return [da.from_delayed(part, shape, dtype) for part, (shape, dtype) in zip(cover, shapes, strict=False)]


def _segment_arrays(
    segmenter: Segmenter, window: Window, held: Window, pixels: NDArray[Any], valid: NDArray[np.bool_] | None
) -> Cover:
    if valid is None:
        valid = np.ones(held.shape, np.bool_)

    def read(asked: Window) -> Pixels:
        rows, cols = asked.relative_to(held).slices
        return Pixels(pixels[:, rows, cols], valid[rows, cols])

    return segmenter(window, read)
