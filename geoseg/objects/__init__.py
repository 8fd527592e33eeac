"""Objects that have an identity: instances, one for each building, and panoptic scenes."""
