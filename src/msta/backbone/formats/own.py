"""Our own directory format: config.json, model.safetensors and, if the model has its own, tokenizer.json."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from msta.backbone.architecture import Architecture
from msta.backbone.formats.parts import Facts, Parts, Tensors
from msta.backbone.tensor_files import read_tensors
from msta.backbone.tokenizer import TextRules, clip_tokenizer, tokenizer_from_json
from msta.errors import CheckpointError


def load(path: Path, config: dict[str, Any], facts: Facts, raw: Tensors | None = None) -> Parts:
    """Load a directory that :meth:`DualEncoder.save` wrote. ``raw``: other tensors than those of its model.safetensors.

    Raises:
        CheckpointError: it is damaged, or the user gives options for it, although it holds all facts.
    """
    if facts.options:
        raise CheckpointError(f"{path}: our own format says all of itself; leave ?{next(iter(facts.options))}= out")
    try:
        architecture = Architecture.from_dict(config["architecture"])
        tokenizer = config["tokenizer"]
        hashes = dict(config["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path / 'config.json'}: no valid architecture: {error}") from error
    for name, expected in hashes.items():
        try:
            found = hashlib.sha256((path / name).read_bytes()).hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path / name}: {error.strerror}") from error
        if found != expected:
            raise CheckpointError(f"{path / name}: damaged: its SHA-256 is not the one that config.json names")
    own = clip_tokenizer(architecture.vocab_size)
    if tokenizer == "tokenizer.json":
        rules = TextRules(**config["tokenizer_rules"]) if "tokenizer_rules" in config else None
        own = tokenizer_from_json((path / tokenizer).read_text(encoding="utf-8"), rules)
    return Parts("our own format", architecture, raw or read_tensors(path / "model.safetensors"), own, {})
