"""Pictures of what was made."""

from geoseg.view.side_by_side import draw_side_by_side

__all__ = ["draw_side_by_side"]
