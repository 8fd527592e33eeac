"""What a training is: one YAML file, checked before anything is read; `example.yaml` beside this file has all keys."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from geoseg.catalog import load_checked
from geoseg.legend import LANDCOVER, Legend, LegendClass
from geoseg.models.card import Architecture, Name, TrainingData
from geoseg.raster.labels import LabelOptions
from geoseg.raster.reader import SceneOptions

Text = Annotated[str, Field(min_length=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Weights = Annotated[dict[Text, Positive], Field(min_length=1)]

DEFAULT_NETWORK = Architecture(name="unet")
EXAMPLE = Path(__file__).parent / "example.yaml"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class SceneSource(_Strict):
    """A scene, and what its files do not say.

    Attributes:
        scene: path, URL, or catalog.yaml#name; a list where bands lie in several files.
        aoi: vector file; only what lies within its polygons counts.
        bands: name -> band number or file.
        nodata: stored value that means "not measured".
        valid_mask: raster, 0 = not measured.
        scale: value = pixel * scale + offset.
        offset: see `scale`.
        gsd_m: size of a pixel on the ground in metres.
        data: where it comes from, and under which terms.
    """

    scene: Text | Annotated[list[Text], Field(min_length=1)]
    aoi: Text | None = None
    bands: dict[Text, Text] | None = None
    nodata: float | None = None
    valid_mask: Text | None = None
    scale: Number | None = None
    offset: Number | None = None
    gsd_m: Positive | None = None
    data: TrainingData | None = None

    @property
    def reading(self) -> SceneOptions:
        return SceneOptions(self.bands, self.nodata, self.valid_mask, self.scale, self.offset, self.gsd_m)

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """With each path, or what may be one, changed."""
        changes: dict[str, object] = {
            name: change(text)
            for name in ("labels", "aoi", "ignore_regions", "valid_mask")
            if (text := getattr(self, name, None)) is not None
        }
        changes["scene"] = change(self.scene) if isinstance(self.scene, str) else [change(one) for one in self.scene]
        if self.bands is not None:
            changes["bands"] = {name: change(where) for name, where in self.bands.items()}
        return self.model_copy(update=changes)


class LabelledSource(SceneSource):
    """A scene and its labels; the polygons of its `aoi` say where labels count.

    Attributes:
        labels: class raster, vector file, or catalog.yaml#name; None for those of the scene's entry in a catalogue.
        column: of a vector file that holds the class.
        map: label value -> class or group of the legend.
        ignore: label values that count as unlabelled.
        elsewhere: class of what no polygon covers.
        ignore_regions: vector file; labels within its polygons do not count.
        role: the side of a split by scenes.
        weight: how much more often than others its labelled pixels are drawn.
        place: scenes of one place get scores together; by default each is a place.
    """

    labels: Text | None = None
    column: Text | None = None
    map: dict[Text, Text] | None = None
    ignore: tuple[Text, ...] = ()
    elsewhere: Text | None = None
    ignore_regions: Text | None = None
    role: Literal["train", "validate"] = "train"
    weight: Positive = 1.0
    place: Text | None = None

    @property
    def label_options(self) -> LabelOptions:
        return LabelOptions(self.column, self.map, self.ignore, self.elsewhere)


class UnlabelledConfig(_Strict):
    """Scenes without labels, from which the network learns to be consistent; see `geoseg.training.semisupervised`.

    Attributes:
        scenes: they may be those with labels too; what is held out is not looked at.
        weight: of the consistency loss beside the losses of the labels.
        ramp_steps: in which the weight rises from almost nothing.
        threshold: the averaged network's answer counts where its probability is at least this.
        strength: of the colors of the view that is learned from, in units of `augment`.
        mix: share of the chips of that view with a rectangle of another chip in them.
    """

    scenes: Annotated[tuple[SceneSource, ...], Field(min_length=1)]
    weight: Positive = 1.0
    ramp_steps: Count = 500
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.9
    strength: NotNegative = 1.5
    mix: Share = 0.5


class SplitConfig(_Strict):
    """What is held out for validation, always whole places.

    Attributes:
        by: scenes (their `role`), blocks drawn at random, or polygons.
        polygons: vector file of the places to hold out, for a split by polygons.
        block_px: side of a block.
        share: of the labelled blocks that are held out.
        buffer_px: pixels around held-out places that neither side uses.
        seed: of the draw.
    """

    by: Literal["scenes", "blocks", "polygons"] = "blocks"
    polygons: Text | None = None
    block_px: Count = 512
    share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    buffer_px: Annotated[int, Field(ge=0)] = 32
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _has_polygons(self) -> Self:
        if (self.by == "polygons") != (self.polygons is not None):
            raise ValueError("polygons names the vector file of a split by polygons, and of no other")
        return self


class StartConfig(_Strict):
    """Where weights come from.

    Attributes:
        weights: name or path of a bundle, or a safetensors file with a state dict; None for random ones.
        freeze: parts of the network that keep their weights, by the start of their names, as in `encoder`.
        decay: the learning rate of each stage of the encoder is that of the next one times this; 1 for all alike.
    """

    weights: Text | None = None
    freeze: tuple[Text, ...] = ()
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0


class LossConfig(_Strict):
    """Weighted sum of losses; 0 leaves one out.

    Attributes:
        cross_entropy: with class weights; a group of classes counts by its summed probability.
        dice: soft Dice.
        focal: focal loss.
        lovasz: Lovász-softmax.
        gamma: of the focal loss.
        class_weights: by name of class or group, `data` for those that its shares suggest, or none.
    """

    cross_entropy: NotNegative = 1.0
    dice: NotNegative = 0.5
    focal: NotNegative = 0.0
    lovasz: NotNegative = 0.0
    gamma: NotNegative = 2.0
    class_weights: Weights | Literal["data"] | None = None

    @model_validator(mode="after")
    def _is_a_loss(self) -> Self:
        if not self.cross_entropy + self.dice + self.focal + self.lovasz:
            raise ValueError("at least one of cross_entropy, dice, focal and lovasz is larger than 0")
        return self


class AugmentConfig(_Strict):
    """How strongly samples are changed; see `geoseg.training.augment.Augmentation`.

    Attributes:
        scale: chips are drawn at the scenes' resolution times or divided by up to this.
        mix: share of chips with a rectangle of another chip, and its labels, in them (CutMix).
    """

    scale: Annotated[float, Field(ge=1, le=4)] = 1.25
    free_rotation: Share = 0.4
    elastic: Share = 0.1
    brightness: NotNegative = 0.10
    contrast: NotNegative = 0.30
    gamma: NotNegative = 0.30
    band_gain: NotNegative = 0.10
    haze: Share = 0.20
    blur: Share = 0.2
    noise: NotNegative = 0.03
    shadow: Share = 0.0
    mix: Share = 0.0


class RunConfig(_Strict):
    """How the loop runs.

    Attributes:
        steps: of the optimizer, at most.
        batch: chips per step.
        chip: side of a chip in pixels; a multiple of the network's output stride.
        learning_rate: the largest.
        warmup: steps of linear rise.
        decay: share of the steps in which it falls as a cosine.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        average: of the weights that are kept: each step keeps this share of the average so far.
        balance: share of samples centered on a class drawn uniformly.
        precision: auto, float32 or bfloat16.
        device: auto, cpu or cuda.
        loaders: processes that read samples; 0 reads in the process that trains.
        validate_every: steps between validations.
        validation_chips: chips looked at in each.
        patience: validations without gain after which training stops; None never stops early.
        log: csv or tensorboard.
        seed: of all draws.
    """

    steps: Count = 5000
    batch: Count = 8
    chip: Annotated[int, Field(ge=16, le=4096)] = 256
    learning_rate: Positive = 1e-3
    warmup: Count = 100
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    weight_decay: NotNegative = 0.05
    clip: Positive = 1.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.995
    balance: Share = 0.3
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    loaders: Annotated[int, Field(ge=0, le=256)] = 1
    validate_every: Count = 250
    validation_chips: Count = 64
    patience: Count | None = None
    log: Literal["csv", "tensorboard"] = "csv"
    seed: Annotated[int, Field(ge=0)] = 0


class TrainConfig(_Strict):
    """A training.

    Attributes:
        name: of the bundle.
        version: of the bundle.
        description: of the bundle, for people.
        license: of the weights.
        limitations: where the model is not to be trusted.
        classes: of the legend in the order of the network's channels, or `landcover` for geoseg's own.
        bands: that the network sees, by common name.
        pool_to_m: scenes of finer pixels are seen as means of k x k of them, k = round(pool_to_m / pixel size).
        scenes: with their labels.
        unlabelled: scenes without labels, if any.
        split: what is held out.
        network: architecture and its arguments; None for that of the bundle in `start`, else a U-Net.
        start: where weights come from.
        loss: weighted sum of losses.
        augment: how strongly samples are changed.
        run: how the loop runs.
    """

    name: Name
    version: Text = "1"
    description: str = ""
    license: str = ""
    limitations: str = ""
    classes: Literal["landcover"] | Annotated[tuple[LegendClass, ...], Field(min_length=2)] = "landcover"
    bands: Annotated[tuple[Text, ...], Field(min_length=1)] = ("red", "green", "blue")
    pool_to_m: Positive | None = None
    scenes: Annotated[tuple[LabelledSource, ...], Field(min_length=1)]
    unlabelled: UnlabelledConfig | None = None
    split: SplitConfig = SplitConfig()
    network: Architecture | None = None
    start: StartConfig = StartConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    run: RunConfig = RunConfig()

    @field_validator("bands")
    @classmethod
    def _each_once(cls, bands: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(bands)) < len(bands):
            raise ValueError(f"each band is named once, not {', '.join(bands)}")
        return bands

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        legend = self.legend
        weights = self.loss.class_weights
        unknown = sorted(set(weights if isinstance(weights, dict) else ()) - {*legend.names, *legend.groups})
        if unknown:
            raise ValueError(f"class_weights names {unknown[0]!r}; the legend has {', '.join(legend.names)}")
        roles = {source.role for source in self.scenes}
        if self.split.by == "scenes" and roles != {"train", "validate"}:
            raise ValueError("a split by scenes needs scenes with role: train and scenes with role: validate")
        if self.split.by != "scenes" and roles != {"train"}:
            raise ValueError(f"role: validate is for a split by scenes; this one is by {self.split.by}")
        return self

    @property
    def legend(self) -> Legend:
        return LANDCOVER if self.classes == "landcover" else Legend(classes=self.classes)

    def with_paths(self, change: Callable[[str], str]) -> TrainConfig:
        """With each path, or what may be one, changed."""
        scenes = tuple(source.with_paths(change) for source in self.scenes)
        polygons, weights = (text and change(text) for text in (self.split.polygons, self.start.weights))
        changes: dict[str, object] = {
            "scenes": scenes,
            "split": self.split.model_copy(update={"polygons": polygons}),
            "start": self.start.model_copy(update={"weights": weights}),
        }
        if self.unlabelled is not None:
            unlabelled = tuple(source.with_paths(change) for source in self.unlabelled.scenes)
            changes["unlabelled"] = self.unlabelled.model_copy(update={"scenes": unlabelled})
        return self.model_copy(update=changes)

    @property
    def architecture(self) -> Architecture:
        return self.network or DEFAULT_NETWORK

    def with_network(self, network: Architecture) -> TrainConfig:
        """With that one where none is stated."""
        return self if self.network else self.model_copy(update={"network": network})

    def with_steps(self, steps: int) -> TrainConfig:
        return self.model_copy(update={"run": self.run.model_copy(update={"steps": steps})})

    def to_yaml(self) -> str:
        """All keys, those left to their defaults too."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def load_config(path: str | os.PathLike[str]) -> TrainConfig:
    """Read and check a training; relative paths in it are taken from its folder.

    Raises:
        InputError: it is missing, no YAML, or not valid; the message says where.
    """
    folder = Path(path).absolute().parent
    return load_checked(path, TrainConfig, what="training config").with_paths(lambda text: _placed(folder, text))


def _placed(folder: Path, text: str) -> str:
    """A path in the folder made absolute, with the name (#) or layer (:) behind it; all else as it is."""
    parts = (text, text.partition("#")[0], text.rpartition(":")[0])
    return str(folder / text) if any(part and (folder / part).exists() for part in parts) else text
