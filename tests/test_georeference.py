"""Silence where a raster without georeference is expected: in that thread, and nowhere else."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from scene_files import ramp, write

from geoseg.raster.georeference import ignore_not_georeferenced


@pytest.fixture
def unplaced(tmp_path: Path) -> Path:
    return write(tmp_path / "a.tif", ramp(1), crs=None, transform=None)


def test_the_warning_is_silent_inside_and_heard_outside(unplaced: Path) -> None:
    for _ in range(2):
        with ignore_not_georeferenced(), ignore_not_georeferenced(), rasterio.open(unplaced):
            pass
        with pytest.warns(NotGeoreferencedWarning), rasterio.open(unplaced):
            pass


def test_other_warnings_are_heard_inside() -> None:
    with ignore_not_georeferenced(), pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)


def test_another_thread_still_hears_it(unplaced: Path) -> None:
    heard: list[type[Warning]] = []

    def listen() -> None:
        try:
            rasterio.open(unplaced).close()
        except NotGeoreferencedWarning as warning:  # an error under the tests' filters
            heard.append(type(warning))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ignore_not_georeferenced():
            thread = threading.Thread(target=listen)
            thread.start()
            thread.join()
            rasterio.open(unplaced).close()
    assert heard == [NotGeoreferencedWarning]


def test_a_filter_that_another_thread_takes_away_is_not_missed(unplaced: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inner = warnings.catch_warnings()
        with ignore_not_georeferenced():
            inner.__enter__()
            rasterio.open(unplaced).close()
            inner.__exit__(None, None, None)
            rasterio.open(unplaced).close()
