"""RunConfig: one typed, validated description of a run, from a YAML preset and key=value changes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import Field, ValidationError, field_validator

from msta.adapters.method import MethodConfig
from msta.backbone.checkpoints import EMBEDDED, TOY
from msta.backbone.device import precision_on
from msta.data.names import canonical
from msta.errors import ConfigError
from msta.methods import METHODS, method_config
from msta.settings import CacheSettings, DataSettings, DescriptionSettings, EvalSettings, Section, TrainSettings


class RunConfig(Section):
    """Everything that decides a run. ``method`` holds the method's name and its own settings."""

    data: DataSettings
    backbone: str = Field(TOY, min_length=1)
    base: str | None = None
    method: dict[str, Any] = Field({"name": "msta"})
    descriptions: DescriptionSettings = DescriptionSettings()
    train: TrainSettings = TrainSettings()
    eval: EvalSettings = EvalSettings()
    cache: CacheSettings = CacheSettings()

    def approximations(self) -> list[str]:
        """The settings that make a run faster but change its result, in words."""
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
        path, question, said = (name or "").partition("?")
        if path and path not in EMBEDDED and os.path.exists(path):
            return f"{os.path.abspath(path)}{question}{said}"
        return name

    def method_config(self) -> MethodConfig:
        """The config of the method."""
        settings = dict(self.method)
        return method_config(settings.pop("name"), **settings)

    def on(self, device: torch.device) -> RunConfig:
        """The config for a device: "auto" becomes the precision that fits the device."""
        precision = precision_on(device, self.train.precision)
        return self.model_copy(update={"train": self.train.model_copy(update={"precision": precision})})

    def flat(self) -> dict[str, Any]:
        """Dotted name -> value. All values can be written as JSON."""
        return _flat(self.model_dump(mode="json"))

    def to_yaml(self) -> str:
        """All settings as YAML, which :func:`read_config` reads."""
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
        overrides: key=value; they win over all others.
        method: the name of the method.
        protocol: decides the recipe, if a preset has several.
        dataset: its name, if a preset differs by data set; None: the last part of the setting ``data.path``.

    Raises:
        ConfigError: one line that names the setting at fault.
    """
    tree = read_preset(preset, protocol, dataset or Path(str(settings.get("data.path", ""))).name)
    parsed = [_parsed(override) for override in overrides]
    given = [(key, value) for key, value in settings.items() if value is not None]
    named = [value for key, value in (*given, *parsed) if key in ("method", "method.name") and isinstance(value, str)]
    for name in (method, *named):
        if name is not None:
            _choose_method(tree, name)
    for key, value in (*given, *((key, _value(text)) for key, text in parsed)):
        if not (key in ("method", "method.name") and isinstance(value, str)):
            _put(tree, key, value)
    return _validate(tree)


def changed(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """A copy of ``config`` with other ``settings`` (dotted name -> value).

    Raises:
        ConfigError: one line that names the setting at fault.
    """
    tree = config.model_dump()
    for name, value in settings.items():
        _put(tree, name, value)
    return _validate(tree)


def read_preset(preset: str, protocol: str = "few-shot", dataset: str = "") -> dict[str, Any]:
    """The settings of a preset, as a tree.

    Args:
        preset: a name of :func:`presets`, or NAME:PROTOCOL for a recipe of a protocol other than ``protocol``.
        protocol: few-shot, base-to-novel, zero-shot or supervised; it matters if the preset has a recipe per protocol.
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
    common, own = (part.pop("datasets", {}).get(canonical(dataset), {}) for part in (tree, recipe))
    for changes in (common, recipe, own):
        tree = _merged(tree, changes)
    return tree


def _merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for name, value in changes.items():
        merged[name] = _merged(merged.get(name, {}), value) if isinstance(value, dict) else value
    return merged


def read_config(path: Path) -> RunConfig:
    """Read the ``config.yaml`` of a run.

    Raises:
        ConfigError: it cannot be read, or is not valid.
    """
    try:
        tree = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: no valid YAML") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds no settings")
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
        for setting, value in METHODS[name].default_overrides.items() if name in METHODS else ():
            _put(tree, setting, value)


def _value(text: str) -> Any:
    """Lists, whole numbers and null are read as YAML. Anything else stays text, which pydantic converts by type."""
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
    """The first error as one line: the setting, what is wrong, and the value that was given."""
    first = error.errors()[0]
    name = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        names = _setting_names()
        near = [n for n in names if n.endswith(f".{name}")] + difflib.get_close_matches(name, names, n=2)
        near = [n for n in near if n != name]
        return f"no setting {name}" + (f"; did you mean {near[0]}?" if near else "; see Settings in docs/guide.md")
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
