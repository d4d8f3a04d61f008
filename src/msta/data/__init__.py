"""Files on disk -> batches of clips."""
