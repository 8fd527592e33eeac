"""The report of change: one file that needs nothing else, with the figures of the matrix."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from builders import tiny_model, write_rgb
from matplotlib.image import imread
from test_change import UTM, class_map
from test_vectorize import write_raster

import geoseg
from geoseg.change.reference import draw_sample, estimate_from_points
from geoseg.cli import main
from geoseg.view.change_report import sankey


class Page(HTMLParser):
    """All that a page shows and refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.cells: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "
        if self.tags[-1] == "td":
            self.cells.append(data)


def maps(folder: Path) -> list[Path]:
    one, two = class_map(1), class_map(2)
    one[:10] = 255
    return [write_raster(folder / f"{name}.tif", values, UTM) for name, values in (("a&b", one), ("after", two))]


def test_figures_are_those_of_the_matrix(tmp_path: Path) -> None:
    paths = maps(tmp_path)
    found = geoseg.change_files(*paths, tmp_path / "c.tif", report=tmp_path / "r.html")
    assert found.outputs[-2:] == [tmp_path / "r.html", tmp_path / "r.json"]
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["pixels"] == found.matrix.pixels.tolist()
    assert told["unknown_pixels"] == 10 * 120
    assert (told["shift_px"], told["options"]["prior"]) == (None, None)
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert [float(cell.replace(",", "")) for cell in page.cells] == found.matrix.m2.round(2).ravel().tolist()
    assert "Change from a&b.tif to after.tif" in page.text
    assert "1,200 of 10,800 pixels are not known" in page.text
    changed = found.matrix.pixels.sum() - np.trace(found.matrix.pixels)
    assert f"{changed / found.matrix.pixels.sum():.1%}" in page.text
    assert len(page.links) == 1
    assert page.links[0].startswith("data:image/png;base64,")
    picture = imread(io.BytesIO(base64.b64decode(page.links[0].partition(",")[2])))
    assert picture.shape[1] > picture.shape[0] > 100
    first = (tmp_path / "r.html").read_bytes()
    geoseg.change_files(*paths, tmp_path / "c.tif", report=tmp_path / "r.html")
    assert (tmp_path / "r.html").read_bytes() == first


def test_scenes_tell_their_shift(tmp_path: Path) -> None:
    paths = [write_rgb(tmp_path / f"{seed}.tif", (200, 210), seed=seed) for seed in range(2)]
    options = geoseg.ChangeOptions(min_area_m2=2)
    found = geoseg.change_files(
        *paths, tmp_path / "c.tif", model=tiny_model(), report=tmp_path / "r.html", options=options
    )
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "No part of the dates tells a shift" in page.text or "px" in page.text
    assert "changes smaller than 2 m² do not count" in page.text
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["options"]["prior"] == options.prior
    assert (told["shift_px"] is None) == (found.shift is None)


def labelled(folder: Path, change: Path) -> Path:
    """A sample of the map of change, labelled as it says but for one class, which is always wrong."""
    draw_sample(change, folder / "points.gpkg", n=200, least=4)
    points = gpd.read_file(folder / "points.gpkg")
    wrong = points["map_class"] == "building to water"
    points["reference"] = points["map_class"].where(~wrong, "unchanged")
    points.to_file(folder / "points.gpkg")
    return folder / "points.gpkg"


def test_reference_points_give_areas_with_intervals(tmp_path: Path) -> None:
    """In summary, page and figures those of `geoseg area`."""
    paths = maps(tmp_path)
    geoseg.change_files(*paths, tmp_path / "c.tif")
    points = labelled(tmp_path, tmp_path / "c.tif")
    found = geoseg.change_files(*paths, tmp_path / "c.tif", report=tmp_path / "r.html", reference=points)
    alone = estimate_from_points(tmp_path / "c.tif", points)
    assert found.areas is not None
    assert found.areas.report.shares == alone.report.shares
    told = json.loads((tmp_path / "r.json").read_text())["estimated"]
    assert told == json.loads(json.dumps(alone.to_dict()))
    assert told["classes"]["building to water"]["area_ha"]["value"] == 0 < told["overall_accuracy"]["value"] < 1
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    unchanged = alone.areas()[alone.report.classes.index("unchanged")]
    low, high = unchanged.interval()
    assert f"{unchanged.value:,.4f}" in page.cells
    assert f"{low:,.4f} to {high:,.4f}" in page.cells
    assert "Estimated from 200 reference points" in page.text


def test_several_pairs_are_one_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three dates, each compared with the next; polygons know the times; the second run finds all there."""
    paths = [write_raster(tmp_path / f"lc_{2010 + 5 * k}.tif", class_map(k), UTM) for k in range(3)]
    out, report = tmp_path / "out", tmp_path / "r.html"
    given = ["geoseg", "change", *paths, "-o", out, "--polygons", ".gpkg", "--report", report]
    monkeypatch.setattr("sys.argv", list(map(str, given)))
    for state in ("", " (up to date)"):
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0
        said = capsys.readouterr().out.strip().splitlines()
        assert said[-1].endswith(f"lc_2015_to_lc_2020.gpkg, {report}, {report.with_suffix('.json')}{state}")
    figures = json.loads(report.with_suffix(".json").read_text())["pairs"]
    assert [pair["times"] for pair in figures] == [["2010", "2015"], ["2015", "2020"]]
    page = Page(report.read_text(encoding="utf-8"))
    assert page.tags.count("img") == 2
    assert page.links[:2] == ["#pair1", "#pair2"]
    for number, pair in enumerate(figures):
        expected = geoseg.change_files(*paths[number : number + 2], tmp_path / f"{number}.tif")
        assert pair["pixels"] == expected.matrix.pixels.tolist()
    polygons = gpd.read_file(out / "lc_2010_to_lc_2015.gpkg", layer="polygons")
    assert set(polygons.before_time) == {"2010"}
    assert set(polygons.after_time) == {"2015"}
    monkeypatch.setattr("sys.argv", [*map(str, given), "--times", "1,2,3.5", "--overwrite"])
    with pytest.raises(SystemExit):
        main()
    figures = json.loads(report.with_suffix(".json").read_text())["pairs"]
    assert [pair["times"] for pair in figures] == [["1", "2"], ["2", "3.5"]]


def test_polygons_of_scenes_say_how_probable_they_are(tmp_path: Path) -> None:
    """Without a raster of probabilities among the outputs too: each polygon has the mean of its pixels."""
    paths = [write_rgb(tmp_path / f"{seed}.tif", (90, 100), seed=seed) for seed in range(2)]
    options = geoseg.ChangeOptions(prior=0.8)
    given = {"model": tiny_model(), "options": options}
    geoseg.change_files(*paths, tmp_path / "c.tif", polygons=tmp_path / "c.gpkg", **given)
    assert not list(tmp_path.glob("*prob*"))
    found = gpd.read_file(tmp_path / "c.gpkg", layer="polygons")
    assert len(found)
    assert found.probability.between(0.5, 1).all()
    both = {"probability": tmp_path / "p.tif", "polygons": tmp_path / "d.gpkg"}
    geoseg.change_files(*paths, tmp_path / "d.tif", **both, **given)
    other = gpd.read_file(tmp_path / "d.gpkg", layer="polygons")
    assert np.allclose(found.probability, other.probability)


def test_bands_of_the_sankey_are_as_thick_as_their_areas() -> None:
    areas = np.array([[50.0, 3, 0], [1, 70, 2], [0, 0, 9]])
    drawn = sankey(areas, ["a", "b <", "c"], ["#ff0000", "#00ff00", "#0000ff"])
    titles = re.findall(r"<title>(.*?)</title>", drawn)
    thick = [float(width) for width in re.findall(r'stroke-width="([\d.]+)"', drawn)]
    assert titles == ["a to b &lt;: 3.00", "b &lt; to a: 1.00", "b &lt; to c: 2.00"]
    assert np.allclose(np.array(thick) / thick[1], [3, 1, 2], rtol=1e-3)
    assert "Nothing changed" in sankey(np.diag([1.0, 2.0]), ["a", "b"], ["#ff0000", "#00ff00"])


@pytest.mark.parametrize(
    ("name", "said"), [("r.pdf", "does not end in .html"), ("no/r.html", "does not exist; make it")]
)
def test_a_report_that_cannot_be_written_is_refused_first(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(path) for path in maps(tmp_path)]
    monkeypatch.setattr(
        "sys.argv", ["geoseg", "change", *paths, "-o", str(tmp_path / "c.tif"), "--report", str(tmp_path / name)]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "c.tif").exists()
