"""Small models of the real architectures of Segment Anything, with random weights, saved as transformers saves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

CHIP = 64
SMALL = {"hidden_size": 16, "num_attention_heads": 2}
SAM3_PROMPTS = {"hidden_size": 16, "image_size": 56, "patch_size": 14, "mask_input_channels": 16}
DECODER = {"hidden_size": 16, "num_attention_heads": 2, "mlp_dim": 16, "iou_head_hidden_dim": 16, "iou_head_depth": 2}


def save_sam(folder: Path) -> Path:
    from transformers import SamConfig, SamModel

    vision = {
        **SMALL,
        "output_channels": 16,
        "num_hidden_layers": 1,
        "image_size": CHIP,
        "patch_size": 8,
        "window_size": 4,
        "global_attn_indexes": [0],
        "mlp_dim": 16,
        "num_pos_feats": 8,
    }
    prompts = {"hidden_size": 16, "image_size": CHIP, "patch_size": 8, "mask_input_channels": 16}
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER)
    return _saved(SamModel, config, folder)


def save_sam2(folder: Path) -> Path:
    from transformers import Sam2Config, Sam2Model

    hiera = {
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [CHIP, CHIP],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1],
        "window_size_per_stage": [4, 2, 4, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [2, 2],
        "model_type": "sam2_hiera_det_model",
    }
    vision = {
        "backbone_config": hiera,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 16,
    }
    prompts = {"hidden_size": 16, "image_size": CHIP, "patch_size": 16, "mask_input_channels": 16}
    return _saved(
        Sam2Model,
        Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER),
        folder,
    )


def _sam3_vision() -> dict[str, Any]:
    backbone = {
        **SMALL,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 28,
        "model_type": "sam3_vit_model",
    }
    sizes = [[16, 16], [8, 8], [4, 4]]
    return {"backbone_config": backbone, "fpn_hidden_size": 16, "backbone_feature_sizes": sizes}


def save_sam3_tracker(folder: Path) -> Path:
    from transformers import Sam3TrackerConfig, Sam3TrackerModel

    config = Sam3TrackerConfig(
        vision_config=_sam3_vision(),
        prompt_encoder_config=SAM3_PROMPTS,
        mask_decoder_config=DECODER,
    )
    return _saved(Sam3TrackerModel, config, folder)


def save_sam3(folder: Path) -> Path:
    from transformers import Sam3Config, Sam3Model

    return _saved(Sam3Model, Sam3Config(**_sam3_parts(save_words(folder))), folder)


def save_sam3_video(folder: Path) -> Path:
    """As SAM 3 is published: what reads words and what takes clicks, in one file."""
    from transformers import Sam3VideoConfig, Sam3VideoModel

    memory = {f"memory_encoder_{name}": 16 for name in ("hidden_size", "output_channels")}
    memory |= {f"memory_attention_{name}": 16 for name in ("hidden_size", "feed_forward_hidden_size")}
    memory |= {f"memory_fuser_{name}": 16 for name in ("embed_dim", "intermediate_dim")}
    tracker = {
        "image_size": 56,
        "vision_config": _sam3_vision(),
        "prompt_encoder_config": SAM3_PROMPTS,
        "mask_decoder_config": DECODER,
        "memory_attention_num_layers": 1,
        "memory_attention_rope_feat_sizes": [4, 4],
        "memory_fuser_num_layers": 1,
        "mask_downsampler_embed_dim": 16,
        **memory,
    }
    config = Sam3VideoConfig(detector_config=_sam3_parts(save_words(folder)), tracker_config=tracker)
    _saved(Sam3VideoModel, config, folder)
    file, double = (
        folder / "model.safetensors",
        "tracker_model.tracker_model.",
    )  # so 5.24 saves what is published plainly
    weights = {name.replace(double, "tracker_model."): part for name, part in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def _sam3_parts(words: int) -> dict[str, Any]:
    small = {**SMALL, "intermediate_size": 16}
    text = {**small, "num_hidden_layers": 1, "vocab_size": words, "projection_dim": 16, "max_position_embeddings": 8}
    return {
        "vision_config": _sam3_vision(),
        "text_config": text,
        "geometry_encoder_config": {**small, "num_layers": 1},
        "detr_encoder_config": {**small, "num_layers": 1},
        "detr_decoder_config": {**small, "num_layers": 1, "num_queries": 6},
        "mask_decoder_config": SMALL,
    }


def save_words(folder: Path) -> int:
    """A tokenizer of letters; the number of its tokens."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return len(tokens)


def _saved(kind: Any, config: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    model = kind(config)
    for weights in model.parameters():  # as made, they are so small that all answers look alike
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, 0, weights[0].numel() ** -0.5)
    model.save_pretrained(folder)
    return folder


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "sam": save_sam,
    "sam2": save_sam2,
    "sam3_tracker": save_sam3_tracker,
    "sam3_video": save_sam3_video,
}
