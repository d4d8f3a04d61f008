"""The command line: parse, call one function, print. No logic."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from msta.errors import ConfigError, Interrupted, MSTAError, one_line

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Adapt video-language models (CLIP, ViCLIP) to your own actions with a few labelled clips.",
    epilog="Start with: msta demo. Then: msta train --data FOLDER --out RUN, where FOLDER has a sub-folder a class.",
)
console = Console(stderr=True)

Backbone = Annotated[
    str | None,
    typer.Option(
        help="A directory, a file (.pt .pth .safetensors), a Hub id of a CLIP. Default: toy, which is built in."
    ),
]
Base = Annotated[
    str | None, typer.Option(help="The CLIP that a fine-tuned backbone without token embedding (ViFi-CLIP) began as.")
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from msta._version import __version__

        print(__version__)
        raise typer.Exit


@app.command(epilog="Example: msta demo --out msta-demo")
def demo(
    out: Annotated[Path, typer.Option(help="A folder that is not there yet.")] = Path("msta-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of clips, splits and training.")] = 0,
) -> None:
    """See it work in a few minutes: clips, zero-shot, few-shot, base-to-novel, one prediction, a report.

    Needs nothing but this package: DIR/results.json holds the figures, DIR/report.html shows them.
    """
    from msta.demo import demo as run

    run(out, console, seed=seed)


@app.command(epilog="Example: msta train --data clips/ --shots 8 --out runs/first train.lr=5e-4")
def train(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any setting.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with a sub-folder a class; CSV of path,label.")] = None,
    backbone: Backbone = None,
    base: Base = None,
    method: Annotated[str | None, typer.Option(help="msta, zero-shot, full, lora, …: docs/methods.md.")] = None,
    shots: Annotated[int | None, typer.Option(help="Training clips a class. Default: all but those held out.")] = None,
    preset: Annotated[str, typer.Option(help="small (a CPU, few clips) or paper (the authors' recipe).")] = "small",
    out: Annotated[Path | None, typer.Option(help="The run's directory: adapter/, metrics.json, logs.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this directory.")] = None,
    or_resume: Annotated[
        bool, typer.Option("--or-resume", help="Go on if --out holds a run already: for schedulers that start again.")
    ] = False,
    auto_batch: Annotated[
        bool, typer.Option("--auto-batch", help="When memory runs out, compute half as many clips at a time.")
    ] = False,
) -> None:
    """Train an adapter on your clips, test it, and save it.

    Splits: train/ val/ test/ folders if the data has them, else made by a seed and written to RUN/split.csv.
    RUN/metrics.json holds top-1 and top-5 in percent on the test clips. Several processes (torchrun -m msta train …,
    accelerate launch -m msta train …) share the work: docs/training.md.
    """
    from msta.config import make_config, read_config
    from msta.training.loop import train as run

    if resume is not None:
        if overrides or data or backbone or base or method or shots or out or or_resume:
            raise ConfigError("--resume takes its settings from the run; give nothing else but --auto-batch")
        config = read_config(resume / "config.yaml")
        if auto_batch:
            config = config.model_copy(update={"train": config.train.model_copy(update={"auto_batch": True})})
        run(config, resume, console, resume=True)
        return
    if data is None or out is None:
        missing = [name for name, value in (("--data", data), ("--out", out)) if value is None]
        raise ConfigError(f"missing {', '.join(missing)}")
    settings = {"data.path": str(data), "data.shots": shots, "backbone": backbone, "base": base}
    if auto_batch:
        settings["train.auto_batch"] = True
    run(make_config(preset, settings, overrides or [], method=method), out, console, or_resume=or_resume)


@app.command(epilog="Example: msta status runs/first --watch")
def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's directory.")],
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until the run has ended.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Say how a training run is doing, from another terminal: progress, pace, best so far, errors, alive or dead.

    The exit code is 1 if it failed or died.
    """
    import time

    from msta.training.status import describe, read_status

    while True:
        found = read_status(run)
        if as_json:
            _print_json(found)
        else:
            print("\n".join(describe(found)), flush=True)
        if not watch or found["state"] != "running":
            break
        time.sleep(2)
        if not as_json:
            print()
    if found["state"] in ("failed", "dead"):
        raise typer.Exit(1)


@app.command(name="eval", epilog="Example: msta eval --data RUN/split.csv --adapter RUN/adapter --json")
def eval_(
    data: Annotated[Path, typer.Option(help="As for train. A run's split.csv measures on its test clips.")],
    backbone: Backbone = None,
    base: Base = None,
    adapter: Annotated[Path | None, typer.Option(help="An adapter's directory. Without: zero-shot.")] = None,
    split: Annotated[str | None, typer.Option(help="train, val, test or all. Default: test if there is one.")] = None,
    clips: Annotated[int, typer.Option(min=1, help="Test clips a video.")] = 1,
    crops: Annotated[int, typer.Option(help="Test crops a clip: 1 or 3.")] = 1,
    new_classes: Annotated[bool, typer.Option(help="Measure on the data's classes, not the adapter's.")] = False,
    template: Annotated[
        list[str] | None, typer.Option(help='"a video of {}."; again: several, averaged. Else the adapter\'s.')
    ] = None,
    predictions: Annotated[Path | None, typer.Option(help="A Parquet file to write every prediction to.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Measure top-1 and top-5, in percent, of an adapter or of a backbone as it is."""
    from msta.config import EvalSettings
    from msta.evaluation.run import evaluate_on

    views = _checked(EvalSettings, clips=clips, crops=crops).views()
    metrics = evaluate_on(
        _load_model(backbone, base, adapter), data, split=split, views=views, new_classes=new_classes, console=console,
        template=template, predictions=predictions,
    )  # fmt: skip
    for path, reason in metrics["unreadable"].items():
        _say(one_line(f"left out: {path}: {reason}"))
    if as_json:
        _print_json(metrics)
    else:
        accuracy = f"top-1 {metrics['top1']:.1f} %  top-5 {metrics['top5']:.1f} %"
        print(f"{accuracy}  of {metrics['clips']} clips ({metrics['split']})")


@app.command(epilog='Example: msta predict clip.mp4 --backbone ViClip.pth --labels "push,hug,shake hands"')
def predict(
    videos: Annotated[list[str], typer.Argument(help="Video files.")],
    adapter: Annotated[Path | None, typer.Option(help="An adapter's directory.")] = None,
    backbone: Backbone = None,
    base: Base = None,
    labels: Annotated[
        str | None, typer.Option(help="Classes, separated by commas, or a .txt or .csv of them; else the adapter's.")
    ] = None,
    template: Annotated[
        list[str] | None, typer.Option(help='"a video of {}."; again: several, averaged. Else the adapter\'s.')
    ] = None,
    unknown_below: Annotated[
        str | None, typer.Option(help="A probability, or val (the adapter's own): below it a video is unknown.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to print for a video.")] = 3,
    clips: Annotated[int, typer.Option(min=1, help="Test clips a video.")] = 1,
    crops: Annotated[int, typer.Option(help="Test crops a clip: 1 or 3.")] = 1,
    as_json: AsJSON = False,
) -> None:
    """Say what happens in each video. A file that cannot be read is reported in its place, and the exit code is 1."""
    from msta.config import EvalSettings
    from msta.data.decode import DecodeError
    from msta.inference.class_sets import class_names, unknown_threshold
    from msta.inference.predictor import Predictor

    views = _checked(EvalSettings, clips=clips, crops=crops).views()
    names = class_names(labels) if labels is not None else None
    below = unknown_threshold(unknown_below, adapter) if unknown_below is not None else None
    if adapter is None and names is None:
        raise ConfigError("give --adapter, or --labels")
    predictor = Predictor(_load_model(backbone, base, adapter), names, template=template, views=views)
    results: list[dict[str, Any]] = []
    for video in videos:
        try:
            ranked = predictor(video)
        except DecodeError as error:
            results.append({"path": video, "error": error.reason})
            line = str(error)
        else:
            results.append({"path": video, "predictions": [vars(p) for p in ranked]})
            line = one_line(f"{video}: ") + ", ".join(f"{p.label} {100 * p.probability:.1f} %" for p in ranked[:top])
            if below is not None:
                results[-1]["unknown"] = ranked[0].probability < below
                line += " (unknown)" if results[-1]["unknown"] else ""
        if not as_json:
            print(line)
    if as_json:
        _print_json(results)
    if any("error" in result for result in results):
        raise typer.Exit(1)


@app.command(epilog="Example: msta info runs/first/adapter, or msta info --plan --data clips/ --shots 8 cache.views=10")
def info(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="TARGET | KEY=VALUE", help="A backbone, an adapter; with --plan, any setting."),
    ] = None,
    backbone: Backbone = None,
    base: Base = None,
    plan: Annotated[bool, typer.Option("--plan", help="What msta train would take with these options.")] = False,
    data: Annotated[Path | None, typer.Option(help="As for train.")] = None,
    method: Annotated[str | None, typer.Option(help="As for train.")] = None,
    shots: Annotated[int | None, typer.Option(help="As for train.")] = None,
    preset: Annotated[str, typer.Option(help="As for train.")] = "small",
    as_json: AsJSON = False,
) -> None:
    """Describe this installation, a backbone, or an adapter (what is trained, of what, for which classes).

    With --plan: parameters, arithmetic, memory and time of a training run, before it starts.
    """
    if plan:
        from msta.config import make_config
        from msta.training.plan import plan as planned

        if data is None:
            raise ConfigError("missing --data")
        settings = {"data.path": str(data), "data.shots": shots, "backbone": backbone, "base": base}
        described = planned(make_config(preset, settings, arguments or [], method=method))
    else:
        from msta.inference.describe import describe

        if len(arguments or []) > 1 or data or method or shots:
            raise ConfigError("one target at a time; --data, --method and --shots go with --plan")
        described = describe(arguments[0] if arguments else None, backbone, base)
    if as_json:
        _print_json(described)
        return
    width = max(map(len, described))
    for name, value in described.items():
        print(f"{name:>{width}}  " + (f"{value:,}" if type(value) is int else str(value)))


@app.command(epilog="Example: msta pretrain --out runs/toy")
def pretrain(
    out: Annotated[Path, typer.Option(help="Clips, logs, state and, at the end, backbone/. Given again, it goes on.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps. Default: 4,000.")] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Clips of MotionWorld to draw. Default: 80,000.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of clips, weights and order.")] = 0,
) -> None:
    """Pretrain a small ViCLIP from nothing on MotionWorld, a synthetic world of captioned motion. Takes hours."""
    from msta.training.pretrain import PretrainConfig
    from msta.training.pretrain import pretrain as run

    given: dict[str, Any] = {name: n for name, n in (("steps", steps), ("clips", clips)) if n is not None}
    run(PretrainConfig(seed=seed, **given), out, console)


data_app = typer.Typer(no_args_is_help=True, help="Make, list, check and split data sets.")
app.add_typer(data_app, name="data")


@data_app.command(
    epilog='Example: msta data motionworld --out clips/ --motions "swipe left,swipe right,circle" --clips 16'
)
def motionworld(
    out: Annotated[Path, typer.Option(help="A folder that is not there yet.")],
    motions: Annotated[str | None, typer.Option(help="Names, separated by commas. Default: a few.")] = None,
    clips: Annotated[int, typer.Option(help="Clips a class.")] = 16,
    size: Annotated[int, typer.Option(help="Pixels a side, even.")] = 128,
    frames: Annotated[int, typer.Option(help="Frames a clip.")] = 32,
    domain: Annotated[
        str, typer.Option(help="train, held-out, or shifted: things and patterns the others lack.")
    ] = "shifted",
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    names: Annotated[bool, typer.Option("--list", help="List the motions, and write nothing.")] = False,
) -> None:
    """Write labelled MP4 clips of synthetic motion in class folders, with descriptions of the classes."""
    from msta.data.motionworld import ALL_MOTIONS, DEMO_MOTIONS, write_dataset

    if names:
        print("\n".join(ALL_MOTIONS))
        return
    chosen = DEMO_MOTIONS if motions is None else [name.strip() for name in motions.split(",")]
    write_dataset(out, chosen, clips, size=size, frames_per_clip=frames, domain=domain, seed=seed)
    print(f"{len(chosen)} classes of {clips} clips in {out}")


DataFolder = Annotated[Path, typer.Option("--data", help="As for train.")]
DataSettings = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="data.layout=ucf101 and any other setting of data.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Files at a time. Default: the processors there are.")]


@data_app.command(
    name="index",
    epilog="Example: msta data index --data UCF-101/ --out ucf2.parquet data.layout=ucf101 data.split_number=2",
)
def index_(
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="A new file, .parquet or .csv; itself a data set.")],
    overrides: DataSettings = None,
    without: Annotated[
        Path | None, typer.Option(help="Leave out the clips of this table, broken.csv of msta data verify.")
    ] = None,
    workers: Workers = None,
    as_json: AsJSON = False,
) -> None:
    """Write a data set's catalog once: path, class, split, start, end, duration, frames of each clip."""
    from msta.config import make_config
    from msta.data.index import index

    catalog = make_config("small", {"data.path": str(data)}, overrides or []).data.read()
    done = index(catalog, out, without=without, workers=workers, console=None if as_json else console)
    if as_json:
        _print_json(done)
        return
    hours = f"{done['seconds'] / 3600:.2f} h of video"
    print(f"{done['clips']} clips of {done['classes']} classes in {done['files']} files, {hours}, in {out}")


@data_app.command(epilog="Example: msta data verify --data clips/ --out verified/")
def verify(
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="A folder for broken.csv. Given again, it goes on.")],
    overrides: DataSettings = None,
    workers: Workers = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds a file may take.")] = 300.0,
    as_json: AsJSON = False,
) -> None:
    """Decode every file from first frame to last, and list what is broken, and why. Exit code 1 if anything is."""
    from msta.config import make_config
    from msta.data.verify import verify as run

    catalog = make_config("small", {"data.path": str(data)}, overrides or []).data.read()
    done = run(catalog, out, workers=workers, timeout=timeout, console=None if as_json else console)
    if as_json:
        _print_json(done)
    else:
        for row in done["broken"][:20]:
            _say(one_line(f"{row['problem']}: {row['path']}: {row['reason']}"))
        print(
            f"{len(done['broken'])} of {done['clips']} clips in {done['files']} files are broken; see {out}/broken.csv"
        )
    if done["broken"]:
        raise typer.Exit(1)


@data_app.command(
    epilog="Example: msta data split --data clips/ --out splits/base-4 --classes base data.shots=4 data.seed=1"
)
def split(
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="A new folder for split.csv and classes.csv; split.csv is a data set.")],
    overrides: DataSettings = None,
    classes: Annotated[str, typer.Option(help="all, or the base or novel half.")] = "all",
    as_json: AsJSON = False,
) -> None:
    """Write who trains, validates and tests, as msta train would decide it."""
    from msta.config import make_config
    from msta.data.splits import write_split

    settings = make_config("small", {"data.path": str(data)}, overrides or []).data
    done = write_split(
        settings.read(), out, classes, shots=settings.shots, val_fraction=settings.val_fraction,
        test_fraction=settings.test_fraction, seed=settings.seed,
    )  # fmt: skip
    if as_json:
        _print_json(done)
        return
    print(
        f"{done['classes']} classes: {done['train']} train, {done['val']} val, {done['test']} test, in {out}/split.csv"
    )


@app.command(epilog="Example: msta describe --labels classes.csv --out bank.json --model gpt-4o-mini")
def describe(
    out: Annotated[Path, typer.Option(help="The bank: made, or completed. Given again, it goes on.")],
    labels: Annotated[
        Path | None, typer.Option(help="Class names: classes.csv, a text file of one a line, a data set's folder.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The language model, as the server calls it.")] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Base URL of a server of OpenAI's protocol. Default: $OPENAI_BASE_URL, else OpenAI."),
    ] = None,
    key_from: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable of the key; your own server may need none.")
    ] = "OPENAI_API_KEY",
    sentences: Annotated[int, typer.Option(help="Of either kind for each class.")] = 4,
    jobs: Annotated[int, typer.Option(help="Classes in flight.")] = 8,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds an answer may take.")] = 120,
    template: Annotated[bool, typer.Option("--template", help="Fill templates, without a language model.")] = False,
    edit: Annotated[bool, typer.Option("--edit", help="Open the bank in $EDITOR, to write by hand.")] = False,
) -> None:
    """Write spatial and temporal sentences for each class, which the consistency term holds the text tower to.

    With Ollama: --endpoint http://localhost:11434/v1 --model NAME. Then: msta descriptions check, and
    msta train descriptions.bank=FILE.
    """
    from msta.descriptions import describe as by
    from msta.descriptions.endpoint import endpoint as endpoint_of
    from msta.descriptions.generate import Patience
    from msta.descriptions.labels import read_labels

    if labels is None and not edit:
        raise ConfigError("missing --labels")
    classes = read_labels(labels) if labels is not None else ()
    if edit:
        done = by.edit(classes, out)
    elif template:
        done = by.describe_by_template(classes, out, sentences=sentences)
    else:
        to, patience = endpoint_of(endpoint, model, key_from), Patience(timeout=timeout)
        done = by.describe(classes, out, to, console, sentences=sentences, jobs=jobs, patience=patience)
    for name, why in done.incomplete.items():
        _say(one_line(f"{name}: {why}"))
    if done.incomplete and not edit:
        lacking = f"{len(done.incomplete)} of {len(classes)} classes lack sentences"
        raise MSTAError(f"{out}: {lacking}; the same command asks for them again")
    print(f"{len(done.bank.classes)} classes in {out}")


descriptions_app = typer.Typer(no_args_is_help=True, help="Check, import and export descriptions of classes.")
app.add_typer(descriptions_app, name="descriptions")


@descriptions_app.command(
    name="import",
    epilog="Example: msta descriptions import --labels classes.csv --spatial 8_s.json --out bank.json",
)
def import_(
    labels: Annotated[Path, typer.Option(help="Class names, in the order of the files' indices.")],
    out: Annotated[Path, typer.Option(help="The bank; classes that are in it already are replaced.")],
    spatial: Annotated[Path | None, typer.Option(help="N_s_…json: class index -> sentences.")] = None,
    temporal: Annotated[Path | None, typer.Option(help="N_t_…json: class index -> sentences.")] = None,
) -> None:
    """Read descriptions in the authors' format into a bank."""
    from msta.descriptions.exchange import import_official

    print(import_official(spatial, temporal, labels, out))


@descriptions_app.command(epilog="Example: msta descriptions export --bank bank.json --spatial 4_s.json")
def export(
    bank: Annotated[Path, typer.Option(help="The bank.")],
    spatial: Annotated[Path | None, typer.Option(help="A new file.")] = None,
    temporal: Annotated[Path | None, typer.Option(help="A new file.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Which classes, in which order. Default: all.")] = None,
) -> None:
    """Write a bank, or some of its classes, in the authors' format."""
    from msta.descriptions.exchange import export_official

    print(export_official(bank, spatial, temporal, labels))


@descriptions_app.command(epilog="Example: msta descriptions check --bank bank.json --out check.html")
def check(
    bank: Annotated[Path, typer.Option(help="The bank.")],
    backbone: Backbone = None,
    base: Base = None,
    labels: Annotated[Path | None, typer.Option(help="Which classes. Default: all.")] = None,
    template: Annotated[str, typer.Option(help="The classes' own prompt.")] = "a video of {}.",
    out: Annotated[Path | None, typer.Option(help="A new page, .html, with heat maps.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Ask a backbone's text tower which sentences are bad, and how far the anchors are from their own prompts."""
    from msta.descriptions.labels import read_labels
    from msta.evaluation.descriptions import check_bank, print_check

    model = _load_model(backbone, base, None).backbone
    found = check_bank(bank, model, read_labels(labels) if labels else None, template=template, out=out)
    if as_json:
        _print_json(found)
    else:
        print_check(found)


@app.command(
    epilog="Example: msta protocol few-shot --data clips/ --shots 2,4,8 --out runs/few-shot; "
    "msta protocol zero-shot --source clips/ --target ucf101=UCF-101/ --out runs/transfer; "
    "msta protocol report --out runs/few-shot"
)
def protocol(
    name: Annotated[
        str, typer.Argument(help="zero-shot, few-shot, base-to-novel or supervised; report makes its pages again.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any setting of msta train.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="[NAME=]PATH[?setting=value&…]. Again with one NAME: its other splits, averaged over."),
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="The same: what zero-shot trains on.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="The same: what zero-shot tests on; base-to-novel: the novel classes.")
    ] = None,
    backbone: Backbone = None,
    base: Base = None,
    adapter: Annotated[Path | None, typer.Option(help="A trained one for zero-shot, in place of --source.")] = None,
    method: Annotated[str, typer.Option(help="Names, separated by commas, the baseline first.")] = "zero-shot,msta",
    shots: Annotated[
        str | None, typer.Option(help="Clips a class. Default: 2,4,8,16 for few-shot, 16 for base-to-novel, else all.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Of splits and training, separated by commas.")] = "0,1,2",
    preset: Annotated[str, typer.Option(help="As for train.")] = "small",
    published: Annotated[Path | None, typer.Option(help="JSON of others' figures, to stand beside yours.")] = None,
    out: Annotated[Path | None, typer.Option(help="Given again, it goes on and skips what is finished.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Run one of the field's four protocols: splits, runs, tables with intervals, and a report to look at.

    Writes DIR/report.html, results.md, results.tex and results.json, and keeps every prediction. The checkpoint is
    selected on validation clips; train.watch_test=true also prints the authors' choice, by test clips, as test-leak.
    """
    from msta.evaluation.protocol_report import summary, write_report
    from msta.evaluation.protocols import Request
    from msta.evaluation.running import run_protocol

    if out is None:
        raise ConfigError("missing --out")
    if name != "report":
        request = Request(
            name,
            tuple(data or ()),
            tuple(source or ()),
            tuple(target or ()),
            tuple(_listed(method)),
            tuple(_integers(shots, "--shots")) if shots is not None else None,
            tuple(_integers(seeds, "--seeds")),
            preset,
            tuple(overrides or ()),
            backbone,
            base,
            adapter,
        )
        run_protocol(request, out, console)
    results = write_report(out, published)
    if as_json:
        _print_json(results)
    else:
        print(summary(results))
        print(f"Report: {out / 'report.html'}")


@app.command(epilog="Example: msta ablate --data clips/ --shots 8 --axes dim,kernel,towers --out runs/ablation")
def ablate(
    data: Annotated[Path, typer.Option(help="As for train.")],
    out: Annotated[Path, typer.Option(help="Runs, table and figures. Given again, it goes on.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any setting, of all runs.")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="Choices to vary, separated by commas. Default: all.")] = None,
    novel: Annotated[bool, typer.Option("--novel", help="Train on half of the classes, measure both halves.")] = False,
    shots: Annotated[int | None, typer.Option(min=1, help="Training clips a class. Default: as train.")] = None,
    seeds: Annotated[str, typer.Option(help="Of splits and training, separated by commas.")] = "0,1,2",
    backbone: Backbone = None,
    base: Base = None,
    preset: Annotated[str, typer.Option(help="As for train.")] = "small",
    as_json: AsJSON = False,
) -> None:
    """Vary MSTA's choices one at a time: blocks, dim, scale, shared, kernel, towers, consistency, sentences, template.

    Each point is a run; OUT/ablation.md is the table, OUT/AXIS.png a figure each. Finished runs are not run again.
    """
    from msta.evaluation.ablation import Ablation
    from msta.evaluation.ablation import ablate as run
    from msta.evaluation.ablation_report import table

    chosen, numbers = tuple(_listed(axes)) if axes is not None else None, tuple(_integers(seeds, "--seeds"))
    asked = Ablation(data, novel, chosen, shots, numbers, preset, tuple(overrides or ()), backbone, base)
    result = run(asked, out, console)
    if as_json:
        _print_json(result)
    else:
        print(table(result), end="")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _integers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in _listed(text)]
    except ValueError:
        raise ConfigError(f"{option}: expected numbers separated by commas, got {text!r}") from None


def _load_model(backbone: str | None, base: str | None, adapter: Path | None) -> Any:
    import torch

    import msta

    if adapter is not None:
        model = msta.load_adapter(adapter, msta.load_backbone(backbone, base=base) if backbone is not None else None)
    else:
        model = msta.attach(msta.load_backbone(backbone or "toy", base=base), "zero-shot")
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _checked(section: Any, **values: Any) -> Any:
    from pydantic import ValidationError

    from msta.config import explain

    try:
        return section(**values)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))


def main() -> None:
    """Run the command line. Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted."""
    logging.getLogger("msta").addHandler(_Notices())
    try:
        app()
    except Interrupted as error:
        _fail(error, 130)
    except ConfigError as error:
        _fail(error, 2)
    except MSTAError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except OSError as error:
        _fail(f"{error.filename or 'error'}: {error.strerror or error}", 1)


class _Notices(logging.Handler):
    """Notices go above the progress bar, each on a line of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """One notice."""
        _say(one_line(record.getMessage()))


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _fail(message: object, code: int) -> NoReturn:
    """One line on standard error."""
    print(f"msta: {one_line(str(message))}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
