"""RunConfig: one typed, validated description of a run, from a YAML preset and key=value changes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from msta.adapters.method import MethodConfig
from msta.adapters.task import DEFAULT_TEMPLATE
from msta.backbone.checkpoints import TOY
from msta.data.catalog import Catalog
from msta.data.clips import Augmentation, Views
from msta.data.dataset_names import canonical
from msta.data.layouts.options import OPTIONS
from msta.data.reading import read_catalog
from msta.data.storage import absolute
from msta.descriptions.anchors import Average, Distance
from msta.descriptions.bank import KINDS, DescriptionBank, load_descriptions
from msta.descriptions.prompts import ENSEMBLE
from msta.errors import ConfigError
from msta.files import typed_path
from msta.methods import METHODS, method_config

TypedPath = Annotated[Path, AfterValidator(typed_path)]
"""Absolute, since a run may be resumed from another folder."""


class Section(BaseModel):
    """A group of settings; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSettings(Section):
    """What is read, and how.

    - layout: how the data lie on disk, a name of ``msta.data.layouts.LAYOUTS``; None for what they look like.
    - split_number, annotations, labels, train_list, val_list, test_list: where such a layout's parts are, see
      ``msta.data.layouts.options.Options``.
    - shots: training clips a class; None for all.
    - val_fraction, test_fraction: of the clips, where the data has no such split and no shots are set. With shots, a
      val_fraction of 0 keeps all left-over clips for testing.
    - seed: of the split, apart from the training's, so that several trainings can share one test set.
    - frames, size: None for what the backbone was trained with.
    - fit: how frames that are no squares become squares: crop, squash, or None for what the backbone was trained with.
    - template: the prompt of the trainable text branch; a list of several, whose embeddings are averaged; or
      "ensemble" for ours, see ``msta.descriptions.prompts``.
    - on_error: what to do about a file that cannot be read.
    - workers: decoding processes, of each training process.
    - timeout: seconds a decoding process may take for a clip, which is then left out. Without workers: no limit.
    - decoder: pyav, or torchcodec (an extra), whose pixels differ a little.
    - crop_area, jitter, greyscale, flip: see ``Augmentation``.
    """

    path: Path
    layout: str | None = None
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
    workers: int = Field(1, ge=0)
    timeout: float = Field(120, gt=0)
    decoder: Literal["pyav", "torchcodec"] = "pyav"
    crop_area: tuple[float, float] = (0.5, 1.0)
    jitter: float = Field(0.8, ge=0, le=1)
    greyscale: float = Field(0.2, ge=0, le=1)
    flip: float = Field(0.5, ge=0, le=1)

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
        return read_catalog(self.path, self.layout, **{name: getattr(self, name) for name in OPTIONS})

    def augmentation(self, flip: float) -> Augmentation:
        """The training augmentation, with the flip that the classes allow."""
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
    - average: of the sentences, for one anchor (the paper), or of the term, with an anchor a sentence.
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
    - accumulate: such batches a step. A step has batch_size * accumulate * processes clips,
    - global_batch: or, if this is set, exactly so many, however many processes there are: each takes its share, in
      parts of batch_size. The same global batch gives the same run.
    - auto_batch: when memory runs out, go on with half the batch_size and the same global batch.
    - save_every: seconds between two saved states: what a kill may cost. Rarer where saving takes long. 0: every step.
    - share_prompts: several processes read the class prompts together; None: where there are many.
    - log_clips: the log tells which clips each step saw.
    - trackers: of Accelerate: "wandb", "mlflow" …; TensorBoard is always there.
    - prometheus: a file of figures for node_exporter's textfile collector.
    - eval_every: epochs between validations.
    - watch_test: measure the test clips as often, for the log alone: nothing is chosen by it.
    - keep_tokens: share of the patches that a training clip keeps, in all of its frames: cheaper, and approximate.
    - exact_reference: no shortcuts, which is slow: what the fast path is tested against.
    - select: which checkpoint becomes the adapter: the best on the validation clips, the last, or, under its honest
      name, "test-leak": the best on the test clips, as the authors chose; its figure is optimistic.
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
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = Field(2048, ge=0, lt=2**32)
    select: Literal["val", "last", "test-leak"] = "val"
    eval_every: int = Field(1, ge=1)
    watch_test: bool = False
    keep_tokens: float = Field(1, gt=0, le=1)
    exact_reference: bool = False
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
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return self.path or Path(home) / "msta" / "prefix"


class EvalSettings(Section):
    """Test views a video: ``clips`` in time x ``crops`` in space.

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


class RunConfig(Section):
    """Everything that decides a run. ``method`` holds the method's name and its own settings."""

    data: DataSettings
    backbone: str = Field(TOY, min_length=1)
    base: str | None = None
    method: dict[str, Any] = {"name": "msta"}
    descriptions: DescriptionSettings = DescriptionSettings()
    train: TrainSettings = TrainSettings()
    eval: EvalSettings = EvalSettings()
    cache: CacheSettings = CacheSettings()

    def approximations(self) -> list[str]:
        """What was asked for that is faster and not the same, in words."""
        asked = []
        if self.cache.views:
            asked.append(f"prefix cache of {self.cache.views} views of every training clip, in {self.cache.dtype}")
        if self.train.keep_tokens < 1:
            asked.append(f"training on {self.train.keep_tokens:.0%} of the patches")
        return asked

    @field_validator("method")
    @classmethod
    def _has_a_name(cls, method: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(method.get("name"), str):
            raise ValueError("has no name")
        return method

    @field_validator("backbone", "base")
    @classmethod
    def _from_anywhere(cls, name: str | None) -> str | None:
        return os.path.abspath(name) if name and name != TOY and os.path.exists(name) else name

    def method_config(self) -> MethodConfig:
        """The method's own config."""
        settings = dict(self.method)
        return method_config(settings.pop("name"), **settings)

    def flat(self) -> dict[str, Any]:
        """Dotted name -> value, of the kinds that JSON has."""
        return _flat(self.model_dump(mode="json"))

    def to_yaml(self) -> str:
        """Complete and readable; :func:`read_config` takes it back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("msta") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def make_config(
    preset: str,
    settings: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    method: str | None = None,
    protocol: str = "few-shot",
    dataset: str | None = None,
) -> RunConfig:
    """A preset, then ``settings`` (dotted name -> value, None left out), then ``overrides`` ("train.lr=1e-3").

    Args:
        preset: see :func:`read_preset`, which also takes ``protocol``.
        settings: from options of the command line.
        overrides: key=value, the last word.
        method: the method's name.
        protocol: whose recipe, where a preset has several.
        dataset: its name, where a preset differs by data set; None: the last part of the setting ``data.path``.

    Raises:
        ConfigError: one line that names the setting at fault.
    """
    tree = read_preset(preset, protocol, dataset or Path(str(settings.get("data.path", ""))).name)
    parsed = [_parsed(override) for override in overrides]
    for name in (method, *(value for key, value in parsed if key in ("method", "method.name"))):
        if name is not None:
            _choose_method(tree, name)
    for name, value in settings.items():
        if value is not None:
            _put(tree, name, value)
    for name, text in parsed:
        if name not in ("method", "method.name"):
            _put(tree, name, _value(text))
    return _validate(tree)


def read_preset(preset: str, protocol: str = "few-shot", dataset: str = "") -> dict[str, Any]:
    """The settings of a preset, as a tree.

    Args:
        preset: a name of :func:`presets`, or NAME:PROTOCOL for another recipe of it than ``protocol``'s.
        protocol: few-shot, base-to-novel, zero-shot or supervised; it matters to presets that have recipes by protocol.
        dataset: its name, in any spelling.

    Raises:
        ConfigError: no such preset, or it has no such recipe.
    """
    name, colon, asked = preset.partition(":")
    if name not in presets():
        raise ConfigError(f"no preset {name!r}; there are {', '.join(presets())}")
    tree = yaml.safe_load((resources.files("msta") / "presets" / f"{name}.yaml").read_text(encoding="utf-8"))
    recipes = tree.pop("protocols", None)
    if recipes is None:
        if colon:
            raise ConfigError(f"preset {name}: is the same for all protocols; leave {':' + asked!r} out")
        return tree
    wanted = asked if colon else protocol
    if wanted not in recipes:
        raise ConfigError(f"preset {name}: has no recipe for {wanted!r}; it has {', '.join(recipes)}")
    recipe = recipes[wanted]
    own = recipe.pop("datasets", {}).get(canonical(dataset), {})
    return _merged(_merged(tree, recipe), own)


def _merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for name, value in changes.items():
        merged[name] = _merged(merged.get(name, {}), value) if isinstance(value, dict) else value
    return merged


def read_config(path: Path) -> RunConfig:
    """A run's own ``config.yaml``.

    Raises:
        ConfigError: unreadable or not valid.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: no valid YAML") from error
    return _validate(tree)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _parsed(override: str) -> tuple[str, str]:
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"expected key=value, got {override!r}")
    return name, value


def _choose_method(tree: dict[str, Any], name: str) -> None:
    if name != tree["method"]["name"]:
        tree["method"] = {"name": name}  # the preset's settings are those of its own method
        for setting, value in METHODS[name].usual.items() if name in METHODS else ():
            _put(tree, setting, value)


def _value(text: str) -> Any:
    """Lists, whole numbers and null are read as YAML; all else is text, which the settings' types make sense of."""
    if text.startswith("[") or text.removeprefix("-").isdecimal() or text.lower() in ("null", "none", ""):
        try:
            return None if text.lower() == "none" else yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return text


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    *parents, leaf = name.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"no setting {name}")
    tree[leaf] = value


def _validate(tree: Any) -> RunConfig:
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error
    try:
        config.method_config()
    except ValidationError as error:
        raise ConfigError(explain(error, "method.")) from error
    return config


def explain(error: ValidationError, prefix: str = "") -> str:
    """The first complaint, as a line: which setting, what is wrong, what was given."""
    first = error.errors()[0]
    name = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        names = _setting_names()
        near = [n for n in names if n.endswith(f".{name}")] + difflib.get_close_matches(name, names, n=2)
        near = [n for n in near if n != name]
        return f"no setting {name}" + (f"; did you mean {near[0]}?" if near else "; a run's config.yaml has them all")
    if first["type"] == "missing":
        return f"{name} is not set"
    message = first["msg"].removeprefix("Value error, ")
    return f"{name}: {message[0].lower()}{message[1:]}, got {first['input']!r}"


def _setting_names() -> list[str]:
    names = [f"method.{field}" for method in METHODS.values() for field in method.model_fields]
    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            names += [f"{name}.{inner}" for inner in section.model_fields]
        else:
            names.append(name)
    return names
