"""Segment Anything (SAM, SAM 2, SAM 3) through transformers, from a folder with config.json and model.safetensors.

Only classes of transformers that are named here are built, and only safetensors are read: a folder runs no code. A chip
is one image of the network's own size, so that nothing is resized and a pixel of the chip is one of the network's.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from geoseg.errors import InputError
from geoseg.legend import Legend, LegendClass
from geoseg.models import Architecture, CardBand, ModelCard
from geoseg.prompts.networks import ChipPrompts, Embedded, Floats, Found, no_text

CONFIG, SAM_WEIGHTS = "config.json", "model.safetensors"
PREPROCESSOR = ("preprocessor_config.json", "processor_config.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
PIXEL_CENTER = np.float32(0.5)  # transformers counts from the center of the first pixel
LEAST_SCORE = 0.3  # of what a text names
WORDS = 32  # tokens of a text, as the network was trained
OBJECT = Legend(classes=(LegendClass(id=1, name="object", color="#d7301f"),))
Triple = tuple[float, float, float]
IMAGENET: tuple[Triple, Triple] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES: tuple[Triple, Triple] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class Family(NamedTuple):
    """Models of one `model_type`.

    Attributes:
        clicks: the class of transformers that takes points and boxes; None where there is none.
        text: the one that takes text.
        statistics: mean and standard deviation of red, green and blue in 0..1, where a folder states none.
    """

    clicks: str | None
    text: str | None
    statistics: tuple[Triple, Triple]


FAMILIES = {
    "sam": Family("SamModel", None, IMAGENET),
    "sam2": Family("Sam2Model", None, IMAGENET),
    "sam2_video": Family("Sam2Model", None, IMAGENET),
    "sam3_tracker": Family("Sam3TrackerModel", None, HALVES),
    "sam3": Family(None, "Sam3Model", HALVES),
    "sam3_video": Family("Sam3TrackerModel", "Sam3Model", HALVES),
}


class SamNetwork:
    """A model of transformers, as a network that is asked chip by chip."""

    def __init__(self, folder: Path) -> None:
        kind = _kind(folder)
        clicks, text, _ = FAMILIES[kind]
        self.has_prompts, self.has_text = clicks is not None, text is not None
        self._clicks: Any = _loaded(clicks, folder) if clicks else None
        self._text: Any = _loaded(text, folder) if text else None
        self._words: Any = _tokenizer(folder) if text else None
        model: Any = self._text if self._clicks is None else self._clicks
        self.card = _card(folder, kind, _side(model.config))
        self.digest = _digest(folder)

    @torch.inference_mode()
    def embed(self, chip: Floats) -> Embedded:
        pixels = torch.from_numpy(chip)[None]
        found: dict[str, Tensor] = {}
        if self._clicks is not None:
            parts = self._clicks.get_image_embeddings(pixels)
            parts = [parts] if isinstance(parts, Tensor) else parts
            found |= {f"clicks{i}": part for i, part in enumerate(parts)}
        if self._text is not None:
            vision = self._text.get_vision_features(pixels)
            found |= {f"features{i}": part for i, part in enumerate(vision.fpn_hidden_states)}
            found |= {f"places{i}": part for i, part in enumerate(vision.fpn_position_encoding)}
        return {name: part.half().numpy() for name, part in found.items()}

    @torch.inference_mode()
    def decode(self, embedded: Embedded, prompts: ChipPrompts) -> Found:
        if self._clicks is None:
            raise InputError(
                f"Model {self.card.name} takes text, but no points and boxes; give --text, or its tracker "
                "(model_type sam3_tracker or sam3_video)."
            )
        image = _parts(embedded, "clicks")
        logits: dict[int, Floats] = {}
        scores: dict[int, Floats] = {}
        for some, kind in _alike(prompts):
            given = _given(prompts, some, *kind)
            answer = self._clicks(
                image_embeddings=image[0] if len(image) == 1 else image, multimask_output=True, **given
            )
            for i, masks, score in zip(some.tolist(), answer.pred_masks[0], answer.iou_scores[0], strict=True):
                logits[i], scores[i] = masks.float().numpy(), score.float().numpy()
        numbers = range(len(prompts.points))
        return Found(np.stack([logits[i] for i in numbers]), np.stack([scores[i] for i in numbers]))

    @torch.inference_mode()
    def find(self, embedded: Embedded, text: str) -> Found:
        if self._text is None or self._words is None:
            raise InputError(no_text(self.card))
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

        words = self._words(
            text, return_tensors="pt", padding="max_length", max_length=min(WORDS, self._longest), truncation=True
        )
        vision = Sam3VisionEncoderOutput(
            fpn_hidden_states=tuple(_parts(embedded, "features")),
            fpn_position_encoding=tuple(_parts(embedded, "places")),
        )
        answer = self._text(vision_embeds=vision, input_ids=words.input_ids, attention_mask=words.attention_mask)
        scores = answer.pred_logits[0].sigmoid()
        if answer.presence_logits is not None:
            scores = scores * answer.presence_logits[0].sigmoid()
        kept = scores > LEAST_SCORE
        return Found(answer.pred_masks[0][kept][:, None].float().numpy(), scores[kept][:, None].float().numpy())

    @property
    def _longest(self) -> int:
        return int(self._text.config.text_config.max_position_embeddings)


def is_sam(folder: Path) -> bool:
    """Whether a folder has a model of transformers."""
    return (folder / CONFIG).is_file()


def _kind(folder: Path) -> str:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        kind = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{folder / CONFIG} is no configuration of a model: {error}.") from error
    if kind not in tuple(FAMILIES):
        raise InputError(f"{folder} holds a model of type {kind!r}; prompts are taken by {', '.join(FAMILIES)}.")
    if _has_code_within(config):
        raise InputError(
            f"{folder / CONFIG} names code for a part of the model (auto_map), and code of a folder is not run; "
            "take the entry out if transformers has that part itself."
        )
    return str(kind)


def _has_code_within(config: dict[str, Any]) -> bool:
    """Whether a part names code: transformers would ask the user whether to run it, and cannot be told not to."""
    parts = [part for part in config.values() if isinstance(part, dict)]
    return any("auto_map" in part or _has_code_within(part) for part in parts)


def _loaded(name: str, folder: Path) -> Any:
    """A model in evaluation mode, all of whose weights are in the folder.

    Raises:
        InputError: transformers is missing, or the folder does not hold the model.
    """
    try:
        import transformers
        from huggingface_hub.errors import StrictDataclassError
    except ImportError:
        raise InputError('Segment Anything needs transformers: pip install "geoseg[sam]".') from None
    if not (folder / SAM_WEIGHTS).is_file():
        raise InputError(f"{folder} has no {SAM_WEIGHTS}; pickled checkpoints are not read.")
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, told = getattr(transformers, name).from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation="sdpa",  # else a folder may name compiled code to fetch
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, StrictDataclassError) as error:
        raise InputError(f"{folder} cannot be loaded as {name}: {_first_line(error)}") from error
    missing = sorted(told["missing_keys"])
    if missing:
        raise InputError(f"{folder / SAM_WEIGHTS} lacks {len(missing)} weights of {name}, as {missing[0]!r}.")
    return model.eval()


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise InputError(f"{folder} has no tokenizer (tokenizer.json, or vocab.json and merges.txt); texts need one.")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers knows no narrower one
        raise InputError(
            f"{folder} has no tokenizer that can be loaded, and texts need one: {_first_line(error)}. Put the "
            "tokenizer's files there again, as they were published."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".: ")


def _side(config: Any) -> int:
    """Pixels a side of the image that the network takes."""
    prompt = getattr(config, "prompt_encoder_config", None)
    side = prompt.image_size if prompt is not None else config.vision_config.backbone_config.image_size
    return int(side if isinstance(side, int) else side[0])


def _statistics(folder: Path, kind: str) -> tuple[Triple, Triple]:
    """Mean and standard deviation of red, green and blue in 0..1: the folder's own, else those of the model type.

    Raises:
        InputError: a file that should state them cannot be read, or states something else.
    """
    mean, std = FAMILIES[kind].statistics
    for file in (folder / name for name in PREPROCESSOR if (folder / name).is_file()):
        stated = _preprocessor(file, kind)
        if stated.get("image_mean") is not None:
            mean = _triple(stated["image_mean"], f"image_mean of {file}", -math.inf)
        if stated.get("image_std") is not None:
            std = _triple(stated["image_std"], f"image_std of {file}", 0)
    return mean, std


def _preprocessor(file: Path, kind: str) -> dict[str, Any]:
    try:
        stated = json.loads(file.read_bytes())
        return {**stated.get("image_processor", stated)}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{file} is no configuration of a preprocessor: {error}; put the published one there, or take it away for "
            f"the statistics that {kind} has in transformers."
        ) from error


def _triple(values: Any, name: str, above: float) -> Triple:
    """Three numbers above a bound, as JSON has them."""
    numbers = values if isinstance(values, list) else []
    if len(numbers) != 3 or not all(type(value) in (int, float) and above < value < math.inf for value in numbers):
        least = "" if above < 0 else f" above {above:g}"
        raise InputError(f"The {name} is {values!r}; three numbers{least} are expected: of red, green and blue.")
    red, green, blue = map(float, numbers)
    return red, green, blue


def _card(folder: Path, kind: str, side: int) -> ModelCard:
    colors = zip(("red", "green", "blue"), *_statistics(folder, kind), strict=True)
    name = "".join(c if c.isalnum() or c in "_.-" else "-" for c in folder.resolve().name)[:64].lstrip("-._")
    return ModelCard(
        name=name or kind,
        version="1",
        description=f"Segment Anything ({kind}) from {folder.name}",
        license="as its authors say",
        architecture=Architecture(name=kind.replace("_", "-")),
        scales={"uint8": 1 / 255},
        bands=tuple(CardBand(name=n, mean=m, std=s) for n, m, s in colors),
        legend=OBJECT,
        gsd_m=0.5,
        gsd_range_m=(0.001, 1000),
        output_stride=1,
        receptive_field_px=min(side, 4096),
        halo_px=0,
        chip_px=side,
        fixed_chip=True,
        position_independent=False,
    )


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (CONFIG, SAM_WEIGHTS, *PREPROCESSOR, *TOKENIZER):
        if (folder / name).is_file():
            digest.update(name.encode())
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _parts(embedded: Embedded, name: str) -> list[Tensor]:
    """The stored arrays of that name, in their order."""
    count = sum(key.rstrip("0123456789") == name for key in embedded)
    return [torch.from_numpy(embedded[f"{name}{i}"]).float() for i in range(count)]


def _alike(prompts: ChipPrompts) -> Iterator[tuple[NDArray[np.intp], tuple[bool, int]]]:
    """Numbers of prompts that may be asked at once, whether they have boxes, and how many points.

    An earlier mask counts for a whole image there, so that each that has one goes alone.
    """
    has_box, counts = ~np.isnan(prompts.boxes).any(axis=1), (prompts.labels >= 0).sum(axis=1)
    kinds = list(zip(np.atleast_1d(has_box).tolist(), counts.tolist(), strict=True))
    for kind in sorted(set(kinds)):
        chosen = np.array([i for i, own in enumerate(kinds) if own == kind])
        for some in chosen[:, None] if prompts.earlier is not None else (chosen,):
            yield some, kind


def _given(prompts: ChipPrompts, some: NDArray[np.intp], has_box: bool, count: int) -> dict[str, Tensor]:
    """Arguments for some of the prompts, which are of one kind; columns come before rows there."""
    given: dict[str, Tensor] = {}
    if count:
        known = prompts.labels[some] >= 0
        points = prompts.points[some][known].reshape(len(some), count, 2)[..., ::-1].copy()
        labels = prompts.labels[some][known].reshape(len(some), count)
        given |= {"input_points": torch.from_numpy(points - PIXEL_CENTER)[None]}
        given |= {"input_labels": torch.from_numpy(labels)[None]}
    if has_box:
        given["input_boxes"] = torch.from_numpy(prompts.boxes[some][:, [1, 0, 3, 2]] - PIXEL_CENTER)[None]
    if prompts.earlier is not None:
        given["input_masks"] = torch.from_numpy(prompts.earlier[some])[:, None]
    return given
