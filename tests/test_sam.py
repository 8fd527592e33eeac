"""Segment Anything: the classes of transformers, small and with random weights, through geoseg's own loading."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import torch
from affine import Affine
from builders import write_rgb
from safetensors.torch import load_file, save_file

import geoseg
from geoseg.errors import InputError
from geoseg.prompts.networks import ChipPrompts
from geoseg.prompts.sam import SamNetwork

transformers = pytest.importorskip("transformers")
from sam_folders import FAMILIES, save_sam3  # noqa: E402  (needs transformers)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
CLASSES = {"sam": "SamModel", "sam2": "Sam2Model"} | dict.fromkeys(("sam3_tracker", "sam3_video"), "Sam3TrackerModel")
TURNED = Affine.translation(500_000, 5_000_000) @ Affine.rotation(20) @ Affine.scale(0.5, -0.5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders by family, each saved once."""
    root = tmp_path_factory.mktemp("sam")

    def folder(name: str) -> Path:
        save = {**FAMILIES, "sam3": save_sam3}[name]
        return root / name if (root / name / "config.json").exists() else save(root / name)

    return folder


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for embeddings, which are kept as float16."""
    spread = expected.std()
    assert spread > 1e-3
    assert np.abs(found - expected).max() < 0.03 * spread


def prompts_of(side: int) -> ChipPrompts:
    """A point, two points and a box, a box."""
    points = np.float32([[[10, 20], [0, 0]], [[30, 12], [5, 6]], [[0, 0], [0, 0]]])
    boxes = np.float32([[np.nan] * 4, [3, 4, 30, 40], [1, 2, side - 9, side - 3]])
    return ChipPrompts(points, np.array([[1, -1], [1, 0], [-1, -1]]), boxes)


@pytest.mark.parametrize("name", [*FAMILIES])
def test_answers_are_those_of_transformers(folders: Callable[[str], Path], name: str) -> None:
    network = SamNetwork(folders(name))
    side = network.card.chip_px
    chip = np.random.default_rng(0).normal(0, 1, (3, side, side)).astype(np.float32)
    found = network.decode(network.embed(chip), prompts_of(side))
    assert found.logits.shape[:2] == found.scores.shape == (3, 3)
    model = getattr(transformers, CLASSES[name]).from_pretrained(folders(name)).eval()
    given = [
        {"input_points": [[[[19.5, 9.5]]]], "input_labels": [[[1]]]},
        {
            "input_points": [[[[11.5, 29.5], [5.5, 4.5]]]],
            "input_labels": [[[1, 0]]],
            "input_boxes": [[[3.5, 2.5, 39.5, 29.5]]],
        },
        {"input_boxes": [[[1.5, 0.5, side - 3.5, side - 9.5]]]},
    ]
    for i, one in enumerate(given):
        with torch.inference_mode():
            answer = model(
                pixel_values=torch.from_numpy(chip)[None],
                multimask_output=True,
                **{key: torch.tensor(value) for key, value in one.items()},
            )
        assert_close(found.logits[i], answer.pred_masks[0, 0].numpy())
        assert np.allclose(found.scores[i], answer.iou_scores[0, 0], atol=5e-3)


@pytest.mark.parametrize("name", [*FAMILIES])
def test_an_earlier_mask_counts_for_its_own_prompt(folders: Callable[[str], Path], name: str) -> None:
    network = SamNetwork(folders(name))
    side = network.card.chip_px
    embedded = network.embed(np.zeros((3, side, side), np.float32))
    first = network.decode(embedded, prompts_of(side))
    earlier = np.full_like(first.logits[:, 0], 20)
    earlier[1:] = 0
    second = network.decode(embedded, prompts_of(side)._replace(earlier=earlier))
    other = network.decode(embedded, prompts_of(side)._replace(earlier=earlier[[1, 1, 1]]))
    assert np.abs(second.logits[0] - other.logits[0]).max() > 0.05 * other.logits[0].std()
    assert np.allclose(second.logits[1:], other.logits[1:], atol=1e-5)


@pytest.mark.parametrize("name", [*FAMILIES])
def test_a_point_on_a_turned_scene_reaches_the_network_where_it_lies(
    folders: Callable[[str], Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))
    scene = write_rgb(tmp_path / "s.tif", (90, 100), transform=TURNED, crs="EPSG:32631")
    segmenter = geoseg.prompt(scene, folders(name))
    x, y = TURNED @ (70.25, 60.75)
    answer = segmenter.point(*pyproj.Transformer.from_crs(32631, 4326, always_xy=True).transform(x, y))
    at, side = answer.reply.at, segmenter.follower.network.card.chip_px
    window, zoom = segmenter.follower.lattice.window(at), segmenter.follower.lattice.zoom(at.level)
    chip = np.zeros((3, side, side))
    mean, std = np.array([(band.mean, band.std) for band in segmenter.follower.network.card.bands]).T
    with rasterio.open(scene) as file:
        pixels = file.read()
    for row, col in np.ndindex(side, side):
        part = pixels[:, window.row + row * zoom :, window.col + col * zoom :][:, :zoom, :zoom]
        if part.size:
            chip[:, row, col] = (part.mean((1, 2)).round() / 255 - mean) / std
    model = getattr(transformers, CLASSES[name]).from_pretrained(folders(name)).eval()
    place = [(70.25 - window.col) / zoom - 0.5, (60.75 - window.row) / zoom - 0.5]
    with torch.inference_mode():
        expected = model(
            pixel_values=torch.from_numpy(chip).float()[None],
            input_points=torch.tensor([[[place]]]),
            input_labels=torch.tensor([[[1]]]),
        ).pred_masks[0, 0]
    assert_close(answer.reply.logits, expected.numpy())
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == at.level + 1


@pytest.mark.parametrize(("name", "has_prompts"), [("sam3", False), ("sam3_video", True)])
def test_words_are_read_by_sam_3(
    folders: Callable[[str], Path], name: str, has_prompts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = SamNetwork(folders(name))
    assert (network.has_prompts, network.has_text) == (has_prompts, True)
    chip = np.random.default_rng(0).normal(0, 1, (3, 56, 56)).astype(np.float32)
    assert network.find(network.embed(chip), "swimming pool").logits.shape[1:] == (1, 16, 16)
    monkeypatch.setattr("geoseg.prompts.sam.LEAST_SCORE", 0.0)
    found = network.find(network.embed(chip), "swimming pool")
    assert found.logits.shape == (6, 1, 16, 16)
    model = transformers.Sam3Model.from_pretrained(folders(name)).eval()
    words = transformers.AutoTokenizer.from_pretrained(folders(name))(
        "swimming pool", return_tensors="pt", padding="max_length", max_length=8, truncation=True
    )
    with torch.inference_mode():
        answer = model(
            pixel_values=torch.from_numpy(chip)[None], input_ids=words.input_ids, attention_mask=words.attention_mask
        )
    assert_close(found.logits[:, 0], answer.pred_masks[0].numpy())
    table = geoseg.prompt(write_rgb(tmp_path / "s.tif", (70, 60)), folders(name)).text("swimming pool")
    assert {"id", "score", "area_m2", "whole"} <= set(table.columns)


def test_each_takes_what_it_can(folders: Callable[[str], Path], tmp_path: Path) -> None:
    scene = write_rgb(tmp_path / "s.tif", (70, 60))
    with pytest.raises(InputError, match="takes points and boxes, but no text"):
        geoseg.prompt(scene, folders("sam2")).text("pool")
    with pytest.raises(InputError, match="takes text, but no points"):
        geoseg.prompt(scene, folders("sam3")).point(500_010, 4_999_990, crs=None)


@pytest.mark.parametrize("name", [*FAMILIES, "sam3"])
def test_without_a_preprocessor_the_statistics_are_those_of_transformers(
    folders: Callable[[str], Path], name: str
) -> None:
    own = {"sam": "SamImageProcessor", "sam2": "Sam2ImageProcessor"}.get(name, "Sam3ImageProcessor")
    processor = getattr(transformers, own)()
    bands = SamNetwork(folders(name)).card.bands
    assert [band.mean for band in bands] == list(processor.image_mean)
    assert [band.std for band in bands] == list(processor.image_std)


def test_the_statistics_of_its_own_preprocessor_count(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders("sam"), tmp_path / "own")
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 4]})
    )
    own = SamNetwork(folder)
    assert [(band.mean, band.std) for band in own.card.bands] == [(0.1, 1), (0.2, 2), (0.3, 4)]
    assert own.digest != SamNetwork(folders("sam")).digest


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("{", "no configuration of a preprocessor"),
        ("[]", "no configuration of a preprocessor"),
        ('{"image_processor": 3}', "no configuration of a preprocessor"),
        ('{"image_mean": [0.5, 0.5]}', "image_mean of .* three numbers are expected"),
        ('{"image_mean": 0.5}', "image_mean of .* is 0.5; three numbers"),
        ('{"image_mean": [0.5, 0.5, NaN]}', "image_mean of .*nan"),
        ('{"image_std": [0.2, 0.2, 0]}', "three numbers above 0"),
    ],
)
def test_preprocessors_that_state_no_statistics(
    folders: Callable[[str], Path], tmp_path: Path, written: str, told: str
) -> None:
    folder = shutil.copytree(folders("sam"), tmp_path / "own")
    (folder / "preprocessor_config.json").write_text(written)
    with pytest.raises(InputError, match=told):
        SamNetwork(folder)


def test_code_in_a_folder_is_not_run(
    folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers asks whether to run it
    folder, ran = shutil.copytree(folders("sam3"), tmp_path / "own"), tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nfrom transformers import Sam3Config, Sam3Model\n")
    named = {"AutoConfig": "own.Sam3Config", "AutoModel": "own.Sam3Model", "AutoTokenizer": ["own.Words", "own.Words"]}
    config, words = (json.loads((folder / name).read_bytes()) for name in ("config.json", "tokenizer_config.json"))
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": named}))
    (folder / "tokenizer_config.json").write_text(json.dumps(words | {"auto_map": named}))
    assert SamNetwork(folder).has_text
    assert not ran.exists()
    backbone = config["vision_config"]["backbone_config"]
    backbone |= {"model_type": "sam3_mask_decoder", "auto_map": {"AutoModel": f"{folder}--own.Sam3Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="code of a folder is not run"):
        SamNetwork(folder)
    assert not ran.exists()


def test_a_folder_does_not_say_which_attention_is_fetched(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders("sam"), tmp_path / "own")
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": "someone/kernel"}))
    assert SamNetwork(folder).has_prompts


def test_folders_that_cannot_be_loaded(folders: Callable[[str], Path], tmp_path: Path) -> None:
    def changed(name: str, change: Callable[[Path], object]) -> Path:
        folder = shutil.copytree(folders("sam"), tmp_path / name)
        change(folder)
        return folder

    def lacking(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights.pop("mask_decoder.iou_token.weight")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def pickled(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    other, typeless = json.dumps({"model_type": "bert"}), json.dumps({"model_type": ["sam"]})
    shapeless = json.dumps({"model_type": "sam", "vision_config": 3})
    for name, change, told in (
        ("lacking", lacking, "lacks 1 weights of SamModel, as 'mask_decoder.iou_token.weight'"),
        ("pickled", pickled, "pickled checkpoints are not read"),
        ("other", lambda folder: (folder / "config.json").write_text(other), "type 'bert'"),
        ("typeless", lambda folder: (folder / "config.json").write_text(typeless), "type .'sam'."),
        ("shapeless", lambda folder: (folder / "config.json").write_text(shapeless), "cannot be loaded.*vision_config"),
        ("broken", lambda folder: (folder / "config.json").write_text("{"), "no configuration"),
        ("damaged", lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "cannot be loaded"),
    ):
        with pytest.raises(InputError, match=told):
            SamNetwork(changed(name, change))
    wordless = shutil.copytree(folders("sam3"), tmp_path / "wordless")
    for file in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (wordless / file).unlink()
    with pytest.raises(InputError, match="tokenizer"):
        SamNetwork(wordless)
    for name, file, content in (
        ("merges", "merges.txt", "#version: 0.2\nqq zz\n"),
        ("vocab", "vocab.json", "[1, 2]"),
        ("words", "tokenizer_config.json", "[]"),
    ):
        damaged = shutil.copytree(folders("sam3"), tmp_path / name)
        (damaged / file).write_text(content)
        with pytest.raises(InputError, match=r"no tokenizer that can be loaded, .*: .+ Put the tokenizer's files"):
            SamNetwork(damaged)
