"""Clips in tar files: written by ``msta data shard``, streamed by training and evaluation."""

FORMAT = "msta-shards-1"
INDEX, TABLE = "index.json", "clips.parquet"
COLUMNS = (
    "shard", "name", "offset", "size", "digest", "label", "split", "start", "end",
    "source", "source_start", "source_end",
)  # fmt: skip
"""Of the table: a clip lies in a shard as ``name``, ``size`` bytes from ``offset`` on; it was cut from ``source``."""
