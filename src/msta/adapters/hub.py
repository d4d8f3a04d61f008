"""Adapters on the Hugging Face Hub: safetensors and JSON, no code."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from msta.adapters.artefact import CARD, CLASSES, CONFIG, METRICS, WEIGHTS, Artefact, adapter_in
from msta.adapters.card import HUB_ID, model_card
from msta.backbone.published import hub_reason
from msta.errors import CheckpointError, DataError, MSTAError
from msta.files import read_json

_WANTED = [CONFIG, WEIGHTS, CLASSES, METRICS]


def adapter_folder(name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """An adapter's directory on this machine: ``name`` itself, or, if there is none, a copy from the Hub.

    Args:
        name: a directory, of an adapter or a run, or ``owner/name`` on the Hub.
        revision: a branch, tag or commit there.

    Raises:
        CheckpointError: there is no such directory, and the Hub does not give one.
    """
    folder = Path(name).expanduser()
    if folder.exists() or not HUB_ID.fullmatch(os.fspath(name)):
        return adapter_in(folder)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(os.fspath(name), revision=revision, allow_patterns=_WANTED))
    except Exception as error:  # the Hub's errors have no common base
        raise CheckpointError(
            f"{name}: no directory here, and not to be had from the Hub: {hub_reason(error)}"
        ) from error


def push_adapter(
    directory: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Send the directory of an adapter to the Hub, with a card that says how to use it from there.

    Args:
        directory: of an adapter or a run.
        repo_id: ``owner/name``; it is made if it does not exist.
        private: whether a new repository is private.
        revision: an existing branch; None: the main one.
        token: None: that of ``hf auth login``, or HF_TOKEN.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: there is no adapter.
        MSTAError: the Hub refuses; the message has its reason.
    """
    from huggingface_hub import HfApi

    artefact, folder = Artefact.read(directory), adapter_in(directory)
    metrics = read_json(folder / METRICS, DataError) if (folder / METRICS).exists() else {}
    api = HfApi(token=token, library_name="msta")
    with tempfile.TemporaryDirectory() as aside:
        for name in _WANTED:
            if (folder / name).exists():
                (Path(aside) / name).write_bytes((folder / name).read_bytes())
        (Path(aside) / CARD).write_text(model_card(artefact, metrics, where=repo_id), encoding="utf-8")
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo_id, folder_path=aside, revision=revision, commit_message=f"Add {artefact.method} adapter"
            )
        except Exception as error:  # see above
            raise MSTAError(f"{repo_id}: the Hub does not take it: {hub_reason(error)}") from error
    return str(done.commit_url)
