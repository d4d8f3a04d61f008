"""The frozen foundation model: towers, checkpoints, tokenizers. Knows nothing of adaptation."""
