"""Clips in tar files: written by ``msta data shard``, streamed by training and evaluation."""

FORMAT = "msta-shards-1"
INDEX, TABLE = "index.json", "clips.parquet"
COLUMNS = {
    "shard": "int32", "name": "string", "offset": "int64", "size": "int64", "digest": "string", "label": "int32",
    "split": "string", "start": "float64", "end": "float64",
    "source": "string", "source_start": "float64", "source_end": "float64",
}  # fmt: skip
"""Columns of the table. A clip is ``size`` bytes of its shard from ``offset`` on, as ``name``, cut from ``source``."""
