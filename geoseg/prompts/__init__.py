"""Segment by prompt: points, boxes or words to objects of a scene, each a polygon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geoseg._lazy import getattr_of

if TYPE_CHECKING:
    from geoseg.prompts.files import PromptSummary, prompt_file
    from geoseg.prompts.segmenter import Answer, Candidate, PromptSegmenter, prompt

__all__ = ["Answer", "Candidate", "PromptSegmenter", "PromptSummary", "prompt", "prompt_file"]

__getattr__ = getattr_of(
    __name__,
    {
        "Answer": "segmenter",
        "Candidate": "segmenter",
        "PromptSegmenter": "segmenter",
        "prompt": "segmenter",
        "PromptSummary": "files",
        "prompt_file": "files",
    },
)
