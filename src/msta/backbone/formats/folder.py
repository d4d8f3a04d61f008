"""The weights of a directory, whole or in shards."""

from __future__ import annotations

from pathlib import Path

from msta.backbone.formats.parts import Tensors
from msta.backbone.tensor_files import read_tensors
from msta.errors import CheckpointError
from msta.files import read_json

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_STEMS = ("model.safetensors", "pytorch_model.bin")
_OPEN_CLIP_STEMS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def read_sharded(path: Path, open_clip: bool = False) -> Tensors:
    """``model.safetensors``, or the shards its index names; the same for ``pytorch_model.bin``; open_clip's own first.

    Raises:
        CheckpointError: there are none, or the index is damaged.
    """
    stems = _OPEN_CLIP_STEMS + _STEMS if open_clip else _STEMS
    for stem in stems:
        index = path / f"{stem}.index.json"
        if index.is_file():
            weight_map = read_json(index, CheckpointError).get("weight_map")
            if not isinstance(weight_map, dict):
                raise CheckpointError(f"{index}: no index of shards: it has no weight_map")
            tensors: Tensors = {}
            for shard in sorted(set(weight_map.values())):
                tensors.update(read_tensors(path / shard))
            return tensors
        if (path / stem).is_file():
            return read_tensors(path / stem)
    raise CheckpointError(f"{path}: a config without weights: no {' or '.join(stems)}, whole or in shards")


def only_weights(path: Path) -> Path:
    """The one file of weights in a directory.

    Raises:
        CheckpointError: there is none, or there are several.
    """
    files = sorted(file for file in path.iterdir() if file.suffix in WEIGHTS and file.is_file())
    stems = [file for stem in (*_OPEN_CLIP_STEMS, *_STEMS) for file in files if file.name == stem]
    if len(files) == 1 or stems:
        return (stems or files)[0]
    if not files:
        raise CheckpointError(f"{path}: no backbone directory: neither a config.json that is known nor weights in it")
    raise CheckpointError(f"{path}: several files of weights; name one: {', '.join(file.name for file in files)}")
