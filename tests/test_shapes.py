"""Filling, simplifying and smoothing keep a coverage a coverage, and do what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from test_vectorize import georeferenced

from geoseg.errors import InputError
from geoseg.vector import vectorize
from geoseg.vector.simplify import SHARE
from geoseg.vector.smooth import MOVED_PX

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
METRE = Affine(1, 0, 400_000, 0, -1, 5_000_000)
NONE = 255
maps = st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([1, 2, 3, NONE]))
)
complete = st.tuples(st.integers(2, 20), st.integers(2, 20)).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([1, 2, 6]))
)


def blobs(side: int = 160, seed: int = 0, sigma: float = 4) -> NDArray[np.uint8]:
    """Classes 1 to 6 in smooth shapes, as of a land cover."""
    noise = np.random.default_rng(seed).normal(size=(6, side, side))
    smoothed = np.stack([ndimage.gaussian_filter(layer, sigma) for layer in noise])
    return (smoothed.argmax(0) + 1).astype(np.uint8)


def polygons_of(values: NDArray[np.uint8], **options: Any) -> Any:
    return vectorize(georeferenced(values, METRE), **options)


def labelled(values: NDArray[np.uint8]) -> tuple[NDArray[np.int64], dict[int, int]]:
    """Components numbered by their first pixel, by SciPy; and the class of each."""
    raw = np.full(values.shape, -1)
    count = 0
    for code in np.unique(values[values != NONE]):
        found, number = ndimage.label(values == code)
        raw[found > 0] = found[found > 0] + count
        count += number
    _, first = np.unique(raw, return_index=True)
    order = [raw.flat[i] for i in sorted(first) if raw.flat[i] >= 0]
    names = {name: number for number, name in enumerate(order)}
    labels = np.array([names.get(name, -1) for name in raw.flat]).reshape(values.shape)
    return labels, {number: int(values.flat[np.flatnonzero(labels == number)[0]]) for number in range(len(order))}


def filled(values: NDArray[np.uint8], smallest: float) -> NDArray[np.uint8]:
    """By the book: again and again the smallest part goes to the neighbour with the longest shared border."""
    values = values.copy()
    while True:
        labels, _ = labelled(values)
        sizes = np.bincount(labels[labels >= 0])
        edges: dict[tuple[int, int], int] = {}
        for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
            for one, other in zip(a.flat, b.flat, strict=True):
                if one != other and min(one, other) >= 0:
                    edges[one, other] = edges.get((one, other), 0) + 1
                    edges[other, one] = edges.get((other, one), 0) + 1
        small = [(sizes[i], i) for i in range(len(sizes)) if sizes[i] < smallest and any(k[0] == i for k in edges)]
        if not small:
            return values
        _, chosen = min(small)
        best = max((length, -other) for (one, other), length in edges.items() if one == chosen)
        values[labels == chosen] = values.flat[np.flatnonzero(labels == -best[1])[0]]


@settings(max_examples=60, deadline=None)
@given(maps, st.integers(1, 12))
@example(np.array([[1, 2, 1], [2, 3, 2], [1, 2, 1]], np.uint8), 2)
def test_small_parts_go_to_the_neighbour_they_touch_most(values: NDArray[np.uint8], smallest: int) -> None:
    found = polygons_of(values, fill_holes_m2=smallest)
    expected = polygons_of(filled(values, smallest))
    key = ["class_id", "area_m2"]
    assert found[key].to_numpy().tolist() == expected[key].to_numpy().tolist()
    assert shapely.equals(found.geometry.values, expected.geometry.values).all()


def test_what_is_not_asked_for_can_be_filled_too() -> None:
    """A speck of road in a roof is roof; roads themselves get no polygon."""
    values = np.full((20, 20), 2, np.uint8)
    values[5:15, 5:15] = 1
    values[8, 8] = 2
    found = polygons_of(values, classes=["building"], fill_holes_m2=4)
    assert found.area_m2.tolist() == [100.0]
    assert found.geometry[0].interiors[:] == []


@settings(max_examples=60, deadline=None)
@given(complete, st.floats(0.3, 5))
def test_simplified_is_a_coverage_of_nearly_the_same_areas(values: NDArray[np.uint8], tolerance: float) -> None:
    plain, found = polygons_of(values), polygons_of(values, simplify_m=tolerance)
    assert shapely.coverage_is_valid(found.geometry.values)
    assert shapely.is_valid(found.geometry.values).all()
    assert found.class_id.tolist() == plain.class_id.tolist()
    assert found.geometry.area.sum() == pytest.approx(values.size)
    change = np.abs(found.area_m2 - plain.area_m2)
    assert (change <= SHARE * tolerance * plain.perimeter_m + 1e-6).all()
    assert (shapely.get_num_coordinates(found.geometry) <= shapely.get_num_coordinates(plain.geometry)).all()


@settings(max_examples=60, deadline=None)
@given(complete)
def test_smoothed_is_a_coverage_that_hardly_moved(values: NDArray[np.uint8]) -> None:
    plain, found = polygons_of(values), polygons_of(values, smooth=["water", "building"])
    assert shapely.coverage_is_valid(found.geometry.values)
    assert shapely.is_valid(found.geometry.values).all()
    assert found.geometry.area.sum() == pytest.approx(values.size)
    moved = shapely.hausdorff_distance(found.geometry.values.boundary, plain.geometry.values.boundary, densify=0.25)
    assert moved.max() <= MOVED_PX


@pytest.mark.parametrize("options", [{"simplify_m": 2.0}, {"smooth": ["water"]}, {"fill_holes_m2": 30.0}])
@pytest.mark.parametrize("block", [17, 64])
def test_blocks_leave_no_trace(options: dict[str, Any], block: int) -> None:
    values = blobs(96)
    whole, cut = polygons_of(values, **options), polygons_of(values, block=block, **options)
    assert (whole.geometry.to_wkb() == cut.geometry.to_wkb()).all()
    assert whole.drop(columns="geometry").equals(cut.drop(columns="geometry"))


def test_a_land_cover_is_simplified_about_as_far_as_shapely_does() -> None:
    values = blobs()
    plain, found = polygons_of(values), polygons_of(values, simplify_m=2.0)
    theirs = shapely.coverage_simplify(plain.geometry.values, 2.0)
    before, ours, of_shapely = (shapely.get_num_coordinates(g).sum() for g in (plain.geometry, found.geometry, theirs))
    assert ours < 0.5 * before
    assert ours < 1.3 * of_shapely
    by_class = [frame.dissolve("class_id").area for frame in (plain, found)]
    np.testing.assert_allclose(by_class[1], by_class[0], rtol=0.01)


def test_a_staircase_becomes_a_straight_line() -> None:
    rows, cols = np.indices((40, 40))
    values = np.where(cols > rows, 6, 3).astype(np.uint8)
    found = polygons_of(values, smooth=["water"])
    water = found.geometry[found.class_id == 6].iloc[0]
    assert shapely.get_num_coordinates(water) < 16
    assert water.area == pytest.approx((values == 6).sum(), abs=2)


def test_only_the_borders_of_smoothed_classes_move() -> None:
    values = blobs()
    plain, found = polygons_of(values), polygons_of(values, smooth=["water"])
    of_water = found.geometry[found.class_id == 6].union_all().buffer(2)
    for before, after in zip(plain.geometry, found.geometry, strict=True):
        assert before.boundary.difference(of_water).equals(after.boundary.difference(of_water))


def test_all_together_on_a_land_cover() -> None:
    values = blobs()
    values[40:60, 90:120] = NONE
    found = polygons_of(values, fill_holes_m2=40, smooth=["vegetation", "water"], simplify_m=1.0, min_area_m2=50)
    assert shapely.coverage_is_valid(found.geometry.values)
    assert found.area_m2.min() > 40
    hole = shapely.box(400_090, 5_000_000 - 60, 400_120, 5_000_000 - 40)
    assert found.geometry.union_all().intersection(hole.buffer(-2)).area == pytest.approx(0, abs=1)


@pytest.mark.parametrize(
    ("options", "crs", "said"),
    [
        ({"simplify_m": -1.0}, "EPSG:32631", "0 metres or more"),
        ({"simplify_m": float("nan")}, "EPSG:32631", "0 metres or more"),
        ({"simplify_m": 1.0}, None, "no CRS"),
        ({"fill_holes_m2": -1.0}, "EPSG:32631", "-1"),
        ({"smooth": ["lake"]}, "EPSG:32631", "lake"),
        ({"smooth": ["water"], "classes": ["building"]}, "EPSG:32631", "gets no polygons"),
    ],
)
def test_what_cannot_be_shaped_is_refused(options: dict[str, Any], crs: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        vectorize(georeferenced(blobs(20), METRE, crs), **options)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2)])
def test_the_smallest_maps(shape: tuple[int, int]) -> None:
    found = polygons_of(np.full(shape, 6, np.uint8), smooth=["water"], simplify_m=3.0, fill_holes_m2=100)
    assert found.area_m2.tolist() == [shape[0] * shape[1]]
    empty = polygons_of(np.full(shape, NONE, np.uint8), smooth=["water"], simplify_m=3.0, fill_holes_m2=100)
    assert len(empty) == 0


def test_metres_are_metres_in_degrees_too() -> None:
    """The same land cover in UTM and, on a grid of about the same pixels, in degrees: about as many points are left."""
    values = blobs()
    degrees = Affine(1 / 111_320 / np.cos(np.radians(45)), 0, 3, 0, -1 / 111_130, 45)
    here = polygons_of(values, simplify_m=2.1)
    there = vectorize(georeferenced(values, degrees, "EPSG:4326"), simplify_m=2.1)
    counts = [shapely.get_num_coordinates(frame.geometry).sum() for frame in (here, there)]
    assert counts[1] == pytest.approx(counts[0], rel=0.02)
