from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rasterio.transform import Affine

from geoseg.errors import InputError
from geoseg.legend import LANDCOVER, Legend, LegendClass
from geoseg.raster.georeference import Georef
from geoseg.raster.landcover import (
    CONFIDENCE_ONE,
    decode_confidence,
    encode_confidence,
    landcover_layer,
    read_legend,
    run_tags,
    write_cog,
)
from geoseg.raster.staging import BlockLayout, Staging

PLACE = Affine(1, 0, 10, 0, -1, 10)
PROBABILITIES = arrays.arrays(
    np.float32, st.integers(0, 40), elements=st.floats(0, 1, width=32) | st.just(float("nan"))
)


@given(PROBABILITIES)
def test_confidence_survives_to_half_a_step(confidence: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    stored = encode_confidence(confidence)
    decoded = decode_confidence(stored)
    assert (stored.dtype.name, decoded.dtype.name) == ("uint8", "float32")
    assert np.array_equal(np.isnan(decoded), np.isnan(confidence))
    assert np.nanmax(np.abs(decoded - confidence), initial=0) <= 0.0025 + 1e-6
    assert np.array_equal(encode_confidence(decoded), stored)


@given(PROBABILITIES)
def test_confidence_keeps_its_order(confidence: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    stored = encode_confidence(np.sort(confidence[~np.isnan(confidence)]))
    assert (np.diff(stored.astype(int)) >= 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_confidence_ends_ties_and_nodata(dtype: type[np.floating[Any]]) -> None:
    values = np.array([0, 0.0025, 0.0075, 0.5, 1 - 1e-7, 1, 1 + 1e-6, -1e-9, np.nan], dtype)
    stored = encode_confidence(values)
    assert stored[[0, 3, 4, 5, 6, 7, 8]].tolist() == [0, 100, 200, 200, 200, 0, 255]
    assert set(stored[[1, 2]].tolist()) <= {0, 1, 2}
    assert decode_confidence(stored)[[0, 5]].tolist() == [0.0, 1.0]
    assert np.isnan(decode_confidence(stored)[-1])


def test_every_stored_step_comes_back() -> None:
    steps = np.array([*range(CONFIDENCE_ONE + 1), 255], np.uint8)
    assert np.array_equal(encode_confidence(decode_confidence(steps)), steps)
    assert encode_confidence(np.empty((0, 3), np.float32)).shape == (0, 3)


def test_tags_are_text_of_what_was_given() -> None:
    tags = run_tags(model="tiny", model_digest="ab", scene="s.tif", options={"halo": 16, "chip": 256})
    assert tags["GEOSEG_OPTIONS"] == '{"chip":256,"halo":16}'
    assert set(tags) == {f"GEOSEG_{name}" for name in ("VERSION", "MODEL", "MODEL_DIGEST", "SCENE", "OPTIONS")}


@pytest.mark.parametrize(
    "legend",
    [
        LANDCOVER,
        Legend(
            classes=(LegendClass(id=0, name="x", color="#000000"), LegendClass(id=254, name="a-b", color="#FFFFFF"))
        ),
        Legend(
            classes=tuple(
                LegendClass(
                    id=i, name=f"class {i} of a very long name, nearly".replace(",", "") + str(i), color="#010203"
                )
                for i in range(255)
            )
        ),
    ],
)
def test_our_legend_comes_back_whole(tmp_path: Path, legend: Legend) -> None:
    path, layout = tmp_path / "out.tif", BlockLayout((4, 6), (8, 8), {"landcover": 1})
    with Staging.open(path, {}, layout) as staging:
        staging.writer().write((0, 0), {"landcover": np.full((4, 6), legend.ids[0], np.uint8)})
        write_cog(staging, landcover_layer(path, legend, {}), Georef((4, 6), PLACE, None))
    assert read_legend(path) == legend
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
        raster.update_tags(GEOSEG_LEGEND="")
    without_groups = [(c.id, c.name, c.color.lower()) for c in legend.classes]
    assert [(c.id, c.name, c.color) for c in read_legend(path).classes] == without_groups


def test_nodata_is_that_of_the_legend(tmp_path: Path) -> None:
    """Of blocks that have no pixels too."""
    path, layout = tmp_path / "out.tif", BlockLayout((16, 24), (8, 8), {"landcover": 1})
    legend = Legend(classes=(LegendClass(id=7, name="x", color="#000000"),), nodata=3)
    pixels = np.where(np.arange(64).reshape(8, 8) < 9, 3, 7).astype(np.uint8)
    with Staging.open(path, {}, layout) as staging:
        for block in layout.blocks:
            staging.writer().write(block, {"landcover": pixels} if block == (0, 1) else {})
        write_cog(staging, landcover_layer(path, legend, {}), Georef((16, 24), PLACE, None))
    with rasterio.open(path) as raster:
        assert raster.nodata == 3
        found = raster.read(1)
    assert np.array_equal(found[:8, 8:16], pixels)
    found[:8, 8:16] = 3
    assert (found == 3).all()


def foreign(path: Path, *, dtype: str = "uint8", count: int = 1, nodata: float | None = None) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=4, height=3, count=count, dtype=dtype, nodata=nodata, transform=PLACE
    ) as raster:
        raster.write(np.ones((count, 3, 4), dtype))
    return path


def name_categories(path: Path, names: list[str]) -> None:
    categories = "".join(f"<Category>{name}</Category>" for name in names)
    Path(f"{path}.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames></PAMRasterBand></PAMDataset>'
    )


def test_foreign_names_and_colors_are_read(tmp_path: Path) -> None:
    path = foreign(tmp_path / "labels.tif", nodata=0)
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {1: (255, 0, 0), 3: (0, 128, 255)})
    name_categories(path, ["nothing", "Água/rio", "", "forêt", "forêt", "_"])
    legend = read_legend(path)
    assert [(c.id, c.name, c.color) for c in legend.classes] == [
        (1, "Agua_rio", "#ff0000"),
        (3, "foret", "#0080ff"),
        (4, "foret_4", "#000000"),
        (5, "class_5", "#000000"),
    ]
    assert legend.nodata == 0


def test_names_are_found_in_other_formats(tmp_path: Path) -> None:
    source = foreign(tmp_path / "labels.tif")
    name_categories(source, ["sea", "land"])
    rasterio.shutil.copy(source, tmp_path / "labels.img", driver="ENVI")
    assert read_legend(tmp_path / "labels.img").names == ("sea", "land")


@pytest.mark.parametrize(("nodata", "missing"), [(None, 255), (7, 7), (-1, 255)])
def test_a_raster_without_names_has_one_class_for_each_id(tmp_path: Path, nodata: float | None, missing: int) -> None:
    legend = read_legend(foreign(tmp_path / "labels.tif", dtype="int16", nodata=nodata))
    assert legend.nodata == missing
    assert legend.ids == tuple(i for i in range(255) if i != missing)
    assert legend.by_name("class_12").id == 12
    assert len({c.color for c in legend.classes[:40]}) == 40


@pytest.mark.parametrize(
    ("options", "said"), [({"count": 3}, "3 bands of uint8"), ({"dtype": "float32"}, "1 band of float32")]
)
def test_what_is_no_class_map_is_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_legend(foreign(tmp_path / "scene.tif", **options))


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot open"):
        read_legend(tmp_path / "missing.tif")
    (tmp_path / "page.tif").write_text("<html>")
    with pytest.raises(InputError, match="Cannot open"):
        read_legend(tmp_path / "page.tif")
    path = foreign(tmp_path / "labels.tif")
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(GEOSEG_LEGEND='{"classes": []}')
    with pytest.raises(InputError, match="legend in the tags"):
        read_legend(path)
