"""DualEncoder, the frozen foundation model: both towers, the temperature, the tokenizer and the pixel statistics."""

from __future__ import annotations

import copy
import hashlib
import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from msta.backbone.architecture import ARCHITECTURES, Architecture
from msta.backbone.device import DTYPES, best_device, inference_precision
from msta.backbone.prefix import suffix, text_prefix, video_prefix
from msta.backbone.text import TextTower
from msta.backbone.tokenizer import Tokenizer, clip_tokenizer
from msta.backbone.video import VideoTower
from msta.errors import CheckpointError
from msta.files import new_directory, write_bytes, write_json

FORMAT = "msta-backbone-1"


class DualEncoder(nn.Module):
    """A video tower and a text tower with one embedding space.

    Args:
        architecture: the numbers.
        tokenizer: None for CLIP's.
        source: where it came from (a path, a Hub id); an adapter trained on it remembers this.

    Attributes:
        video: :class:`VideoTower`.
        text: :class:`TextTower`.
        base: the model that completed a fine-tuned file, see :func:`load_backbone`.
        origins: facts that no tensor shows (activation, heads …) -> value and source.
        precision: of :meth:`computing`: fp32, bf16 or fp16. The weights stay as they are.
        logit_scale: logarithm of the factor on cosine similarities (1 / temperature).
        logit_bias: of a model trained with a sigmoid per pair. It is kept and saved, but a softmax chooses among
            classes, and a bias that all classes share does not change it.
        pixel_mean: [3], the mean of pixels in 0..1, for normalisation.
        pixel_std: [3], the standard deviation.

    Example:
        >>> import msta
        >>> backbone = msta.random_backbone("clip-b32")
        >>> backbone.encode_video(torch.zeros(1, 2, 3, 224, 224)).shape
        torch.Size([1, 512])
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    logit_bias: Tensor | None

    def __init__(self, architecture: Architecture, tokenizer: Tokenizer | None = None, source: str = "unnamed") -> None:
        super().__init__()
        a = self.architecture = architecture
        self.tokenizer = tokenizer or clip_tokenizer(a.vocab_size)
        self.source = source
        self.base: str | os.PathLike[str] | None = None
        self.origins: dict[str, str] = {}
        self.precision = "fp32"
        self.video = VideoTower(a)
        self.text = TextTower(a)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(100.0)))
        self.register_buffer("logit_bias", torch.tensor(-10.0) if a.logit_bias else None)
        self.register_buffer("pixel_mean", torch.tensor(a.pixel_mean, device="cpu"), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(a.pixel_std, device="cpu"), persistent=False)

    def encode_video(self, video: Tensor) -> Tensor:
        """Float [B, T, 3, H, W], normalised with pixel_mean and pixel_std -> [B, D], not L2-normalised."""
        with self.computing():
            return suffix(self.video, video_prefix(self.video, video))

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """int64 [K, L], padded as :meth:`tokenize` does -> [K, D], not L2-normalised."""
        with self.computing():
            return suffix(self.text, text_prefix(self.text, token_ids))

    def computing(self) -> AbstractContextManager[Any]:
        """Autocast to :attr:`precision`; nothing if that is fp32, so that the autocast of a training stays in force."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.logit_scale.device.type, DTYPES[self.precision])

    def placed(self) -> DualEncoder:
        """This backbone on the device and in the precision that the user chose, or else the best ones here.

        Raises:
            ConfigError: there is no such device or precision.
        """
        device = best_device()
        self.precision = inference_precision(device)
        return self.to(device)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """K strings -> int64 [K, L], L the context length."""
        return self.tokenizer(texts, self.text.context_length)

    def view(self) -> DualEncoder:
        """A dual encoder with the same weights, whose blocks can be wrapped without changing this one."""
        twin = copy.copy(self)
        twin._modules = {**self._modules, "video": self.video.view(), "text": self.text.view()}
        return twin

    def fingerprint(self) -> str:
        """64 hexadecimal digits that distinguish these weights, and what is computed with them, from others.

        They depend on up to 1,024 values of every tensor, evenly spread: any training changes nearly all values, and a
        large backbone is read in milliseconds. They also depend on the numbers that no tensor's shape shows.
        """
        a = self.architecture
        unseen = [(shape.heads, shape.activation, shape.layer_norm_eps) for shape in (a.video, a.text)]
        digest = hashlib.sha256(f"{a.attention}{unseen}{a.unusual() or ''}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            flat = tensor.detach().flatten()
            sample = flat[:: max(1, flat.numel() // 1024)].to("cpu", torch.float32)
            digest.update(f"{name}{list(tensor.shape)}".encode())
            digest.update(sample.numpy().tobytes())
        return digest.hexdigest()

    def save(self, directory: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
        """Write our own format: ``config.json``, ``model.safetensors`` and, if it has its own, ``tokenizer.json``.

        ``dtype`` is that of the stored weights; loading gives float32 again. ``config.json`` has the files' SHA-256, by
        which loading detects damage.

        Raises:
            MSTAError: the directory exists with other contents.
        """
        with new_directory(directory) as folder:
            state = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in self.state_dict().items()}
            files = {"model.safetensors": to_safetensors(state)}
            own_tokenizer = self.tokenizer.source.startswith("{")
            rules = {}
            if own_tokenizer:
                files["tokenizer.json"] = self.tokenizer.source.encode()
                rules = {"tokenizer_rules": asdict(self.tokenizer.rules)}
            for name, content in files.items():
                write_bytes(folder / name, content)
            write_json(
                folder / "config.json",
                {
                    "format": FORMAT,
                    "architecture": self.architecture.to_dict(),
                    "tokenizer": "tokenizer.json" if own_tokenizer else self.tokenizer.source,
                    **rules,
                    "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
                },
            )


def random_backbone(name: str | Architecture, seed: int = 0) -> DualEncoder:
    """A frozen dual encoder of the right shape with random weights, which depend on the seed alone.

    Args:
        name: one of ARCHITECTURES ("viclip-b16", "viclip-l14", "clip-b32", "clip-b16", "clip-l14", "siglip-b16",
            "pe-core-b16"), or an :class:`Architecture`.
        seed: of the weights. The global random state does not change.

    Raises:
        CheckpointError: the name is unknown.
    """
    if isinstance(name, str):
        if name not in ARCHITECTURES:
            raise CheckpointError(f"no architecture {name!r}; there are {', '.join(ARCHITECTURES)}")
        architecture, source = ARCHITECTURES[name], f"random:{name}:{seed}"
    else:
        architecture = name
        source = "random weights, kept nowhere"
    with WithoutInitialising(), torch.device("meta"):
        backbone = DualEncoder(architecture, source=source)
    backbone.to_empty(device="cpu")
    backbone.pixel_mean.copy_(torch.tensor(architecture.pixel_mean))
    backbone.pixel_std.copy_(torch.tensor(architecture.pixel_std))
    _initialise(backbone, torch.Generator().manual_seed(seed))
    return freeze(backbone)


@torch.no_grad()
def _initialise(backbone: DualEncoder, generator: torch.Generator) -> None:
    """CLIP's initialisation: normal, residual branches scaled down with depth (Radford et al. 2021, their code)."""

    def normal(tensor: Tensor, std: float) -> None:
        tensor.normal_(std=std, generator=generator)

    for tower in (backbone.video, backbone.text):
        width, layers = tower.shape.width, tower.shape.layers
        for name, parameter in tower.named_parameters():
            if ".ln" in f".{name}":
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
                normal(parameter, width**-0.5 * (2 * layers) ** -0.5)
            elif name.endswith("mlp.fc1.weight"):
                normal(parameter, (2 * width) ** -0.5)
            elif name.endswith(("qkv.weight", "proj", "class_embedding", "pooling.query")):
                normal(parameter, width**-0.5)
            elif name.endswith("bias"):
                parameter.zero_()
            else:  # patch, token and positional embeddings
                normal(parameter, 0.02)
    backbone.logit_scale.fill_(math.log(100.0))
    if backbone.logit_bias is not None:
        backbone.logit_bias.fill_(-10.0)


class WithoutInitialising(TorchFunctionMode):
    """Layers made within it keep whatever is in their memory, because loading fills them.

    On the meta device, torch's own initialisation would import its compiler, which takes a second.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return function(*args, **(kwargs or {}))


def freeze(module: DualEncoder) -> DualEncoder:
    """Set no gradients and evaluation mode, the state in which every backbone starts."""
    module.requires_grad_(False)
    return module.eval()
