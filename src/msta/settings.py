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
from msta.files import cache_folder, typed_path
from msta.notices import notice

TypedPath = Annotated[Path, AfterValidator(typed_path)]
"""Absolute, since a run may be resumed from another folder."""


class Section(BaseModel):
    """A group of settings; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSettings(Section):
    """What is read, and how.

    - layout: how the data lie on disk, a name of ``msta.data.layouts.LAYOUTS``; None for what they look like.
    - names: "words": class names are read as words (swipe_left as "swipe left"); "given": as they are written.
    - split_folders, fold, split_number, annotations, labels, train_list, val_list, test_list: where such a layout's
      parts are, see ``msta.data.layouts.parts.Options``.
    - shots: training clips per class; None for all.
    - val_fraction, test_fraction: of the clips, where the data has no such split and no shots are set. With shots, a
      val_fraction of 0 keeps all left-over clips for testing.
    - seed: of the split, apart from the training's, so that several trainings can share one test set.
    - frames, size: None for what the backbone was trained with.
    - fit: how frames that are no squares become squares: crop, squash, or None for what the backbone was trained with.
    - template: the prompt of the trainable text branch; a list of several, whose embeddings are averaged; or
      "ensemble" for ours, see ``msta.descriptions.prompts``.
    - on_error: what to do about a file that cannot be read.
    - workers: decoding processes, of each training process. None: 1 on a CPU; on an accelerator the process's share of
      the cores, less one.
    - timeout: seconds a decoding process may take for a clip, which is then left out. Without workers: no limit.
    - crop_area, jitter, greyscale, flip: see ``Augmentation``.
    - flip_guard: whether the flip is off if a class is told by its side (left, clockwise, cw, L2R …), with a notice.
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
    """The consistency term: the sentences, and how much they count.

    - bank: a file of ``msta describe``; or, in its place,
    - spatial, temporal: files in the authors' format.
    - kinds: which of the two are used.
    - alpha: the term's weight; 1 is the best of the paper's ablation.
    - per_class: N, the first so many sentences of each kind and class are used; None: all.
    - alpha_warmup: epochs in which it rises from 0, in a straight line.
    - distance: between a class's embedding and its anchor, both of length 1: 1 - cosine (the paper), or the sum over
      dimensions of absolute (l1) or squared (mse) differences. mse is twice the cosine's.
    - average: of the sentences, for one anchor (the paper), or of the term, with an anchor per sentence.
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
        """
        kinds = KINDS if self.kinds == "both" else (self.kinds,)
        bank = load_descriptions(self.spatial, self.temporal, classes, bank=self.bank, kinds=kinds)
        return bank.first(self.per_class) if bank and self.per_class else bank

    def alpha_at(self, step: int, steps_per_epoch: int) -> float:
        """The weight in a step, counted from 0."""
        warmup = self.alpha_warmup * steps_per_epoch
        return self.alpha * min(1.0, step / warmup) if warmup else self.alpha

    def summary(self, bank: DescriptionBank | None) -> dict[str, Any] | None:
        """What the term is made of, for a run's metrics; None without sentences."""
        if bank is None:
            return None
        how = {"alpha": self.alpha, "alpha_warmup": self.alpha_warmup, "distance": self.distance}
        counts = {kind: sum(map(len, s.values())) for kind in KINDS if (s := bank.sentences(kind)) is not None}
        return {**how, "average": self.average, "sentences": counts, "source": bank.source}


class TrainSettings(Section):
    """The optimisation.

    - batch_size: clips that a process reads and computes at a time.
    - accumulate: such batches per step. A step has batch_size * accumulate * processes clips,
    - global_batch: or, if this is set, exactly so many, however many processes there are: each takes its share, in
      parts of batch_size. The same global batch gives the same run.
    - auto_batch: when memory runs out, go on with half the batch_size and the same global batch.
    - save_every: seconds between two saved states: what a kill may cost. Rarer where saving takes long. 0: every step.
    - share_prompts: several processes read the class prompts together; None: where there are many.
    - log_clips: the log tells which clips each step saw.
    - trackers: of Accelerate: "wandb", "mlflow" …; TensorBoard is there if it is installed.
    - prometheus: a file of figures for node_exporter's textfile collector.
    - eval_every: epochs between validations.
    - watch_test: measure the test clips as often, for the log alone: nothing is chosen by it.
    - keep_tokens: share of the patches that a training clip keeps, in all of its frames: cheaper, and approximate.
    - checkpointing: compute the blocks above the prefix once more for the backward pass, instead of keeping what is in
      them: less memory, the same gradients. ``msta info --plan`` tells how much memory is left.
    - precision: fp32, or the products of the towers in bf16 or fp16, under autocast; "auto": bf16 on CUDA (fp16 on
      cards without it), else fp32. The run's config.yaml has what it became.
    - compile: torch.compile of the frozen blocks of the video tower. Needs a C++ compiler.
    - tf32: on a CUDA card, products and convolutions of fp32 numbers may round their factors to TF32's 10 bits: faster,
      and no longer what fp32 gives.
    - exact_reference: no shortcuts, which is slow: what the fast path is tested against.
    - select: which checkpoint becomes the adapter: the best on the validation clips, the last, or, under its honest
      name, "test-leak": the best on the test clips, as the authors chose; its figure is optimistic.
    - patience: epochs without a better validation after which training ends; None: it never ends early.
    - stop_after: epochs after which training ends, although the learning rate follows the schedule of ``epochs``.
    - label_smoothing: share of every label that is spread evenly over all classes.
    - balance: "classes": each class counts alike in the loss, however many training clips it has.
    - refit: measure on held-out clips, then train the adapter on all clips, for as many epochs as were best.
    - folds: measure by cross-validation in so many folds, then train the adapter on all clips; for few clips per class.
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

    @field_validator("refit", "folds")
    @classmethod
    def _has_no_test_clips(cls, value: Any, given: ValidationInfo) -> Any:
        if value and given.data.get("select") == "test-leak":
            raise ValueError("leaves no test clips for train.select=test-leak")
        return value

    @property
    def on_all_clips(self) -> bool:
        """Whether the adapter trains on all clips, and is measured by other trainings."""
        return self.refit or self.folds is not None

    def step_clips(self, processes: int) -> int:
        """Clips of a step, in all processes together."""
        return self.global_batch or self.batch_size * self.accumulate * processes


class CacheSettings(Section):
    """The prefix cache: what the frozen blocks make of each clip, computed once and kept on disk.

    - views: augmented views of every training clip, which later epochs meet again; 0: no cache.
    - path: None for msta/prefix in the user's cache folder. Runs share it.
    - max_gb: what the folder may hold, in 10^9 bytes.
    - dtype: of the numbers on disk.
    """

    views: int = Field(0, ge=0)
    path: TypedPath | None = None
    max_gb: float = Field(20, gt=0)
    dtype: Literal["fp16", "fp32"] = "fp16"

    def folder(self) -> Path:
        """Where it is."""
        return self.path or cache_folder("prefix")


class EvalSettings(Section):
    """Test views per video: ``clips`` in time x ``crops`` in space.

    - keep: what is kept of every validation and test clip in RUN/predictions: nothing, its predictions, or also its
      embedding.
    """

    clips: int = Field(1, ge=1)
    crops: Literal[1, 3] = 1
    batch_size: int = Field(8, ge=1)
    keep: Literal["nothing", "predictions", "embeddings"] = "predictions"

    def views(self) -> Views:
        """As the data loader wants them."""
        return Views(self.clips, self.crops)
