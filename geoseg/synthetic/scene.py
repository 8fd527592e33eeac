"""SyntheticScene: any window of an invented place, with its labels; and its file."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from geoseg.errors import GeosegError, InputError
from geoseg.grid.window import Window, windows_of
from geoseg.legend import LANDCOVER
from geoseg.raster.disk import publish_file
from geoseg.synthetic.ground import draw_ground
from geoseg.synthetic.light import Light, Surface, expose, sunlight
from geoseg.synthetic.materials import LABEL
from geoseg.synthetic.place import Place
from geoseg.synthetic.trees import grow_trees

BANDS = ("red", "green", "blue", "nir")
CRS = "EPSG:32631"
_LEFT, _TOP = 448_000.0, 5_412_000.0
_PART = 1024  # pixels; a larger window is made in parts, so that memory stays bounded
_COLORS = (
    ColorInterp.red,
    ColorInterp.green,
    ColorInterp.blue,
    ColorInterp.undefined,
)  # GDAL 3.10 does not keep nir in a TIFF

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SyntheticScene:
    """An invented place seen from above, with the true class of each pixel.

    Attributes:
        shape: rows, columns.
        seed: of the place: another seed is another town, sun, soil and sensor.
        gsd_m: pixel size in metres; it changes only the sampling.
        revision: date of the buildings and ponds; 0 is the first.
        season: date of the light and the plants.
    """

    shape: tuple[int, int]
    seed: int = 0
    gsd_m: float = 0.5
    revision: int = 0
    season: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise InputError(f"A scene has 1 row and column or more, not {self.shape[0]} x {self.shape[1]}.")
        if not 0.05 <= self.gsd_m <= 5:
            raise InputError(f"A synthetic scene has a pixel size of 0.05 to 5 m, not {self.gsd_m:g} m.")
        if min(self.seed, self.revision, self.season) < 0:
            raise InputError(f"Seeds are 0 or more, not {min(self.seed, self.revision, self.season)}.")

    @property
    def transform(self) -> Affine:
        return Affine(self.gsd_m, 0, _LEFT, 0, -self.gsd_m, _TOP)

    def later(self, seed: int = 1) -> SyntheticScene:
        """The same place later: some buildings new, some gone, ponds of another size, other light and season.

        What changed is where the labels of both dates differ.
        """
        return replace(self, revision=seed + 1, season=seed + 1)

    def read(self, window: Window | None = None) -> tuple[Bytes, Bytes]:
        """Pixels (4, height, width) as red, green, blue, nir, and labels (height, width), ids of `LANDCOVER`.

        Raises:
            InputError: the window is not inside the scene.
        """
        window = Window(0, 0, *self.shape) if window is None else window
        if window.clipped(self.shape) != window:
            raise InputError(f"Window {window} is not inside the scene of {self.shape[0]} x {self.shape[1]} pixels.")
        place = Place.of(self.seed, self.revision, self.gsd_m)
        light = Light.of(place, self.season)
        pixels, labels = np.empty((len(BANDS), *window.shape), np.uint8), np.empty(window.shape, np.uint8)
        for part in windows_of(window.shape, _PART):
            rows, cols = part.slices
            made = _make(place, light, part.shifted(window.row, window.col))
            pixels[:, rows, cols], labels[rows, cols] = made
        return pixels, labels


def _make(place: Place, light: Light, window: Window) -> tuple[Bytes, Bytes]:
    """Pixels and labels of one window, from the ground around it that can throw a shadow into it."""
    margin = math.ceil(light.reach_m / place.gsd_m) + 3
    wide = window.padded(margin)
    x = ((np.arange(wide.col, wide.col_stop) + 0.5) * place.gsd_m)[None, :]
    y = ((np.arange(wide.row, wide.row_stop) + 0.5) * place.gsd_m)[:, None]
    canvas = draw_ground(place, x, y)
    grow_trees(canvas, x, y)
    bright = sunlight(canvas.height.reshape(wide.shape), light, place.gsd_m)
    near = window.padded(1)
    rows, cols = near.relative_to(wide).slices
    tint, warm = (a.reshape(wide.shape)[rows, cols] for a in (canvas.tint, canvas.warm))
    surface = Surface(canvas.material.reshape(wide.shape)[rows, cols], tint, warm, bright[rows, cols])
    return expose(place, light, near, surface), LABEL[surface.material[1:-1, 1:-1]]


def write_scene(
    scene: SyntheticScene, path: str | Path, *, labels: str | Path | None = None, block: int = 1024
) -> None:
    """Write a scene as a tiled GeoTIFF, block by block, and its labels as a class map with a colour table.

    Args:
        scene: what to write.
        path: GeoTIFF of four bands; an old one is replaced once the new one is whole.
        labels: GeoTIFF of the true classes, if wanted.
        block: pixels made at once, per axis.

    Raises:
        InputError: the folder does not exist.
        GeosegError: a file cannot be written.
    """
    with _created(Path(path), scene, len(BANDS), photometric="RGB", alpha="UNSPECIFIED") as image:
        image.colorinterp = _COLORS
        image.descriptions = BANDS
        if labels is None:
            _fill(scene, image, None, block)
            return
        with _created(Path(labels), scene, 1, nodata=LANDCOVER.nodata) as classes:
            classes.write_colormap(1, LANDCOVER.colormap())
            classes.set_band_description(1, "land cover class")
            classes.update_tags(GEOSEG_LEGEND=LANDCOVER.to_json())
            _fill(scene, image, classes, block)


def _fill(scene: SyntheticScene, image: Any, classes: Any, block: int) -> None:
    for window in windows_of(scene.shape, block):
        pixels, truth = scene.read(window)
        at = rasterio.windows.Window(window.col, window.row, window.width, window.height)
        image.write(pixels, window=at)
        if classes is not None:
            classes.write(truth, 1, window=at)


@contextmanager
def _created(path: Path, scene: SyntheticScene, count: int, **options: Any) -> Iterator[Any]:
    """A new GeoTIFF on the scene's grid, under its own name only once it is whole."""
    if not path.parent.is_dir():
        raise InputError(f"Folder {path.parent} does not exist; create it or choose another output.")
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "bigtiff": "IF_SAFER"}
    grid = {"height": scene.shape[0], "width": scene.shape[1], "transform": scene.transform, "crs": CRS}
    part = path.with_name(f".{uuid.uuid4().hex}.tif")  # another process may be writing the same file
    predictor = {"predictor": 2} if count > 1 else {}
    try:
        with rasterio.open(
            part, "w", "GTiff", count=count, dtype="uint8", **grid, **layout, **predictor, **options
        ) as to:
            yield to
        publish_file(part, path)
    except (OSError, rasterio.errors.RasterioError) as error:
        raise GeosegError(f"{path} cannot be written: {error}.") from error
    finally:
        part.unlink(missing_ok=True)
