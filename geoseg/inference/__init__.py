"""geoseg.inference."""
