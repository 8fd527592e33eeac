"""geoseg.vector."""
