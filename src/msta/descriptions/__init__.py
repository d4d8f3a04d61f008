"""Spatial and temporal sentences per class, and the anchors that the frozen text tower makes of them."""
