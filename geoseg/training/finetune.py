"""Starting from weights that are there: other bands, other classes, frozen parts, slower encoders."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from geoseg.errors import InputError
from geoseg.legend import Legend
from geoseg.models import Architecture, load_model
from geoseg.models.find import CARD_KEY, find_model, load_card
from geoseg.models.pairs import date_bands

log = logging.getLogger(__name__)
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".tar"}
PREFIXES = ("network.", "model.", "module.", "net.", "")
HOMES = ("", "encoder.", "encoder.model.")  # of a whole network, and of an encoder alone as smp and timm name it
LEAST = 0.5  # of the network's weights that a checkpoint must have
ENCODER = "encoder."


@dataclass(frozen=True, slots=True)
class Fitted:
    """Which weights are fitted, and how fast.

    Attributes:
        freeze: starts of the names of weights that stay as they are.
        decay: the learning rate of each stage of the encoder is that of the next one times this.
        weight_decay: of weights with more than one dimension.
    """

    freeze: tuple[str, ...] = ()
    decay: float = 1.0
    weight_decay: float = 0.05

    def groups(self, network: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """Parameter groups of an optimizer.

        Raises:
            InputError: a part to freeze does not exist, or nothing is left to fit.
        """
        found: dict[tuple[float, float], list[nn.Parameter]] = {}
        stages = _stages(network)
        for name, parameter in network.named_parameters():
            if not self._is_frozen(name):
                rate = learning_rate * self.decay ** (len(stages) - _stage(name, stages))
                found.setdefault((rate, self.weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
        if not found:
            raise InputError(f"Freezing {', '.join(self.freeze)} leaves nothing to fit; freeze less.")
        return [{"params": own, "lr": rate, "weight_decay": decay} for (rate, decay), own in found.items()]

    def hold_still(self, network: nn.Module) -> None:
        """Take frozen parts out of the training, the statistics of their normalizations too.

        Raises:
            InputError: a part to freeze does not exist.
        """
        names = [name for name, _ in network.named_parameters()]
        for start in self.freeze:
            if not any(_begins(name, start) for name in names):
                parts = ", ".join(name for name, _ in network.named_children())
                raise InputError(f"The network has no part {start!r} to freeze; its parts are {parts}.")
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not self._is_frozen(name))
        for name, module in network.named_modules():
            if name and self._is_frozen(name):
                module.eval()

    def _is_frozen(self, name: str) -> bool:
        return any(_begins(name, start) for start in self.freeze)


def architecture_of(weights: str) -> Architecture | None:
    """That of a bundle; None where its weights are a state dict alone, which does not say."""
    try:
        return load_card(find_model(weights)).architecture
    except InputError:  # no bundle, or a broken one: `start_from` tells
        return None


def start_from(network: nn.Module, weights: str, *, bands: tuple[str, ...], legend: Legend) -> list[str]:
    """Give a network the weights of a bundle, or of a safetensors file with a state dict.

    What the two share by name and shape is taken over. A first layer for other bands gets the weights of the bands of
    the same name, and for others the mean; a last layer for other classes likewise, where others start at random.

    Args:
        network: changed in place.
        weights: name or path of a bundle, or a `.safetensors` file.
        bands: of the network, in order.
        legend: of the network.

    Returns:
        What was adapted, as sentences.

    Raises:
        InputError: there are no such weights, they are pickled, or they fit another network.
    """
    given, known = _read(weights)
    wanted = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    home = max(HOMES, key=lambda start: sum(start + name in wanted for name in given))
    given = {home + name: tensor for name, tensor in given.items()}
    bands = date_bands(bands) or bands  # the first layer sees one date
    first = next((name for name, tensor in wanted.items() if tensor.ndim == 4), "")
    last = list(wanted)[-1].rpartition(".")[0] if wanted else ""
    taken: dict[str, Tensor] = {}
    told: list[str] = []
    for name, own in wanted.items():
        found = given.get(name)
        if name == first and found is not None and bands != known.bands:
            found = _by_band(own, found, bands, known.bands)
        elif name.startswith(f"{last}.") and found is not None and legend.names != known.classes:
            found = _by_class(own, found, legend.names, known.classes)
        if found is not None and found.shape == own.shape:
            taken[name] = found
            if not torch.equal(found, given[name]):
                told.append(f"{name} is made of {tuple(given[name].shape)} for {tuple(own.shape)}.")
    share = sum(wanted[name].numel() for name in taken) / max(1, sum(tensor.numel() for tensor in wanted.values()))
    encoder = [name for name in wanted if name.startswith(ENCODER)]
    if share < LEAST and not (encoder and all(name in taken for name in encoder)):
        raise InputError(
            f"{weights} has {share:.0%} of the network's weights by name and shape; it is of another architecture. "
            "State the same network.architecture and network.args, or start from nothing."
        )
    left = [name for name in wanted if name not in taken]
    told += [f"{len(left)} of {len(wanted)} tensors start at random, {left[0]} first."] if left else []
    network.load_state_dict(taken, strict=False)
    for line in told:
        log.info("%s: %s", weights, line)
    return told


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of weights: the bands and classes that they were for."""

    bands: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def _read(weights: str) -> tuple[Mapping[str, Tensor], _Known]:
    path = Path(weights)
    if path.suffix.lower() in PICKLES:
        raise InputError(
            f"{weights} is a pickled checkpoint, which can run code when it is read; it is not opened. Where you trust "
            "it, convert it once: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'FILE.safetensors')."
        )
    if path.suffix == ".safetensors" and path.is_file():
        try:
            with safe_open(path, framework="pt") as opened:
                if CARD_KEY not in (opened.metadata() or {}):
                    return _plain({name: opened.get_tensor(name).float() for name in opened.keys()}), _Known()  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{weights} is no safetensors file ({error}); pickled checkpoints are not read."
            ) from error
    model = load_model(weights)
    names = tuple(band.name for band in model.card.bands)
    return model.network.state_dict(), _Known(names, model.card.legend.names)


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the name of what wrapped the network."""
    prefix = next(start for start in PREFIXES if all(name.startswith(start) for name in state))
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _by_band(own: Tensor, given: Tensor, bands: tuple[str, ...], known: tuple[str, ...]) -> Tensor | None:
    """A first layer for other bands: that of the same name, else the mean; answers stay about as large."""
    if own.shape[0] != given.shape[0] or own.shape[2:] != given.shape[2:] or own.shape[1] != len(bands):
        return None
    if not known and own.shape == given.shape:
        return given
    mean = given.mean(1)
    layers = [given[:, known.index(name)] if name in known else mean for name in bands]
    return torch.stack(layers, 1) * (given.shape[1] / len(bands))


def _by_class(own: Tensor, given: Tensor, names: tuple[str, ...], known: tuple[str, ...]) -> Tensor | None:
    """A last layer for other classes: that of the same name, else our own."""
    if own.shape[1:] != given.shape[1:] or len(given) != len(known):
        return given if not known else None
    return torch.stack([given[known.index(name)] if name in known else own[i] for i, name in enumerate(names)])


def _begins(name: str, start: str) -> bool:
    return name == start or name.startswith(f"{start.rstrip('.')}.")


def _stages(network: nn.Module) -> list[str]:
    """Starts of the names of the encoder's stages, from the pixels on."""
    names = [name for name, _ in network.named_parameters() if name.startswith(ENCODER)]
    wrapped = ENCODER + "model."
    start = wrapped if names and all(name.startswith(wrapped) for name in names) else ENCODER
    return list(dict.fromkeys(start + name.removeprefix(start).partition(".")[0] for name in names))


def _stage(name: str, stages: Sequence[str]) -> int:
    """The number of a weight's stage; that of all that is no encoder is the number of stages."""
    return next((index for index, start in enumerate(stages) if _begins(name, start)), len(stages))
