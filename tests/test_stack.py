"""Change and stacks as xarray: the same as from files and date by date; nothing is computed before it is asked for."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from builders import tiny_model, write_rgb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from test_change import UTM, class_map, expected_codes, read
from test_vectorize import georeferenced

import geoseg
from geoseg.change.history import MOST_DATES, history
from geoseg.errors import InputError
from geoseg.legend import LANDCOVER

# of odc-geo's chunks; as an error in a thread it would be swallowed, and the chunk left empty
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
RUN = geoseg.RunOptions(chip=128, block=64)


def scenes_of(folder: Path, count: int = 2) -> list[xr.DataArray]:
    return [geoseg.open_scene(write_rgb(folder / f"{seed}.tif", seed=seed)) for seed in range(count)]


def by_hand(seen: list[int]) -> tuple[int, int, int]:
    """Changes, and the numbers of the first and the last date of one."""
    known = [(number, index) for number, index in enumerate(seen, 1) if index >= 0]
    moved = [number for (_, old), (number, new) in pairwise(known) if old != new]
    return len(moved), min(moved, default=0), max(moved, default=0)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        np.int16, st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)), elements=st.integers(-1, 3)
    )
)
def test_history_is_that_of_each_pixel(indices: NDArray[np.int16]) -> None:
    found = history(indices, 4, len(indices))
    for row, col in np.ndindex(indices.shape[1:]):
        seen = indices[:, row, col].tolist()
        told = tuple(int(layer[row, col]) for layer in (found.changes, found.first, found.last))
        counts = [seen.count(index) for index in range(4)]
        if max(seen) < 0:
            assert (told, found.most[row, col]) == ((255, 255, 255), -1)
        else:
            assert (told, found.most[row, col]) == (by_hand(seen), counts.index(max(counts)))


@pytest.mark.parametrize("options", [geoseg.ChangeOptions(), geoseg.ChangeOptions(min_area_m2=3, min_width_m=1)])
def test_change_is_that_of_files(tmp_path: Path, options: geoseg.ChangeOptions) -> None:
    model, scenes = tiny_model(), scenes_of(tmp_path)
    found = geoseg.detect_change(*scenes, model, options=options, run=RUN)
    paths = [tmp_path / f"{seed}.tif" for seed in range(2)]
    geoseg.change_files(*paths, tmp_path / "c.tif", model=model, options=options, run=RUN)
    assert (found.transition.to_numpy() == read(tmp_path / "c.tif")).mean() > 0.99  # files hold probabilities in bytes
    assert found.odc.geobox == scenes[0].odc.geobox
    known = found.transition != 255
    changed = known & (found.transition != 0)
    assert (changed == (known & (found.from_class != found.to_class))).all()
    assert ((found.probability > 0.5) | ~changed).all()


def test_class_maps_need_no_model() -> None:
    one, two = class_map(1), class_map(2)
    one[:10, :10] = 255
    found = geoseg.detect_change(georeferenced(one, UTM), georeferenced(two, UTM))
    assert np.array_equal(found.transition, expected_codes(one, two))
    assert np.array_equal(found.from_class.where(found.transition != 255, 255), np.where(one == 255, 255, one))
    assert np.isnan(found.probability.to_numpy()[:10, :10]).all()


def test_other_extents_meet_on_one_grid() -> None:
    one, two = class_map(1), class_map(2)
    moved = UTM @ Affine.translation(20, 12)
    found = geoseg.detect_change(georeferenced(one, UTM), georeferenced(two, moved))
    assert np.array_equal(found.transition, expected_codes(one[12:, 20:], two[:-12, :-20]))
    union = geoseg.detect_change(georeferenced(one, UTM), georeferenced(two, moved), extent="union")
    assert union.transition.shape == (102, 140)
    assert np.array_equal(union.transition[12:90, 20:120], found.transition)
    assert (union.transition[:12] == 255).all()


def test_a_stack_is_each_date_by_itself(tmp_path: Path) -> None:
    model, scenes = tiny_model(), scenes_of(tmp_path, 3)
    times = np.array(["2018-06-01", "2020-06-01", "2022-06-01"], "datetime64[ns]")
    stack = geoseg.segment_stack(scenes, model, time=times, run=RUN)
    assert stack.class_map.dims == ("time", "y", "x")
    assert (stack.time.to_numpy() == times).all()
    for scene, found in zip(scenes, stack.class_map, strict=True):
        assert np.array_equal(found, geoseg.segment(scene, model, run=RUN).class_map)
    seen = geoseg.stack_history(stack.class_map)
    expected = history(np.searchsorted(LANDCOVER.ids, stack.class_map.to_numpy()).astype(np.int16), 6, 3)
    assert np.array_equal(seen.changes, expected.changes)
    assert np.array_equal(seen.most_frequent, np.array(LANDCOVER.ids)[expected.most])


def test_scenes_of_other_grids_are_resampled(tmp_path: Path) -> None:
    """A scene of half the resolution, which lies elsewhere, comes onto the finer grid; beyond it there is nothing."""
    fine, half = scenes_of(tmp_path)
    with rasterio.open(tmp_path / "0.tif") as raster:
        transform, crs = raster.transform, raster.crs.to_string()
    coarse = georeferenced(half.to_numpy()[0][:60, :60], transform @ Affine.translation(31, 21) @ Affine.scale(2), crs)
    coarse = xr.concat([coarse] * 3, "band").assign_coords(band=list(fine.band.values)).transpose("band", "y", "x")
    del coarse.attrs["legend"]
    stack = geoseg.segment_stack([fine, coarse], tiny_model(), extent="union", run=RUN)
    assert stack.class_map.shape == (2, 141, 151)
    assert (stack.class_map[1, :21] == 255).all()
    assert (stack.class_map[1, 22:130, 32:130] != 255).all()


def test_nothing_is_computed_before_it_is_asked_for(tmp_path: Path) -> None:
    scene = scenes_of(tmp_path, 1)[0]

    def fails(block: Any) -> Any:
        raise AssertionError("computed")

    never = scene.copy(data=scene.data.map_blocks(fails, dtype=scene.dtype, meta=np.empty((0, 0, 0), scene.dtype)))
    stack = geoseg.segment_stack([never, never], tiny_model(), run=RUN)
    history_of = geoseg.stack_history(stack.class_map)
    change = geoseg.detect_change(never, never, tiny_model(), run=RUN)
    assert all(isinstance(found.data, da.Array) for found in (history_of.changes, change.transition))
    with pytest.raises(AssertionError, match="computed"):
        change.transition[:5, :5].compute()


def test_bad_stacks_are_refused(tmp_path: Path) -> None:
    model, scenes = tiny_model(), scenes_of(tmp_path)
    with pytest.raises(InputError, match=rf"1 to {MOST_DATES} dates, not 0"):
        geoseg.segment_stack([], model)
    with pytest.raises(InputError, match=rf"1 to {MOST_DATES} dates, not 2001"):
        geoseg.segment_stack(scenes[:1] * 2001, model)
    with pytest.raises(InputError, match="2 scenes and 1 times"):
        geoseg.segment_stack(scenes, model, time=[2020])
    with pytest.raises(InputError, match="wrong order: 2020, 2018; give the earliest first"):
        geoseg.segment_stack(scenes, model, time=[2020, 2018])
    with pytest.raises(InputError, match="has its legend in attrs"):
        geoseg.detect_change(*scenes)
    far = georeferenced(class_map(1), UTM @ Affine.translation(1000, 0))
    with pytest.raises(InputError, match="do not overlap"):
        geoseg.detect_change(georeferenced(class_map(1), UTM), far)
    other = geoseg.Legend(classes=LANDCOVER.classes[:2])
    with pytest.raises(InputError, match="legends differ: building, paved, bare"):
        geoseg.detect_change(georeferenced(class_map(1), UTM), georeferenced(class_map(1), UTM, legend=other))
    with pytest.raises(InputError, match="dimensions \\(time, y, x\\)"):
        geoseg.stack_history(georeferenced(class_map(1), UTM))
