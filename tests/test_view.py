from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from builders import pixels_of
from matplotlib.image import imread
from scene_files import UTM, write

from geoseg.grid import Window
from geoseg.inference import RunOptions
from geoseg.pipeline import segment_file, vectorize_file
from geoseg.raster.scene import open_reader
from geoseg.view import draw_side_by_side


@pytest.mark.parametrize(
    ("shape", "transform", "crs"),
    [
        ((60, 80), Affine(7.1, 3.3, 5e5, 3.3, -7.1, 5e6), UTM),
        ((90, 20), Affine.identity(), None),
    ],
)
def test_a_picture_is_drawn(tmp_path: Path, shape: tuple[int, int], transform: Affine, crs: str | None) -> None:
    pixels = pixels_of(shape)
    scene = write(tmp_path / "s.tif", pixels, descriptions=("green", "red", "nir"), transform=transform, crs=crs)
    run = RunOptions(device="cpu", precision="float32")
    segment_file(scene, tmp_path / "cover.tif", model="spectral-index", run=run)
    vectorize_file(tmp_path / "cover.tif", tmp_path / "polygons.gpkg")
    reader = open_reader(scene)
    for number, window in enumerate((None, Window(3, 5, 9, 12))):
        picture = tmp_path / f"{number}.png"
        draw_side_by_side(reader, tmp_path / "cover.tif", tmp_path / "polygons.gpkg", picture, window=window)
        drawn = imread(picture)
        assert min(drawn.shape[:2]) > 100
        assert len(np.unique(drawn.reshape(-1, drawn.shape[-1]), axis=0)) > 10
