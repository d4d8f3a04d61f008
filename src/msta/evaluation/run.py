"""Measure a model on a data set: what ``msta eval`` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress as ProgressBar

from msta.data.catalog import SPLITS, Catalog, read_catalog, require_files
from msta.data.clips import ONE_VIEW, ClipDataset, Failures, Views, make_loader
from msta.errors import ConfigError, DataError
from msta.evaluation.evaluate import class_embeddings, clip_format, evaluate
from msta.methods.base import AdaptedModel
from msta.methods.task import DEFAULT_TEMPLATE
from msta.notices import notice


def evaluate_on(
    model: AdaptedModel,
    data: Path,
    *,
    split: str | None = None,
    views: Views = ONE_VIEW,
    new_classes: bool = False,
    batch_size: int = 8,
    workers: int = 1,
    console: Console | None = None,
) -> dict[str, Any]:
    """Accuracy of ``model`` on a folder or CSV.

    Args:
        model: an adapter, or a backbone with "zero-shot" attached.
        data: see :func:`read_catalog`.
        split: "train", "val", "test" or "all"; None: "test" if the data has one, else all clips.
        views: test views a video.
        new_classes: choose among the data's classes even if the adapter was trained for others.
        batch_size: videos at a time.
        workers: decoding processes.
        console: where progress is shown; None: nowhere.

    Returns:
        See :func:`accuracy`; also "clips" (measured), "split", and "unreadable", clip -> reason.

    Raises:
        DataError: classes the adapter does not know, no such split, or no clip that can be read.
    """
    if split not in (None, "all", *SPLITS):
        raise ConfigError(f"--split: {split!r} is none of {', '.join(SPLITS)}, all")
    catalog = read_catalog(data)
    require_files(catalog)
    if split is None:
        split = "test" if any(c.split == "test" for c in catalog.clips) else "all"
        if split == "all" and model.config.name != "zero-shot":
            notice(
                f"{data} has no test split: all of its clips are measured, also those the adapter may have trained on."
            )
    chosen = [c for c in catalog.clips if split == "all" or c.split == split]
    if not chosen:
        raise DataError(f"{data}: no clips in the split {split!r}")
    classes = _classes(model, catalog, new_classes)
    relabelled = {label: classes.index(name) for label, name in enumerate(catalog.classes) if name in classes}
    dataset = ClipDataset(chosen, clip_format(model), views=views)
    failures = Failures()
    template = model.task.template if model.task else DEFAULT_TEMPLATE
    batches = make_loader(dataset, batch_size, workers, shuffle=False)
    moved = ({**b, "label": b["label"].apply_(lambda label: relabelled[label])} for b in batches)
    with ProgressBar(console=console or Console(quiet=True), transient=True) as bar:
        task = bar.add_task("measuring", total=len(batches))
        metrics = evaluate(
            model, moved, class_embeddings(model, classes, template), failures, progress=lambda: bar.advance(task)
        )
    if not metrics:
        raise DataError(f"{data}: not one of its {len(chosen)} clips can be read")
    return {**metrics, "split": split, "unreadable": failures.reasons}


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
