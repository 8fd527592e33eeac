"""Copies to carry: coarser, on the same ground, with labels that are still labels; what is held out stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from builders import write

from geoseg.training.recipes import pack


def test_copies_cover_the_same_ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "flair").mkdir(parents=True)
    (tmp_path / "data" / "dubai").mkdir()
    (tmp_path / "data" / "dubai" / "tile1_001.jpg").write_bytes(b"as it is")
    place = {"transform": Affine(0.2, 0, 700_000, 0, -0.2, 6_200_000), "crs": "EPSG:2154"}
    labels = np.repeat(np.array([1, 5, 10], np.uint8), 30)[None, None] * np.ones((1, 60, 1), np.uint8)
    write(tmp_path / "data" / "flair" / "zone_Z_labels.tif", labels, **place)
    write(tmp_path / "data" / "flair" / "zone_Z_rgb.tif", np.repeat(20 * labels, 3, axis=0), **place)
    (tmp_path / "data" / "flair" / "zone_B_rgb.tif").write_bytes(b"held out")
    monkeypatch.setattr("sys.argv", ["pack", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")])
    pack.main()
    assert (tmp_path / "out" / "dubai" / "tile1_001.jpg").read_bytes() == b"as it is"
    assert (tmp_path / "out" / "flair" / "zone_B_rgb.tif").read_bytes() == b"held out"
    for name, factor, near in (("labels", 1, 0), ("rgb", 20, 4)):
        with (
            rasterio.open(tmp_path / "out" / "flair" / f"zone_Z_{name}.tif") as copy,
            rasterio.open(tmp_path / "data" / "flair" / f"zone_Z_{name}.tif") as source,
        ):
            assert (copy.shape, copy.crs) == ((40, 60), source.crs)
            assert np.allclose(copy.bounds, source.bounds)
            expected = np.repeat(np.array([1, 5, 10]), 20) * factor
            assert np.abs(copy.read(1).astype(int) - expected)[:, 2:18].max() <= near
