"""msta data: commands on data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from msta.cli import options as opt
from msta.cli.options import app, console, data_settings, listed, load_model, print_json, print_result, say
from msta.errors import ConfigError, one_line

data_app = typer.Typer(no_args_is_help=True, help="Make, list, check and split data sets.")
app.add_typer(data_app, name="data", rich_help_panel="Data and descriptions")

Workers = Annotated[int | None, typer.Option(min=1, help="Files at a time. Default: the number of processors.")]


@data_app.command(
    epilog='Example: msta data motionworld --out clips/ --motions "swipe left,swipe right,circle" --clips 16'
)
def motionworld(
    out: Annotated[Path | None, typer.Option(help="A new folder. Needed unless --list.")] = None,
    motions: Annotated[str | None, typer.Option(help="Names, separated by commas. Default: ten of them.")] = None,
    clips: Annotated[int, typer.Option(min=1, help="Clips per class.")] = 16,
    size: Annotated[int, typer.Option(help="Height and width in pixels, even.")] = 128,
    frames: Annotated[int, typer.Option(help="Frames per clip.")] = 32,
    domain: Annotated[
        str, typer.Option(help="train, held-out or shifted. Shifted has things and patterns that the others lack.")
    ] = "shifted",
    seed: Annotated[int, typer.Option(min=0, help="Determines everything that is random.")] = 0,
    names: Annotated[bool, typer.Option("--list", help="Print the names of all motions, and write nothing.")] = False,
) -> None:
    """Write labelled MP4 clips of synthetic motion in class folders, with descriptions of the classes."""
    from msta.motionworld import ALL_MOTIONS, DEMO_MOTIONS, write_dataset

    if names:
        print("\n".join(ALL_MOTIONS))
        return
    if out is None:
        raise ConfigError("--out: name a folder that does not exist yet; --list needs none")
    chosen = DEMO_MOTIONS if motions is None else listed(motions)
    write_dataset(out, chosen, clips, size=size, frames_per_clip=frames, domain=domain, seed=seed)
    print(f"{len(chosen)} classes of {clips} clips in {out}")


@data_app.command(
    name="index",
    epilog="Example: msta data index UCF-101/ --out ucf2.parquet data.layout=ucf101 data.split_number=2",
)
def index_(
    out: Annotated[Path, typer.Option(help="A new file, .parquet or .csv. It is a data set itself.")],
    arguments: opt.DataArguments = None,
    data: opt.Data = None,
    without: Annotated[
        Path | None, typer.Option(help="Leave out the clips in this table, such as broken.csv of msta data verify.")
    ] = None,
    workers: Workers = None,
    as_json: opt.AsJSON = False,
) -> None:
    """Write a data set's catalog once: path, class, split, start, end, duration, frames of each clip."""
    from msta.data.index import index

    catalog = data_settings(data, arguments).read()
    done = index(catalog, out, without=without, workers=workers, console=None if as_json else console)
    hours = f"{done['seconds'] / 3600:.2f} h of video"
    classes = "1 class" if done["classes"] == 1 else f"{done['classes']} classes"
    print_result(done, as_json, f"{done['clips']} clips of {classes} in {done['files']} files, {hours}, in {out}")


@data_app.command(epilog="Example: msta data verify clips/ --out verified/")
def verify(
    out: Annotated[Path, typer.Option(help="A folder for broken.csv. If it exists, continue there.")],
    arguments: opt.DataArguments = None,
    data: opt.Data = None,
    workers: Workers = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a file may take.")] = 300.0,
    as_json: opt.AsJSON = False,
) -> None:
    """Decode every file from its first frame to its last, and list the broken ones. Exit code 1 if there are any."""
    from msta.data.verify import verify as run

    catalog = data_settings(data, arguments).read()
    done = run(catalog, out, workers=workers, timeout=timeout, console=None if as_json else console)
    if as_json:
        print_json(done)
    else:
        for row in done["broken"][:20]:
            say(f"{row['problem']}: {row['path']}: {row['reason']}")
        print(
            f"{len(done['broken'])} of {done['clips']} clips in {done['files']} files are broken; see {out}/broken.csv"
        )
    if done["broken"]:
        raise typer.Exit(1)


@data_app.command(epilog="Example: msta data check clips/ --html check.html --backbone ViClip.pth data.shots=8")
def check(
    arguments: opt.DataArguments = None,
    data: opt.Data = None,
    html: Annotated[Path | None, typer.Option(help="A page with pictures of the clips.")] = None,
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    workers: Workers = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a clip may take.")] = 60.0,
    as_json: opt.AsJSON = False,
) -> None:
    """Look at the data before training: a table of the classes, and what will make a bad classifier.

    With --backbone also the names that its text tower confuses. msta data verify decodes every frame.
    """
    from dataclasses import asdict, replace

    from msta.data.check import check as run
    from msta.evaluation.data_check import read_alike, table, write_check
    from msta.files import check_writable

    settings = data_settings(data, arguments)
    if html is not None:
        check_writable(html, "--html takes another name")
    catalog = settings.read()
    checked = run(
        catalog, shots=settings.shots, flip=settings.flip > 0, workers=workers, timeout=timeout,
        console=None if as_json else console,
    )  # fmt: skip
    if backbone is not None:
        alike = read_alike(load_model(backbone, base, None).backbone, catalog.classes)
        checked = replace(checked, warnings=[*checked.warnings, *alike])
    if html is not None:
        write_check(html, catalog, checked)
    if as_json:
        print_json(asdict(checked))
        return
    print(table(checked).markdown(), end="")
    for warning in checked.warnings:
        print(one_line(f"- {warning.text}"))
    if not checked.warnings:
        print("Nothing to act on.")


@data_app.command(epilog="Example: msta data split clips/ --out splits/base-4 --classes base data.shots=4 data.seed=1")
def split(
    out: Annotated[Path, typer.Option(help="A new folder for split.csv and classes.csv; split.csv is a data set.")],
    arguments: opt.DataArguments = None,
    data: opt.Data = None,
    classes: Annotated[str, typer.Option(help="all, or the base or novel half.")] = "all",
    as_json: opt.AsJSON = False,
) -> None:
    """Write which clips train, validate and test, as msta train would choose them."""
    from msta.data.splits import write_split

    settings = data_settings(data, arguments)
    done = write_split(
        settings.read(), out, classes, shots=settings.shots, val_fraction=settings.val_fraction,
        test_fraction=settings.test_fraction, seed=settings.seed,
    )  # fmt: skip
    counts = f"{done['train']} train, {done['val']} val, {done['test']} test"
    print_result(done, as_json, f"{done['classes']} classes: {counts}, in {out}/split.csv")


@data_app.command(
    epilog="Example: msta data shard clips/ --out shards/ --resize 256; msta train shards/index.json --out RUN"
)
def shard(
    out: Annotated[str, typer.Option(help="A folder, or a URL that fsspec knows. If it exists, continue there.")],
    arguments: opt.DataArguments = None,
    data: opt.Data = None,
    resize: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Encode again, with the shorter side at most this long.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files as they are. Default without --resize.")] = False,
    reencode: Annotated[
        bool, typer.Option("--reencode", help="Encode as H.264 without sound, and cut time ranges. Default for those.")
    ] = False,
    clips_per_shard: Annotated[int | None, typer.Option(min=1, help="Clips per tar file, in place of --mb.")] = None,
    mb: Annotated[float, typer.Option(min=0.001, help="Size per tar file, in 10^6 bytes.")] = 256.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order in which clips are written.")] = 0,
    workers: Workers = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a clip may take.")] = 300.0,
    as_json: opt.AsJSON = False,
) -> None:
    """Write a data set as tar files with an index, to be streamed from disk, over HTTP, or from object stores.

    Clips that cannot be read are left out and listed in index.json. The shards are WebDataset's.
    """
    from msta.data.shards.write import Recipe, write_shards

    if copy and reencode:
        raise ConfigError("--copy, --reencode: one or the other")
    mode: Any = "copy" if copy else "reencode" if reencode else None
    catalog = data_settings(data, arguments).read()
    recipe = Recipe(mode, resize, clips_per_shard, mb, seed)
    index = write_shards(catalog, out, recipe, workers=workers, timeout=timeout, console=None if as_json else console)
    if as_json:
        print_json(index)
        return
    for one in index["left_out"]:
        say(f"left out: {one['clip']}: {one['reason']}")
    size = sum(each["bytes"] for each in index["shards"]) / 1e6
    print(f"{index['clips']} clips in {len(index['shards'])} shards, {size:.1f} MB; {len(index['left_out'])} left out")
