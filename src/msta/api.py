"""``msta.train``, ``msta.predict``, ``msta.evaluate``: what these commands do, for scripts and notebooks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from msta.config import make_config, read_config
from msta.data.clips import Views
from msta.data.video_file import DecodeError
from msta.descriptions.labels import given_names
from msta.errors import ConfigError
from msta.evaluation import figures
from msta.evaluation.evaluate import evaluate_on
from msta.evaluation.metrics import confusion, per_class
from msta.evaluation.predictions import Predictions, read_predictions
from msta.inference.arguments import find_videos
from msta.inference.output import Result
from msta.inference.predictor import Prediction, Predictor, load_model, predict_each
from msta.training.fit import fit
from msta.training.page import PAGE
from msta.training.report import read_log
from msta.training.run import Callback

if TYPE_CHECKING:
    from PIL.Image import Image

AnyPath = str | PathLike[str]


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        run: its directory.
        metrics: the content of RUN/metrics.json: "top1", "top5" and "mean_class" in percent, "clips" and more.
    """

    run: Path
    metrics: dict[str, Any]

    @property
    def top1(self) -> float:
        """Top-1 accuracy on the test clips, in percent."""
        return float(self.metrics["top1"])

    @property
    def adapter(self) -> Path:
        """The adapter's directory, for :func:`predict` and :func:`msta.load_adapter`."""
        return self.run / "adapter"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.run / PAGE

    @cached_property
    def predictor(self) -> Predictor:
        """The adapter in its backbone: call it with a video."""
        config = read_config(self.run / "config.yaml")
        return Predictor(load_model(self.adapter, config.backbone, config.base))

    @property
    def predictions(self) -> Predictions:
        """What was answered for each test clip."""
        return read_predictions(self.run / "predictions" / "test.parquet")

    def __call__(self, video: AnyPath) -> list[Prediction]:
        """All classes of the video, the likeliest first."""
        return self.predictor(str(video))

    def plot(self, what: str = "learning") -> Image:
        """A picture, which notebooks show: "learning" (curves), "confusion", "classes" or "calibration".

        Raises:
            ConfigError: there is no such picture.
        """
        from PIL import Image  # comes with matplotlib

        if what == "learning":
            picture = figures.learning_curves({self.run.name: read_log(self.run)})
        elif what in ("confusion", "classes", "calibration"):
            p = self.predictions
            count, label = len(p.classes), self.metrics["label"]
            picture = {
                "confusion": lambda: figures.confusion_matrix(confusion(p.labels, p.predicted, count), p.classes),
                "classes": lambda: figures.class_bars({label: per_class(p.labels, p.predicted, count)}, p.classes),
                "calibration": lambda: figures.reliability_diagram({label: (p.probabilities, p.labels)}),
            }[what]()
        else:
            raise ConfigError(f"what: expected learning, confusion, classes or calibration, got {what!r}")
        return Image.open(io.BytesIO(picture))

    def __str__(self) -> str:
        return f"top-1 {self.top1:.1f} % of {self.metrics['clips']} clips; see {self.report}"


def train(
    data: AnyPath,
    out: AnyPath | None = None,
    *,
    backbone: AnyPath | None = None,
    base: AnyPath | None = None,
    method: str | None = None,
    shots: int | None = None,
    folds: int | None = None,
    refit: bool | None = None,
    preset: str = "small",
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    on_epoch: Callback | None = None,
    quiet: bool = False,
) -> Trained:
    """Train an adapter on labelled clips, measure it, and save it: ``msta train``.

    Args:
        data: a folder with a sub-folder for each class, a CSV, or another layout (docs/data.md).
        out: the run's directory; None: a new one, runs/NAME, in the current directory.
        backbone: a file, a folder, a Hub id; None: the small one that comes with the package.
        base: the CLIP that a fine-tuned backbone began as, see :func:`msta.load_backbone`.
        method: "msta", "lora", … (docs/methods.md).
        shots: training clips per class; None: all but those held out.
        folds: measure by cross-validation in so many folds, then train on all clips.
        refit: measure on held-out clips, then train on all clips.
        preset: "small", "upper" or "paper"; docs/training.md says what they are for.
        settings: other settings, dotted name -> value: ``{"train.lr": 5e-4, "train.patience": 5}``.
        resume: go on with the run in ``out``, if there is one with the same settings.
        on_epoch: called after every epoch, see :func:`msta.training.loop.end_epoch`; training ends if it returns True.
        quiet: print nothing.

    Raises:
        MSTAError: wrong data, files or settings; one line says which.
    """
    given = {
        "data.path": str(data), "data.shots": shots, "backbone": _text(backbone), "base": _text(base),
        "train.folds": folds, "train.refit": refit, **(settings or {}),
    }  # fmt: skip
    run = Path(out) if out is not None else _new_run(Path(data).stem)
    config = make_config(preset, given, method=method)
    return Trained(run, fit(config, run, Console(stderr=True, quiet=quiet), or_resume=resume, on_epoch=on_epoch))


def predict(
    videos: AnyPath | Sequence[AnyPath],
    adapter: AnyPath | None = None,
    *,
    backbone: AnyPath | None = None,
    base: AnyPath | None = None,
    labels: Sequence[str] | None = None,
    template: str | Sequence[str] | None = None,
    views: Views | None = None,
    batch: int = 8,
) -> list[Result]:
    """The classes of each video: ``msta predict``.

    Args:
        videos: a file, a folder or a pattern, or several.
        adapter: its directory, or that of a run; None: the backbone as it is, with ``labels``.
        backbone: None: the adapter's own, or the small one that comes with the package.
        base: see :func:`msta.load_backbone`.
        labels: class names; None: the adapter's.
        template: of the prompts, or several, whose embeddings are averaged; None: the adapter's.
        views: test views per video.
        batch: videos encoded together.

    Returns:
        For each video a :class:`~msta.inference.output.Result`: ``path``, ``predictions`` (all classes, the likeliest
        first), ``label``; ``error`` if it cannot be read.
    """
    if adapter is None and labels is None:
        raise ConfigError("give an adapter, or labels")
    if isinstance(labels, str):
        raise ConfigError(f"labels: expected a list of names, got one text, {labels!r}")
    names = None if labels is None else given_names(labels, "labels")
    given = [videos] if isinstance(videos, str | PathLike) else videos
    found = find_videos([str(video) for video in given])
    model = load_model(adapter, _text(backbone), _text(base))
    predictor = Predictor(model, names, template=template, views=views or Views())
    results = []
    for path, answer in predict_each([predictor], [Path(video) for video in found], batch=batch):
        if isinstance(answer, DecodeError):
            results.append(Result(str(path), error=answer.reason))
        else:
            results.append(Result(str(path), predictions=answer[0]))
    return results


def evaluate(
    data: AnyPath,
    adapter: AnyPath | None = None,
    *,
    backbone: AnyPath | None = None,
    base: AnyPath | None = None,
    split: str | None = None,
    views: Views | None = None,
    new_classes: bool = False,
    template: str | Sequence[str] | None = None,
) -> dict[str, Any]:
    """Accuracy in percent of an adapter, or of a backbone as it is, on labelled clips: ``msta eval``.

    The arguments are those of :func:`predict` and :func:`msta.evaluation.evaluate.evaluate_on`, which says what is
    returned.
    """
    model = load_model(adapter, _text(backbone), _text(base)).eval()
    return evaluate_on(
        model, Path(data), split=split, views=views or Views(), new_classes=new_classes, template=template
    )


def _new_run(name: str) -> Path:
    """runs/NAME, or runs/NAME-2 …, the first that does not exist."""
    runs, number = Path("runs"), 1
    while (run := runs / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return run


def _text(path: AnyPath | None) -> str | None:
    return None if path is None else str(path)
