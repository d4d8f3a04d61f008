"""LoadedAdapter: an adapted model with its classes, ready to turn embeddings into probabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from msta.adapters.inputs import clip_format
from msta.adapters.model import AdaptedModel
from msta.adapters.task import DEFAULT_TEMPLATE
from msta.backbone.checkpoints import TOY, load_backbone
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import MSTAError, is_text
from msta.evaluation.evaluate import class_embeddings, view_probabilities
from msta.evaluation.metrics import Array, scaled
from msta.methods import attach, load_adapter


@dataclass(frozen=True)
class Prediction:
    """A class and its probability. The probabilities of all classes of a video sum to one."""

    label: str
    probability: float


def ranked(classes: Sequence[str], probabilities: Array) -> list[Prediction]:
    """Probabilities [K] of the classes, in their order -> all classes, the most likely first."""
    order = np.argsort(-probabilities, kind="stable")
    return [Prediction(classes[i], float(probabilities[i])) for i in order]


def load_model(
    adapter: str | os.PathLike[str] | None, backbone: str | None = None, base: str | None = None
) -> AdaptedModel:
    """An adapter in its backbone or in the one given, or a backbone as it is; on the device that the user chose.

    Raises:
        MSTAError: it cannot be loaded.
    """
    if adapter is not None:
        model = load_adapter(adapter, load_backbone(backbone, base=base) if backbone is not None else None)
    else:
        model = attach(load_backbone(backbone or TOY, base=base), "zero-shot")
    return model.placed()


class LoadedAdapter:
    """An adapted model with its classes. The class prompts are encoded once, when it is made.

    Args:
        model: from :func:`msta.load_adapter`, or a backbone with "zero-shot" attached.
        classes: any names. None: the classes that the adapter was trained for.
        template: the prompt of each class, or several, whose embeddings are averaged. None: the adapter's own.

    Attributes:
        text: [K, D], the class embeddings.
        temperature: the adapter's, fitted on validation clips, if these are the classes it was fitted on. Else 1: the
            probabilities are those of the model.
        format: the clips that the model expects.

    Raises:
        MSTAError: there are no classes, or a class is given twice.
    """

    def __init__(
        self, model: AdaptedModel, classes: Sequence[str] | None = None, template: str | Sequence[str] | None = None
    ) -> None:
        task = model.task
        names = tuple(classes) if classes is not None else task.classes if task else ()
        if not names or not all(name.strip() for name in names):
            raise MSTAError("no classes to choose from: the adapter names none, give labels")
        if not all(map(is_text, names)):
            raise MSTAError(f"a label is not valid text: {next(n for n in names if not is_text(n))!r}")
        if len(set(names)) < len(names):
            raise MSTAError(f"a label is given twice: {next(n for n in names if names.count(n) > 1)!r}")
        self.model = model.eval()
        self.classes = names
        self.template = template or (task.template if task else DEFAULT_TEMPLATE)
        self.text = class_embeddings(model, names, self.template)
        self.temperature = model.temperature_for(names)
        self.format = clip_format(model)

    def probabilities(self, embeddings: Tensor) -> Array:
        """Embeddings of V views of B clips [V, B, D] -> float64 [B, K]: the mean over the views, at the temperature."""
        with torch.inference_mode():
            mean = view_probabilities(self.model, embeddings, self.text).mean(0).cpu().double().numpy()
        return mean if self.temperature == 1 else scaled(mean, self.temperature)

    def rank(self, probabilities: Array) -> list[Prediction]:
        """Probabilities of a clip [K] -> all classes, the most likely first."""
        return ranked(self.classes, probabilities)

    def own_bytes(self, backbone: DualEncoder) -> int:
        """The memory that it adds to the backbone's: its own parameters and class embeddings."""
        shared = {id(tensor) for tensor in (*backbone.parameters(), *backbone.buffers())}
        own = {id(t): t for t in (*self.model.parameters(), *self.model.buffers()) if id(t) not in shared}
        return sum(t.nbytes for t in (*own.values(), self.text))
