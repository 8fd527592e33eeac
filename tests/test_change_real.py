"""On real places: shifts are found, undoing them undoes false change, and probabilities err less than class maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from builders import read_band
from numpy.typing import NDArray
from scipy.ndimage import fourier_shift, label

import geoseg
from geoseg.change.shift import estimate_shift
from geoseg.legend import LANDCOVER
from geoseg.raster.reader import Pixels

BUILDING = LANDCOVER.names.index("building")
SITES = ("palm_springs_010", "riverside_083")  # those with masks


def moved(source: Path, output: Path, by: tuple[float, float]) -> Path:
    """RGB of a site, moved by SciPy's Fourier shift."""
    with rasterio.open(source) as raster:
        profile = raster.profile | {"count": 3, "photometric": "RGB"}
        values = raster.read((1, 2, 3)).astype(float)
    with rasterio.open(output, "w", **profile) as raster:
        raster.write(np.stack([shifted(band, by) for band in values]).round().clip(0, 255).astype(np.uint8))
    return output


def shifted(band: NDArray[np.float64], by: tuple[float, float]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.fft.ifft2(fourier_shift(np.fft.fft2(band), by)).real
    return found


@pytest.mark.parametrize("by", [(0.1, 0.0), (0.6, -0.4), (2.0, 1.3), (-4.7, 3.2), (8.0, -8.0)])
def test_shifts_of_real_imagery_are_found_to_a_fifth_of_a_pixel(shared_data: Path, by: tuple[float, float]) -> None:
    """Ponds and fields of one year, in other light and with noise."""
    with rasterio.open(shared_data / "stacks" / "naip_cottonwood" / "20170827.tif") as raster:
        own = raster.read(1, window=((0, 620), (0, 900))).astype(float)
    other = 0.8 * shifted(own, by) + 25 + np.random.default_rng(0).normal(0, 4, own.shape)

    def reads(values: NDArray[np.float64]) -> object:
        return lambda window: Pixels(values[None][:, *window.slices], np.ones(window.shape, np.bool_))

    found = estimate_shift(reads(own), reads(other), own.shape)  # type: ignore[arg-type]
    assert found is not None
    assert abs(found.rows + by[0]) < 0.2
    assert abs(found.cols + by[1]) < 0.2


def test_dates_that_do_not_agree_tell_no_shift(shared_data: Path) -> None:
    """A desert site before and after it was built over: one large window said 45 px."""
    sites = [shared_data / "california" / f"palm_springs_080_{year}.tif" for year in (2016, 2018)]
    reads = [geoseg.open_scene(site).to_numpy()[:3] for site in sites]
    known = np.ones((256, 256), np.bool_)
    found = [lambda w, v=v: Pixels(v[:, *w.slices], known[w.slices]) for v in reads]  # type: ignore[misc]
    assert estimate_shift(found[0], found[1], (256, 256)) is None


def test_coregistration_brings_false_building_change_back_to_that_of_the_unshifted_pair(
    shared_data: Path, tmp_path: Path
) -> None:
    """A site of which no building changed, with the second date as it is, two pixels beside, and moved back."""
    site = shared_data / "california" / "chico_005"
    first = moved(Path(f"{site}_2018.tif"), tmp_path / "a_2018.tif", (0, 0))
    model, false = geoseg.load_model("landcover-rgb"), {}
    for name, by, coregister in (("own", (0, 0), False), ("beside", (2, -2), False), ("back", (2, -2), True)):
        second = moved(Path(f"{site}_2020.tif"), tmp_path / f"{name}_2020.tif", by)
        found = geoseg.change_files(
            first,
            second,
            tmp_path / f"{name}.tif",
            model=model,
            dates=geoseg.DateOptions(coregister=coregister),
            options=geoseg.ChangeOptions(prior=0.5),
        )
        assert found.shift is not None
        assert found.shift.rows == pytest.approx(-by[0], abs=0.5)
        pixels = found.matrix.pixels
        false[name] = pixels[BUILDING].sum() + pixels[:, BUILDING].sum() - 2 * pixels[BUILDING, BUILDING]
    assert false["beside"] > 1.4 * false["own"]
    assert false["back"] <= 1.1 * false["own"]


def test_probabilities_make_fewer_false_polygons_at_the_same_recall(shared_data: Path, tmp_path: Path) -> None:
    """On the two pairs with masks drawn by hand: each part of the reference is found either way."""
    folder, model = shared_data / "california", geoseg.load_model("landcover-rgb")
    found, false = {"maps": 0, "probabilities": 0}, {"maps": 0, "probabilities": 0}
    for site in SITES:
        scenes = [folder / f"{site}_{year}.tif" for year in (2016, 2020)]
        geoseg.change_files(*scenes, tmp_path / f"{site}.tif", model=model)
        kept = [tmp_path / f"{site}-dates" / f"{role}.tif" for role in ("before", "after")]
        geoseg.change_files(*kept, tmp_path / f"{site}-maps.tif")
        mask = read_band(folder / "change_2016_2020" / f"{site}_building_change.tif")
        for name, path in (("probabilities", f"{site}.tif"), ("maps", f"{site}-maps.tif")):
            codes = read_band(tmp_path / path).astype(int)
            is_new = (codes > 0) & (codes < 255) & ((codes - 1) % 15 == BUILDING) & (mask != 255)
            parts, count = label(mask == 1)
            found[name] += sum(is_new[parts == part].mean() >= 0.3 for part in range(1, count + 1))
            ours, count = label(is_new)
            false[name] += sum((mask[ours == part] == 1).mean() < 0.3 for part in range(1, count + 1))
    assert found["probabilities"] == found["maps"] >= 1
    assert false["probabilities"] < 0.1 * false["maps"]
