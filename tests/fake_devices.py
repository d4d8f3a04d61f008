"""Models on devices that are not there: tensors without numbers, whose operators raise if two devices meet.

torch that was built without CUDA runs hardly an operator on fake "cuda", "mps" or "xpu" tensors. It runs and
differentiates on a device that Python registers: "gpu" here, with a mixed precision like CUDA's. That registration holds
for the whole process, so ``python fake_devices.py`` takes the steps in a process of its own and prints what went wrong.

Left out, since they look at numbers: cutting prompts to the longest (once, before training), finding equal
sentences (on the CPU), reading the losses and the gradient's norm (after the backward pass), and ``.numpy()``.
"""

from __future__ import annotations

import copy
import sys
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from conftest import KINDS, refused, small, tiny
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration

import msta
from msta.adapters.model import AdaptedModel
from msta.backbone.prefix import Tokens
from msta.data.augment import Augmentation
from msta.data.clips import ClipFormat, collate_on
from msta.evaluation.evaluate import read_views
from msta.inference.explain import log_odds
from msta.methods import METHODS
from msta.settings import TrainSettings
from msta.training.step import TrainStep

CLASSES, CLIPS = ["a", "a b c", "a b"], 4


def adapted(kind: str, method: str) -> AdaptedModel:
    """A tiny model, ready to train, on the CPU."""
    model = msta.attach(msta.random_backbone(tiny(kind)), small(method, (3, 3), (2, 3), 0))
    model.prepare(len(CLASSES), CLIPS)
    if model.support_views:
        model.add_support(torch.randn(CLIPS, tiny(kind).embed_dim), torch.arange(CLIPS) % len(CLASSES))
    return model


def moved(model: AdaptedModel, mode: FakeTensorMode, device: str) -> AdaptedModel:
    """A copy on a fake device; what is neither a parameter nor a buffer stays where it was, and is found out."""
    memo: dict[int, Tensor] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        with mode:
            fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(fake, requires_grad=tensor.requires_grad) if parameter else fake
    return copy.deepcopy(model, memo)


def prompts_of(model: AdaptedModel, mode: FakeTensorMode, device: str) -> Tensor | Tokens:
    """As a run prepares them, once."""
    prompts = model.prepare_prompts(model.tokenize(CLASSES))

    def there(tensor: Tensor | None) -> Tensor | None:
        with mode:
            return None if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    if not isinstance(prompts, Tokens):
        return there(prompts)
    parts = {name: there(getattr(prompts, name)) for name in ("x", "query_index", "frozen_output")}
    return replace(prompts, **parts)


def decoded(first: int, clips: int) -> list[dict[str, object]]:
    """Samples of a data set whose clips the device finishes."""
    samples = []
    for i in range(first, first + clips):
        drawn = Augmentation((0.5, 0.9), jitter=1, greyscale=i % 2, flip=1).draw(i, 40, 50)
        left, top, right, bottom = drawn.box
        frames = np.zeros((4, bottom - top, right - left, 3), np.uint8)
        samples.append({"frames": frames, "drawn": drawn, "label": i % len(CLASSES), "index": i, "kept": None})
    return samples


def batch(
    samples: list[dict[str, object]], device: str = "cpu", mode: FakeTensorMode | None = None
) -> dict[str, object]:
    """A loader's, augmented on the device; label and index are the host's."""
    with mode or nullcontext():
        made = collate_on(samples, ClipFormat(4, 32, (0.5,) * 3, (0.25,) * 3), torch.device(device))
    index = torch.tensor([sample["index"] for sample in samples])
    label = index % len(CLASSES)
    return {**made, "label": mode.from_tensor(label) if mode else label, "index": index}


def train_step(model: AdaptedModel, prompts: Tensor | Tokens, device: str, autocast) -> TrainStep:
    """The run's own, of one process."""
    config = SimpleNamespace(
        train=TrainSettings(),
        descriptions=SimpleNamespace(distance="cosine"),
    )
    accelerator = SimpleNamespace(autocast=autocast, backward=lambda loss: loss.backward())
    processes = SimpleNamespace(
        accelerator=accelerator, count=1, device=torch.device(device), all_reduce_gradients=lambda parameters: 0
    )
    anchors = [torch.zeros(len(CLASSES), model.backbone.architecture.embed_dim, device=device)]
    step = TrainStep(config, model, None, prompts, anchors, [], SimpleNamespace(add=len), processes)
    step.classes = len(CLASSES)
    return step


def forward_and_backward(step: TrainStep, parts: list[dict[str, object]]) -> None:
    """A step up to the place where its losses are read."""
    text = step._encode_prompts()
    step._forward_backward(parts, text.leaf, CLIPS, 1.0, lambda: False)
    step._collect(text, step.model.trainable_parameters(), 1.0)


def gradients_are_there(model: AdaptedModel) -> bool:
    """Whether something trained that can, on the parameters' device."""
    trainable = model.trainable_parameters()
    return not trainable or any(p.grad is not None and p.grad.device == p.device for p in trainable)


def use(kind: str, method: str, device: str, *, exact: bool = False, bf16: bool = False) -> None:
    """A training step of two micro-batches, validation, and an explanation's gradient."""

    def autocast():
        return torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()

    mode, real = FakeTensorMode(allow_non_fake_inputs=True), adapted(kind, method)
    real.exact_reference = exact
    prompts = prompts_of(real, mode, device)
    if bf16 and not exact:
        real.cast_frozen(torch.bfloat16)
    model = moved(real, mode, device)
    in_parts = [batch(decoded(first, 2), device, mode) for first in (0, 2)]
    assert {part["video"].device.type for part in in_parts} == {device}
    with mode:
        forward_and_backward(train_step(model, prompts, device, autocast), in_parts)
        assert gradients_are_there(model), "no gradients"
        if isinstance(prompts, Tokens):
            with autocast():
                video = model.video_prefix(torch.zeros(CLIPS, 4, 3, 32, 32, device=device))
            assert video.x.device.type == device
        clip = torch.zeros(1, 4, 3, 32, 32, device=device)
        with autocast():
            text = model.encode_text(prompts).float()
            probabilities, embeddings = read_views(model, [clip, clip], text)
        assert probabilities.dtype == torch.float32, probabilities.dtype
        assert {probabilities.device.type, embeddings.device.type} == {device}
        if not (exact or bf16):
            clip.requires_grad_()
            predictor = SimpleNamespace(model=model, text=text)
            (gradient,) = torch.autograd.grad(log_odds(predictor, model.encode_video(clip), 0).sum(), clip)
            assert gradient.shape == clip.shape


def register_gpu() -> None:
    """The device "gpu", and of its autocast what the models use: products in bf16."""

    class Module(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16, torch.float16]

    backend_registration._setup_privateuseone_for_python_backend("gpu", backend_module=Module())
    key = "AutocastPrivateUse1"
    libraries.append(torch.library.Library("_", "IMPL", key))
    libraries[-1].fallback(torch.library.fallthrough_kernel)
    libraries.append(torch.library.Library("aten", "IMPL", key))
    off = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))
    aten = torch.ops.aten
    products = {
        "linear": aten.linear, "matmul": aten.matmul, "mm": aten.mm, "bmm": aten.bmm, "addmm": aten.addmm,
        "conv1d": aten.conv1d, "conv2d": aten.conv2d, "conv2d.padding": aten.conv2d.padding, "conv3d": aten.conv3d, "scaled_dot_product_attention": aten.scaled_dot_product_attention,
    }  # fmt: skip
    for name, product in products.items():

        def in_bf16(*arguments, product=product, **options):
            with torch._C._ExcludeDispatchKeyGuard(off):
                return product(
                    *[
                        a.to(torch.bfloat16) if isinstance(a, Tensor) and a.is_floating_point() else a
                        for a in arguments
                    ],
                    **options,
                )

        libraries[-1].impl(name, in_bf16)


libraries: list[torch.library.Library] = []
"""Held, since a library that is collected takes its kernels back."""


def combinations(every: bool) -> Iterator[tuple[str, str, bool, bool]]:
    """(kind, method, exact, bf16): all of them, or every kind with msta and every other method with one kind."""
    for i, method in enumerate(METHODS):
        kinds = [kind for kind in KINDS if not refused(method, kind)]
        for kind in kinds if every or method == "msta" else [kinds[i % len(kinds)]]:
            for exact, bf16 in ((False, False), (True, False), (False, True)):
                yield kind, method, exact, bf16


if __name__ == "__main__":
    register_gpu()
    for kind, method, exact, bf16 in combinations("--every" in sys.argv):
        try:
            use(kind, method, "gpu", exact=exact, bf16=bf16)
        except Exception as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename]
            where = f"{frames[-1].filename}:{frames[-1].lineno}"
            print(kind, method, f"{exact=} {bf16=}:", type(error).__name__, str(error)[:200], where)
