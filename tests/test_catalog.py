from __future__ import annotations

import logging
import os
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

import geoseg.catalog
from geoseg.catalog import (
    MAX_BYTES,
    Catalog,
    RasterSource,
    SyntheticSource,
    default_catalog,
    load_catalog,
    open_scene,
    resolve,
    resolve_labels,
)
from geoseg.errors import InputError
from geoseg.raster.scene import SceneOptions, open_reader
from geoseg.synthetic import SyntheticScene, write_scene


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(folder: Path, text: str) -> Path:
    path = folder / "scenes.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


FILES = """
    metadata: {version: 1}
    sources:
      town:
        driver: rasterio
        description: A town
        args: {urlpath: "{{ CATALOG_DIR }}/town.tif"}
        metadata: {bands: {red: 1, nir: "{{ CATALOG_DIR }}/nir.tif:1"}, nodata: 0,
                   valid_mask: "{{ CATALOG_DIR }}/m.tif", labels: "{{ CATALOG_DIR }}/truth.gpkg",
                   scale: 0.5, offset: -1, gsd_m: 0.2, license: CC0, attribution: me}
      bands:
        driver: rasterio
        args: {urlpath: ["https://example.com/a.tif", here/b.tif]}
        metadata: {network: true}
      made:
        driver: geoseg_synthetic
        args: {rows: 9, columns: 7, seed: 3, gsd_m: 0.7}
"""


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return write(tmp_path, FILES)


def test_names_come_in_the_order_of_the_file(scenes: Path) -> None:
    catalog = load_catalog(scenes)
    assert isinstance(catalog, Catalog)
    assert catalog.names == ("town", "bands", "made")
    assert isinstance(catalog["town"], RasterSource)
    assert isinstance(catalog["made"], SyntheticSource)
    assert catalog["town"].description == "A town"


def test_a_name_resolves_to_its_path_and_options(scenes: Path, tmp_path: Path) -> None:
    found = resolve(f"{scenes}#town")
    assert found.source == f"{tmp_path}/town.tif"
    bands = {"red": "1", "nir": f"{tmp_path}/nir.tif:1"}
    assert found.options == SceneOptions(bands, 0.0, f"{tmp_path}/m.tif", 0.5, -1.0, 0.2)
    assert found.labels == f"{tmp_path}/truth.gpkg"


def test_labels_go_by_name_too(scenes: Path, tmp_path: Path) -> None:
    assert resolve_labels(f"{scenes}#town") == f"{tmp_path}/truth.gpkg"
    assert resolve_labels("labels.gpkg:fields") == "labels.gpkg:fields"
    with pytest.raises(InputError, match=r"#bands has no labels; state metadata\.labels"):
        resolve_labels(f"{scenes}#bands")


def test_several_addresses_are_one_scene(scenes: Path) -> None:
    found = resolve(f"{scenes}#bands")
    assert found.source == ["https://example.com/a.tif", "here/b.tif"]
    assert found.options == SceneOptions()


def test_the_folder_of_a_relative_catalogue_is_absolute(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scenes.parent)
    assert resolve("scenes.yaml#town").source == str(Path.cwd() / "town.tif")


@pytest.mark.parametrize("text", ["scene.tif", "https://x.org/a.tif#b", "a#b.tif", "scenes.yaml", "a.yaml.tif#c", ""])
def test_what_names_no_catalogue_is_itself(text: str) -> None:
    found = resolve(text)
    assert (found.source, found.options) == (text, SceneOptions())


def test_a_synthetic_scene_is_made_once_and_read_like_any_other(
    scenes: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "geoseg.catalog")
    first = resolve(f"{scenes}#made")
    assert isinstance(first.source, str)
    path = Path(first.source)
    assert path.parent == cache
    before = path.stat()
    assert resolve(f"{scenes}#made") == first
    assert path.stat() == before
    assert len([r for r in caplog.records if "Making a synthetic scene of 9 x 7 pixels" in r.message]) == 1
    reader = open_reader(first.source, first.options)
    pixels, labels = SyntheticScene((9, 7), 3, 0.7).read()
    assert reader.bands == ("red", "green", "blue", "nir")
    assert np.array_equal(reader.select(reader.bands).to_xarray().to_numpy(), pixels)
    with rasterio.open(first.labels) as truth:
        assert np.array_equal(truth.read(1), labels)


def test_other_arguments_and_another_version_are_other_files(
    tmp_path: Path, scenes: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {resolve(f"{scenes}#made").source}
    for change in ("seed: 4", "seed: 3, later: 1", "seed: 3, later: 2"):
        other = write(tmp_path, FILES.replace("seed: 3", change))
        found.add(resolve(f"{other}#made").source)
    monkeypatch.setattr(geoseg.catalog, "version", lambda _: "99.0")
    found.add(resolve(f"{scenes}#made").source)
    assert len(found) == 5
    assert len(list(cache.iterdir())) == 10


def test_a_scene_that_was_not_finished_is_made_again(
    scenes: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SyntheticScene, "read", fail)
        with pytest.raises(KeyboardInterrupt):
            resolve(f"{scenes}#made")
    assert list(cache.iterdir()) == []
    assert Path(str(resolve(f"{scenes}#made").source)).is_file()


def test_a_cache_that_cannot_be_made_is_refused_with_the_remedy(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="set GEOSEG_CACHE"):
        resolve(f"{scenes}#made")


def test_an_unknown_name_lists_the_known_ones(scenes: Path) -> None:
    with pytest.raises(InputError, match=r"'twon' is not in the catalogue .*; it has town, bands, made\."):
        resolve(f"{scenes}#twon")
    with pytest.raises(InputError, match="'' is not in the catalogue"):
        resolve(f"{scenes}#")


def test_an_empty_catalogue_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it has no scene"):
        resolve(f"{write(tmp_path, 'sources: {}')}#a")


def test_a_missing_catalogue_is_refused_and_names_the_one_that_ships(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml does not exist\.$"):
        resolve(f"{tmp_path}/none.yaml#demo")
    with pytest.raises(InputError, match=r"does not exist; the one that ships with geoseg is .*data_catalog\.yaml"):
        resolve(f"{tmp_path}/data_catalog.yaml#demo")
    with pytest.raises(InputError, match=r"cannot be read"):
        load_catalog(tmp_path)


ENTRY = "sources: {a: {driver: rasterio, args: {urlpath: a.tif}%s}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the whole file: "),
        ("[1, 2]", "the whole file: "),
        ("metadata: {}", "sources: this key is missing"),
        ("sources: {}\nextra: 1", "extra: unknown key"),
        (ENTRY % ", colour: red", "sources.a.colour: unknown key"),
        (ENTRY % ", metadata: {gsd: 1}", "sources.a.metadata.gsd: unknown key"),
        (ENTRY % ", metadata: {gsd_m: -1}", "sources.a.metadata.gsd_m: Input should be greater than 0"),
        (ENTRY % ", metadata: {gsd_m: .inf}", "sources.a.metadata.gsd_m: "),
        (ENTRY % ", metadata: {network: perhaps}", "sources.a.metadata.network: "),
        ("sources: {a: {driver: rasterio, args: {}}}", "sources.a.args.urlpath: this key is missing"),
        ("sources: {a: {driver: rasterio, args: {urlpath: []}}}", "sources.a.args.urlpath"),
        ("sources: {a: {driver: zarr, args: {urlpath: x}}}", "sources.a: driver is one of rasterio, geoseg_synthetic"),
        ("sources: {a: {args: {urlpath: x}}}", "sources.a: driver is one of rasterio, geoseg_synthetic"),
        ("sources: {a b: {driver: rasterio, args: {urlpath: x}}}", "sources.a b"),
        ("sources: {a: {driver: geoseg_synthetic, args: {rows: 0, columns: 1, seed: 1}}}", "sources.a.args.rows: "),
        ("sources: {a: {driver: geoseg_synthetic, args: {rows: 1, columns: 1, seed: 1, gsd_m: 9}}}", "args.gsd_m: "),
    ],
)
def test_what_is_not_a_catalogue_is_refused_with_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match="is not a catalogue of scenes") as caught:
        load_catalog(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: {a: 1, a: 2}", "line 1: key 'a' appears twice"),
        ("sources: {}\nmetadata: {}\nsources: {}", "line 3: key 'sources' appears twice"),
        ("metadata: &x {}\nsources: {}", "line 1: anchors and aliases are not allowed"),
        ("metadata: &x {}\nsources: *x", "anchors and aliases are not allowed"),
        ("sources: {a: [}", "line 1: "),
        ("sources: !!python/object/apply:os.system [ls]", "line 1: could not determine a constructor"),
        ("sources: " + "[" * 1000, "line 1: it is nested more than 16 deep"),
        ("sources: {[1]: 2}", "line 1: found unhashable key"),
        ("sources: 2020-13-45", "month must be in 1..12"),
        ("sources: " + "9" * 5000, "Exceeds the limit"),
        ("a: \x01", "special characters are not allowed"),
        ("a: 1\n---\nb: 2", "line 2: but found another document"),
    ],
)
def test_yaml_that_hides_repeats_or_runs_something_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match="is not YAML that can be used") as caught:
        load_catalog(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scenes.yaml"
    path.write_bytes(b"sources: \xff\xfe{}")
    with pytest.raises(InputError, match="is not YAML"):
        load_catalog(path)


def test_an_oversize_file_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path, "sources: {}\n")
    assert load_catalog(path).names == ()
    os.truncate(path, 10 * 2**30)  # sparse
    with pytest.raises(InputError, match=f"more than {MAX_BYTES} bytes"):
        load_catalog(path)


@pytest.mark.parametrize(
    "address", ["{{ env(HOME) }}/a.tif", "x/{{ CATALOG_DIR }}/a.tif", "{% raw %}a.tif", "{{CATALOG_DIR}}/a"]
)
def test_other_templates_are_refused(tmp_path: Path, address: str) -> None:
    path = write(tmp_path, f"sources: {{a: {{driver: rasterio, args: {{urlpath: '{address}'}}}}}}")
    with pytest.raises(InputError, match=r"only a leading '\{\{ CATALOG_DIR \}\}' is understood"):
        resolve(f"{path}#a")


def test_the_shipped_catalogue_is_found_and_valid() -> None:
    path = default_catalog()
    catalog = load_catalog(path)
    assert {"demo", "demo_small", "demo_pair_before", "demo_pair_after"} <= set(catalog.names)
    for name in catalog.names:
        entry = catalog[name]
        assert entry.description
        assert entry.metadata.license
        assert entry.metadata.attribution
        assert entry.metadata.network == isinstance(entry, RasterSource)
        if isinstance(entry, RasterSource):
            found = catalog.resolve(name)
            urls = [found.source] if isinstance(found.source, str) else found.source
            assert all(url.startswith("https://") for url in urls)


def test_the_shipped_pair_shows_one_place_at_two_dates() -> None:
    catalog = load_catalog(default_catalog())
    before, after = (catalog[f"demo_pair_{when}"] for when in ("before", "after"))
    assert isinstance(before, SyntheticSource)
    assert isinstance(after, SyntheticSource)
    assert after.args.scene == before.args.scene.later(1)


def test_the_package_is_preferred_to_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "geoseg"
    package.mkdir(parents=True)
    monkeypatch.setattr(geoseg.catalog, "__file__", str(package / "catalog.py"))
    (tmp_path / "site" / "data_catalog.yaml").write_text("")
    assert default_catalog() == tmp_path / "site" / "data_catalog.yaml"
    (package / "data_catalog.yaml").write_text("")
    assert default_catalog() == package / "data_catalog.yaml"


def test_a_catalogue_of_real_imagery_can_be_written_and_read(tmp_path: Path, shared_data: Path) -> None:
    args = {"urlpath": str(shared_data / "flair" / "zone_B_rgb.tif")}
    bands = {"red": 1, "green": 2, "blue": 3, "nir": str(shared_data / "flair" / "zone_B_nir.tif")}
    entry = {"driver": "rasterio", "description": "FLAIR zone B", "args": args, "metadata": {"bands": bands}}
    path = tmp_path / "scenes.yaml"
    path.write_text(yaml.safe_dump({"sources": {"flair_b": entry}}))
    found = resolve(f"{path}#flair_b")
    assert open_reader(found.source, found.options).bands == ("red", "green", "blue", "nir")


def test_open_scene_knows_names_and_what_is_given_outranks_the_catalogue(tmp_path: Path) -> None:
    write_scene(SyntheticScene((20, 30), seed=3), tmp_path / "scene.tif", labels=None)
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(
        "sources:\n  here:\n    driver: rasterio\n    description: small\n"
        "    args: {urlpath: '{{ CATALOG_DIR }}/scene.tif'}\n    metadata: {gsd_m: 0.7, nodata: 255}\n"
    )
    scene = open_scene(f"{catalog}#here", gsd_m=0.9)
    assert scene.shape == (4, 20, 30)
    assert scene.attrs["gsd_m"] == 0.9
    assert "valid" in scene.coords
