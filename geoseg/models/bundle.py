"""A model bundle: a folder with `card.json` and `weights.safetensors`, or one safetensors file that holds its card.

Models of others come as a folder with `card.json` and `model.onnx`; `onnx_digest` says how to make one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from geoseg.errors import InputError
from geoseg.models.architectures import build_network
from geoseg.models.card import ModelCard
from geoseg.models.find import CARD, CARD_KEY, WEIGHTS, find_model, load_card
from geoseg.models.onnx import ONNX, OnnxNetwork, load_onnx, save_onnx

PROSE = {"description", "calibration", "scores", "limitations", "training_data", "fixed_chip"}  # the chip is the run's


@dataclass(frozen=True)
class Model:
    """A network and its card.

    Attributes:
        network: torch module in evaluation mode: chips (chip, band, height, width) to logits (chip, class, ...).
        card: what it was made from and for.
    """

    network: nn.Module
    card: ModelCard

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what decides the answer: the card without prose and scores, and the weights."""
        told = self.card.model_dump(mode="json", exclude=PROSE, exclude_none=True)
        is_onnx = isinstance(self.network, OnnxNetwork)
        told["weights_sha256"] = self.network.digest if is_onnx else weights_digest(self.network.state_dict())
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def load_model(source: str | os.PathLike[str] | Model) -> Model:
    """Load a bundle that ships, one of the user's folder, or one at a path.

    Args:
        source: a name that `list_models` knows, a folder, a `.safetensors` file, or a loaded model.

    Raises:
        InputError: there is no such model, its card is not valid, or its weights do not fit the card.
    """
    if isinstance(source, Model):
        return source
    return _load_path(find_model(source))


def save_model(model: Model, path: str | os.PathLike[str], *, half: bool = True) -> None:
    """Write a bundle: a folder, or one file where the path ends in `.safetensors`.

    Args:
        model: what to write.
        path: where; a folder is made.
        half: store weights as float16; an ONNX graph is copied as it is.

    Raises:
        InputError: an ONNX graph is to be one safetensors file.
    """
    path = Path(path)
    if isinstance(model.network, OnnxNetwork):
        _save_onnx(model.network, model.card, path)
        return
    state = {
        k: _stored(v, half) for k, v in model.network.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    card = model.card.model_copy(update={"weights_sha256": weights_digest(state) if state else None})
    text = _text(card)
    if path.suffix == ".safetensors":
        path.write_bytes(save(state, metadata={CARD_KEY: text}))
        return
    path.mkdir(parents=True, exist_ok=True)
    if state:
        (path / WEIGHTS).write_bytes(save(state))
    (path / CARD).write_text(text, encoding="utf-8")


def _save_onnx(network: OnnxNetwork, card: ModelCard, path: Path) -> None:
    if path.suffix == ".safetensors":
        raise InputError(f"An ONNX model is saved as a folder; {path} names a file. Leave .safetensors out.")
    path.mkdir(parents=True, exist_ok=True)
    digest = save_onnx(network, path)
    (path / CARD).write_text(_text(card.model_copy(update={"weights_sha256": digest})), encoding="utf-8")


def _text(card: ModelCard) -> str:
    return card.model_dump_json(indent=1, exclude_none=True) + "\n"


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, in the order of names; the same for a half-precision copy."""
    digest = hashlib.sha256()
    for name in sorted(state):
        if not name.endswith("num_batches_tracked"):
            tensor = state[name].detach().cpu().float().contiguous()
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _load_path(path: Path) -> Model:
    card = load_card(path)
    if card.architecture.name == ONNX:
        return Model(load_onnx(path, card), card)
    network = build_network(
        card.architecture.name,
        bands=len(card.bands),
        classes=len(card.legend.classes),
        args=card.architecture.args,
        check=False,
    )
    stride = getattr(network, "output_stride", card.output_stride)
    if stride != card.output_stride:
        raise InputError(f"The card of {path} says output_stride {card.output_stride}, its network has {stride}.")
    if card.weights_sha256 is not None:
        _load_weights(network, card, path / WEIGHTS if path.is_dir() else path)
    elif any(True for _ in network.parameters()):
        raise InputError(f"The card of {path} names no weights_sha256, but {card.architecture.name} has weights.")
    return Model(network.eval(), card)


def _load_weights(network: nn.Module, card: ModelCard, file: Path) -> None:
    if not file.is_file():
        raise InputError(f"The card names weights, but {file} is missing; copy it beside the card.")
    given = _tensors(file)
    wanted = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    for name in sorted(wanted.keys() ^ given.keys()):
        side = "the weights lack" if name in wanted else "the weights have, and the network has not,"
        raise InputError(f"{file} does not fit {card.architecture.name}: {side} {name!r}.")
    for name, tensor in wanted.items():
        if tensor.shape != given[name].shape:
            shapes = f"{tuple(given[name].shape)} in the file, {tuple(tensor.shape)} in the network"
            raise InputError(f"{file} does not fit {card.architecture.name}: {name!r} is {shapes}.")
    found = weights_digest(given)
    if found != card.weights_sha256:
        raise InputError(
            f"{file} has digest {found[:12]}, its card says {str(card.weights_sha256)[:12]}: not the same model."
        )
    network.load_state_dict(given, strict=False)


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is no safetensors file ({error}); pickled checkpoints are not read.") from error


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu()
    return (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()
