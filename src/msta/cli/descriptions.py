"""msta describe and msta descriptions: sentences about classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from msta.cli import options as opt
from msta.cli.options import app, computes, console, load_model, print_json, say
from msta.errors import ConfigError, MSTAError

command = partial(app.command, rich_help_panel="Data and descriptions")
descriptions_app = typer.Typer(no_args_is_help=True, help="Check, import and export descriptions of classes.")
app.add_typer(descriptions_app, name="descriptions", rich_help_panel="Data and descriptions")


@command(epilog="Example: msta describe --labels classes.csv --out bank.json --model gpt-4o-mini")
def describe(
    out: Annotated[Path, typer.Option(help="The file of the bank. If it exists, only what it lacks is added.")],
    labels: Annotated[
        str | None, typer.Option(help="Classes, separated by commas; or a file of them; or the folder of a data set.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The server's name for the language model.")] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Base URL of a server with OpenAI's protocol. Default: $OPENAI_BASE_URL, else OpenAI."),
    ] = None,
    key_from: Annotated[
        str,
        typer.Option(metavar="NAME", help="Environment variable that holds the key. Your own server may need none."),
    ] = "OPENAI_API_KEY",
    sentences: Annotated[int, typer.Option(help="Sentences of each kind per class.")] = 4,
    jobs: Annotated[int, typer.Option(help="Classes to ask about at a time.")] = 8,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that an answer may take.")] = 120,
    template: Annotated[bool, typer.Option("--template", help="Fill templates, without a language model.")] = False,
    edit: Annotated[bool, typer.Option("--edit", help="Open the bank in $EDITOR, to write sentences by hand.")] = False,
) -> None:
    """Write spatial and temporal sentences for each class, which the consistency term uses.

    With Ollama: --endpoint http://localhost:11434/v1 --model NAME. Then: msta descriptions check, and
    msta train descriptions.bank=FILE.
    """
    from msta.descriptions import describe as by
    from msta.descriptions.endpoint import endpoint as endpoint_of
    from msta.descriptions.generate import Patience
    from msta.descriptions.labels import named_classes

    if labels is None and not edit:
        raise ConfigError("missing --labels")
    classes = named_classes(labels) if labels is not None else ()
    if edit:
        done = by.edit(classes, out)
    elif template:
        done = by.describe_by_template(classes, out, sentences=sentences)
    else:
        to, patience = endpoint_of(endpoint, model, key_from), Patience(timeout=timeout)
        done = by.describe(classes, out, to, console, sentences=sentences, jobs=jobs, patience=patience)
    for name, why in done.incomplete.items():
        say(f"{name}: {why}")
    if done.incomplete and not edit:
        lacking = f"{len(done.incomplete)} of {len(classes)} classes lack sentences"
        raise MSTAError(f"{out}: {lacking}; the same command asks for them again")
    print(f"{len(done.bank.classes)} classes in {out}")


@descriptions_app.command(
    name="import",
    epilog="Example: msta descriptions import --labels classes.csv --spatial 8_s.json --out bank.json",
)
def import_(
    labels: Annotated[Path, typer.Option(help="Class names, in the order of the files' indices.")],
    out: Annotated[Path, typer.Option(help="The file of the bank, new or not. Its classes get these sentences.")],
    spatial: Annotated[Path | None, typer.Option(help="N_s_…json: class index -> sentences.")] = None,
    temporal: Annotated[Path | None, typer.Option(help="N_t_…json: class index -> sentences.")] = None,
) -> None:
    """Read descriptions in the authors' format into a bank."""
    from msta.descriptions.describe import import_official

    print(import_official(spatial, temporal, labels, out))


@descriptions_app.command(epilog="Example: msta descriptions export --bank bank.json --spatial 4_s.json")
def export(
    bank: Annotated[Path, typer.Option(help="The bank.")],
    spatial: Annotated[Path | None, typer.Option(help="A new file.")] = None,
    temporal: Annotated[Path | None, typer.Option(help="A new file.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Classes to write, in order. Default: all.")] = None,
) -> None:
    """Write a bank, or some of its classes, in the authors' format."""
    from msta.descriptions.describe import export_official

    print(export_official(bank, spatial, temporal, labels))


@descriptions_app.command(epilog="Example: msta descriptions check --bank bank.json --out check.html")
@computes("device", "precision")
def check(
    bank: Annotated[Path, typer.Option(help="The bank.")],
    backbone: opt.Backbone = None,
    base: opt.Base = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Classes, separated by commas; or a file of them; or the folder of a data set. Default: all."
        ),
    ] = None,
    template: Annotated[str, typer.Option(help="The classes' own prompt.")] = "a video of {}.",
    out: Annotated[Path | None, typer.Option(help="A new page, .html, with heat maps.")] = None,
    as_json: opt.AsJSON = False,
) -> None:
    """Find sentences that a backbone's text tower misreads, and how far the anchors are from their classes' prompts."""
    from msta.descriptions.labels import named_classes
    from msta.evaluation.descriptions import check_bank, print_check

    model = load_model(backbone, base, None).backbone
    found = check_bank(bank, model, named_classes(labels) if labels else None, template=template, out=out)
    if as_json:
        print_json(found)
    else:
        print_check(found)
