"""A file or folder of weights -> {name: tensor}, in any common format, without executing anything in it.

Safetensors hold data alone. Pickles are read by torch with ``weights_only=True``. If a pickle also holds objects (such
as a config of yacs or OmegaConf beside the weights), an unpickler reads it to which all classes but those of tensors
are inert. torch refuses a TorchScript archive (OpenAI's format for CLIP) in that mode, and ``torch.jit.load`` would
compile the code in it. So torch gets the archive without its code, and the same unpickler.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from msta.errors import CheckpointError, in_short
from msta.files import read_json
from msta.notices import notice

_WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state", "module", "checkpoint", "model_ema", "ema")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_STEMS = ("model.safetensors", "pytorch_model.bin")
_OPEN_CLIP_STEMS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All named tensors of a file, on the CPU, in the precision of the file.

    Raises:
        CheckpointError: the file cannot be read, is cut off, has an unknown format, or needs code to be unpickled.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty")
    if head.startswith(b"version https://"):
        raise CheckpointError(
            f"{path}: a pointer of Git LFS in the place of the weights; fetch them: git lfs pull, or download the file "
            "from the model's page"
        )
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        looked_like = "safetensors"
    elif head.startswith(b"PK\x03\x04"):
        looked_like = "a TorchScript archive" if _is_torchscript(path) else "a PyTorch checkpoint"
    elif head.startswith(b"\x80"):
        looked_like = "a PyTorch checkpoint (old format)"
    else:
        raise CheckpointError(f"{path}: no checkpoint: neither safetensors nor a file written by torch.save")
    try:
        if looked_like == "safetensors":
            return load_file(path)
        if looked_like == "a TorchScript archive":
            return _read_torchscript(path)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if "nsupported" not in str(error):
                raise
            return _beside_objects(path)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        reason = in_short(re.sub(r"\x1b\[[0-9;]*m|\\x1b\[[0-9;]*m", "", str(error)))
        raise CheckpointError(f"{path}: looked like {looked_like}, but is damaged ({reason})") from error
    except Exception as error:  # a damaged file can make its reader fail in any way
        raise CheckpointError(
            f"{path}: looked like {looked_like}, but is truncated or damaged ({in_short(error)})"
        ) from error
    return _named_tensors(content, path)


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what torch.load returned. Training scripts like to wrap it: {"model": …, "epoch": …}."""
    for _ in range(3):
        if not isinstance(content, dict):
            break
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)]
        if inner:  # other tensors beside it are figures, as best_acc1
            content = inner[0]
            continue
        tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
        if not tensors:
            break
        return {str(k): v for k, v in tensors.items()}
    found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
    raise CheckpointError(f"{path}: a PyTorch file without a state dict; it holds: {found or 'nothing'}")


# ---------------------------------------------------------------- folders


def read_sharded(path: Path, open_clip: bool = False) -> dict[str, Tensor]:
    """Read ``model.safetensors`` or the shards in its index; or ``pytorch_model.bin``. A file of open_clip comes first.

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
            tensors: dict[str, Tensor] = {}
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


# ---------------------------------------------------------------- objects beside the weights, without running them


class _Inert:
    """Stands for an object of any class. It does nothing, whatever it is made of, called with or filled with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None:
        """Called by a pickled list."""

    def extend(self, items: Any) -> None:
        """Called by a pickled list."""

    def add(self, item: Any) -> None:
        """Called by a pickled set."""


class _Module:
    """Stands for any scripted module. Unpickling fills its ``__dict__`` with parameters and sub-modules."""


_HARMLESS = {
    ("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"), ("torch.serialization", "_get_layout"),
}  # fmt: skip


class _Pickle:
    """The module that torch.load unpickles with. Tensors stay as they are, objects of other classes become inert."""

    __name__ = "inert"

    def __init__(self) -> None:
        met: list[str] = []
        self.met = met

        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                if (module, name) in _HARMLESS or (module == "torch" and name.endswith("Storage")):
                    return super().find_class(module, name)
                if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
                    return getattr(torch, name)
                if module.startswith("__torch__"):
                    return _Module
                if module == "torch.jit._pickle":  # typed lists and dicts: the values are enough
                    return lambda value, *_: value
                met.append(f"{module}.{name}")
                return type(name, (_Inert,), {})

        self.Unpickler = Unpickler

    def load(self, file: Any, **options: Any) -> Any:
        """Like pickle.load. torch calls it for files in the old format."""
        return self.Unpickler(file, **options).load()


def _beside_objects(path: Path) -> dict[str, Tensor]:
    """The weights in a pickle that also holds objects of other classes.

    Raises:
        CheckpointError: the weights cannot be told from the objects.
    """
    inert = _Pickle()
    content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=inert)
    classes = [name for name in dict.fromkeys(inert.met) if not name.startswith(("builtins.", "copyreg."))]
    objects = ", ".join(classes[:3])
    try:
        tensors = _named_tensors(content, path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: no weights that can be read without running code: it holds objects of {objects}, and nothing in "
            "it was executed. If you trust the file, keep its weights alone, in Python: import torch; "
            f"c = torch.load({str(path)!r}, weights_only=False); "
            "torch.save(c.state_dict() if hasattr(c, 'state_dict') else c.get('model', c), 'weights.pth')"
        ) from error
    notice(f"{path}: beside its weights it holds objects of {objects}; they were not read, and nothing was executed.")
    return tensors


# ---------------------------------------------------------------- TorchScript, without running it


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # damaged: torch.load will say so
        return False


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    plain = io.BytesIO()  # the archive without what tells torch.load to compile its code
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(plain, "w") as copy:
        for entry in archive.infolist():
            if not entry.filename.endswith("/constants.pkl"):
                copy.writestr(entry.filename, archive.read(entry))
    plain.seek(0)
    inert = _Pickle()
    module = torch.load(plain, map_location="cpu", weights_only=False, pickle_module=inert)
    if not isinstance(module, _Module):
        raise ValueError(f"its data is no module, but holds {', '.join(inert.met) or 'something else'}")
    tensors: dict[str, Tensor] = {}

    def collect(node: Any, prefix: str) -> None:
        for key, value in vars(node).items():
            if isinstance(value, Tensor):
                tensors[prefix + key] = value
            elif isinstance(value, _Module):
                collect(value, f"{prefix}{key}.")

    collect(module, "")
    return tensors
