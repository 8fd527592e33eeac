"""Polygons as arrays, against shapely: bytes, areas, lengths, and rows picked in any order."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from oracles import class_maps, coverage_of

from geoseg.vector.blocks import Blocks
from geoseg.vector.ragged import Ragged, members_of
from geoseg.vector.rings import Rings

TURNED = Affine(2, 0.5, 4e6, 0.5, -2, 5e6)


def ragged_of(class_map: np.ndarray, transform: Affine) -> Ragged:
    return Rings.of(coverage_of(class_map, Blocks.regular(class_map.shape, 5))).polygons(transform)


@given(class_maps, st.booleans(), st.data())
def test_bytes_areas_and_lengths_are_those_of_shapely(
    class_map: np.ndarray, mirrored: bool, data: st.DataObject
) -> None:
    found = ragged_of(class_map, TURNED if mirrored else TURNED * Affine.scale(1, -1))
    rows = np.array(data.draw(st.lists(st.integers(0, max(len(found) - 1, 0)), max_size=9 if len(found) else 0)), int)
    for ragged in (found, found.picked(rows), Ragged.together([found, found.picked(rows)])):
        shapes = ragged.shapes()
        assert len(ragged) == len(shapes)
        assert ragged.wkb().to_pylist() == shapely.to_wkb(shapes, byte_order=1).tolist()
        np.testing.assert_allclose(ragged.areas(), shapely.area(shapes), rtol=1e-9)
        np.testing.assert_allclose(ragged.perimeters(), shapely.length(shapes), rtol=1e-12)
    assert shapely.equals_exact(found.picked(rows).shapes(), found.shapes()[rows]).all()


@pytest.mark.parametrize("sizes", [[3, 1, 2], [6], [1, 1, 1, 1, 1, 1]])
def test_multipolygons_are_rows_of_polygons(sizes: list[int]) -> None:
    six = ragged_of(np.arange(6, dtype=np.uint8).reshape(2, 3).repeat(3, 0).repeat(3, 1), TURNED)
    ragged = Ragged(six.coordinates, six.rings, six.polygons, np.cumsum([0, *sizes]))
    shapes = ragged.shapes()
    assert shapely.get_num_geometries(shapes).tolist() == sizes
    assert ragged.wkb().to_pylist() == shapely.to_wkb(shapes, byte_order=1).tolist()
    np.testing.assert_allclose(ragged.areas(), shapely.area(shapes), rtol=1e-9)
    back = np.arange(len(sizes))[::-1]
    assert shapely.equals_exact(ragged.picked(back).shapes(), shapes[back]).all()


@pytest.mark.parametrize("grouped", [False, True])
def test_many_are_made_in_threads(monkeypatch: pytest.MonkeyPatch, grouped: bool) -> None:
    ragged = ragged_of(np.random.default_rng(0).integers(0, 3, (40, 50), np.uint8), TURNED)
    if grouped:
        ragged = Ragged(ragged.coordinates, ragged.rings, ragged.polygons, np.r_[0 : len(ragged) : 3, len(ragged)])
    alone = ragged.shapes()
    monkeypatch.setattr("geoseg.vector.ragged.ALONE", 10)
    monkeypatch.setattr("geoseg.vector.ragged.THREADS", 3)
    assert shapely.equals_exact(ragged.shapes(), alone).all()


def test_members_of_rows_follow_each_other() -> None:
    ends, members = members_of(np.array([0, 2, 2, 5]), np.array([2, 0, 1, 2]))
    assert (ends.tolist(), members.tolist()) == ([0, 3, 5, 5, 8], [2, 3, 4, 0, 1, 2, 3, 4])
