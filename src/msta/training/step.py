"""One optimizer step on a batch, which may be cut into micro-batches and divided among processes.

The loss of a micro-batch is :func:`msta.training.losses.objective`, weighted by its share of the readable clips. The
sum is the objective of the whole batch, however it is cut. The class prompts are encoded once per step. Their
embeddings are a leaf in the loss of every micro-batch and collect its gradient. At the end of the step this gradient
goes through the text tower. With many classes, each process encodes some of them, and the embeddings are gathered. All
communication comes after the micro-batches, so a process may compute its own again, or smaller ones, without the
others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from msta.adapters.inputs import views_of
from msta.adapters.model import AdaptedModel
from msta.adapters.task import per_class
from msta.backbone.prefix import Tokens
from msta.config import RunConfig
from msta.data.catalog import Clip
from msta.data.clips import Failures
from msta.errors import MSTAError
from msta.training import losses
from msta.training.processes import Processes

_MANY = 32
"""With so many prompts or more, dividing them among processes saves more than it costs, see docs/training.md."""


_LOSSES = ("loss", "cross_entropy", "consistency")


class OutOfMemory(MSTAError):
    """A micro-batch was too large; nothing has been changed."""


@dataclass
class StepResult:
    """The outcome of a step.

    Attributes:
        clips: clips that were read, by all processes together.
        stopped: a process was asked to stop, so the step was not taken.
        save: the main process wants to save.
        losses: "loss", "cross_entropy", "consistency".
        bad: names of the clips, of all processes, whose loss or gradient is not a number. The step was not taken.
        ids: numbers of the clips, if asked for.
        sent: bytes that each process sent.
    """

    clips: int = 0
    stopped: bool = False
    save: bool = False
    losses: dict[str, float] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    sent: int = 0


@dataclass
class _Text:
    """Class embeddings: those that this process encoded [k, D], with their graph, and a leaf [K, D] of all classes."""

    own: Tensor
    rows: slice
    leaf: Tensor
    shared: bool


@dataclass
class _MicroBatches:
    """The results of the micro-batches of this process.

    Attributes:
        indices: of the clips that were read.
        finite: for each of them, whether its embedding is finite.
        losses: "loss" and the terms of the objective -> for each micro-batch, times its clips.
    """

    indices: list[int] = field(default_factory=list)
    finite: list[Tensor] = field(default_factory=list)
    losses: dict[str, list[Tensor]] = field(default_factory=lambda: {name: [] for name in _LOSSES})

    def totals(self) -> list[float]:
        """The sum of each loss, in float64 on the CPU. There is one copy from a GPU, which waits for it."""
        if not self.indices:
            return [0.0 for _ in _LOSSES]
        table = torch.stack([torch.stack(each) for each in self.losses.values()]).cpu().double()
        return [float(row.sum()) for row in table]


class TrainStep:
    """Takes steps: encode prompts and clips, loss, backward, all-reduce, clip the gradients, update.

    Args:
        config: of the run.
        model: the model that trains.
        optimizer: prepared.
        prompts: of the classes, from ``model.prepare_prompts``.
        anchors: see :func:`msta.training.losses.consistency`.
        clips: the training clips; batches give their positions in this list.
        failures: collects clips that cannot be read.
        processes: those of the run.
    """

    def __init__(
        self,
        config: RunConfig,
        model: AdaptedModel,
        optimizer: Any,
        prompts: Tensor | Tokens,
        anchors: list[Tensor],
        clips: Sequence[Clip],
        failures: Failures,
        processes: Processes,
    ) -> None:
        self.config, self.model, self.optimizer, self.prompts = config, model, optimizer, prompts
        self.anchors, self.clips, self.failures, self.processes = anchors, clips, failures, processes
        self.accelerator = processes.accelerator
        self.classes = len(model.task.classes) if model.task else 0
        self.class_weights: Tensor | None = None
        if config.train.balance == "classes":
            self.class_weights = losses.balanced([clip.label for clip in clips], self.classes).to(processes.device)
        count = len(prompts.x) if isinstance(prompts, Tokens) else len(prompts)
        share = config.train.share_prompts
        self.sharing = 1 < processes.count <= self.classes and (count >= _MANY if share is None else share)
        self._text: _Text | None = None

    def __call__(
        self, batches: Iterable[dict[str, Any]], whole: int, alpha: float, stopped: Callable[[], bool], save: bool
    ) -> StepResult:
        """Take a step, unless the run is stopped.

        Args:
            batches: the micro-batches of this process.
            whole: clips of the step, readable or not, of all processes.
            alpha: weight of the consistency term.
            stopped: called after every micro-batch.
            save: whether the main process wants to save; the others are told.

        Raises:
            OutOfMemory: call again with smaller micro-batches.
        """
        parameters = self.model.trainable_parameters()
        self.optimizer.zero_grad()
        lacking = ""
        try:
            if self._text is None:
                self._text = self._encode_prompts()
            text = self._text
            text.leaf.grad = None
            done = self._forward_backward(batches, text.leaf, whole, alpha, stopped)
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            lacking = " ".join(str(error).split())[:120]
        if lacking:  # raised here, since the first error would keep the frames that hold the activations
            self.optimizer.zero_grad()
            raise OutOfMemory(lacking)
        self._text = None
        here = done.totals()
        n, stops, saves, *totals = self.processes.all_reduce_numbers(
            [len(done.indices), stopped(), save and self.processes.main, *here]
        )
        result = StepResult(int(n), stops > 0, saves > 0)
        if result.stopped or not result.clips:
            return result
        result.losses = {name: total / n for name, total in zip(_LOSSES, totals, strict=True)}
        finite = math.isfinite(result.losses["loss"])
        if finite:
            result.sent = self._collect(text, parameters, whole / n)
            finite = self._clip(parameters)
        if self.config.train.log_clips:
            result.ids = sorted(i for some in self.processes.gather(done.indices) for i in some)
        if finite:
            self.optimizer.step()
        else:
            result.bad = self._suspects(done)
        self.optimizer.zero_grad()
        return result

    def _encode_prompts(self) -> _Text:
        rows = self.processes.slice(self.classes) if self.sharing else slice(0, self.classes)
        with self.accelerator.autocast():
            embedded = self.model.encode_text(self._prompts(rows))
        own = per_class(embedded, rows.stop - rows.start).float()
        shared = self.sharing and own.requires_grad
        if not self.sharing:
            leaf = own.detach()
        else:
            leaf = own.new_zeros(self.classes, own.shape[1])
            leaf[rows] = own.detach()
            self.processes.all_reduce(leaf)
        return _Text(own, rows, leaf.requires_grad_(own.requires_grad), shared)

    def _prompts(self, classes: slice) -> Tensor | Tokens:
        """The prompts of some classes."""
        prompts = self.prompts
        if classes == slice(0, self.classes):
            return prompts
        each = (len(prompts.x) if isinstance(prompts, Tokens) else len(prompts)) // self.classes
        rows = slice(classes.start * each, classes.stop * each)
        if not isinstance(prompts, Tokens):
            return prompts[rows]
        frozen_output = None if prompts.frozen_output is None else prompts.frozen_output[rows]
        query_index = None if prompts.query_index is None else prompts.query_index[rows]
        return replace(prompts, x=prompts.x[rows], query_index=query_index, frozen_output=frozen_output)

    def _forward_backward(
        self, batches: Iterable[dict[str, Any]], text: Tensor, whole: int, alpha: float, stopped: Callable[[], bool]
    ) -> _MicroBatches:
        """Forward and backward, one micro-batch at a time; ``text`` collects its gradient."""
        done = _MicroBatches()
        for batch in batches:
            self.failures.add(batch["failures"])
            with self.accelerator.autocast():
                views = views_of(batch, self.model, self.processes.device)
                video = None if views is None else self.model.encode_video(views[0])
            if video is not None:
                video, labels = video.float(), batch["label"].to(video.device)
                loss, terms = losses.objective(
                    video, text, labels, self.model.logits, self.anchors, alpha, self.config.descriptions.distance,
                    self.config.train.label_smoothing, self.class_weights,
                )  # fmt: skip
                if loss.requires_grad:
                    self.accelerator.backward(loss * (len(labels) / whole))
                done.indices += batch["index"].tolist()
                done.finite.append(video.detach().isfinite().all(dim=1))
                for name, value in {"loss": loss.detach(), **terms}.items():
                    done.losses[name].append(value * len(labels))
            if stopped():
                break
        return done

    def _collect(self, text: _Text, parameters: list[torch.nn.Parameter], scale: float) -> int:
        """Send the gradient of the class embeddings through the text tower, add up all gradients, return bytes sent."""
        sent = 0
        if text.own.requires_grad:
            gradient = torch.zeros_like(text.leaf) if text.leaf.grad is None else text.leaf.grad
            if text.shared:
                self.processes.all_reduce(gradient)
                sent += 2 * gradient.numel() * gradient.element_size()
            if len(text.own):
                text.own.backward(gradient[text.rows])
        sent += self.processes.all_reduce_gradients(parameters)
        if scale != 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        return sent

    def _clip(self, parameters: list[torch.nn.Parameter]) -> bool:
        """Clip the gradient. Returns False if it is not finite, except in fp16, whose scaler leaves such steps out."""
        limit = self.config.train.clip_grad or math.inf
        norm = self.accelerator.clip_grad_norm_(parameters, limit)
        return self.config.train.precision == "fp16" or norm is None or bool(torch.isfinite(norm))

    def _suspects(self, done: _MicroBatches) -> list[str]:
        """The clips whose embedding is not finite; or all clips of the step, if every embedding is finite."""
        names = [self.clips[i].name for i in done.indices]
        finite = torch.cat(done.finite).tolist() if done.finite else []
        bad = [name for name, each in zip(names, finite, strict=True) if not each]
        everybody = self.processes.gather((bad, names))
        return [name for some, _ in everybody for name in some] or [name for _, some in everybody for name in some]


def _lacks_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "not enough memory" in str(error) or "can't allocate memory" in str(error)
