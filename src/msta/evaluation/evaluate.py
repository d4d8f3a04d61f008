"""Measure a model on batches, on clips, or on a data set (``msta eval``)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress as ProgressBar
from torch import Tensor

from msta.adapters.inputs import clip_format, views_of
from msta.adapters.model import AdaptedModel
from msta.adapters.task import DEFAULT_TEMPLATE, per_class, prompts
from msta.backbone.checkpoints import tell_of_toy
from msta.backbone.device import accelerator_of
from msta.backbone.prefix import Tokens
from msta.data.catalog import SPLITS, Catalog, Clip, require_files
from msta.data.clips import ONE_VIEW, ClipDataset, Failures, Views, make_loader
from msta.data.processes import decoders
from msta.data.reading import read_catalog
from msta.errors import ConfigError, DataError
from msta.evaluation.calibration import choose_threshold
from msta.evaluation.metrics import accuracy, scaled
from msta.evaluation.predictions import Recorder
from msta.notices import notice


def evaluate_on(
    model: AdaptedModel,
    data: Path | Catalog,
    *,
    split: str | None = None,
    views: Views = ONE_VIEW,
    new_classes: bool = False,
    console: Console | None = None,
    template: str | Sequence[str] | None = None,
    predictions: Path | None = None,
) -> dict[str, Any]:
    """Accuracy of ``model`` on a folder or CSV.

    Args:
        model: an adapter, or a backbone with "zero-shot" attached.
        data: what was read, or what :func:`read_catalog` reads.
        split: "train", "val", "test" or "all"; None: "test" if the data has one, else all clips.
        views: test views per video.
        new_classes: choose among the data's classes even if the adapter was trained for others.
        console: where progress is shown; None: nowhere.
        template: of the prompts, or several, whose embeddings are averaged; None: the adapter's.
        predictions: a Parquet file to write every prediction to; None: none.

    Returns:
        See :func:`accuracy`; also "clips" (measured), "classes" (how many), "split", "unreadable", clip -> reason, and
        "unknown_below", the probability, as ``msta predict`` gives it, that 95 % of these clips reach.

    Raises:
        DataError: classes the adapter does not know, no such split, or no clip that can be read.
    """
    if split not in (None, "all", *SPLITS):
        raise ConfigError(f"--split: {split!r} is none of {', '.join(SPLITS)}, all")
    catalog = data if isinstance(data, Catalog) else read_catalog(data)
    require_files(catalog)
    if split is None:
        split = "test" if any(c.split == "test" for c in catalog.clips) else "all"
        if split == "all" and model.config.name != "zero-shot":
            notice(
                f"{catalog.source} has no test split: all of its clips are measured, also those the adapter may have "
                "trained on."
            )
    chosen = [c for c in catalog.clips if split == "all" or c.split == split]
    if not chosen:
        raise DataError(f"{catalog.source}: no clips in the split {split!r}")
    classes = _classes(model, catalog, new_classes)
    relabelled = {label: classes.index(name) for label, name in enumerate(catalog.classes) if name in classes}
    moved = [replace(clip, label=relabelled[clip.label]) for clip in chosen]
    recorder = Recorder(moved, classes)
    template = template or (model.task.template if model.task else DEFAULT_TEMPLATE)
    metrics, unreadable = measure_clips(
        model, moved, class_embeddings(model, classes, template),
        views=views, console=console, recorder=recorder,
    )  # fmt: skip
    if not metrics:
        raise DataError(f"{catalog.source}: not one of its {len(chosen)} clips can be read")
    if predictions is not None:
        recorder.write(predictions, split=split, method=model.config.name)
    probabilities = scaled(recorder.predictions().probabilities, model.temperature_for(classes))
    threshold = choose_threshold(probabilities.max(1))
    return {**metrics, "classes": len(classes), "split": split, "unknown_below": threshold, "unreadable": unreadable}


def _classes(model: AdaptedModel, catalog: Catalog, new_classes: bool) -> tuple[str, ...]:
    """The classes to choose among: the adapter's if the data's are among them."""
    if model.task is None or new_classes:
        return catalog.classes
    unknown = [name for name in catalog.classes if name not in model.task.classes]
    if unknown:
        raise DataError(
            f"{catalog.source}: the class {unknown[0]!r} is not among the adapter's {len(model.task.classes)} "
            f"({', '.join(model.task.classes[:4])} …); to measure on the data's own classes say --new-classes"
        )
    return model.task.classes


def measure_clips(
    model: AdaptedModel,
    clips: Sequence[Clip],
    text: Tensor,
    *,
    views: Views = ONE_VIEW,
    batch_size: int = 8,
    workers: int | None = None,
    console: Console | None = None,
    recorder: Recorder | None = None,
) -> tuple[dict[str, float], dict[str, str]]:
    """Accuracy on clips whose labels index the classes of ``text`` [K, D], and clip -> why it could not be read.

    ``workers``: decoding processes, see :func:`msta.data.processes.decoders`. See :func:`evaluate`; the accuracy is
    empty if no clip could be read.
    """
    failures, device = Failures(), model.backbone.logit_scale.device
    dataset = ClipDataset(clips, clip_format(model), views=views, finish_on=accelerator_of(device))
    batches = make_loader(dataset, batch_size, decoders(device, workers))
    with ProgressBar(console=console or Console(quiet=True), transient=True) as bar:
        task = bar.add_task("measuring", total=len(batches))
        metrics = evaluate(model, batches, text, failures, progress=lambda: bar.advance(task), recorder=recorder)
    return metrics, failures.reasons


@torch.no_grad()
def class_embeddings(model: AdaptedModel, classes: Sequence[str], template: str | Sequence[str]) -> Tensor:
    """[K, D]: the prompts of the classes, read by the adapted text tower.

    Raises:
        ConfigError: a template without a place for the name; or the method knows only the classes it was trained on,
            and these are others.
    """
    for each in (template,) if isinstance(template, str) else template:
        if "{}" not in each:
            raise ConfigError(f"--template: {each!r} has no {{}} for the class name")
    model.check_classes(classes)
    tell_of_toy(model.backbone, classes)
    ids = model.tokenize(prompts(classes, template)).to(model.backbone.logit_scale.device)
    return per_class(model.encode_text(ids), len(classes))


@torch.no_grad()
def read_views(model: AdaptedModel, views: Sequence[Tensor | Tokens], text: Tensor) -> tuple[Tensor, Tensor]:
    """V views [B, T, 3, H, W] each, text [K, D] -> probabilities [V, B, K], embeddings [V, B, D]."""
    embeddings = torch.stack([model.encode_video(view) for view in views])
    return view_probabilities(model, embeddings, text), embeddings


@torch.no_grad()
def view_probabilities(model: AdaptedModel, embeddings: Tensor, text: Tensor) -> Tensor:
    """Video [V, B, D], text [K, D] -> [V, B, K], in float32 under any autocast: in bf16, scores would tie."""
    with torch.autocast(embeddings.device.type, enabled=False):
        return torch.stack([model.logits(view.float(), text.float()).softmax(-1) for view in embeddings])


def evaluate(
    model: AdaptedModel,
    batches: Iterable[dict[str, Any]],
    text: Tensor,
    failures: Failures,
    *,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    progress: Callable[[], None] = lambda: None,
    recorder: Recorder | None = None,
    gather: Callable[[Any], list[Any]] = lambda own: [own],
) -> dict[str, float]:
    """Accuracy of ``model`` over the clips that can be read.

    Args:
        model: adapted or zero-shot.
        batches: from a loader of test views.
        text: class embeddings [K, D].
        failures: collects the clips that cannot be read.
        autocast: context for mixed precision.
        progress: called once per batch.
        recorder: collects the predictions.
        gather: an object of this process -> the objects of all processes, if several processes share the clips. Every
            process then gets the figures of all clips.

    Returns:
        See :func:`accuracy`, and "clips", how many were measured. Empty if none could be read.
    """
    device = model.backbone.logit_scale.device
    recorder = recorder if recorder is not None else Recorder((), ())
    for batch in batches:
        failures.add(batch["failures"])
        with autocast():
            views = views_of(batch, model, device)
            if views is not None:
                recorder.add(batch["index"], batch["label"], *read_views(model, views, text))
        progress()
    for reasons in gather(failures.reasons):
        failures.add(reasons.items())
    recorder.gather(gather)
    if not recorder.batches:
        return {}
    return {**accuracy(recorder.probabilities.mean(0), recorder.labels), "clips": len(recorder.labels)}
