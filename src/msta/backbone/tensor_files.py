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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from msta.errors import CheckpointError, few, in_short
from msta.files import read_json
from msta.notices import notice

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pth.tar")
_INDEX = ".index.json"
_INDEXES = tuple(f"{end}{_INDEX}" for end in WEIGHTS)
_STEMS = ("model.safetensors", "pytorch_model.bin")
_OPEN_CLIP_STEMS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All named tensors of a file, or of the shards in an index, on the CPU, in the precision of the file.

    A tensor in nested dictionaries is called by its place: ``model/visual.proj``.

    Raises:
        CheckpointError: the file cannot be read, is cut off, has an unknown format, or needs code to be unpickled.
    """
    if path.name.endswith(_INDEX):
        return {name: tensor for shard in _shards(path) for name, tensor in read_tensors(path.with_name(shard)).items()}
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
    if head[8:9] == b"{":
        looked_like = "safetensors"
    elif head.startswith(b"PK\x03\x04"):
        entries = _entries(path)
        if entries and not any(name.endswith("/data.pkl") for name in entries):
            raise CheckpointError(
                f"{path}: no checkpoint, but an archive of {few(entries)}; unpack it, and give its weights as a file "
                "of torch.save or safetensors"
            )
        scripted = any(name.endswith("/constants.pkl") for name in entries)
        looked_like = "a TorchScript archive" if scripted else "a PyTorch checkpoint"
    elif head.startswith(b"\x80"):
        looked_like = "a PyTorch checkpoint (old format)"
    elif path.suffix == ".safetensors":
        looked_like = "safetensors"
    else:
        raise CheckpointError(f"{path}: no checkpoint: neither safetensors nor a file written by torch.save")
    try:
        if looked_like == "safetensors":
            return load_file(path)
        if looked_like == "a TorchScript archive":
            return _read_torchscript(path)
        try:
            with open(path, "rb") as file:  # given a name, torch would go by its suffix
                return _named_tensors(torch.load(file, map_location="cpu", weights_only=True), path)
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


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors in what torch.load returned. Training scripts like to wrap them: {"model": …, "epoch": …}."""
    if tensors := dict(_under("", content)):
        return tensors
    found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
    raise CheckpointError(f"{path}: a PyTorch file without a state dict; it holds: {found or 'nothing'}")


def _under(place: str, content: Any) -> Iterator[tuple[str, Tensor]]:
    """Only behind names: the state of an optimizer is numbered."""
    for name, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, Tensor):
            yield f"{place}{name}", value
        elif isinstance(name, str):
            yield from _under(f"{place}{name}/", value)


# ---------------------------------------------------------------- folders


def weights_in(path: Path, open_clip: bool = True) -> Path:
    """The one file of weights in a directory, or the index of its shards. One of open_clip comes first, if asked.

    Raises:
        CheckpointError: there is none, or there are several.
    """
    files = sorted(file for file in path.iterdir() if file.name.endswith(WEIGHTS + _INDEXES) and file.is_file())
    stems = _OPEN_CLIP_STEMS + _STEMS if open_clip else _STEMS
    usual = [file for stem in stems for file in files if file.name.removesuffix(_INDEX) == stem]
    found = usual[:1] or [file for file in files if file.name.endswith(_INDEXES)] or files
    if not found:
        raise CheckpointError(f"{path}: a folder without weights: no file in it ends in {', '.join(WEIGHTS)}")
    if len(found) > 1:
        raise CheckpointError(f"{path}: several files of weights; name one: {', '.join(file.name for file in found)}")
    return found[0]


def index_of(path: Path) -> Path:
    """The index beside a file that lists it as a shard; the file itself if there is none.

    Raises:
        CheckpointError: an index is damaged.
    """
    if not re.search(r"-\d+-of-\d+\.", path.name):
        return path
    return next((index for index in sorted(path.parent.glob(f"*{_INDEX}")) if path.name in _shards(index)), path)


def _shards(index: Path) -> list[str]:
    weight_map = read_json(index, CheckpointError).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index}: no index of shards: it has no weight_map")
    return sorted(set(map(str, weight_map.values())))


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
    with open(path, "rb") as file:
        content = torch.load(file, map_location="cpu", weights_only=False, pickle_module=inert)
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


def _entries(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # damaged: torch.load will say so
        return []


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
