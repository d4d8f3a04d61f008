"""The sections of a run's settings, each a typed, validated group; :mod:`msta.config` puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from msta.adapters.task import DEFAULT_TEMPLATE
from msta.data.augment import Augmentation
from msta.data.catalog import Catalog
from msta.data.clips import Views
from msta.data.layouts.parts import OPTIONS
from msta.data.names import told_by_side
from msta.data.reading import read_catalog
from msta.data.splits import Split, make_split
from msta.data.storage import absolute
from msta.descriptions.anchors import Average, Distance
from msta.descriptions.bank import KINDS, DescriptionBank, load_descriptions
from msta.descriptions.prompts import ENSEMBLE
from msta.errors import ConfigError
from msta.files import cache_folder, typed_path
from msta.notices import notice

TypedPath = Annotated[Path, AfterValidator(typed_path)]
"""Absolute, since a run may be resumed from another folder."""


class Section(BaseModel):
    """A group of settings. An unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSettings(Section):
    """What is read, and how.

    - layout: a name of ``msta.data.layouts.LAYOUTS``; None: the layout that the folder looks like.
    - names: "words" reads class names as words (swipe_left as "swipe left"); "given" keeps their spelling.
    - split_folders, fold, split_number, annotations, labels, train_list, val_list, test_list: options of a layout, see
      ``msta.data.layouts.parts.Options``.
    - shots: training clips per class; None: all.
    - val_fraction, test_fraction: shares of the clips, if the data has no such split and shots is None. With shots, a
      val_fraction of 0 keeps all remaining clips for testing.
    - seed: of the split. It is not the seed of training, so several trainings can share one test set.
    - frames, size: None: those that the backbone was trained with.
    - fit: how a frame becomes a square: "crop", "squash", or None for the way that the backbone was trained with.
    - template: the prompt of the adapted text branch; a list of several, whose embeddings are averaged; or
      "ensemble" for the list in ``msta.descriptions.prompts``.
    - on_error: what happens if a file cannot be read.
    - workers: decoding processes per training process. None: 1 on a CPU; on an accelerator, the process's share of the
      cores minus one.
    - timeout: seconds that a decoding process may take for a clip. A slower clip is left out. Without workers there is
      no limit.
    - crop_area, jitter, greyscale, flip: see ``Augmentation``.
    - flip_guard: turn the flip off, with a notice, if a class name says a side (left, clockwise, cw, L2R …).
    """

    path: Path
    layout: str | None = None
    names: Literal["words", "given"] = "words"
    split_folders: bool | None = None
    fold: int | str | None = None
    split_number: int | None = Field(None, ge=1)
    annotations: Path | None = None
    labels: Path | None = None
    train_list: Path | None = None
    val_list: Path | None = None
    test_list: Path | None = None
    shots: int | None = Field(None, ge=1)
    val_fraction: float = Field(0.2, ge=0, lt=1)
    test_fraction: float = Field(0.2, gt=0, lt=1)
    seed: int = Field(0, ge=0)
    frames: int | None = Field(None, ge=1)
    size: int | None = Field(None, ge=1)
    fit: Literal["crop", "squash"] | None = None
    template: str | tuple[str, ...] = DEFAULT_TEMPLATE
    on_error: Literal["skip", "fail"] = "skip"
    workers: int | None = Field(None, ge=0)
    timeout: float = Field(120, gt=0)
    crop_area: tuple[float, float] = (0.5, 1.0)
    jitter: float = Field(0.8, ge=0, le=1)
    greyscale: float = Field(0.2, ge=0, le=1)
    flip: float = Field(0.5, ge=0, le=1)
    flip_guard: bool = True

    @field_validator("path", "annotations", "labels", "train_list", "val_list", "test_list")
    @classmethod
    def _from_anywhere(cls, path: Path | None) -> Path | None:
        return path and Path(absolute(path.expanduser()))  # a run may be resumed from another folder

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, template: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if template == "ensemble":
            return ENSEMBLE
        each = (template,) if isinstance(template, str) else template
        if not each or not all("{}" in one for one in each):
            raise ValueError("has no {} for the class name")
        if len(set(each)) < len(each):
            raise ValueError("has a template twice")
        return template

    @field_validator("crop_area")
    @classmethod
    def _is_a_range(cls, area: tuple[float, float]) -> tuple[float, float]:
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError("must be two shares, 0 < from <= to <= 1")
        return area

    def read(self) -> Catalog:
        """The data set.

        Raises:
            MSTAError: see :func:`msta.data.reading.read_catalog`.
        """
        return read_catalog(self.path, self.layout, self.names, **{name: getattr(self, name) for name in OPTIONS})

    def split(self, catalog: Catalog) -> Split:
        """Which of the clips train, validate and test, see :func:`msta.data.splits.make_split`.

        Raises:
            DataError: too few clips.
        """
        return make_split(
            catalog, shots=self.shots, val_fraction=self.val_fraction, test_fraction=self.test_fraction, seed=self.seed
        )

    def augmentation(self, classes: Sequence[str]) -> Augmentation:
        """The training augmentation, with the flip that the classes allow."""
        flip, sided = self.flip, told_by_side(classes) if self.flip_guard else []
        if flip and sided:
            notice(
                f"The horizontal flip is off: it would turn {sided[0]!r} into something else. "
                "data.flip_guard=false keeps it."
            )
            flip = 0.0
        return Augmentation(self.crop_area, self.jitter, self.greyscale, flip)


class DescriptionSettings(Section):
    """The consistency term: its sentences, and its weight.

    - bank: a file that ``msta describe`` wrote.
    - spatial, temporal: in place of a bank, files in the format of the paper's authors.
    - kinds: which sentences are used, "spatial", "temporal" or "both".
    - alpha: the weight of the term; 1 is the best of the paper's ablation.
    - per_class: N of the paper: the number of sentences of each kind that are used per class; None: all.
    - alpha_warmup: epochs in which the weight rises linearly from 0.
    - distance: between the embedding of a class and its anchor, both of length 1: 1 - cosine (the paper), or the sum
      over dimensions of absolute ("l1") or squared ("mse") differences. "mse" is twice the cosine distance.
    - average: "anchors" averages the embeddings of the sentences to one anchor (the paper); "sentences" averages the
      distances to one anchor per sentence.
    """

    bank: TypedPath | None = None
    spatial: TypedPath | None = None
    temporal: TypedPath | None = None
    kinds: Literal["both", "spatial", "temporal"] = "both"
    alpha: float = Field(1.0, ge=0)
    per_class: int | None = Field(None, ge=1)
    alpha_warmup: float = Field(0.0, ge=0)
    distance: Distance = "cosine"
    average: Average = "anchors"

    @field_validator("spatial", "temporal")
    @classmethod
    def _is_alone(cls, path: Path | None, given: ValidationInfo) -> Path | None:
        if path is not None and given.data.get("bank") is not None:
            raise ValueError("stands beside descriptions.bank; give one or the other")
        return path

    def load(self, classes: Sequence[str]) -> DescriptionBank | None:
        """The sentences of these classes; None if no file is given.

        Raises:
            DataError: files that cannot be read, or do not fit.
            ConfigError: the file of the chosen kind is missing.
        """
        kinds = KINDS if self.kinds == "both" else (self.kinds,)
        if (self.spatial or self.temporal) and not any(getattr(self, kind) for kind in kinds):
            raise ConfigError(f"descriptions.kinds: {self.kinds}, but descriptions.{self.kinds} is not given")
        bank = load_descriptions(self.spatial, self.temporal, classes, bank=self.bank, kinds=kinds)
        return bank.first(self.per_class) if bank and self.per_class else bank

    def alpha_at(self, step: int, steps_per_epoch: int) -> float:
        """The weight in a step, counted from 0."""
        warmup = self.alpha_warmup * steps_per_epoch
        return self.alpha * min(1.0, step / warmup) if warmup else self.alpha

    def summary(self, bank: DescriptionBank | None) -> dict[str, Any] | None:
        """The settings and sentences of the term, for the metrics of a run; None without sentences."""
        if bank is None:
            return None
        how = {"alpha": self.alpha, "alpha_warmup": self.alpha_warmup, "distance": self.distance}
        counts = {kind: sum(map(len, s.values())) for kind in KINDS if (s := bank.sentences(kind)) is not None}
        return {**how, "average": self.average, "sentences": counts, "source": bank.source}


class TrainSettings(Section):
    """The optimisation.

    - batch_size: clips that a process reads and computes at a time.
    - accumulate: batches per step. A step then has batch_size * accumulate * processes clips.
    - global_batch: in place of accumulate, the number of clips per step. Each process takes its share of them, in parts
      of batch_size. The same global batch gives the same run with any number of processes.
    - auto_batch: if memory runs out, continue with half the batch_size and the same global batch.
    - save_every: seconds between two saved states, which is what a kill may cost. If saving takes long, the run saves
      less often. 0: after every step.
    - share_prompts: each process encodes a part of the class prompts; None: if there are many.
    - log_clips: write to the log which clips each step used.
    - trackers: names that Accelerate knows, such as "wandb" and "mlflow". TensorBoard is used if it is installed.
    - prometheus: a file to write figures to, for node_exporter's textfile collector.
    - eval_every: epochs between validations.
    - watch_test: also measure the test clips then. The figures go to the log, and nothing is chosen by them.
    - keep_tokens: share of the patches that a training clip keeps, the same ones in all frames. Cheaper, approximate.
    - checkpointing: keep no activations of the blocks above the prefix, and compute them again for the backward pass.
      It needs less memory and gives the same gradients. ``msta info --plan`` says how much memory is left.
    - precision: "fp32", or "bf16" or "fp16" for the matrix products of the towers (autocast). "auto": bf16 on CUDA
      (fp16 on cards without bf16), else fp32. config.yaml in the run's folder says what was chosen.
    - compile: torch.compile of the frozen blocks of the video tower. Needs a C++ compiler.
    - tf32: let a CUDA card round the factors of fp32 products and convolutions to TF32's 10 bits. Faster, but no longer
      the result of fp32.
    - exact_reference: take no shortcuts. Slow; the fast path is tested against it.
    - select: which checkpoint becomes the adapter: "val", the best on the validation clips; "last"; or "test-leak", the
      best on the test clips, as the authors chose. The figure of the latter is too optimistic.
    - patience: training ends after so many epochs without a better validation; None: it does not end early.
    - stop_after: training ends after so many epochs, but the learning rate follows the schedule of ``epochs``.
    - label_smoothing: share of every label that is spread evenly over all classes.
    - balance: "classes" gives each class the same weight in the loss, whatever its number of training clips.
    - refit: measure on held-out clips, then train the adapter on all clips, for the number of epochs that was best.
    - folds: measure by cross-validation with so many folds, then train the adapter on all clips. For few clips per
      class.
    """

    epochs: int = Field(30, ge=0)
    batch_size: int = Field(8, ge=1)
    accumulate: int = Field(1, ge=1)
    global_batch: int | None = Field(None, ge=1)
    auto_batch: bool = False
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    warmup_epochs: float = Field(3, ge=0)
    clip_grad: float | None = Field(1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    seed: int = Field(2048, ge=0, lt=2**32)
    select: Literal["val", "last", "test-leak"] = "val"
    patience: int | None = Field(None, ge=1)
    stop_after: int | None = Field(None, ge=1)
    label_smoothing: float = Field(0, ge=0, lt=1)
    balance: Literal["classes"] | None = None
    refit: bool = False
    folds: int | None = Field(None, ge=2)
    eval_every: int = Field(1, ge=1)
    watch_test: bool = False
    keep_tokens: float = Field(1, gt=0, le=1)
    exact_reference: bool = False
    compile: bool = False
    checkpointing: bool = False
    tf32: bool = False
    save_every: float = Field(300, ge=0)
    share_prompts: bool | None = None
    log_clips: bool = False
    trackers: tuple[str, ...] = ()
    prometheus: TypedPath | None = None

    @field_validator("trackers", mode="before")
    @classmethod
    def _listed(cls, names: Any) -> Any:
        return names.split(",") if isinstance(names, str) else names

    @field_validator("global_batch")
    @classmethod
    def _decides_alone(cls, clips: int | None, given: ValidationInfo) -> int | None:
        if clips and given.data.get("accumulate", 1) > 1:
            raise ValueError("decides train.accumulate; set one of the two")
        return clips

    @field_validator("folds")
    @classmethod
    def _measures_alone(cls, folds: int | None, given: ValidationInfo) -> int | None:
        if folds and given.data.get("refit"):
            raise ValueError("measures by itself; leave train.refit out")
        return folds

    @field_validator("refit", "folds")
    @classmethod
    def _has_no_test_clips(cls, value: Any, given: ValidationInfo) -> Any:
        if value and given.data.get("select") == "test-leak":
            raise ValueError("leaves no test clips for train.select=test-leak")
        return value

    @property
    def on_all_clips(self) -> bool:
        """Whether the adapter trains on all clips, so that other trainings measure it."""
        return self.refit or self.folds is not None

    def step_clips(self, processes: int) -> int:
        """Clips per step, of all processes together."""
        return self.global_batch or self.batch_size * self.accumulate * processes


class CacheSettings(Section):
    """The prefix cache: the output of the frozen blocks for each clip, computed once and kept on disk.

    - views: augmented views per training clip; later epochs use them again. 0: no cache.
    - path: None: msta/prefix in the user's cache folder. Runs share it.
    - max_gb: the most that the folder may hold, in 10^9 bytes.
    - dtype: of the numbers on disk.
    """

    views: int = Field(0, ge=0)
    path: TypedPath | None = None
    max_gb: float = Field(20, gt=0)
    dtype: Literal["fp16", "fp32"] = "fp16"

    def folder(self) -> Path:
        """The folder of the cache."""
        return self.path or cache_folder("prefix")


class EvalSettings(Section):
    """Test views per video: ``clips`` in time x ``crops`` in space.

    - keep: what RUN/predictions gets of every validation and test clip: nothing, the predictions, or the embedding too.
    """

    clips: int = Field(1, ge=1)
    crops: Literal[1, 3] = 1
    batch_size: int = Field(8, ge=1)
    keep: Literal["nothing", "predictions", "embeddings"] = "predictions"

    def views(self) -> Views:
        """The views in the form that the data loader takes."""
        return Views(self.clips, self.crops)
