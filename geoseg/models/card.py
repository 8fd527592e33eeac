"""ModelCard: everything that inference would otherwise have to guess."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geoseg.errors import InputError
from geoseg.legend import Legend

Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Architecture(_Strict):
    """An entry of `geoseg.models.ARCHITECTURES` and its arguments."""

    name: Name
    args: dict[str, int | float | str | bool | list[int]] = {}


class CardBand(_Strict):
    """One input band by its common name, and the statistics of its scaled values.

    Attributes:
        name: common name, as in the STAC EO extension.
        mean: of the training scenes; what an invalid pixel becomes.
        std: of the training scenes.
        optional: may be missing; the network then sees NaN.
    """

    name: Name
    mean: float = 0.0
    std: Positive = 1.0
    optional: bool = False


class TrainingData(_Strict):
    """Where the training data come from, and under which terms."""

    name: str
    license: str
    attribution: str


class ModelCard(_Strict):
    """What a bundle says of itself.

    Attributes:
        scales: for each dtype that scenes may have, the factor from stored number to what the statistics are of.
        offsets: what is added after that factor, by dtype, where it is not 0.
        gsd_m: the ground sample distance that it was made for, in metres; assumed where a scene has no CRS.
        gsd_range_m: smallest and largest ground sample distance it is good for.
        pool_to_m: on scenes of finer pixels it is given means of k x k of them, k = round(pool_to_m / pixel size).
        output_stride: chip origins and sizes are multiples of it.
        receptive_field_px: how far the farthest input pixel lies that an output pixel depends on.
        halo_px: the smallest halo that changes at most 0.1 % of pixels on real scenes.
        chip_px: side of the chips that it is best run with.
        fixed_chip: the network takes chips of `chip_px` only.
        ramp_px: width of the feather between chips; 0 crops.
        position_independent: whether the answer does not depend on where in a chip a pixel lies, given enough halo.
        temperature: logits are divided by it before probabilities are taken (Guo et al. 2017); classes stay.
        calibration: what the temperature was fitted on and what it gained: ece_before, ece_after, pixels.
        scores: IoU by class, by place not trained on; of a detector also the average precision of its masks,
            `CLASS_ap50` (at IoU 0.5) and `CLASS_ap` (mean over 0.5 to 0.95).
        limitations: where it fails.
        weights_sha256: of names, shapes and values of the weights, or of an ONNX graph; None without weights.
    """

    format: Literal["geoseg-model/1"] = "geoseg-model/1"
    name: Name
    version: str
    description: str
    license: str
    architecture: Architecture
    scales: Annotated[dict[str, Positive], Field(min_length=1)]
    offsets: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}
    bands: Annotated[tuple[CardBand, ...], Field(min_length=1)]
    legend: Legend
    gsd_m: Positive
    gsd_range_m: tuple[Positive, Positive]
    pool_to_m: Positive | None = None
    output_stride: Annotated[int, Field(ge=1, le=1024)]
    receptive_field_px: Annotated[int, Field(ge=0, le=4096)]
    halo_px: Annotated[int, Field(ge=0, le=4096)]
    chip_px: Annotated[int, Field(ge=1, le=16384)] = 1024
    fixed_chip: bool = False
    ramp_px: Annotated[int, Field(ge=0, le=4096)] = 0
    position_independent: bool
    temperature: Positive = 1.0
    training_data: tuple[TrainingData, ...] = ()
    calibration: dict[str, float] = {}
    scores: dict[str, dict[str, float]] = {}
    limitations: str = ""
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = self.gsd_range_m
        if not low <= self.gsd_m <= high:
            raise ValueError(f"gsd_m {self.gsd_m} lies outside gsd_range_m {low} to {high}")
        stride = self.output_stride
        for field in ("halo_px", "chip_px"):
            if getattr(self, field) % stride:
                raise ValueError(
                    f"{field} {getattr(self, field)} is not a multiple of output_stride {self.output_stride}"
                )
        if self.chip_px <= 2 * self.halo_px:
            raise ValueError(f"chip_px {self.chip_px} leaves no core between two halos of {self.halo_px}")
        names = [band.name for band in self.bands]
        if len(set(names)) != len(names):
            raise ValueError(f"bands {names} name one band twice")
        return self

    @property
    def takes_prompts(self) -> bool:
        """Whether it answers points and boxes with masks, and knows no classes."""
        return self.architecture.name == "promptable"

    def check_has_classes(self) -> None:
        """Refuse what tells no classes apart.

        Raises:
            InputError: it takes prompts.
        """
        if self.takes_prompts:
            raise InputError(
                f"Model {self.name} takes prompts and knows no classes: use it with geoseg prompt, or choose one that "
                "geoseg models lists with classes."
            )

    @property
    def exact_halo_px(self) -> int:
        """The receptive field, rounded up to the output stride."""
        return -(-self.receptive_field_px // self.output_stride) * self.output_stride
