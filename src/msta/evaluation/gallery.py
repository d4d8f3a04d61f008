"""The pictures of how a model answered: confusion, classes, calibration, embeddings, and its most confident mistakes.

A run's page shows those of its own test, a protocol's page those of several runs together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msta.data.decode import read_frames
from msta.data.times import segment_times
from msta.data.video_file import DecodeError
from msta.evaluation import figures
from msta.evaluation.metrics import confusion, per_class, scaled
from msta.evaluation.predictions import Predictions, pooled

MISTAKES, STRIP, FRAME = 6, 6, 96
"""How many mistakes are shown, with how many frames of which height and width."""


@dataclass(frozen=True)
class Tested:
    """A model's test.

    Attributes:
        name: such as "seed 1"; empty if there is only one.
        predictions: for the test clips.
        temperature: fitted on validation clips; None if there were none.
    """

    name: str
    predictions: Predictions
    temperature: float | None = None


class Gallery:
    """Pictures, and what stands below them.

    Attributes:
        pictures: name -> PNG or JPEG, for :func:`msta.evaluation.report.write_page`.
    """

    def __init__(self) -> None:
        self.pictures: dict[str, Path | bytes] = {}

    def section(
        self,
        tests: Sequence[Tested],
        *,
        before: Sequence[tuple[str, bytes]] = (),
        compared: Mapping[str, Sequence[Predictions]],
    ) -> dict[str, Any]:
        """Add the pictures of some tests with the same classes, and return what ``answers.html`` needs to show them.

        Args:
            tests: whose answers are shown, all together.
            before: captions and pictures that come first.
            compared: label -> predictions of a model, for the accuracy of each class.
        """
        number = len(self.pictures)
        whole = pooled([test.predictions for test in tests])
        classes = whole.classes
        matrix = confusion(whole.labels, whole.predicted, len(classes))
        bars = {}
        for label, parts in compared.items():
            each = pooled(parts)
            bars[label] = per_class(each.labels, each.predicted, len(classes))
        curves = {"as it is": (whole.probabilities, whole.labels)}
        if all(test.temperature is not None for test in tests):
            sharp = [scaled(test.predictions.probabilities, test.temperature or 1.0) for test in tests]
            curves["temperature-scaled"] = (np.concatenate(sharp), whole.labels)
        of, named = (f", clips of {len(tests)} runs", f", {tests[0].name}") if len(tests) > 1 else ("", "")
        few = "the classes with the lowest accuracy" if len(classes) > figures.LABELLED else "every class"
        drawn = [
            *before,
            (f"Confusion{of}", figures.confusion_matrix(matrix, classes)),
            (f"Accuracy of {few}", figures.class_bars(bars, classes)),
            ("Calibration", figures.reliability_diagram(curves)),
            (f"Embeddings of the test clips (t-SNE){named}; filled: right, open: wrong",
             figures.embedding_map(tests[0].predictions)),
        ]  # fmt: skip
        shown: list[tuple[str, str]] = []
        for caption, picture in drawn:
            if picture is not None:
                shown.append((f"picture{number}-{len(shown)}", caption))
                self.pictures[shown[-1][0]] = picture
        return {
            "pictures": shown, "mistakes": self._mistakes(tests, f"mistake{number}-"), "clips": len(whole.labels),
            "wrong": whole.hits.count(False), "classes": len(classes),
        }  # fmt: skip

    def _mistakes(self, tests: Sequence[Tested], prefix: str) -> list[dict[str, Any]]:
        """The wrong answers given with most confidence, a clip once, as film strips."""
        wrong = [
            (-float(test.predictions.confidence[i]), test.predictions.clips[i], i, test)
            for test in tests
            for i, hit in enumerate(test.predictions.hits)
            if not hit
        ]
        found: list[dict[str, Any]] = []
        for confidence, clip, i, test in sorted(wrong, key=lambda w: w[:3]):
            if len(found) == MISTAKES:
                break
            if any(clip == mistake["clip"] for mistake in found):
                continue
            p = test.predictions
            path, span = p.files[i]
            try:
                frames = read_frames(path, lambda d: segment_times(d, STRIP), FRAME, within=span)
            except DecodeError:
                continue
            name = f"{prefix}{len(found)}"
            self.pictures[name] = figures.film_strip(frames)
            found.append({
                "picture": name, "clip": clip, "file": "/".join(Path(clip).parts[-2:]), "run": test.name,
                "truth": p.classes[p.labels[i]], "said": p.classes[p.predicted[i]], "confidence": -100 * confidence,
            })  # fmt: skip
        return found
