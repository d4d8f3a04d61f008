"""The frozen foundation model: towers, checkpoints, tokenizers. Nothing here knows about adaptation."""
