"""What the commands share: the application, common options, and printing."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from msta.errors import ConfigError, one_line

if TYPE_CHECKING:
    from msta.settings import DataSettings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Adapt video-language models (CLIP, ViCLIP) to your own actions with a few labelled clips.",
    epilog="Start with: msta demo. Then: msta train --data FOLDER --out RUN. FOLDER has one sub-folder per class.",
)
console = Console(stderr=True)


def adapter_or_run(text: str) -> Path:
    """The folder of an adapter, which is given by itself, by its run, or by its id on the Hub."""
    from msta.adapters.hub import adapter_folder

    return adapter_folder(os.path.expanduser(text))


_ADAPTER = typer.Option(metavar="DIR", parser=adapter_or_run, help="The folder of a run or adapter, or a Hub id.")
Adapter = Annotated[Path | None, _ADAPTER]
Adapters = Annotated[list[Path] | None, _ADAPTER]
Labels = Annotated[
    str | None,
    typer.Option(
        help="Classes, separated by commas; or a file of them; or the folder of a data set. Default: the adapter's."
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="A folder, a file (.pt .pth .safetensors), a Hub id, or a name in msta backbones. Default: toy, built in."
    ),
]
Base = Annotated[
    str | None,
    typer.Option(help="The CLIP that a fine-tuned backbone without token embedding (ViFi-CLIP) started from."),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="A folder with one sub-folder per class, a CSV of path,label, or a known data set."),
]
DataArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DATA] [KEY=VALUE]",
        help="The data, unless --data names them; then data.layout=ucf101 and any other setting of data.",
    ),
]
Method = Annotated[str | None, typer.Option(help="msta, zero-shot, full, lora, …: docs/methods.md.")]
Shots = Annotated[int | None, typer.Option(help="Training clips per class. Default: all but those held out.")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="small, the default: for few clips; upper: also for a large backbone; paper: the paper's few-shot recipe, "
        "paper:base-to-novel and so on: its others; paper-logs: the recipe in the authors' logs."
    ),
]
Template = Annotated[
    list[str] | None, typer.Option(help='Such as "a video of {}.". Several are averaged. Default: the adapter\'s.')
]
TestClips = Annotated[int, typer.Option(min=1, help="Test clips per video.")]
TestCrops = Annotated[int, typer.Option(help="Test crops per clip: 1 or 3.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any setting of msta train.")]
Seeds = Annotated[str, typer.Option(help="Seeds of splits and training, separated by commas.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]


_CHOICES = {
    "device": ("MSTA_DEVICE", "cpu, cuda, cuda:1, mps, xpu. Default: the accelerator that torch finds."),
    "precision": ("MSTA_PRECISION", "auto, fp32, bf16, fp16. Default: auto, on CUDA bf16 (or fp16), elsewhere fp32."),
}


def computes(*choices: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options --device and --precision, or one of them.

    While the command runs, they are set in the environment, which processes that it starts inherit.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**options: Any) -> None:
            chosen = {_CHOICES[name][0]: options.pop(name) for name in choices}
            before = {variable: os.environ.get(variable) for variable in chosen}
            try:
                _set_environment(chosen)
                function(**options)
            finally:
                _set_environment(before)

        signature, added = inspect.signature(function, eval_str=True), []
        for name in choices:
            variable, text = _CHOICES[name]
            kind = Annotated[str | None, typer.Option(f"--{name}", envvar=variable, help=text)]
            added.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))
        command.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
        command.__annotations__ = {**function.__annotations__, **{each.name: each.annotation for each in added}}
        return command

    return decorate


def _set_environment(values: dict[str, str | None]) -> None:
    for variable, value in values.items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from msta._version import __version__

        print(__version__)
        raise typer.Exit


def listed(text: str) -> list[str]:
    """The parts of a text between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def integers(text: str, option: str) -> tuple[int, ...]:
    """The whole numbers between commas; an error names ``option``."""
    try:
        numbers = tuple(int(part) for part in listed(text))
        if not numbers:
            raise ValueError
        return numbers
    except ValueError:
        raise ConfigError(f"{option}: expected numbers separated by commas, got {text!r}") from None


def load_model(backbone: str | None, base: str | None, adapter: Path | None) -> Any:
    """The adapter in its backbone or in the given one, or a backbone as it is; on the device of :func:`computes`."""
    return load_models(backbone, base, [] if adapter is None else [adapter])[0]


def load_models(backbone: str | None, base: str | None, adapters: Sequence[Path]) -> list[Any]:
    """Several adapters in one backbone: see :func:`load_model`."""
    from msta.inference.onnx_predictor import export_in
    from msta.inference.predictor import load_models as load

    for adapter in adapters:
        if export_in(adapter) is not None:
            raise ConfigError(
                f"--adapter: {adapter} is exported, and only msta predict runs it; give what it was made from"
            )
    return load(adapters, backbone, base)


def data_first(data: Path | None, arguments: list[str] | None) -> tuple[Path | None, list[str]]:
    """The data set, from ``--data`` or else from the first argument, and the other arguments."""
    rest = list(arguments or ())
    if data is None and rest and ("=" not in rest[0] or os.path.exists(rest[0])):
        data = Path(rest.pop(0))
    return data, rest


def data_settings(data: Path | None, arguments: list[str] | None, **settings: Any) -> DataSettings:
    """The settings of a data set: those in the arguments (``data.layout=ucf101``), else ``settings``."""
    from msta.config import make_config

    data, overrides = data_first(data, arguments)
    if data is None:
        raise ConfigError("missing --data")
    for override in overrides:
        if not override.startswith("data.") or "=" not in override:
            raise ConfigError(f"{override.partition('=')[0]}: says nothing of data; data.layout=ucf101 does")
    own = {f"data.{name}": value for name, value in settings.items()}
    return make_config("small", {"data.path": str(data), **own}, overrides).data


def checked(section: Any, **values: Any) -> Any:
    """A section of the settings, made from options. If something is wrong, the error is one line."""
    from pydantic import ValidationError

    from msta.config import explain

    try:
        return section(**values)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def print_json(data: Any) -> None:
    """Print JSON on standard output, which gets nothing else."""
    print(json.dumps(data, indent=2))


def print_result(data: Any, as_json: bool, text: str) -> None:
    """Print the result of a command: JSON, or a text."""
    if as_json:
        print_json(data)
    else:
        print(text.rstrip("\n"), flush=True)


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Print one line per fact, or JSON."""
    width = max(map(len, facts))
    shown = {name: f"{value:,}" if type(value) is int else str(value) for name, value in facts.items()}
    print_result(facts, as_json, "\n".join(f"{name:>{width}}  {value}" for name, value in shown.items()))


def say(text: str) -> None:
    """Print a line on standard error, above a progress bar."""
    console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)
