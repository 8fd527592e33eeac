"""Dates as xarray in, change and stacks as xarray out; only what is asked for is computed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from operator import and_
from typing import Any

import dask.array
import numpy as np
import pandas as pd
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_reproject
from rasterio.crs import CRS

from geoseg.change.align import Dated, Extent, common_grid, is_on, resampling
from geoseg.change.detect import ChangeOptions
from geoseg.change.history import MOST_DATES, history, number_type
from geoseg.change.radiometry import METHODS, Method, Radiometry, fit_radiometry, sampling_step
from geoseg.change.transitions import (
    Transitions,
    compare_classes,
    compare_joint,
    compare_posteriors,
    indices_of,
    reach_px,
    too_small,
    transition_legend,
)
from geoseg.errors import InputError
from geoseg.inference.lazy import segment
from geoseg.inference.plan import RunOptions
from geoseg.legend import NODATA, Legend
from geoseg.models import Model
from geoseg.models.pairs import PairClasses, both_dates
from geoseg.raster.arrays import geobox_of, normalized
from geoseg.raster.georeference import Georef
from geoseg.raster.ground import ground_sample_distance
from geoseg.raster.lazy import spatial_coords
from geoseg.raster.reader import SceneOptions

Pairs = tuple[tuple[int, int], ...]
MOST_HELD = 2**28  # bytes of a stack that a task holds
_dask: Any = dask.array  # its functions carry no types


def segment_stack(
    scenes: Sequence[xr.DataArray],
    model: Model,
    *,
    time: Sequence[Any] | None = None,
    extent: Extent = "intersection",
    resolution: float | None = None,
    radiometry: Method = "none",
    run: RunOptions | None = None,
) -> xr.Dataset:
    """Land cover of several dates on one grid, lazily.

    Args:
        scenes: one for each date, in their order, on any grids; as for `segment`.
        model: a loaded bundle.
        time: coordinate of each date, such as np.datetime64; 0, 1, 2 without it.
        extent: what all dates cover, or what any of them does.
        resolution: side of a pixel of the common grid, in units of its CRS; else that of the finest date.
        radiometry: how all dates get the light of the first: `mad` or `histogram`, over the whole of each scene.
        run: as for `segment`.

    Returns:
        `class_map` (time, y, x) uint8 and `confidence` (time, y, x) float32, the legend in `class_map.attrs["legend"]`.

    Raises:
        InputError: the dates are none, do not overlap, are in the wrong order, or do not fit the model.
    """
    times = _times(time, len(scenes))
    placed = _on_one_grid([normalized(scene, SceneOptions()) for scene in scenes], extent, resolution)
    covers = [segment(scene, model, run=run) for scene in in_light_of_first(placed, radiometry)]
    return xr.concat(covers, pd.Index(times, name="time"), combine_attrs="override", join="exact")


def detect_change(
    before: xr.DataArray,
    after: xr.DataArray,
    model: Model | None = None,
    *,
    options: ChangeOptions | None = None,
    extent: Extent = "intersection",
    resolution: float | None = None,
    radiometry: Method = "none",
    run: RunOptions | None = None,
) -> xr.Dataset:
    """Change between two dates, lazily.

    Args:
        before: scene of the first date, as for `segment`; or, without a model, a class map with its legend in attrs.
        after: of the second date.
        model: a loaded bundle that segments both.
        options: what counts as change.
        extent: what both dates cover, or what either does.
        resolution: side of a pixel of the common grid, in units of its CRS; else that of the finer date.
        radiometry: how the second scene gets the light of the first: `mad` or `histogram`, over the whole of both.
        run: as for `segment`.

    Returns:
        `transition` (y, x) uint8 codes of the legend in its attrs, nodata where either date has none; `from_class` and
        `to_class` uint8 class ids; `probability` float32 of change, NaN where unknown.

    Raises:
        InputError: the dates do not overlap, their legends differ, or they do not fit the model.
    """
    options = options or ChangeOptions()
    pairs: Pairs | None = None
    if model is None:
        if radiometry != "none":
            raise InputError("Class maps have no light to be matched; give scenes and a model, or no radiometry.")
        legend = _legend_of(before, after)
        maps = _on_one_grid([_as_map(before), _as_map(after)], extent, resolution, classes=True)
        parts, grid = [_indices(one, legend) for one in maps], maps[0]
    else:
        placed = _on_one_grid([normalized(scene, SceneOptions()) for scene in (before, after)], extent, resolution)
        placed = in_light_of_first(placed, radiometry)
        pair = PairClasses.of(model.card)
        legend, pairs = (model.card.legend, None) if pair is None else (pair.legend, pair.pairs)
        seen = placed if pair is None else [_stacked(placed, pair.bands)]
        parts = [segment(scene, model, run=run, probabilities=True).probabilities.data for scene in seen]
        parts *= 2 // len(parts)
        parts, grid = [part.rechunk((-1, *part.chunks[1:])) for part in parts], placed[0]
    own = _georef(grid)
    side = None if own.crs is None else ground_sample_distance(own.shape, own.transform, own.crs)
    pixel_m2 = None if side is None else side**2
    limits = options.least_px(pixel_m2), options.width_px(pixel_m2)
    found = _compared(parts, pairs, legend, options, limits)
    told = transition_legend(legend)
    names = ("transition", "from_class", "to_class", "probability")
    change = xr.Dataset({n: (("y", "x"), found[k]) for k, n in enumerate(names)}, spatial_coords(geobox_of(grid)))
    for name, entries in (("transition", told), ("from_class", legend), ("to_class", legend)):
        change[name] = change[name].astype(np.uint8)
        change[name].attrs = {"legend": entries.to_json(), "_FillValue": np.uint8(NODATA)}
    return change


def stack_history(class_maps: xr.DataArray) -> xr.Dataset:
    """How often and when pixels changed their class, lazily.

    Args:
        class_maps: (time, y, x) class ids with the legend in attrs, as `segment_stack(...).class_map`.

    Returns:
        (y, x): `changes`; `first_change` and `last_change`, numbers of dates counted from 1, 0 for none; and
        `most_frequent`, a class id. uint8, 255 where no date is known: clouds and gaps never count as change. The
        numbers are uint16, with 65535, where there are more than 254 dates.

    Raises:
        InputError: there is no time or no legend, or there are too many dates.
    """
    legend, dates = _legend_of(class_maps), class_maps.sizes.get("time", 0)
    if class_maps.dims != ("time", "y", "x") or not 1 <= dates <= MOST_DATES:
        raise InputError(
            f"A stack has dimensions (time, y, x) and 1 to {MOST_DATES} dates; this has {dict(class_maps.sizes)}."
        )
    lazy = class_maps.chunk({"time": -1}).data
    if dates * max(lazy.chunksize[1:]) ** 2 > MOST_HELD:
        lazy = lazy.rechunk({0: -1, 1: "auto", 2: "auto"}, block_size_limit=MOST_HELD)
    kind, nodata = number_type(dates)
    chunks = ((4,), *lazy.chunks[1:])
    found = _dask.map_blocks(_history, lazy, legend, dtype=kind, drop_axis=0, new_axis=0, chunks=chunks)
    names = ("changes", "first_change", "last_change", "most_frequent")
    kept = {name: coord for name, coord in class_maps.coords.items() if "time" not in coord.dims and name != "time"}
    out = xr.Dataset({name: (("y", "x"), found[k]) for k, name in enumerate(names)}, kept)
    out["most_frequent"] = out.most_frequent.astype(np.uint8)
    for name in names:
        out[name].attrs["_FillValue"] = np.uint8(NODATA) if name == "most_frequent" else kind(nodata)
    out.most_frequent.attrs["legend"] = legend.to_json()
    return out


def _history(values: NDArray[np.uint8], legend: Legend) -> NDArray[Any]:
    found = history((indices_of(date, legend) for date in values), len(legend.classes), len(values))
    ids = np.append(np.array(legend.ids, np.uint8), np.uint8(NODATA))
    return np.stack([found.changes, found.first, found.last, ids[found.most].astype(found.first.dtype)])


def _compared(
    parts: Sequence[Any], pairs: Pairs | None, legend: Legend, options: ChangeOptions, limits: tuple[int, int]
) -> Any:
    """(4, y, x) float32: codes, class ids of both dates, probability of change."""
    before, after = parts[0], parts[1].rechunk(parts[0].chunks)
    posterior = before.ndim == 3
    chunks = ((3,), *before.chunks[-2:])
    axis = {} if posterior else {"new_axis": 0}
    found = _dask.map_blocks(_transitions, before, after, pairs, options, dtype=np.float32, chunks=chunks, **axis)
    if max(limits) > 1:
        changed = found[0] != found[1]
        reach = reach_px(least_px=limits[0], width_px=limits[1])
        given = {"least_px": limits[0], "width_px": limits[1]}
        gone = _dask.map_overlap(too_small, changed, depth=reach, boundary=False, dtype=bool, **given)
        found = _dask.stack([found[0], _dask.where(gone, found[0], found[1]), found[2]]).rechunk(chunks)
    return _dask.map_blocks(_coded, found, legend, dtype=np.float32, chunks=((4,), *before.chunks[-2:]))


def _transitions(
    before: NDArray[Any], after: NDArray[Any], pairs: Pairs | None, options: ChangeOptions
) -> NDArray[np.float32]:
    """(3, height, width): index of the class before and after, probability of change."""
    if pairs is not None:
        found = compare_joint(before, pairs, threshold=options.threshold)
    elif before.ndim == 3:
        found = compare_posteriors(before, after, prior=options.prior, threshold=options.threshold)
    else:
        found = compare_classes(before, after)
    return np.stack([found.before, found.after, found.probability]).astype(np.float32)


def _coded(found: NDArray[np.float32], legend: Legend) -> NDArray[np.float32]:
    before, after = (values.astype(np.int16) for values in found[:2])
    ids = np.append(np.array(legend.ids, np.uint8), np.uint8(NODATA))
    return np.stack([Transitions(before, after, found[2]).codes(), ids[before], ids[after], found[2]]).astype(
        np.float32
    )


def _stacked(dates: Sequence[xr.DataArray], bands: Sequence[str]) -> xr.DataArray:
    """The bands of both dates as those of one scene, which is measured where both are.

    Raises:
        InputError: a date lacks a band.
    """
    for date in dates:
        if missing := [name for name in bands if name not in date.band.values]:
            has = ", ".join(map(str, date.band.values))
            raise InputError(f"The model needs band {', '.join(missing)} of both dates; one has {has}.")
    plain = [date.sel(band=list(bands)).drop_vars("valid", errors="ignore") for date in dates]
    both = xr.concat(plain, "band", join="override", combine_attrs="override").assign_coords(band=both_dates(bands))
    masks = [date.valid.data for date in dates if "valid" in date.coords]
    return both.assign_coords(valid=(("y", "x"), reduce(and_, masks))) if masks else both


def _indices(class_map: xr.DataArray, legend: Legend) -> Any:
    return class_map.chunk().data.map_blocks(indices_of, legend, dtype=np.int16)


def _as_map(class_map: xr.DataArray) -> xr.DataArray:
    """(y, x) with the geobox bit for bit."""
    flat = class_map.squeeze(drop=True).transpose("y", "x")
    return xr.DataArray(flat.data, dims=("y", "x"), coords=spatial_coords(geobox_of(flat)), attrs=flat.attrs)


def _legend_of(*class_maps: xr.DataArray) -> Legend:
    """The legend that class maps share.

    Raises:
        InputError: one has none, or they differ.
    """
    if any("legend" not in one.attrs for one in class_maps):
        raise InputError(
            "A class map has its legend in attrs, as segment(...).class_map; give that, or a model for scenes."
        )
    legends = [Legend.from_json(one.attrs["legend"]) for one in class_maps]
    told = [dict(zip(legend.ids, legend.names, strict=True)) for legend in legends]
    if any(one != told[0] for one in told):
        first, other = next((told[0], one) for one in told if one != told[0])
        raise InputError(f"The legends differ: {', '.join(first.values())} and {', '.join(other.values())}.")
    return legends[0]


def _times(time: Sequence[Any] | None, dates: int) -> list[Any]:
    if not 1 <= dates <= MOST_DATES:
        raise InputError(f"A stack has 1 to {MOST_DATES} dates, not {dates}.")
    times = list(range(dates)) if time is None else list(time)
    if len(times) != dates:
        raise InputError(f"There are {dates} scenes and {len(times)} times; give one for each.")
    if any(a >= b for a, b in pairwise(times)):
        raise InputError(f"The dates are in the wrong order: {', '.join(map(str, times))}; give the earliest first.")
    return times


def _on_one_grid(
    dates: Sequence[xr.DataArray], extent: Extent, resolution: float | None, *, classes: bool = False
) -> list[xr.DataArray]:
    georefs = [_georef(date) for date in dates]
    named = [Dated(f"date {number}", georef) for number, georef in enumerate(georefs, 1)]
    grid = common_grid(named, extent=extent, resolution=resolution)
    pairs = zip(dates, georefs, strict=True)
    return [date if is_on(georef, grid) else _placed(date, georef, grid, classes) for date, georef in pairs]


def _placed(date: xr.DataArray, own: Georef, grid: Georef, classes: bool) -> xr.DataArray:
    """A date resampled, chunk by chunk; beyond its extent it is nodata."""
    box = GeoBox(grid.shape, grid.transform, None if grid.crs is None else grid.crs.to_wkt())
    lazy = date.chunk() if date.chunks is None else date
    nodata = lazy.attrs.get("_FillValue", NODATA if classes else None)
    kept = {name: value for name, value in lazy.attrs.items() if name != "gsd_m"}
    valid = lazy.coords.get("valid", xr.ones_like(lazy if classes else lazy.isel(band=0, drop=True), dtype=bool))
    lazy = lazy.drop_vars("valid", errors="ignore")
    moved = xr_reproject(lazy, box, resampling=resampling(own, grid, classes=classes).name, dst_nodata=nodata)
    there = xr_reproject(valid.drop_vars("valid", errors="ignore").astype(np.uint8), box, resampling="nearest") != 0
    gsd_m = ground_sample_distance(grid.shape, grid.transform, grid.crs)
    coords = spatial_coords(box) | ({} if classes else {"band": lazy.band})
    attrs = kept | ({} if gsd_m is None else {"gsd_m": gsd_m})
    out = xr.DataArray(moved.data, dims=lazy.dims, coords=coords, attrs=attrs)
    if classes:
        return out.where(there.data, np.asarray(nodata, out.dtype)).assign_attrs(attrs)
    return out.assign_coords(valid=(("y", "x"), there.data))


def in_light_of_first(dates: Sequence[xr.DataArray], method: Method) -> list[xr.DataArray]:
    """Scenes on one grid as if taken in the light of the first; whole scenes are looked at once something is computed.

    Raises:
        InputError: the method is unknown, or the dates have other bands or dtypes.
    """
    if method not in METHODS:
        raise InputError(f"The radiometry of a date is {', '.join(METHODS)}, not {method!r}.")
    if method == "none":
        return list(dates)
    return [dates[0], *(_matched(date, dates[0], method) for date in dates[1:])]


def _matched(date: xr.DataArray, first: xr.DataArray, method: Method) -> xr.DataArray:
    kinds = [(*map(str, scene.band.values), str(scene.dtype)) for scene in (first, date)]
    if kinds[0] != kinds[1]:
        raise InputError(f"Radiometry needs the same bands, stored alike, on both dates: {kinds[0]} and {kinds[1]}.")
    step = sampling_step((date.sizes["y"], date.sizes["x"]))
    seen = [
        (part.data[:, ::step, ::step], part.valid.data[::step, ::step] if "valid" in part.coords else None)
        for part in (first, date)
    ]
    found = delayed(_fitted, pure=False)(*seen[0], *seen[1], kinds[0][:-1], method)
    lazy = date.chunk() if date.chunks is None else date
    nodata = date.attrs.get("_FillValue")
    whole = lazy.data.rechunk({0: -1})
    moved = _dask.map_blocks(_relit, whole, found=found, nodata=nodata, meta=np.empty((0, 0, 0), date.dtype))
    scaling = {name: first.attrs[name] for name in ("scale", "offset") if name in first.attrs}
    kept = {name: value for name, value in date.attrs.items() if name not in ("scale", "offset")}
    return date.copy(data=moved).assign_attrs(kept | scaling)


def _fitted(
    wanted: NDArray[Any], known: Any, given: NDArray[Any], own: Any, bands: tuple[str, ...], method: Method
) -> Radiometry:
    valid = np.ones(wanted.shape[1:], bool)
    for mask in (known, own):
        valid &= True if mask is None else mask
    pixels = (values[:, valid].T.astype(np.float64) for values in (wanted, given))
    return fit_radiometry(*pixels, bands=bands, method=method)


def _relit(values: NDArray[Any], found: Radiometry, nodata: float | None) -> NDArray[Any]:
    return found.apply(values, nodata)


def _georef(date: xr.DataArray) -> Georef:
    box = geobox_of(date)
    crs = None if box.crs is None else CRS.from_wkt(box.crs.to_wkt())
    return Georef((int(box.shape[0]), int(box.shape[1])), box.affine, crs)
