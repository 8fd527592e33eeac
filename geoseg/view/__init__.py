"""geoseg.view."""
