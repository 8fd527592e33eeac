"""Mask R-CNN (He et al. 2017, arXiv:1703.06870) and Panoptic FPN (Kirillov et al. 2019, arXiv:1901.02446).

The heads are torchvision's; put together here because its own models resize and normalize each image, take three bands,
and keep a fixed number of proposals and detections, all of which makes the answer depend on the chip. Here pixels stay
as they are, thresholds take the place of counts, and the encoder is any of timm or segmentation-models-pytorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference
from torchvision.models.detection.rpn import (
    AnchorGenerator,
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from geoseg.errors import InputError
from geoseg.models.encoder_decoder import build_encoder, upsample
from geoseg.models.fpn import branch, check_depth
from geoseg.models.pasting import paint_logits

RATIOS = (0.5, 1.0, 2.0)  # height by width of anchors
LEAST_OBJECTNESS = 0.2
LEAST_SCORE = 0.3  # where none is stated: below a half, an object changes no class
PRIOR = 0.01  # objectness before training: without counts to end them, few proposals at first (arXiv:1708.02002)
MANY = 10**9  # in place of a number of proposals or detections that are kept
BOX_CELLS, MASK_CELLS = 7, 14  # sides of what heads see of a box
AT_ONCE = 256  # boxes that heads look at, so that memory does not grow with their number


class Detections(NamedTuple):
    """Objects that a network sees on a chip.

    Attributes:
        boxes: (object, 4) left, top, right, bottom in pixels.
        channels: (object,) class, by its place in the legend.
        scores: (object,) 0 to 1.
        masks: (object, side, side) probabilities within the box.
    """

    boxes: Tensor
    channels: Tensor
    scores: Tensor
    masks: Tensor

    def scaled(self, factor: float) -> Detections:
        """On pixels that are so much smaller."""
        return self._replace(boxes=self.boxes * factor)


class Target(NamedTuple):
    """Objects of a chip to be learned.

    Attributes:
        channels: (object,) class, by its place in the legend.
        masks: (object, height, width) uint8.
        boxes: (object, 4) left, top, right, bottom in pixels.
    """

    channels: Tensor
    masks: Tensor
    boxes: Tensor


class Seen(NamedTuple):
    """What a network sees on chips: objects of each, and logits (chip, class, height, width) where asked for."""

    objects: list[Detections]
    logits: Tensor | None


class Detector(nn.Module):
    """Encoder, feature pyramid, and heads for objects.

    Called like any network it gives logits (chip, class, height, width), so that it can be judged like one; `see` gives
    the objects too.

    Args:
        bands: channels of the input.
        classes: of the legend.
        things: their places in the legend, of the classes that objects are of.
        encoder: name of an encoder.
        depth: number of encoder stages, 3 to 5, each halving the resolution.
        channels: of the pyramid.
        box_features: of the head that tells classes and boxes.
        anchors_px: side of the anchors of each level of the pyramid, which are as many as the encoder's stages; 16, 32
            and so on where none are given.
    """

    position_independent = False
    things: Tensor

    def __init__(
        self,
        bands: int,
        classes: int,
        things: Sequence[int],
        *,
        encoder: str,
        depth: int,
        channels: int,
        box_features: int,
        anchors_px: Sequence[int],
    ) -> None:
        super().__init__()
        check_depth("A detector", depth)
        anchors_px = anchors_px or [16 * 2**level for level in range(depth)]
        if len(anchors_px) != depth:
            raise InputError(f"A detector of depth {depth} has {depth} sizes of anchors, not {len(anchors_px)}.")
        self.classes, self.levels, self.output_stride = classes, depth, 2 ** (depth + 1)
        self.encoder = build_encoder(encoder, bands, depth)
        self.pyramid = FeaturePyramidNetwork(
            self.encoder.out_channels[2:], channels, extra_blocks=LastLevelMaxPool(), norm_layer=nn.BatchNorm2d
        )
        self.proposals = _proposals(channels, anchors_px)
        self.heads = _heads(channels, len(things) + 1, box_features, levels=depth - 1)
        self.register_buffer("things", torch.tensor(list(things)), persistent=False)

    def train(self, mode: bool = True) -> Detector:
        """As of every module; training takes a number of proposals, however sure they are."""
        super().train(mode)
        self.proposals.score_thresh = 0.0 if mode else LEAST_OBJECTNESS
        return self

    def see(self, chips: Tensor, least_score: float = LEAST_SCORE, with_logits: bool = True) -> Seen:
        """Objects and logits of normalized chips (chip, band, height, width).

        Args:
            chips: as for any network.
            least_score: objects below it get no mask, which takes most of the time, and are left out.
            with_logits: whether they are wanted, too.
        """
        self.heads.score_thresh = least_score
        features = self.features(chips)
        objects = self.objects(chips, features)
        return Seen(objects, self.logits(features, objects, chips.shape[-2:]) if with_logits else None)

    def forward(self, chips: Tensor) -> Tensor:
        logits = self.see(chips).logits
        assert logits is not None
        return logits

    def logits(self, features: dict[str, Tensor], objects: list[Detections], size: Sequence[int]) -> Tensor:
        """(chip, class, height, width), from objects: the last class is where there is none."""
        painted = [paint_logits(*one, classes=self.classes, size=(int(size[0]), int(size[1]))) for one in objects]
        return torch.stack(painted)

    def features(self, chips: Tensor) -> dict[str, Tensor]:
        """The levels of the pyramid, the finest first."""
        levels = {str(number): level for number, level in enumerate(self.encoder(chips)[2:])}
        pyramid: dict[str, Tensor] = self.pyramid(levels)
        return pyramid

    def objects(self, chips: Tensor, features: dict[str, Tensor]) -> list[Detections]:
        """Of each chip."""
        images = _images(chips)
        proposals, _ = self.proposals(images, features)
        alone = ({name: level[number, None] for name, level in features.items()} for number in range(len(chips)))
        return [
            self._objects(level, boxes, size)
            for level, boxes, size in zip(alone, proposals, images.image_sizes, strict=True)
        ]

    def _objects(self, features: dict[str, Tensor], proposals: Tensor, size: tuple[int, int]) -> Detections:
        """Of one chip, as torchvision's heads see them, but a part of the boxes at a time."""
        heads = self.heads

        def look(pool: nn.Module, head: nn.Module, boxes: Tensor) -> Tensor:
            return torch.cat([head(pool(features, [part], [size])) for part in torch.split(boxes, AT_ONCE)])

        logits, shifts = heads.box_predictor(look(heads.box_roi_pool, heads.box_head, proposals))
        [boxes], [scores], [labels] = heads.postprocess_detections(logits, shifts, [proposals], [size])
        mask_head = nn.Sequential(heads.mask_head, heads.mask_predictor)
        [masks] = maskrcnn_inference(look(heads.mask_roi_pool, mask_head, boxes), [labels])
        return Detections(boxes, self.things[labels - 1], scores, masks[:, 0])

    def evidence(self, chips: Tensor) -> Tensor:
        """What proposals are made of (chip, 1, height, width): how far it looks is how far a detection does."""
        head = self.proposals.head.conv
        levels = [head(level).sum(1, keepdim=True) for level in self.features(chips).values()]
        size = chips.shape[-2:]
        return torch.stack([nn.functional.interpolate(level, size=size) for level in levels]).sum(0)

    def rehearse(self, chips: Tensor) -> Tensor:
        """As `forward`, with all that `see` does of every chip, after AT_ONCE boxes of another; it sees no objects.

        No size depends on a value, so that it runs on the meta device too, where its memory is counted. What the heads
        held counts to the end: boxes are now many, now few, and the allocator keeps their memory for more of them.
        """
        held = self._rehearse_heads(chips)
        features = self.features(chips)
        levels = list(features.values())
        _, shifts = concat_box_prediction_layers(*self.proposals.head(levels))
        self.proposals.box_coder.decode(shifts, self.proposals.anchor_generator(_images(chips), levels))
        boxes, scores, masks = (chips.new_empty(0, *shape) for shape in ((4,), (), (1, 1)))
        nothing = Detections(boxes, self.things[:0], scores, masks)
        logits = self.logits(features, [nothing] * len(chips), chips.shape[-2:])
        del held
        return logits

    def _rehearse_heads(self, chips: Tensor) -> list[Tensor]:
        """The largest that the heads hold at once."""
        heads, channels = self.heads, self.heads.mask_predictor.conv5_mask.in_channels
        heads.box_predictor(heads.box_head(chips.new_empty(AT_ONCE, channels, BOX_CELLS, BOX_CELLS)))
        coarse = heads.mask_head(chips.new_empty(AT_ONCE, channels, MASK_CELLS, MASK_CELLS))
        fine = heads.mask_predictor.conv5_mask(coarse)
        return [coarse, fine, heads.mask_predictor.mask_fcn_logits(fine)]

    def losses(self, chips: Tensor, targets: Sequence[Target], features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of proposals, classes, boxes and masks, in training mode."""
        images = _images(chips)
        told = [self._told(target) for target in targets]
        proposals, first = self.proposals(images, features, told)
        _, second = self.heads(features, proposals, images.image_sizes, told)
        return {**first, **second}

    def _told(self, target: Target) -> dict[str, Tensor]:
        """As torchvision wants it; label 0 is the background."""
        labels = (target.channels[:, None] == self.things).long().argmax(1) + 1
        return {"boxes": target.boxes, "labels": labels, "masks": target.masks}


class MaskRCNN(Detector):
    """Mask R-CNN: all classes are of objects but the last, which is everything else.

    Args:
        bands: channels of the input.
        classes: of the legend.
        encoder: see `Detector`, as for what follows.
        depth: number of encoder stages.
        channels: of the pyramid.
        box_features: of the head that tells classes and boxes.
        anchors_px: side of the anchors of each level.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        encoder: str = "tu-resnet18",
        depth: int = 4,
        channels: int = 128,
        box_features: int = 256,
        anchors_px: Sequence[int] = (),
    ) -> None:
        if classes < 2:
            raise InputError("Mask R-CNN has classes of objects and, as the last, one for everything else; not 1.")
        super().__init__(
            bands,
            classes,
            range(classes - 1),
            encoder=encoder,
            depth=depth,
            channels=channels,
            box_features=box_features,
            anchors_px=anchors_px,
        )


class PanopticFPN(Detector):
    """Panoptic FPN: objects, and a semantic branch on the same pyramid for all classes.

    Args:
        bands: channels of the input.
        classes: of the legend.
        things: places in the legend of the classes that objects are of.
        encoder: see `Detector`, as for what follows.
        depth: number of encoder stages.
        channels: of the pyramid.
        box_features: of the head that tells classes and boxes.
        anchors_px: side of the anchors of each level.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        things: Sequence[int] = (0,),
        encoder: str = "tu-resnet18",
        depth: int = 4,
        channels: int = 128,
        box_features: int = 256,
        anchors_px: Sequence[int] = (),
    ) -> None:
        if not things or len(set(things)) < len(things) or not set(things) < set(range(classes)):
            raise InputError(f"The things of a panoptic network are some of its {classes} classes, not {list(things)}.")
        super().__init__(
            bands,
            classes,
            things,
            encoder=encoder,
            depth=depth,
            channels=channels,
            box_features=box_features,
            anchors_px=anchors_px,
        )
        half = channels // 2
        self.branches = nn.ModuleList([branch(channels, half, doublings) for doublings in range(depth - 1)])
        self.semantic = nn.Conv2d(half, classes, kernel_size=1)

    def forward(self, chips: Tensor) -> Tensor:
        return self.stuff(self.features(chips))

    def logits(self, features: dict[str, Tensor], objects: list[Detections], size: Sequence[int]) -> Tensor:
        return self.stuff(features)

    def stuff(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (chip, class, height, width) of the semantic branch."""
        levels = [features[str(number)] for number in range(len(self.branches))]
        steps = [one(level) for one, level in zip(self.branches, levels, strict=True)]
        return upsample(self.semantic(torch.stack(steps).sum(0)), 4)


def _images(chips: Tensor) -> ImageList:
    height, width = chips.shape[-2:]
    return ImageList(chips, [(height, width)] * len(chips))


def _proposals(channels: int, anchors_px: Sequence[int]) -> RegionProposalNetwork:
    head = RPNHead(channels, len(RATIOS))
    nn.init.constant_(head.cls_logits.bias, math.log(PRIOR / (1 - PRIOR)))
    anchors = AnchorGenerator(tuple((side,) for side in anchors_px), (RATIOS,) * len(anchors_px))
    return RegionProposalNetwork(
        anchors,
        head,
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=128,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 1000, "testing": MANY},
        post_nms_top_n={"training": 500, "testing": MANY},
        nms_thresh=0.7,
        score_thresh=LEAST_OBJECTNESS,
    )


def _heads(channels: int, labels: int, box_features: int, *, levels: int) -> RoIHeads:
    names = [str(number) for number in range(levels)]
    convolutions: Any = MaskRCNNHeads(channels, (channels,) * 4, 1)
    return RoIHeads(
        MultiScaleRoIAlign(names, output_size=BOX_CELLS, sampling_ratio=2),
        TwoMLPHead(channels * BOX_CELLS**2, box_features),
        FastRCNNPredictor(box_features, labels),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=64,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=LEAST_SCORE,
        nms_thresh=0.5,
        detections_per_img=MANY,
        mask_roi_pool=MultiScaleRoIAlign(names, output_size=MASK_CELLS, sampling_ratio=2),
        mask_head=convolutions,
        mask_predictor=MaskRCNNPredictor(channels, channels, labels),
    )
