"""What is exported gives what torch gives, and says what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
import rasterio
import torch
import typer
from builders import small_card, tiny_model
from numpy.typing import NDArray
from pystac.validation.local_validator import LocalValidator
from stac_model.schema import MLModelProperties
from test_architectures import LEAST, least
from typer.testing import CliRunner

from geoseg.cli.export import Format, export
from geoseg.errors import GeosegError, InputError
from geoseg.inference.fit import normalization_for
from geoseg.models import (
    Architecture,
    CardBand,
    Model,
    ModelCard,
    export_model,
    list_models,
    load_card,
    load_model,
    stac_item,
)
from geoseg.models.ensemble import ensemble
from geoseg.models.export import FORMATS
from geoseg.models.receptive import is_position_independent

CHIPS = NDArray[np.float32]


def made(name: str, **changes: Any) -> Model:
    network = least(name, bands=2, classes=3)
    card = small_card(
        name=name,
        architecture=Architecture(name=name, args=LEAST[name]),
        bands=(CardBand(name="red", mean=0.4, std=0.2), CardBand(name="nir", mean=0.3, std=0.1)),
        legend=small_card().legend.model_copy(update={"classes": small_card().legend.classes[:3]}),
        output_stride=network.output_stride,
        position_independent=network.position_independent,
        **({"halo_px": 32, "chip_px": 128} | changes),
    )
    return Model(network, card)


def answer(model: Model, chips: CHIPS) -> CHIPS:
    with torch.inference_mode():
        logits: CHIPS = model.network(torch.from_numpy(chips)).numpy()
    return logits


def is_alike(found: CHIPS, expected: CHIPS) -> bool:
    """Whether logits (chip, class, height, width) differ by little against what tells pixels of a class apart."""
    return bool(abs(found - expected).max() <= 1e-3 * expected.std((0, 2, 3)).min())


def onnx_runner(file: Path) -> Callable[[CHIPS], CHIPS]:
    session = onnxruntime.InferenceSession(file)
    return lambda chips: session.run(None, {session.get_inputs()[0].name: chips})[0]


def openvino_runner(file: Path) -> Callable[[CHIPS], CHIPS]:
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda chips: compiled(chips)[0]


def chips_of(model: Model, count: int = 2, rows: int = 3, cols: int = 5) -> CHIPS:
    stride = model.card.output_stride
    shape = (count, len(model.card.bands), rows * stride, cols * stride)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", LEAST)
def test_every_architecture_has_a_form_in_onnx(tmp_path: Path, name: str) -> None:
    model = made(name)
    file = export_model(model, tmp_path / "m")
    chips = chips_of(model)
    assert is_alike(onnx_runner(file)(chips), answer(model, chips))
    again = load_model(tmp_path / "m")
    assert again.card.architecture.name == "onnx"
    assert is_alike(answer(again, chips), answer(model, chips))


@pytest.mark.parametrize("name", ["unet", "upernet"])
def test_a_graph_tells_whether_position_matters(tmp_path: Path, name: str) -> None:
    export_model(made(name), tmp_path / "m")
    model = load_model(tmp_path / "m")
    stride = model.card.output_stride
    found = is_position_independent(model.network, bands=2, output_stride=stride, largest=128)
    assert found is model.card.position_independent is (name == "unet")


@pytest.mark.parametrize("name", LEAST)
def test_openvino_gives_the_same(tmp_path: Path, name: str) -> None:
    model = made(name)
    file = export_model(model, tmp_path / "m", to="openvino")
    chips = chips_of(model)
    assert is_alike(openvino_runner(file)(chips), answer(model, chips))
    told = openvino.Core().read_model(file).get_rt_info(["model_info", "geoseg_card"]).astype(str)
    assert ModelCard.model_validate_json(told) == model.card


@pytest.mark.parametrize("name", ["transunet", "upernet"])  # whose own layers ask for the size of the chip
def test_torch_export_gives_the_same(tmp_path: Path, name: str) -> None:
    model = made(name)
    file = export_model(model, tmp_path / "m", to="torch-export")
    extra = {"card.json": ""}
    program = torch.export.load(file, extra_files=extra)  # made here; of strangers none is loaded
    chips = chips_of(model, count=1)
    with torch.inference_mode():
        assert is_alike(program.module()(torch.from_numpy(chips)).numpy(), answer(model, chips))
    assert ModelCard.model_validate_json(extra["card.json"]) == model.card


def test_the_metadata_of_onnx_say_what_the_card_says(tmp_path: Path) -> None:
    model = made("unet")
    session = onnxruntime.InferenceSession(export_model(model, tmp_path / "m"))
    told = session.get_modelmeta().custom_metadata_map
    assert ModelCard.model_validate_json(told["geoseg_card"]) == model.card
    assert json.loads(told["model_type"]) == "Segmentor"
    assert json.loads(told["class_names"]) == {"0": "building", "1": "paved", "2": "bare"}
    assert json.loads(told["resolution"]) == 50  # centimetres
    assert json.loads(told["tile_size"]) == 128
    assert json.loads(told["tiles_overlap"]) == 50  # two halos of 32 px, in percent


def test_deepness_gives_bytes_and_gets_probabilities(tmp_path: Path) -> None:
    model = made("unet", temperature=2.0)
    session = onnxruntime.InferenceSession(export_model(model, tmp_path / "m", to="deepness"))
    shape = session.get_inputs()[0].shape
    assert shape[1:] == [2, 128, 128]
    assert session.get_outputs()[0].shape[1:] == [3, 128, 128]
    pixels = np.random.default_rng(0).integers(0, 256, (1, 2, 128, 128)).astype(np.uint8)
    [found] = session.run(None, {"chips": np.float32(pixels * 1.0 / 255)})
    mean, std = (np.array([getattr(b, what) for b in model.card.bands])[:, None, None] for what in ("mean", "std"))
    logits = answer(model, ((pixels * model.card.scales["uint8"] - mean) / std).astype(np.float32))
    assert np.allclose(found, torch.from_numpy(logits / 2).softmax(1), atol=1e-5)


def test_deepness_has_no_16_bit_pixels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Deepness gives 8-bit pixels, and unet takes uint16"):
        export_model(made("unet", scales={"uint16": 1e-4}), tmp_path / "m", to="deepness")
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_chip_stays_fixed(tmp_path: Path) -> None:
    model = made("unet", fixed_chip=True)
    session = onnxruntime.InferenceSession(export_model(model, tmp_path / "m"))
    assert session.get_inputs()[0].shape[1:] == [2, 128, 128]
    assert load_model(tmp_path / "m").card.fixed_chip


@pytest.mark.parametrize("name", ["spectral-index", "ensemble"])
def test_rules_and_ensembles_can_be_exported(tmp_path: Path, name: str) -> None:
    model = load_model(name) if name in list_models() else ensemble(made("unet"), views=4)
    file = export_model(model, tmp_path / "m")
    chips = chips_of(model, rows=32, cols=32)
    assert np.allclose(onnx_runner(file)(chips), answer(model, chips), atol=1e-4)


class Random(torch.nn.Module):
    """What cannot be exported: each time another answer."""

    def forward(self, chips: torch.Tensor) -> torch.Tensor:
        return torch.rand_like(chips)[:, :1].expand(-1, 6, -1, -1) * torch.arange(6)[:, None, None]


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch-export"])
def test_what_differs_from_torch_is_not_written(tmp_path: Path, to: str) -> None:
    with pytest.raises(GeosegError, match=r"small exported is not small: .* Nothing was written"):
        export_model(Model(Random(), small_card()), tmp_path / "m", to=to)
    assert list(tmp_path.iterdir()) == []


def test_a_chip_of_ones_own_is_compared_on(tmp_path: Path) -> None:
    model = made("unet")
    export_model(model, tmp_path / "m", chip=chips_of(model)[0])
    for wrong in (chips_of(model)[0, :1], chips_of(model)[0, :, 1:], chips_of(model)[0].astype(np.float64)):
        with pytest.raises(InputError, match="expected float32, 2 bands, and a chip whose sides are multiples of 4 px"):
            export_model(model, tmp_path / "other", chip=wrong)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_on_real_imagery_the_classes_are_the_same(tmp_path: Path, shared_data: Path, to: str) -> None:
    model = load_model("landcover-rgb")
    chip = real_chip(shared_data / "california" / "chico_005_2020.tif", model.card)
    file = export_model(model, tmp_path / "m", to=to, chip=chip)
    found = (onnx_runner if to == "onnx" else openvino_runner)(file)(chip[None]).argmax(1)
    assert (found != answer(model, chip[None]).argmax(1)).mean() <= 1e-5


def real_chip(path: Path, card: ModelCard) -> CHIPS:
    with rasterio.open(path) as file:
        pixels = file.read([1, 2, 3], window=((64, 64 + 320), (64, 64 + 336)))
    normalization = normalization_for(card, [band.name for band in card.bands], str(pixels.dtype))
    return normalization(pixels, np.ones(pixels.shape[1:], np.bool_))


def test_what_cannot_be_is_told(tmp_path: Path) -> None:
    model = made("unet")
    export_model(model, tmp_path / "m")
    with pytest.raises(InputError, match=r"m/(card.json|item.json) exists; choose another folder or pass --overwrite"):
        export_model(model, tmp_path / "m")
    export_model(model, tmp_path / "m", overwrite=True)
    with pytest.raises(InputError, match="'tflite' is unknown; known are onnx, deepness, openvino, torch-export"):
        export_model(model, tmp_path / "m", to="tflite")
    with pytest.raises(InputError, match="unet is an ONNX graph already"):
        export_model(tmp_path / "m", tmp_path / "again")
    with pytest.raises(InputError, match="does not exist; create it first"):
        export_model(model, tmp_path / "no" / "m")


def test_the_command_writes_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(export)
    done = CliRunner().invoke(app, ["spectral-index", "--to", "onnx"])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(Path("spectral-index-onnx") / "model.onnx")
    assert {each.value for each in Format} == set(FORMATS)


@pytest.mark.parametrize("name", [*list_models()])
def test_every_bundle_that_ships_has_a_stac_item(name: str) -> None:
    check_item(stac_item(load_card(list_models()[name])))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jsonschema, which pystac uses
@pytest.mark.parametrize("name", [*list_models()])
def test_the_schema_of_stac_and_the_models_of_mlm_take_it(name: str) -> None:
    item = stac_item(load_card(list_models()[name]))
    assert [error.message for error in LocalValidator().item_validator().iter_errors(item)] == []
    told = MLModelProperties.model_validate(item["properties"])  # by the authors of the extension
    assert [each.name for each in told.input + told.output] == ["chips", "logits"]


@pytest.mark.parametrize(("to", "kind"), [("onnx", "onnx.save"), ("bundle", "safetensors.torch.save_file")])
def test_what_is_exported_has_a_stac_item(tmp_path: Path, to: str, kind: str) -> None:
    file = export_model(tiny_model(), tmp_path / "m", to=to)
    item = json.loads((tmp_path / "m" / "item.json").read_text())
    check_item(item)
    assert item["assets"]["model"]["mlm:artifact_type"] == kind
    assert tmp_path / "m" / item["assets"]["model"]["href"] == file
    assert load_model(tmp_path / "m").card.name == "tiny"


def test_a_stac_item_repeats_the_card() -> None:
    card = made("unet").card
    told = stac_item(card)["properties"]
    [chips], [logits] = told["mlm:input"], told["mlm:output"]
    assert chips["bands"] == [band["name"] for band in told["bands"]] == ["red", "nir"]
    assert chips["input"]["shape"] == [-1, 2, -1, -1]
    assert chips["value_scaling"][0] == {"type": "z-score", "mean": pytest.approx(102), "stddev": pytest.approx(51)}
    assert logits["result"]["shape"] == [-1, 3, -1, -1]
    assert [each["name"] for each in logits["classification:classes"]] == list(card.legend.names)
    assert told["mlm:hyperparameters"] == LEAST["unet"]
    assert told["gsd"] == card.gsd_m
    assert stac_item(card.model_copy(update={"name": "7-"}))["properties"]["mlm:name"] == "geoseg 7"


ALLOWED = ["name", "architecture", "tasks", "framework", "input", "output", "hyperparameters"]


def check_item(item: dict[str, Any]) -> None:
    """What STAC 1.1 and the schema of MLM 1.5 ask of an item such as ours, in our own words."""
    assert {"type", "stac_version", "id", "geometry", "properties", "links", "assets", "stac_extensions"} == set(item)
    assert (item["type"], item["stac_version"], item["geometry"]) == ("Feature", "1.1.0", None)  # so without a bbox
    assert "https://stac-extensions.github.io/mlm/v1.5.0/schema.json" in item["stac_extensions"]
    told = item["properties"]
    assert told["datetime"] is None
    assert told["start_datetime"] < told["end_datetime"]
    assert {key for key in told if key.startswith("mlm:")} <= {f"mlm:{name}" for name in ALLOWED}
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", told["mlm:name"])
    is_promptable = told["mlm:architecture"] == "promptable"
    assert told["mlm:tasks"] == ["instance-segmentation" if is_promptable else "semantic-segmentation"]
    for each, inside, axis in ((told["mlm:input"][0], "input", "bands"), (told["mlm:output"][0], "result", "class")):
        assert each["name"]
        assert each[inside]["dim_order"] == ["batch", axis, "height", "width"]
        assert each[inside]["data_type"] == "float32"
        assert len(each[inside]["shape"]) == 4
        assert min(each[inside]["shape"]) >= -1
    assert len(told["mlm:input"][0]["value_scaling"]) == len(told["bands"]) == len(told["mlm:input"][0]["bands"])
    for each in told["mlm:output"][0]["classification:classes"]:
        assert re.fullmatch(r"[0-9A-Za-z_-]+", each["name"])
        assert re.fullmatch(r"[0-9A-F]{6}", each["color_hint"])
        assert isinstance(each["value"], int)
    assert told.get("mlm:hyperparameters") != {}
    [asset] = item["assets"].values()
    assert asset["roles"] == ["mlm:model"]
    assert asset["bands"] == told["bands"]  # STAC lets bands be told above only where an asset has them
    assert asset["mlm:artifact_type"]
    assert json.loads(json.dumps(item, allow_nan=False)) == item
