"""What all adapted models share: their interface, task and scores, and how they are saved and shared."""
