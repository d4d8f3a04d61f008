"""The training loop, its losses and its saved state."""
