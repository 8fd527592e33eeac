"""Bundles in the formats of others: ONNX, OpenVINO and torch.export, each compared with torch before it is there.

What is written loads where geoseg is not. Only ONNX is read again by geoseg; a file of torch.export can run code, so
that none is ever loaded here.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geoseg.errors import GeosegError, InputError
from geoseg.models.architectures import DETECTORS
from geoseg.models.bundle import Model, load_model, save_model
from geoseg.models.card import Architecture, ModelCard
from geoseg.models.deepness import ForDeepness, deepness_keys
from geoseg.models.find import CARD, CARD_KEY, ONNX_FILE
from geoseg.models.formats import Runner, write_onnx, write_openvino, write_torch_export
from geoseg.models.onnx import ONNX, OnnxNetwork
from geoseg.models.onnx_graph import onnx_digest
from geoseg.models.stac import ITEM, network_file, stac_item
from geoseg.raster.disk import check_writable, disk_errors, sync

BUNDLE = "bundle"
CLOSE = 1e-3  # of the largest logit: how far numbers may lie apart
TIE = 1e-4  # of the largest logit: within which two classes may change places
SIDE = 256  # pixels of the core that a network is compared on
Chip = NDArray[np.float32]


def export_model(
    source: str | os.PathLike[str] | Model,
    folder: str | os.PathLike[str],
    *,
    to: str = ONNX,
    chip: Chip | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a bundle in another format into a folder, with a STAC item.

    Args:
        source: name or path of a bundle, or a loaded one.
        folder: made where missing; its parent must exist.
        to: `onnx`, a bundle that geoseg loads too; `deepness`, ONNX for that plugin of QGIS: bytes as shares of 255 in,
            probabilities out, chips of one size; `openvino`; `torch-export`; or `bundle`, as geoseg itself keeps it.
        chip: normalized (band, height, width), to be compared with torch on; by default of an invented scene.
        overwrite: files of the same names may be replaced.

    Returns:
        The file that holds the network.

    Raises:
        InputError: the format is unknown, cannot hold this model, a file is in the way, or the folder cannot be
            written.
        GeosegError: what was exported does not give what torch gives, or could not be written.
    """
    if to not in FORMATS:
        raise InputError(f"Format {to!r} is unknown; known are {', '.join(FORMATS)}.")
    model, folder = load_model(source), Path(folder)
    if to != BUNDLE:
        model.card.check_has_classes()
    if isinstance(model.network, OnnxNetwork) and to != BUNDLE:
        raise InputError(f"{model.card.name} is an ONNX graph already, {model.network.path}; use it as it is.")
    if model.card.architecture.name in DETECTORS and to != BUNDLE:
        raise InputError(f"{model.card.name} sees objects, which {to} has no form for here; use it with geoseg itself.")
    if not folder.parent.is_dir():
        raise InputError(f"The folder {folder.parent} does not exist; create it first (mkdir -p {folder.parent}).")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give the name of a folder.")
    check_writable(folder.parent, "folder")  # what is not finished is made there
    with (
        disk_errors("exporting", folder.parent),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".geoseg-export-") as made,
    ):
        main = FORMATS[to](model, Path(made), chip)
        return _publish(Path(made), folder, main, overwrite)


def _publish(made: Path, folder: Path, main: str, overwrite: bool) -> Path:
    folder.mkdir(exist_ok=True)
    files = sorted(made.iterdir(), key=lambda file: file.name == main)  # the network comes last
    for file in files:
        if (folder / file.name).exists() and not overwrite:
            raise InputError(f"{folder / file.name} exists; choose another folder or pass --overwrite.")
    for file in files:
        sync(file)
        file.replace(folder / file.name)
    sync(folder)
    return folder / main


def _to_bundle(model: Model, folder: Path, chip: Chip | None) -> str:
    save_model(model, folder, half=False)
    return _described(load_model(folder).card, folder)


def _to_onnx(model: Model, folder: Path, chip: Chip | None) -> str:
    card = model.card.model_copy(update={"architecture": Architecture(name=ONNX), "weights_sha256": None})
    run = write_onnx(model.network, model.card, folder / ONNX_FILE, _metadata(model.card))
    _compare(model.network, run, _chip(card, chip), model.card.name)
    card = card.model_copy(update={"weights_sha256": onnx_digest(folder / ONNX_FILE)})
    (folder / CARD).write_text(_text(card), encoding="utf-8")
    return _described(card, folder)


def _to_deepness(model: Model, folder: Path, chip: Chip | None) -> str:
    network = ForDeepness(model).eval()
    card = model.card.model_copy(update={"fixed_chip": True})
    file = f"{card.name}.onnx"
    run = write_onnx(network, card, folder / file, _metadata(card))
    shares = _chip(card, chip) * network.std.numpy() + network.mean.numpy()
    _compare(network, run, shares.astype(np.float32), card.name)
    return file


def _to_openvino(model: Model, folder: Path, chip: Chip | None) -> str:
    with tempfile.TemporaryDirectory() as made:
        graph = Path(made) / ONNX_FILE
        write_onnx(model.network, model.card, graph, {})
        run = write_openvino(graph, folder / "model.xml", _metadata(model.card))
    _compare(model.network, run, _chip(model.card, chip), model.card.name)
    return _described(model.card, folder, "model.xml")


def _to_torch_export(model: Model, folder: Path, chip: Chip | None) -> str:
    run = write_torch_export(model.network, model.card, folder / "model.pt2", {CARD: _text(model.card)})
    _compare(model.network, run, _chip(model.card, chip), model.card.name)
    return _described(model.card, folder, "model.pt2")


FORMATS: dict[str, Callable[[Model, Path, Chip | None], str]] = {
    ONNX: _to_onnx,
    "deepness": _to_deepness,
    "openvino": _to_openvino,
    "torch-export": _to_torch_export,
    BUNDLE: _to_bundle,
}


def _described(card: ModelCard, folder: Path, file: str | None = None) -> str:
    """Write the STAC item, and return the name of the file that holds the network."""
    (folder / ITEM).write_text(json.dumps(stac_item(card, file), indent=1) + "\n", encoding="utf-8")
    return file or network_file(card)


def _metadata(card: ModelCard) -> dict[str, str]:
    return {CARD_KEY: _text(card)} | deepness_keys(card)


def _text(card: ModelCard) -> str:
    return card.model_dump_json(indent=1, exclude_none=True) + "\n"


def _compare(network: nn.Module, run: Runner, chip: Chip, name: str) -> None:
    with torch.inference_mode():
        expected = network(torch.from_numpy(chip)[None])[0].numpy()
    found = run(chip[None])[0]
    largest = float(np.abs(expected).max())
    apart = float(np.abs(found - expected).max())
    second, first = np.sort(expected, axis=0)[-2:] if len(expected) > 1 else (expected[0] - largest, expected[0])
    other = (found.argmax(0) != expected.argmax(0)) & (first - second > TIE * largest)
    if not apart <= CLOSE * largest or other.any():
        raise GeosegError(
            f"{name} exported is not {name}: on a chip of {chip.shape[1]} x {chip.shape[2]} px, logits of "
            f"{largest:.3g} differ by {apart:.3g}, and {int(other.sum())} pixels change class. Nothing was written."
        )


def _chip(card: ModelCard, given: Chip | None) -> Chip:
    """The chip to compare on: all bands of an invented scene, each with mean 0 and standard deviation 1."""
    if given is not None:
        _check_chip(card, given)
        return given
    from geoseg.synthetic.scene import BANDS, SyntheticScene

    stride = card.output_stride
    side = min(card.chip_px, 2 * card.halo_px + -(-SIDE // stride) * stride)
    shape = (card.chip_px, card.chip_px) if card.fixed_chip else (side, side + stride)
    pixels, _ = SyntheticScene(shape, seed=1, gsd_m=min(max(card.gsd_m, 0.05), 5.0)).read()
    seen = np.stack([pixels[BANDS.index(band.name) if band.name in BANDS else -1] for band in card.bands])
    mean, std = seen.mean((1, 2), keepdims=True), seen.std((1, 2), keepdims=True).clip(min=1)
    normalized: Chip = ((seen - mean) / std).astype(np.float32)
    return normalized


def _check_chip(card: ModelCard, chip: Chip) -> None:
    stride = card.output_stride
    size = [card.chip_px] * 2 if card.fixed_chip else [side - side % stride for side in chip.shape[1:]]
    if chip.dtype != np.float32 or chip.ndim != 3 or len(chip) != len(card.bands) or list(chip.shape[1:]) != size:
        wanted = f"of {card.chip_px} px" if card.fixed_chip else f"whose sides are multiples of {stride} px"
        raise InputError(
            f"A chip of {chip.dtype} {chip.shape} was given to compare on; expected float32, {len(card.bands)} bands, "
            f"and a chip {wanted}."
        )
