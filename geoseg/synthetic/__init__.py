"""Synthetic scenes with known answers: an invented place seen from above, and the true class of each pixel."""

from geoseg.synthetic.scene import SyntheticScene, write_scene

__all__ = ["SyntheticScene", "write_scene"]
