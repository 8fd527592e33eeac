from __future__ import annotations

import hashlib
import itertools
import logging
import struct
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.vrt import WarpedVRT

from geoseg.errors import GeosegError
from geoseg.grid import Window
from geoseg.legend import LANDCOVER
from geoseg.raster.cog import Layer, is_current, write_cog
from geoseg.raster.georeference import Georef, ignore_not_georeferenced
from geoseg.raster.landcover import confidence_layer, landcover_layer, probabilities_layer
from geoseg.raster.scene import open_reader
from geoseg.raster.staging import BlockLayout, Staging
from geoseg.raster.tiff import stored_extent

UTM = CRS.from_epsg(32631)
NORTH_UP = Affine(0.3, 0.0, 500000.1, 0.0, -0.3, 4e6 + 1 / 3)
Pixels = npt.NDArray[np.uint8]


def class_map(shape: tuple[int, int]) -> Pixels:
    """Patches of classes with a rectangle of nodata."""
    rng = np.random.default_rng(3)
    patches = rng.integers(1, 7, (shape[0] // 9 + 1, shape[1] // 9 + 1), dtype=np.uint8)
    pixels = patches.repeat(9, axis=0).repeat(9, axis=1)[: shape[0], : shape[1]].copy()
    pixels[shape[0] // 5 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] = 255
    return pixels


def write(
    layer: Layer,
    pixels: Pixels,
    *,
    transform: Affine = NORTH_UP,
    crs: CRS | None = UTM,
    block: tuple[int, int] = (200, 200),
    phase: tuple[int, int] = (0, 0),
    threads: int = 1,
) -> bytes:
    """Stage the pixels block by block, write the layer, return its bytes."""
    pixels = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    shape = pixels.shape[1], pixels.shape[2]
    layout = BlockLayout(shape, block, {layer.name: len(pixels)}, phase)
    with Staging.open(layer.path, {"options": {}}, layout, overwrite=True) as staging:
        for index in layout.blocks:
            staging.writer().write(index, {layer.name: pixels[(slice(None), *layout.window(index).slices)]})
        write_cog(staging, layer, Georef(shape, transform, crs), threads=threads)
        staging.discard()
    return layer.path.read_bytes()


def bits(transform: Affine) -> bytes:
    return struct.pack("9d", *transform)


def test_a_class_map_holds_pixels_names_colors_and_tags(tmp_path: Path) -> None:
    pixels, path = class_map((571, 600)), tmp_path / "out.tif"
    write(landcover_layer(path, LANDCOVER, {"GEOSEG_SCENE": 'a & "b" <c>.tif', "GEOSEG_MODEL": "é"}), pixels)
    with rasterio.open(path) as raster:
        assert np.array_equal(raster.read(1), pixels)
        assert (raster.nodata, raster.dtypes, raster.crs) == (255, ("uint8",), UTM)
        assert raster.descriptions == ("land cover class",)
        assert raster.colorinterp == (ColorInterp.palette,)
        assert {i: raster.colormap(1)[i] for i in LANDCOVER.ids} == LANDCOVER.colormap()
        assert raster.colormap(1)[255][3] == 0
        tags = raster.tags()
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.overviews(1) == [2]
        assert (raster.block_shapes, raster.compression.value) == ([(512, 512)], "DEFLATE")
    assert tags["GEOSEG_SCENE"] == 'a & "b" <c>.tif'
    assert tags["GEOSEG_MODEL"] == "é"
    names = ET.parse(f"{path}.aux.xml").findall("PAMRasterBand/CategoryNames/Category")
    assert [name.text or "" for name in names] == ["", *LANDCOVER.names]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.tif", "out.tif.aux.xml"]


def test_overviews_count_classes_and_leave_nodata_out(tmp_path: Path) -> None:
    pixels = np.tile(np.array([[2, 2], [6, 255]], np.uint8), (300, 300))
    write(landcover_layer(tmp_path / "out.tif", LANDCOVER, {}), pixels)
    with rasterio.open(tmp_path / "out.tif", overview_level=0) as overview:
        assert (overview.read(1) == 2).all()
    write(
        confidence_layer(tmp_path / "conf.tif", {}), np.tile(np.array([[100, 200], [255, 255]], np.uint8), (300, 300))
    )
    with rasterio.open(tmp_path / "conf.tif", overview_level=0) as overview:
        assert (overview.read(1) == 150).all()


def test_measurements_carry_their_scale_and_descriptions(tmp_path: Path) -> None:
    pixels = np.stack([class_map((40, 50)) + i for i in range(6)])
    write(probabilities_layer(tmp_path / "out.tif", LANDCOVER, {}), pixels)
    with rasterio.open(tmp_path / "out.tif") as raster:
        assert np.array_equal(raster.read(), pixels)
        assert raster.descriptions == LANDCOVER.names
        assert (set(raster.scales), set(raster.offsets), set(raster.nodatavals)) == ({0.005}, {0.0}, {255.0})
        assert not {ColorInterp.alpha, ColorInterp.red} & set(raster.colorinterp)


@pytest.mark.parametrize("bands", [1, 2])
def test_tiles_without_pixels_take_no_space_and_read_as_nodata_in_every_way(tmp_path: Path, bands: int) -> None:
    pixels = np.full((bands, 2100, 2200), 255, np.uint8)
    pixels[:, 600:700, 1500:1900] = 3
    layer = replace(landcover_layer(tmp_path / "out.tif", LANDCOVER, {}), bands=("a", "b")[:bands])
    write(layer if bands == 1 else replace(layer, legend=None), pixels, block=(700, 512))
    extent = stored_extent(layer.path)
    assert extent is not None
    assert (extent.stored, extent.blocks) == (2, 25)
    assert layer.path.stat().st_size < 15_000
    with rasterio.open(layer.path) as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert np.array_equal(raster.read(), pixels)
        assert np.array_equal(raster.read_masks(1) == 0, pixels[0] == 255)
        assert raster.overviews(1) == [2, 4, 8]
        assert [list(value) for value in raster.sample([NORTH_UP @ (9.5, 9.5)])] == [[255] * bands]
        with WarpedVRT(raster, crs="EPSG:4326") as warped:
            assert set(np.unique(warped.read())) == {3, 255}
        for factor in (2, 3, 5, 16):
            small = raster.read(out_shape=(bands, 2100 // factor, 2200 // factor))
            assert set(np.unique(small)) == {3, 255}
    for level, factor in enumerate((2, 4, 8)):
        with rasterio.open(layer.path, overview_level=level) as overview:
            found = overview.read()
            assert overview.nodata == 255
            assert set(np.unique(found)) == {3, 255}
            assert (found == 3).sum() == pytest.approx(bands * 40_000 / factor**2, rel=0.2)
    scene = open_reader(layer.path).read(Window(0, 0, 2100, 2200))
    assert np.array_equal(scene.valid, pixels[0] != 255)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_no_band_is_taken_for_a_color_or_for_alpha(tmp_path: Path, count: int) -> None:
    layer = Layer("probabilities", tmp_path / "out.tif", tuple("abcde"[:count]), scale=0.005)
    write(layer, np.full((count, 9, 9), 100, np.uint8))
    with rasterio.open(tmp_path / "out.tif") as raster:
        assert set(raster.colorinterp) <= {ColorInterp.gray, ColorInterp.undefined}


@pytest.mark.parametrize("make", ["landcover", "confidence"])
def test_bytes_do_not_depend_on_blocks_or_threads(tmp_path: Path, make: str) -> None:
    path, pixels = tmp_path / "out.tif", class_map((1150, 1030))
    layer = landcover_layer(path, LANDCOVER, {}) if make == "landcover" else confidence_layer(path, {})
    cuts = [((1150, 1030), 1), ((512, 512), 2), ((97, 1030), 2), ((1150, 211), 4), ((300, 300), 1)]
    written = {write(layer, pixels, block=block, threads=threads) for block, threads in cuts}
    assert len(written) == 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    block=st.tuples(st.integers(7, 90), st.integers(7, 90)),
    nodata=st.booleans(),
)
def test_any_shape_cut_in_any_way_is_the_same_file(
    tmp_path: Path, shape: tuple[int, int], block: tuple[int, int], nodata: bool
) -> None:
    pixels = np.full(shape, 255, np.uint8) if nodata else class_map(shape)
    layer = landcover_layer(tmp_path / "out.tif", LANDCOVER, {})
    whole = write(layer, pixels, block=shape)
    assert write(layer, pixels, block=block, phase=(5, 3)) == whole
    with rasterio.open(layer.path) as raster:
        assert np.array_equal(raster.read(1), pixels)


def transforms() -> st.SearchStrategy[Affine]:
    place = st.floats(-2e7, 2e7, allow_subnormal=False)
    size = st.floats(1e-7, 1e4)
    sign = st.sampled_from([1.0, -1.0])
    shear = st.one_of(st.just(0.0), st.floats(-50, 50, allow_subnormal=False))
    parts = (size, sign, shear, place, shear, size, sign, place)
    return st.builds(
        lambda a, sa, b, c, d, e, se, f: Affine(sa * a, b + 0.0, c + 0.0, d + 0.0, se * e, f + 0.0), *parts
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transform=transforms(), crs=st.sampled_from([None, UTM, CRS.from_epsg(4326)]))
def test_any_transform_is_kept_bit_for_bit(tmp_path: Path, transform: Affine, crs: CRS | None) -> None:
    layer = confidence_layer(tmp_path / "out.tif", {})
    write(layer, np.full((3, 5), 7, np.uint8), transform=transform, crs=crs)
    with ignore_not_georeferenced(), rasterio.open(layer.path) as raster:
        assert bits(raster.transform) == bits(transform)
        assert raster.crs == crs


@pytest.mark.parametrize("crs", [None, UTM])
@pytest.mark.parametrize("transform", [Affine.identity(), Affine.scale(1, -1)])
def test_nothing_is_invented_where_the_place_is_unknown(tmp_path: Path, transform: Affine, crs: CRS | None) -> None:
    layer = confidence_layer(tmp_path / "out.tif", {})
    content = write(layer, np.full((3, 5), 7, np.uint8), transform=transform, crs=crs)
    with ignore_not_georeferenced(), rasterio.open(layer.path) as raster:
        assert (raster.transform, raster.crs, raster.gcps[0]) == (transform, crs, [])
    if transform == Affine.identity() and crs is None:
        assert all(struct.pack("<H", tag) + b"\x0c\x00" not in content[:2000] for tag in (33550, 33922, 34264, 34735))


@pytest.mark.parametrize(
    "crs",
    [
        "EPSG:3857",
        "EPSG:2154",
        "EPSG:27700",
        "EPSG:4979",
        "EPSG:7415",  # compound: its keys lose the name
        "ESRI:54009",
        "+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84 +units=m",
        "+proj=tmerc +lat_0=1 +lon_0=3 +k=0.99 +ellps=bessel +towgs84=598,73,418,0.2,0.04,-2,6.7",
        "+proj=longlat +a=3396190 +b=3376200",  # Mars
        'LOCAL_CS["mine",UNIT["metre",1]]',
        'ENGCRS["site",EDATUM["d"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]',
    ],
)
def test_crs_compare_equal(tmp_path: Path, crs: str) -> None:
    layer = landcover_layer(tmp_path / "out.tif", LANDCOVER, {})
    write(layer, np.full((3, 5), 2, np.uint8), crs=CRS.from_string(crs))
    with rasterio.open(layer.path) as raster:
        assert raster.crs == CRS.from_string(crs)
    assert len(ET.parse(f"{layer.path}.aux.xml").findall("PAMRasterBand/CategoryNames/Category")) == 7


@pytest.mark.parametrize(
    "name", ["a b.tif", "é#?.tif", "a&b'\"<.tif", "50%.tif", "x:y!.tif", "[z]\\.TIFF", "http:x.tif"]
)
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    folder = tmp_path / Path(name).stem
    folder.mkdir()
    write(landcover_layer(folder / name, LANDCOVER, {}), class_map((30, 40)), block=(20, 20))
    assert sorted(p.name for p in folder.iterdir()) == [name, f"{name}.aux.xml"]


def test_a_layer_may_go_to_another_folder_and_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "deep" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "real")
    layout, pixels = BlockLayout((30, 40), (20, 20), {"confidence": 1}), class_map((30, 40))
    with Staging.open(tmp_path / "out.tif", {}, layout) as staging:
        for block in layout.blocks:
            staging.writer().write(block, {"confidence": pixels[layout.window(block).slices]})
        write_cog(staging, confidence_layer(tmp_path / "link" / "conf.tif", {}), Georef((30, 40), NORTH_UP, UTM))
    with rasterio.open(tmp_path / "deep" / "real" / "conf.tif") as raster:
        assert np.array_equal(raster.read(1), pixels)
    assert sorted(p.name for p in (tmp_path / "link").iterdir()) == ["conf.tif", "conf.tif.aux.xml"]


def test_one_output_may_be_named_in_two_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Staging.open(Path("out.tif"), {}, BlockLayout((3, 4), (8, 8), {"landcover": 1})) as staging:
        staging.writer().write((0, 0), {})
        write_cog(staging, landcover_layer(tmp_path / "out.tif", LANDCOVER, {}), Georef((3, 4), NORTH_UP, UTM))
    assert is_current(tmp_path / "out.tif", staging.digest)


def test_a_missing_block_is_an_error_with_its_window(tmp_path: Path) -> None:
    layout = BlockLayout((30, 40), (20, 20), {"landcover": 1})
    with Staging.open(tmp_path / "out.tif", {}, layout) as staging:
        for block in itertools.islice(layout.blocks, 3):
            staging.writer().write(block, {})
        with pytest.raises(GeosegError, match="rows 20:30, columns 20:40"):
            write_cog(staging, landcover_layer(tmp_path / "out.tif", LANDCOVER, {}), Georef((30, 40), NORTH_UP, UTM))
    assert not (tmp_path / "out.tif").exists()


def test_a_broken_block_is_an_error_and_no_file(tmp_path: Path) -> None:
    layout, layer = (
        BlockLayout((30, 40), (20, 20), {"landcover": 1}),
        landcover_layer(tmp_path / "out.tif", LANDCOVER, {}),
    )
    with Staging.open(layer.path, {}, layout) as staging:
        for block in layout.blocks:
            staging.writer().write(block, {"landcover": np.ones(layout.window(block).shape, np.uint8)})
        broken = staging.files("landcover", tmp_path)[0, 1]
        broken.write_bytes(b"x" * broken.stat().st_size)
        with pytest.raises(GeosegError, match=r"writing out\.tif"):
            write_cog(staging, layer, Georef((30, 40), NORTH_UP, UTM))
    assert [p.name for p in tmp_path.iterdir()] == ["out.tif.geoseg-partial"]


def test_nothing_of_an_older_output_survives(tmp_path: Path) -> None:
    layer = landcover_layer(tmp_path / "out.tif", LANDCOVER, {})
    fresh = write(layer, class_map((30, 40)))
    for suffix in ("", ".aux.xml", ".ovr", ".msk"):
        layer.path.with_name(f"out.tif{suffix}").write_text("stale")
    assert write(layer, class_map((30, 40))) == fresh
    assert "stale" not in Path(f"{layer.path}.aux.xml").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.tif", "out.tif.aux.xml"]


def test_the_old_output_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    layer = landcover_layer(tmp_path / "out.tif", LANDCOVER, {})
    old = write(layer, class_map((30, 40)))
    layout = BlockLayout((30, 40), (40, 40), {"landcover": 1})
    with Staging.open(layer.path, {"options": {"new": 1}}, layout) as staging:
        staging.writer().write((0, 0), {"landcover": np.ones((30, 40), np.uint8)})
        block = staging.files("landcover", tmp_path)[0, 0]
        block.write_bytes(b"x" * block.stat().st_size)
        with pytest.raises(GeosegError):
            write_cog(staging, layer, Georef((30, 40), NORTH_UP, UTM))
    assert layer.path.read_bytes() == old


def test_a_finished_output_knows_its_run(tmp_path: Path) -> None:
    layer = landcover_layer(tmp_path / "out.tif", LANDCOVER, {})
    layout = BlockLayout((30, 40), (40, 40), {"landcover": 1})
    with Staging.open(layer.path, {"options": {"chip": 8}}, layout) as staging:
        staging.writer().write((0, 0), {"landcover": np.ones((30, 40), np.uint8)})
        assert not is_current(layer.path, staging.digest)
        write_cog(staging, layer, Georef((30, 40), NORTH_UP, UTM))
        assert is_current(layer.path, staging.digest)
        assert not is_current(layer.path, "0" * 64)
        layer.path.write_bytes(layer.path.read_bytes() + b"\0")
        assert not is_current(layer.path, staging.digest)
        Path(f"{layer.path}.aux.xml").write_text("<PAM")
        assert not is_current(layer.path, staging.digest)


@pytest.mark.parametrize(
    ("given_value", "stored"),
    [(" a ", "a"), ("a\nb", "a\nb"), ("\x01x\ud800", "?x?"), ("]]>&amp;", "]]>&amp;"), ("x" * 50_000, "x" * 50_000)],
)
def test_tags_of_any_text_are_stored(
    tmp_path: Path, given_value: str, stored: str, caplog: pytest.LogCaptureFixture
) -> None:
    layer = confidence_layer(tmp_path / "out.tif", {"T": given_value, "EMPTY": ""})
    with caplog.at_level(logging.WARNING):
        write(layer, np.full((3, 5), 7, np.uint8))
    with rasterio.open(layer.path) as raster:
        assert raster.tags()["T"] == stored
    assert not [record for record in caplog.records if record.name.startswith(("geoseg", "rasterio"))]


def test_staged_layers_that_do_not_fit_the_output_are_refused(tmp_path: Path) -> None:
    layout = BlockLayout((30, 40), (40, 40), {"landcover": 1})
    layer = landcover_layer(tmp_path / "out.tif", LANDCOVER, {})
    with Staging.open(layer.path, {}, layout) as staging:
        with pytest.raises(ValueError, match="not 1 bands"):
            write_cog(staging, layer, Georef((30, 41), NORTH_UP, UTM))
        with pytest.raises(ValueError, match="not 2 bands"):
            write_cog(staging, replace(layer, bands=("a", "b")), Georef((30, 40), NORTH_UP, UTM))


def test_equal_runs_write_equal_sidecars(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(landcover_layer(tmp_path / name / "out.tif", LANDCOVER, {}), class_map((30, 40)))
        digests.add(hashlib.sha256((tmp_path / name / "out.tif.aux.xml").read_bytes()).hexdigest())
    assert len(digests) == 1
