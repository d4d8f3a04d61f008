"""Per-class spatial and temporal sentences, and the anchors the frozen text tower makes of them."""
