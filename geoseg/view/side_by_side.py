"""One picture: the scene, its classes, and the outlines of its polygons."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window as RasterioWindow

from geoseg.grid import Window
from geoseg.legend import Legend
from geoseg.raster.georeference import ignore_not_georeferenced
from geoseg.raster.landcover import read_legend
from geoseg.raster.reader import SceneReader

MOST_PX = 1400  # pixels of a panel at most


def draw_side_by_side(
    reader: SceneReader, landcover: Path, polygons: Path, output: Path, *, window: Window | None = None
) -> None:
    """Write a PNG with scene, classes and outlines of one window.

    Args:
        reader: the scene; its first three bands, or red, green and blue, are shown.
        landcover: its class map, on the same grid.
        polygons: their outlines, in any vector format that GDAL reads.
        output: the PNG.
        window: pixels shown; all where None.
    """
    window = window or Window(0, 0, *reader.shape)
    step = max(1, -(-max(window.shape) // MOST_PX))
    colors = scene_colors(reader, window, step)
    legend = read_legend(landcover)
    class_map = class_map_of(landcover, window, step)
    tall = window.height > 1.6 * window.width
    figure = Figure(figsize=(15, 15 * window.height / window.width / 3 + 0.9) if not tall else (12, 12), dpi=120)
    FigureCanvasAgg(figure)
    scene_axes, class_axes, outline_axes = figure.subplots(1, 3)
    panel(scene_axes, colors, "scene", window)
    panel(class_axes, painted(class_map, legend), "land cover", window)
    panel(outline_axes, colors, "polygons", window)
    _outlines(outline_axes, reader, polygons, window, legend)
    present = [entry for entry in legend.classes if (class_map == entry.id).any()]
    patches = [Patch(color=entry.color, label=entry.name) for entry in present]
    figure.legend(handles=patches, loc="lower center", ncols=max(1, len(patches)), frameon=False)
    scale_bar(scene_axes, reader.gsd_m, window)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(output, metadata={"Software": None})


def panel(axes: Axes, picture: NDArray[np.uint8], title: str, window: Window) -> None:
    """A picture of a window under a title."""
    extent = (window.col, window.col_stop, window.row_stop, window.row)
    axes.imshow(picture, extent=extent, interpolation="nearest")
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])


def scene_colors(reader: SceneReader, window: Window, step: int) -> NDArray[np.uint8]:
    """(height, width, 3) for the eye: stretched between the 1st and 99th percentile of all bands together."""
    names: list[str] = [name for name in ("red", "green", "blue") if name in reader.bands]
    if len(names) < 3:
        names = list(reader.bands[: 3 if len(reader.bands) >= 3 else 1])
    chosen = reader.select(names)
    rows = []
    for row in range(window.row, window.row_stop, step * 256):
        strip = Window(row, window.col, min(step * 256, window.row_stop - row), window.width)
        rows.append(chosen.read(strip).values[:, ::step, ::step])
    pixels = np.concatenate(rows, axis=1).astype(np.float32)
    low, high = np.nanpercentile(pixels, (1, 99))
    shown = np.nan_to_num((pixels - low) / max(float(high - low), 1e-6)).clip(0, 1) * 255
    return np.repeat(shown, 3 // len(shown), axis=0).transpose(1, 2, 0).astype(np.uint8)


def class_map_of(landcover: Path, window: Window, step: int) -> NDArray[np.uint8]:
    """Every `step`th pixel of a window."""
    shape = -(-window.height // step), -(-window.width // step)
    part = RasterioWindow(window.col, window.row, window.width, window.height)
    with ignore_not_georeferenced(), rasterio.open(landcover) as raster:
        class_map: NDArray[np.uint8] = raster.read(1, window=part, out_shape=shape, resampling=Resampling.nearest)
    return class_map


def painted(class_map: NDArray[np.uint8], legend: Legend) -> NDArray[np.uint8]:
    """(height, width, 3) in the colours of the legend; nodata is white."""
    table = np.full((256, 3), 255, np.uint8)
    for entry in legend.classes:
        table[entry.id] = entry.rgb
    colors: NDArray[np.uint8] = table[class_map]
    return colors


def _outlines(axes: Axes, reader: SceneReader, polygons: Path, window: Window, legend: Legend) -> None:
    """Outlines in pixel coordinates, so that rotated scenes are drawn as they are stored."""
    back = ~reader.transform
    colors = {entry.name: entry.color for entry in legend.classes}
    colors |= {group: legend.select([group])[0].color for group in legend.groups}
    layers = [name for name, geometry in pyogrio.list_layers(polygons) if geometry is not None]
    for layer in layers:
        frame: gpd.GeoDataFrame = gpd.read_file(polygons, layer=layer)
        lines = frame.geometry.boundary.affine_transform([back.a, back.b, back.d, back.e, back.c, back.f])
        for name, group in lines.groupby(frame["class_name"].to_numpy()):
            group.plot(ax=axes, color=colors.get(str(name), "#ffff00"), linewidth=0.7, aspect="equal")
    axes.set(xlabel="", ylabel="")  # geopandas names the CRS's axes
    axes.set_xlim(window.col, window.col_stop)
    axes.set_ylim(window.row_stop, window.row)


def scale_bar(axes: Axes, gsd_m: float | None, window: Window) -> None:
    """A round length on the ground; nothing where the size of a pixel is not known."""
    if gsd_m is None:
        return
    reach = window.width * gsd_m / 4
    length = max(n for n in (base * 10**e for e in range(-1, 7) for base in (1, 2, 5)) if n <= max(reach, 0.1))
    start, row = window.col + 0.05 * window.width, window.row_stop - 0.05 * window.height
    stop = start + length / gsd_m
    axes.plot([start, stop], [row, row], color="black", linewidth=3)
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 2}
    axes.text((start + stop) / 2, row - 0.015 * window.height, label, ha="center", va="bottom", bbox=box)
