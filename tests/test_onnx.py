"""Networks of others: an ONNX graph with a card beside it answers as its torch network does, or is refused."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from builders import pixels_of, read_band, small_card, tiny_model, write_rgb
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from geoseg.errors import GeosegError, InputError
from geoseg.inference.plan import RunOptions
from geoseg.models import Architecture, Model, OnnxNetwork, list_models, load_card, load_model, onnx_digest, save_model
from geoseg.models import onnx as module
from geoseg.models.card import ModelCard
from geoseg.models.onnx_graph import OnnxFile
from geoseg.models.receptive import receptive_field, smallest_halo
from geoseg.pipeline import segment_file

ONNX = Architecture(name="onnx")
FLOAT32 = RunOptions(device="cpu", precision="float32", engine="torch")  # which runs the module: ONNX Runtime
OPEN = ("n", 3, "h", "w")
POINT = small_card(output_stride=1, receptive_field_px=0, halo_px=0, chip_px=64)
TINY = ("unet", "deeplabv3plus-local")


def export(network: torch.nn.Module, file: Path, *, size: int | None = None, bands: int = 3) -> Path:
    """By the exporter that needs no further package; `size` fixes the chips."""
    axes = {} if size else {name: {0: "n", 2: "h", 3: "w"} for name in ("chips", "logits")}
    names: dict[str, Any] = {"input_names": ["chips"], "output_names": ["logits"], "dynamic_axes": axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, bands, size or 64, size or 64),), file, dynamo=False, **names)
    return file


def write_card(folder: Path, card: ModelCard, digest: str | None = None) -> Path:
    card = card.model_copy(
        update={"architecture": ONNX, "weights_sha256": digest or onnx_digest(folder / "model.onnx")}
    )
    (folder / "card.json").write_text(card.model_dump_json(exclude_none=True))
    return folder


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny networks as bundles with an ONNX graph."""
    made = {}
    for name in TINY:
        made[name] = tmp_path_factory.mktemp(name)
        export(tiny_model(name).network, made[name] / "model.onnx")
        write_card(made[name], tiny_model(name).card)
    return made


def point_graph(
    takes: tuple[int | str, ...] | None = OPEN,
    gives: tuple[int | str, ...] | None = ("n", 6, "h", "w"),
    *,
    channels: tuple[int, int] = (6, 3),
    types: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
) -> onnx.ModelProto:
    """A convolution of 1 x 1, which sums up bands with weights 0, 1, 2, ..."""
    count = channels[0] * channels[1]
    dtype = helper.tensor_dtype_to_np_dtype(types[0])
    weights = numpy_helper.from_array(np.arange(count, dtype=dtype).reshape(*channels, 1, 1), "weights")
    nodes = [helper.make_node("Conv", ["chips", "weights"], ["logits"])]
    inputs = [helper.make_tensor_value_info("chips", types[0], takes)]
    outputs = [helper.make_tensor_value_info("logits", types[1], gives)]
    return model_of(helper.make_graph(nodes, "point", inputs, outputs, [weights]))


def model_of(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def bundle(folder: Path, model: onnx.ModelProto) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return write_card(folder, POINT, hashlib.sha256(model.SerializeToString()).hexdigest())


def with_external(model: onnx.ModelProto, location: str, **further: str) -> onnx.ModelProto:
    """The graph with its weights moved into a file, which is not written."""
    [weights] = model.graph.initializer
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **further}.items():
        weights.external_data.add(key=key, value=value)
    return model


def external_bundle(folder: Path, **further: str) -> Path:
    model = point_graph()
    raw = model.graph.initializer[0].raw_data
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").write_bytes(bytes(8) + raw)
    return write_card(bundle(folder, with_external(model, "weights.bin", **({"offset": "8"} | further))), POINT)


def answer(network: torch.nn.Module, chips: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = network(chips)
    return logits


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", TINY)
def test_logits_are_those_of_the_torch_network(bundles: dict[str, Path], name: str) -> None:
    chips = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    model = load_model(bundles[name])
    expected = answer(tiny_model(name).network, chips)
    found = answer(model.network, chips)
    assert isinstance(model.network, OnnxNetwork)
    assert (found - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())
    assert torch.equal(found[1:], answer(model.network, chips[1:]))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_scene_gets_the_classes_of_the_torch_network(bundles: dict[str, Path], tmp_path: Path, engine: str) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    scene = write_rgb(tmp_path / "scene.tif", (231, 249))
    segment_file(scene, tmp_path / "torch.tif", model=tiny_model(), run=FLOAT32)
    segment_file(scene, tmp_path / "onnx.tif", model=bundles["unet"], run=replace(FLOAT32, engine=engine))
    by_torch, by_onnx = read_band(tmp_path / "torch.tif"), read_band(tmp_path / "onnx.tif")
    assert len(np.unique(by_torch)) == 6
    assert (by_torch == by_onnx).mean() >= 0.9999


def test_one_and_two_workers_write_the_same_bytes(bundles: dict[str, Path], tmp_path: Path) -> None:
    scene = write_rgb(tmp_path / "scene.tif")
    for workers in (1, 2):
        run = replace(FLOAT32, engine="onnxruntime", workers=workers, chip=tiny_model().card.chip_px - 32, block=64)
        told = segment_file(scene, tmp_path / f"{workers}.tif", model=bundles["unet"], run=run)
        assert sum(told.blocks.values()) > 1
    assert (tmp_path / "1.tif").read_bytes() == (tmp_path / "2.tif").read_bytes()


@pytest.mark.parametrize("name", TINY)
def test_bits_depend_neither_on_place_in_the_chip_nor_on_its_size(bundles: dict[str, Path], name: str) -> None:
    model = load_model(bundles[name])
    halo, stride = model.card.exact_halo_px, model.card.output_stride
    chip = torch.randn(1, 3, 2 * halo + 96, 2 * halo + 96, generator=torch.Generator().manual_seed(2))
    whole = answer(model.network, chip)
    for at, size in ((stride, 40), (3 * stride, 48), (10 * stride, 56)):
        part = answer(model.network, chip[..., at : at + size + 2 * halo, at : at + size + 2 * halo])
        inside = slice(at + halo, at + halo + size)
        assert torch.equal(whole[..., inside, inside], part[..., halo : halo + size, halo : halo + size])


def test_bits_depend_on_no_number_of_threads(bundles: dict[str, Path]) -> None:
    chips = torch.randn(1, 3, 64, 64)
    found = []
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(answer(load_model(bundles["unet"]).network, chips))
    torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_several_threads_may_use_it_at_once(bundles: dict[str, Path]) -> None:
    network = load_model(bundles["unet"]).network
    chips = torch.randn(8, 3, 64, 64)
    one_by_one = [answer(network, chip[None]) for chip in chips]
    fresh = pickle.loads(pickle.dumps(network))
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda chip: answer(fresh, chip[None]), chips))
    assert all(map(torch.equal, one_by_one, at_once))


def test_it_travels_without_its_folder(tmp_path: Path) -> None:
    model = load_model(external_bundle(tmp_path / "m"))
    chips = torch.rand(2, 3, 8, 8)
    expected = answer(model.network, chips)
    sent = pickle.dumps(model)
    shutil.rmtree(tmp_path / "m")
    again = pickle.loads(sent)
    assert torch.equal(answer(again.network, chips), expected)
    assert again.digest == model.digest


def test_a_large_one_travels_as_a_path_that_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = load_model(external_bundle(tmp_path / "m"))
    monkeypatch.setattr(module, "LARGEST_CONTENT", 100)
    model = load_model(tmp_path / "m")
    assert isinstance(model.network, OnnxNetwork)
    assert model.network.content is None
    chips = torch.rand(2, 3, 8, 8)
    sent = pickle.dumps(model.network)
    assert torch.equal(answer(pickle.loads(sent), chips), answer(small.network, chips))
    (tmp_path / "m" / "weights.bin").write_bytes(bytes(80))
    with pytest.raises(GeosegError, match="is not the one that was loaded"):
        answer(pickle.loads(sent), chips)
    (tmp_path / "m" / "model.onnx").unlink()
    with pytest.raises(GeosegError, match="is missing here"):
        answer(pickle.loads(sent), chips)


def test_the_sum_of_the_bands_is_right_and_a_batch_of_one_goes_one_by_one(tmp_path: Path) -> None:
    chips = torch.rand(3, 3, 8, 16)
    weights = torch.arange(18.0).reshape(6, 3)
    expected = torch.einsum("cb,nbhw->nchw", weights, chips)
    for name, shapes in {"open": (OPEN, ("n", 6, "h", "w")), "one": ((1, 3, "h", "w"), (1, 6, "h", "w"))}.items():
        network = load_model(bundle(tmp_path / name, point_graph(*shapes))).network
        torch.testing.assert_close(answer(network, chips), expected, rtol=1e-6, atol=1e-6)


def test_a_graph_may_say_nothing_of_its_sizes(tmp_path: Path) -> None:
    network = load_model(bundle(tmp_path / "m", point_graph(None, None))).network
    assert answer(network, torch.rand(2, 3, 8, 8)).shape == (2, 6, 8, 8)


@pytest.mark.parametrize("side", [7, 9, 15])
def test_logits_of_another_size_than_the_chip_are_an_error(tmp_path: Path, side: int) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 2, stride=2), torch.nn.Upsample(scale_factor=2.0))
    export(network, tmp_path / "model.onnx")
    card = POINT.model_copy(update={"output_stride": 2})
    found = load_model(write_card(tmp_path, card)).network
    torch.testing.assert_close(answer(found, chips := torch.rand(1, 3, 8, 8)), answer(network, chips))
    with pytest.raises(GeosegError, match=f"failed on a chip of {side} x {side} px"):
        answer(found, torch.rand(1, 3, side, side))


def test_a_fixed_size_of_chips_is_the_cards(tmp_path: Path) -> None:
    network = torch.nn.Conv2d(3, 6, 1).eval()
    export(network, tmp_path / "model.onnx", size=64)
    card = POINT
    told = refusal(write_card(tmp_path, card))
    assert "64 x 64 px only" in told
    assert "chip_px 64 and fixed_chip false" in told
    other = card.model_copy(update={"chip_px": 128, "fixed_chip": True})
    assert "chip_px 128 and fixed_chip true" in refusal(write_card(tmp_path, other))
    model = load_model(write_card(tmp_path, card.model_copy(update={"fixed_chip": True})))
    chips = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(answer(model.network, chips), answer(network, chips), rtol=0, atol=1e-5)
    with pytest.raises(GeosegError, match="failed on a chip of 32 x 32 px"):
        answer(model.network, chips[..., :32, :32])
    with pytest.raises(GeosegError, match="one size only"):
        receptive_field(model.network, bands=3, output_stride=1)


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    data = point_graph().SerializeToString()
    (tmp_path / "any.onnx").write_bytes(data)
    assert onnx_digest(tmp_path / "any.onnx") == hashlib.sha256(data).hexdigest()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum")
def test_the_digest_of_external_data_is_that_of_the_sums(tmp_path: Path) -> None:
    folder = external_bundle(tmp_path / "m")
    command = ["sha256sum", "model.onnx", "weights.bin"]
    listing = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
    assert onnx_digest(folder / "model.onnx") == hashlib.sha256(listing).hexdigest()


def test_other_external_data_are_another_model(tmp_path: Path) -> None:
    folder = external_bundle(tmp_path / "m")
    before = load_model(folder).digest
    data = bytearray((folder / "weights.bin").read_bytes())
    data[-2] ^= 1
    (folder / "weights.bin").write_bytes(data)
    assert "not the same model" in refusal(folder)
    assert load_model(write_card(folder, load_card(folder))).digest != before


@pytest.mark.parametrize("largest", [100, 10**6])
def test_a_saved_bundle_is_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    monkeypatch.setattr(module, "LARGEST_CONTENT", largest)
    model = load_model(external_bundle(tmp_path / "m"))
    save_model(model, tmp_path / "copy")
    save_model(model, tmp_path / "copy")
    save_model(load_model(tmp_path / "copy"), tmp_path / "copy")
    again = load_model(tmp_path / "copy")
    assert again.digest == model.digest
    chips = torch.rand(1, 3, 8, 8)
    assert torch.equal(answer(again.network, chips), answer(model.network, chips))
    with pytest.raises(InputError, match="is saved as a folder"):
        save_model(model, tmp_path / "m.safetensors")


def test_the_digest_tells_the_card_too_but_not_the_chip(tmp_path: Path) -> None:
    model = load_model(bundle(tmp_path / "m", point_graph()))
    assert model.digest != Model(model.network, small_card()).digest
    assert model.digest == Model(model.network, model.card.model_copy(update={"fixed_chip": True})).digest


def test_it_is_listed_among_the_users_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(tmp_path / "mine", point_graph())
    monkeypatch.setenv("GEOSEG_MODELS", str(tmp_path))
    assert load_card(list_models()["mine"]).architecture == ONNX
    assert isinstance(load_model("mine").network, OnnxNetwork)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    folder = bundle(tmp_path / "m", point_graph())
    monkeypatch.setitem(sys.modules, package, None)
    told = refusal(folder)
    assert package in told
    assert "geoseg[onnx]" in told


@pytest.mark.parametrize("data", [b"", b"\x08\x08", b"PK\x03\x04" + bytes(50), bytes(100), b"text, not a graph"])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    assert "is no ONNX file" in refusal(write_card(tmp_path, small_card(), "0" * 64))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights_sha256": "0" * 64}, "its card says 000000000000: not the same model"),
        ({"weights_sha256": None}, 'if this is the graph, add "weights_sha256": "{digest}"'),
        ({"architecture": {"name": "onnx", "args": {"a": 1}}}, "takes no arguments; its card gives {{'a': 1}}"),
    ],
)
def test_a_card_of_another_graph_is_refused(tmp_path: Path, change: dict[str, object], told: str) -> None:
    folder = bundle(tmp_path / "m", point_graph())
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | change))
    assert told.format(digest=card["weights_sha256"]) in refusal(folder)


def test_a_graph_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "m", point_graph())
    (folder / "model.onnx").unlink()
    assert "model.onnx is missing" in refusal(folder)


def two_inputs() -> onnx.ModelProto:
    model = point_graph()
    model.graph.input.append(helper.make_tensor_value_info("date", TensorProto.FLOAT, [1]))
    return model


def two_outputs() -> onnx.ModelProto:
    model = point_graph()
    model.graph.node.append(helper.make_node("Relu", ["logits"], ["features"]))
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, None))
    return model


def ends_in(operator: str, kind: int = TensorProto.FLOAT, **attributes: Any) -> onnx.ModelProto:
    model = point_graph(gives=None, types=(TensorProto.FLOAT, kind))
    model.graph.node[0].output[0] = "before"
    inputs = ["before"]
    if operator == "AveragePool":
        attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    model.graph.node.append(helper.make_node(operator, inputs, ["logits"], **attributes))
    return model


def of_domain(domain: str, *, nested: bool = False) -> onnx.ModelProto:
    model = point_graph()
    node = helper.make_node("Gate", ["logits"], ["gated"], domain=domain)
    if nested:
        body = helper.make_graph([node], "body", [], [helper.make_tensor_value_info("gated", TensorProto.FLOAT, None)])
        node = helper.make_node("If", ["yes"], ["z"], then_branch=body, else_branch=body)
    model.graph.node.append(node)
    return model


def own_function(domain: str) -> onnx.ModelProto:
    """The last convolution's logits go through a function that the file itself defines."""
    model = point_graph()
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function(domain, "Gate", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], opset)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid(domain, 1))
    model.graph.node[0].output[0] = "before"
    model.graph.node.append(helper.make_node("Gate", ["before"], ["logits"], domain=domain))
    return model


def unknown_operator() -> onnx.ModelProto:
    model = point_graph()
    model.graph.node[0].op_type = "Konv"
    return model


FLAT = ("n", 3)
REFUSED = {
    "two inputs": (two_inputs(), "2 inputs (chips, date) where 1 is expected"),
    "two outputs": (two_outputs(), "2 outputs (logits, features) where 1 is expected"),
    "bands": (point_graph(("n", 4, "h", "w"), channels=(6, 4)), "takes 4 channels, and its card names 3 bands"),
    "hidden bands": (point_graph(None, channels=(6, 4)), "failed on a chip of 3 bands, 8 x 9 px"),
    "classes": (point_graph(gives=("n", 5, "h", "w"), channels=(5, 3)), "gives 5 channels, and the legend of its card"),
    "hidden classes": (point_graph(gives=None, channels=(5, 3)), "has 6 classes (building, paved, bare, tree"),
    "batch": (point_graph((4, 3, "h", "w")), "takes 4 chips at once only"),
    "size": (point_graph(("n", 3, 64, 64)), "takes chips of 64 x 64 px only"),
    "width": (point_graph(("n", 3, "h", 64)), "takes chips of any x 64 px only"),
    "float16": (point_graph(types=(TensorProto.FLOAT16,) * 2), "'chips' of"),
    "half output": (ends_in("Cast", TensorProto.FLOAT16, to=TensorProto.FLOAT16), "float16, expected float32"),
    "uint8 input": (point_graph(types=(TensorProto.UINT8, TensorProto.FLOAT)), "is uint8, expected float32"),
    "axes": (point_graph(FLAT), "has 2 axes, expected 4: chip, channel, height, width"),
    "hidden axes": (ends_in("Flatten"), "gives float32 of shape (1, 432), expected float32 logits"),
    "smaller": (ends_in("AveragePool"), "gives logits of 4 x 4 px for a chip of 8 x 9 px"),
    "softmax": (ends_in("Softmax", axis=1), "made by Softmax, where logits are expected"),
    "argmax": (ends_in("ArgMax", TensorProto.INT64), "is int64, expected float32"),
    "library": (of_domain("acme"), "the operator Gate of 'acme'"),
    "nested library": (of_domain("acme", nested=True), "the operator Gate of 'acme'"),
    "files by name": (of_domain("com.microsoft"), "the operator Gate of 'com.microsoft'"),
    "function": (own_function("com.microsoft"), "the operator Gate of 'com.microsoft'"),
    "unknown": (unknown_operator(), "ONNX Runtime cannot run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(tmp_path: Path, case: str) -> None:
    model, told = REFUSED[case]
    assert told in refusal(bundle(tmp_path / "m", model))


def test_a_function_of_the_file_itself_is_no_library(tmp_path: Path) -> None:
    network = load_model(bundle(tmp_path / "m", own_function("mine"))).network
    assert answer(network, -torch.rand(1, 3, 8, 8)).abs().max() == 0


@pytest.mark.parametrize(
    "location",
    [
        *("/etc/passwd", "../secret.bin", "sub/../../secret.bin", "link.bin", "linked/secret.bin", "C:\\secret.bin"),
        *("..\\secret.bin", "*/_ORT_MEM_ADDR_/*", "", ".", "a\0b", "https://example.com/w.bin", ".. /secret.bin"),
    ],
)
def test_external_data_elsewhere_are_refused_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    folder, opened = tmp_path / "m", []
    (folder / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    for file in (tmp_path / "secret.bin", folder / "*" / "_ORT_MEM_ADDR_" / "*"):
        file.write_bytes(bytes(72))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "model.onnx").write_bytes(with_external(point_graph(), location).SerializeToString())
    write_card(folder, small_card(), "0" * 64)
    original = Path.open

    def recording(self: Path, *args: Any, **given: Any) -> Any:
        opened.append(self.name)
        return original(self, *args, **given)

    monkeypatch.setattr(Path, "open", recording)
    assert "only files within its own folder are read" in refusal(folder)
    assert set(opened) <= {"card.json", "model.onnx"}


def test_external_data_in_any_corner_of_the_file_are_seen(tmp_path: Path) -> None:
    outside = with_external(point_graph(), "../secret.bin").graph.initializer[0]
    attribute, sparse, function = point_graph(), point_graph(), own_function("mine")
    attribute.graph.node.append(helper.make_node("Constant", [], ["x"], value=outside))
    sparse.graph.sparse_initializer.add().values.CopyFrom(outside)
    function.functions[0].node.append(helper.make_node("Constant", [], ["x"], value=outside))
    twice = with_external(point_graph(), "weights.bin")
    twice.graph.initializer[0].external_data.add(key="location", value="../secret.bin")
    unsaid = with_external(point_graph(), "../secret.bin")
    unsaid.graph.initializer[0].ClearField("data_location")
    for number, model in enumerate((attribute, sparse, function, twice, unsaid)):
        (tmp_path / f"{number}.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(InputError, match="only files within its own folder"):
            OnnxFile.read(tmp_path / f"{number}.onnx")


@settings(max_examples=60, deadline=None)
@given(st.text("./\\:*a ~-é\0", max_size=12))
def test_whatever_its_name_external_data_lie_within(tmp_path_factory: pytest.TempPathFactory, location: str) -> None:
    file = tmp_path_factory.getbasetemp() / "within" / "model.onnx"
    file.parent.mkdir(exist_ok=True)
    (file.parent / "a").write_bytes(bytes(72))
    file.write_bytes(with_external(point_graph(), location).SerializeToString())
    with suppress(InputError):
        assert OnnxFile.read(file).external == ("a",)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = bytearray(point_graph().SerializeToString())
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[at] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "damaged.onnx"
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with suppress(InputError):
        OnnxFile.read(file).check(small_card())


@pytest.mark.parametrize(
    ("further", "told"),
    [
        ({"offset": "9"}, "has 80 bytes"),
        ({"offset": "-1"}, "has 80 bytes"),
        ({"length": "x"}, "has 80 bytes"),
        ({"length": "4"}, "ONNX Runtime cannot run"),
    ],
)
def test_external_data_that_are_too_short_are_refused(tmp_path: Path, further: dict[str, str], told: str) -> None:
    given = {"length": "72"} | further
    assert told in refusal(external_bundle(tmp_path / "m", **given))


def test_external_data_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = external_bundle(tmp_path / "m")
    (folder / "weights.bin").unlink()
    assert "'weights.bin', which is missing" in refusal(folder)


def test_a_file_alone_is_no_bundle(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "m", point_graph())
    with pytest.raises(InputError, match=r"expected a folder with card.json and weights.safetensors or model.onnx"):
        load_model(folder / "model.onnx")


@pytest.mark.parametrize("name", TINY)
def test_the_receptive_field_is_that_of_the_torch_network(tmp_path: Path, name: str) -> None:
    card = tiny_model(name).card
    network = copy.deepcopy(tiny_model(name).network)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 1.5)  # fresh ones have zeros, which close a path for good
    export(network, tmp_path / "model.onnx")
    found = load_model(write_card(tmp_path, card)).network
    assert receptive_field(found, bands=3, output_stride=card.output_stride) == card.receptive_field_px


def test_the_receptive_field_of_known_layers(tmp_path: Path) -> None:
    wide = torch.nn.Conv2d(4, 6, 7, padding=3)
    with torch.no_grad():
        wide.weight.abs_().mul_(-1)  # a ReLU behind would hide it all
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5, padding=2), wide, torch.nn.ReLU())
    export(network, tmp_path / "model.onnx")
    card = small_card(output_stride=1, receptive_field_px=5, halo_px=5)
    assert receptive_field(load_model(write_card(tmp_path, card)).network, bands=3, output_stride=1) == 5
    point = load_model(bundle(tmp_path / "m", point_graph()))
    assert receptive_field(point.network, bands=3, output_stride=8) == 0


class Gated(torch.nn.Module):
    """Each pixel is weighed by the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 6, 1)

    def forward(self, chips: torch.Tensor) -> torch.Tensor:
        features = self.layer(chips)
        return features * features.mean((2, 3), keepdim=True).sigmoid()


def test_a_gate_that_sees_the_whole_chip_is_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    export(Gated(), tmp_path / "model.onnx")
    card = small_card(output_stride=1, receptive_field_px=0, halo_px=0, position_independent=False)
    with pytest.raises(GeosegError, match="no bounded receptive field"):
        receptive_field(load_model(write_card(tmp_path, card)).network, bands=3, output_stride=4, largest=128)


def test_the_smallest_halo_is_that_of_the_torch_network(bundles: dict[str, Path]) -> None:
    torch_model, model = tiny_model(), load_model(bundles["unet"])
    stride, exact = model.card.output_stride, model.card.exact_halo_px
    chip = (pixels_of((2 * exact + 64, 2 * exact + 64)) / 255 - 0.5) / 0.2
    chips = [chip.astype(np.float32)]
    expected = smallest_halo(torch_model.network, chips, output_stride=stride, exact=exact)
    assert smallest_halo(model.network, chips, output_stride=stride, exact=exact) == expected


@pytest.mark.gpu
def test_chips_on_a_cuda_device_give_logits_there(bundles: dict[str, Path]) -> None:
    network = load_model(bundles["unet"]).network
    chips = torch.randn(2, 3, 64, 64)
    found = answer(network, chips.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), answer(network, chips), rtol=0, atol=1e-3)
