"""AdaptedModel: a backbone with trainable parts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msta.adapters.artefact import Artefact
from msta.adapters.method import MethodConfig
from msta.adapters.task import Task
from msta.backbone.blocks import exact_reference_mode
from msta.backbone.dual_encoder import DualEncoder
from msta.backbone.prefix import Tokens, cut_to_longest, prefix_length, suffix, text_prefix, video_prefix
from msta.errors import ConfigError


class AdaptedModel(nn.Module):
    """A backbone with trainable parts.

    Attributes:
        adapter: everything that trains and is saved, and nothing else.
        backbone: the dual encoder the adapter acts in. It shares the frozen weights with the one it was made from.
        config: the method's settings.
        origin: source, fingerprint and, if it had one, base of the backbone it was made from.
        trains: what trains, in words.
        label: for tables and legends: the method's name and, for MSTA, its size.
        frozen: what does not train, in words.
        support_views: how many augmented views of each training clip the method wants as support features.
        task: classes and template; None before training.
        temperature: fitted on validation clips, so that the probabilities match the share of right answers.
        metrics: the figures measured when it was saved.
        exact_reference: compute everything, every time, as the papers write it. The shortcuts of
            :mod:`msta.backbone.prefix`, of blocks and of adapters are tested against this.
    """

    def __init__(
        self,
        config: MethodConfig,
        adapter: nn.Module,
        backbone: DualEncoder,
        origin: DualEncoder,
        trains: str,
        frozen: str = "both towers and the temperature",
        label: str | None = None,
    ) -> None:
        super().__init__()
        self.exact_reference = False
        self.adapter = adapter  # first: its parameters are known by their names here, "adapter.…"
        self.backbone = backbone
        self.config = config
        self.origin = {"source": origin.source, "fingerprint": origin.fingerprint()}
        if origin.base is not None:
            self.origin["base"] = os.fspath(origin.base)
        self.trains, self.frozen = trains, frozen
        self.label = label or config.name
        self.support_views = 0
        self.task: Task | None = None
        self.temperature = 1.0
        self.metrics: dict[str, Any] = {}

    def encode_video(self, video: Tensor | Tokens) -> Tensor:
        """Float [B, T, 3, H, W], normalised, or what :meth:`video_prefix` gave -> [B, D], not L2-normalised."""
        with self.backbone.computing():
            if isinstance(video, Tokens):
                return suffix(self.backbone.video, video)
            if not self.exact_reference:
                return self.backbone.encode_video(video)
            with exact_reference_mode():
                return self.backbone.video(video)

    def encode_text(self, token_ids: Tensor | Tokens) -> Tensor:
        """int64 [K, L], zero-padded, or what :meth:`text_prefix` gave -> [K, D], not L2-normalised."""
        with self.backbone.computing():
            if isinstance(token_ids, Tokens):
                return suffix(self.backbone.text, token_ids)
            if not self.exact_reference:
                return self.backbone.encode_text(token_ids)
            with exact_reference_mode():
                return self.backbone.text(token_ids)

    def placed(self) -> AdaptedModel:
        """See :meth:`msta.backbone.dual_encoder.DualEncoder.placed`."""
        return self.to(self.backbone.placed().logit_scale.device)

    def video_prefix(self, video: Tensor, kept: Tensor | None = None) -> Tokens:
        """The frozen part of :meth:`encode_video`, which training does not change.

        ``kept``: see :func:`msta.backbone.prefix.video_prefix`.

        Raises:
            ConfigError: patches may not be dropped, see :meth:`check_dropping`.
        """
        if kept is not None:
            self.check_dropping()
        return video_prefix(self.backbone.video, video, kept)

    def check_dropping(self) -> None:
        """Raise if patches may not be dropped.

        Raises:
            ConfigError: the method, or a backbone with rotary positions, needs to know which patches are neighbours.
        """
        if self.config.needs_grid or self.backbone.architecture.rotary:
            who = self.config.name if self.config.needs_grid else "this backbone, whose positions are rotary,"
            raise ConfigError(f"train.keep_tokens: {who} needs the grid of patches whole; set it to 1")

    def text_prefix(self, token_ids: Tensor) -> Tokens:
        """The frozen part of :meth:`encode_text`, which training does not change."""
        return text_prefix(self.backbone.text, token_ids)

    def prepare_prompts(self, token_ids: Tensor) -> Tensor | Tokens:
        """int64 [K, L] -> the form that is cheapest to encode in every training step.

        This is the prefix's output if there is a prefix, else ids without needless padding; for the exact reference,
        the ids as they are.
        """
        if self.exact_reference:
            return token_ids
        if prefix_length(self.backbone.text) is None:
            return cut_to_longest(self.backbone.text, token_ids)
        return self.text_prefix(token_ids)

    def cast_frozen(self, dtype: torch.dtype) -> None:
        """Cast the frozen layers once to the dtype that autocast would otherwise cast them to in every step."""
        for module in self.backbone.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and not any(p.requires_grad for p in module.parameters()):
                module.to(dtype)

    def compile_prefix(self, **options: Any) -> None:
        """Compile the frozen blocks of the video tower, each when it first runs, without graph breaks.

        ``options``: of ``torch.compile``.

        Raises:
            ConfigError: the exact reference runs the blocks as they are written.
        """
        if self.exact_reference:
            raise ConfigError("train.compile: the exact reference runs the blocks as they are written")
        for block in self.backbone.video.blocks[: prefix_length(self.backbone.video) or 0]:
            block.compile(fullgraph=True, **options)

    def forward(self, video: Tensor | Tokens, token_ids: Tensor | Tokens) -> tuple[Tensor, Tensor]:
        """Both encodings in one call, for wrappers (mixed precision, several devices) that act on ``forward``."""
        return self.encode_video(video), self.encode_text(token_ids)

    def logits(self, video: Tensor, text: Tensor) -> Tensor:
        """Embeddings of clips [B, D] and of classes [K, D], any length -> scores [B, K], in float32."""
        return class_logits(video, text, self.backbone.logit_scale)

    def prepare(self, classes: int, clips: int) -> None:
        """Called once, before training, with the numbers of classes and training clips, on which some sizes depend."""

    def add_support(self, embeddings: Tensor, labels: Tensor) -> None:
        """Called once, before training, with the training clips' embeddings, if ``support_views`` is not 0.

        Args:
            embeddings: [N, D], each the mean over ``support_views`` views.
            labels: int64 [N], class indices.
        """

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise unless the model can choose among ``classes``, in this order.

        Raises:
            ConfigError: the method is closed-set, and the classes are not its own.
        """
        if self.config.closed_set and (self.task is None or tuple(classes) != self.task.classes):
            own = "it was trained for none" if self.task is None else f"these are not its {len(self.task.classes)}"
            raise ConfigError(f"{self.config.name} chooses among the classes it was trained on alone, and {own}")

    def temperature_for(self, classes: Sequence[str]) -> float:
        """The fitted temperature for the classes it was fitted on, in any order; 1 for other classes."""
        return self.temperature if self.task and set(classes) == set(self.task.classes) else 1.0

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """K strings -> int64 [K, L]."""
        return self.backbone.tokenize(texts)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters an optimizer should get, each once."""
        return [p for p in self.adapter.parameters() if p.requires_grad]

    def num_trainable(self) -> int:
        """The number of trainable parameters."""
        return sum(p.numel() for p in self.trainable_parameters())

    def adapter_state(self) -> dict[str, Tensor]:
        """What is saved: name -> tensor on the CPU, every name starting with "adapter."."""
        return {f"adapter.{name}": tensor.cpu().contiguous() for name, tensor in self.adapter.state_dict().items()}

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of :meth:`adapter_state`.

        Raises:
            CheckpointError: the weights belong to a former form of the method.
            RuntimeError: names or sizes do not fit; the message lists them.
        """
        self.config.check_state(state)
        self.adapter.load_state_dict({name.removeprefix("adapter."): tensor for name, tensor in state.items()})

    def save(self, directory: str | os.PathLike[str], metrics: dict[str, Any] | None = None) -> None:
        """Write the adapter's directory, see :mod:`msta.adapters.artefact`.

        ``metrics``: None: the model's own. If it has no temperature, the model's is added.

        Raises:
            MSTAError: the directory exists with other contents.
        """
        written = dict(self.metrics if metrics is None else metrics)
        if self.temperature != 1.0 and (metrics is None or "temperature" not in metrics):
            written["temperature"] = self.temperature
        Artefact(
            method=self.config.name,
            label=self.label,
            settings=self.config.model_dump(),
            backbone=self.origin,
            state=self.adapter_state(),
            trained=self.num_trainable(),
            total=sum(p.numel() for p in self.parameters()),
            task=self.task,
        ).write(directory, written)

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, revision: str | None = None, token: str | None = None
    ) -> str:
        """Save it to the Hugging Face Hub, see :func:`msta.adapters.hub.push_adapter`; the commit's address.

        Raises:
            MSTAError: the Hub refuses; the message has its reason.
        """
        from msta.adapters.hub import push_adapter

        with tempfile.TemporaryDirectory() as aside:
            self.save(Path(aside) / "adapter")
            return push_adapter(Path(aside) / "adapter", repo_id, private=private, revision=revision, token=token)


def class_logits(video: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
    """Scaled cosine similarities, in float32.

    Args:
        video: [B, D], any length.
        text: [K, D], any length.
        logit_scale: logarithm of the factor (the backbone's own).

    Returns:
        [B, K].
    """
    return logit_scale.float().exp() * F.normalize(video.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
