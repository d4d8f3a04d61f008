"""The four protocols: what is trained and tested on, going on after a stop, figures from what was kept, the report."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from video_files import draw

import msta
from msta.data.catalog import Clip, write_catalog
from msta.data.reading import read_catalog
from msta.data.splits import base_novel
from msta.errors import ConfigError, DataError, Interrupted, MSTAError
from msta.evaluation.evaluate import evaluate_on
from msta.evaluation.predictions import Recorder, read_predictions
from msta.evaluation.tables import Column, Table
from msta.studies import running
from msta.studies.datasets import parse_datasets, refuse_overlap
from msta.studies.protocol_report import command, main_table, write_report
from msta.studies.protocols import PROTOCOLS, Request
from msta.studies.published import PACKAGED, read_published
from msta.studies.results import Results
from msta.studies.running import run_protocol
from msta.training import losses

QUIET = Console(quiet=True)
QUICK = ("train.epochs=2", "train.batch_size=4", "data.workers=0", "method.dim=8", "train.watch_test=true")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """clips/ of 4 classes, other/ of 2, and a small random backbone."""
    root = tmp_path_factory.mktemp("world")
    draw(root / "clips", "push pull wave nod", 6, 0)
    draw(root / "other", "kick hug", 4, 1)
    msta.random_backbone(tiny()).save(root / "backbone")
    return root


def asked(world: Path, protocol: str, **changes) -> Request:
    usual = dict(data=(str(world / "clips"),), seeds=(0, 1), overrides=QUICK, backbone=str(world / "backbone"))
    if protocol == "zero-shot":
        usual |= {"data": (), "target": (str(world / "other"),)}
    return Request(protocol, **{**usual, **changes})


@pytest.fixture(scope="module")
def few_shot(world) -> Path:
    run_protocol(asked(world, "few-shot", shots=(1, 2)), world / "few-shot", QUIET)
    return world / "few-shot"


@pytest.fixture(scope="module")
def base_to_novel(world) -> Path:
    run_protocol(asked(world, "base-to-novel", shots=(2,), seeds=(0,)), world / "base-to-novel", QUIET)
    return world / "base-to-novel"


def paths(csv: Path, split: str) -> set[str]:
    return {c.path for c in read_catalog(csv).clips if c.split == split}


# ---------------------------------------------------------------- what is trained and tested on


def test_few_shot_sets_are_nested_and_tested_on_the_same_clips(few_shot):
    for seed in (0, 1):
        one, two = (few_shot / "runs" / "clips" / f"msta-{k}shot" / f"seed{seed}" / "split.csv" for k in (1, 2))
        assert paths(one, "train") < paths(two, "train")
        assert (
            paths(one, "test")
            == paths(two, "test")
            == paths(few_shot / "data" / "clips" / f"seed{seed}" / "split.csv", "test")
        )
        assert len(paths(one, "train")) == 4
        assert not paths(two, "train") & (paths(two, "test") | paths(two, "val"))


def test_base_to_novel_trains_on_no_novel_class(world, base_to_novel):
    run = base_to_novel / "runs" / "clips" / "msta-2shot" / "seed0"
    classes = read_catalog(world / "clips").classes
    base, novel = base_novel(classes)
    assert msta.load_adapter(run / "adapter").task.classes == tuple(classes[i] for i in base)
    trained = {Path(p).parent.name for p in paths(run / "split.csv", "train") | paths(run / "split.csv", "val")}
    tested = read_predictions(run / "tests" / "clips-novel.parquet")
    assert tested.classes == tuple(classes[i] for i in novel)
    assert not trained & {Path(p).parent.name for p in tested.clips}
    assert len(tested.clips) == 12  # all clips of classes that are never trained on
    unknown = read_predictions(run / "tests" / "unknown-clips-novel.parquet")
    assert unknown.classes == tuple(classes[i] for i in base)
    assert unknown.clips == tested.clips


def test_the_confidence_of_unknown_clips_is_what_eval_would_say(base_to_novel):
    # among the base classes, from the embeddings kept: the same as reading the clips again with those names
    run = base_to_novel / "runs" / "clips" / "msta-2shot" / "seed0"
    unknown = read_predictions(run / "tests" / "unknown-clips-novel.parquet")
    model = msta.load_adapter(run / "adapter")
    from msta.inference import Predictor

    model.temperature = 1.0  # the kept ones are the model's own
    predict = Predictor(model)
    for clip, probabilities in list(zip(unknown.clips, unknown.probabilities, strict=True))[:3]:
        again = {p.label: p.probability for p in predict(clip)}
        assert [again[c] for c in unknown.classes] == pytest.approx(probabilities.tolist(), abs=1e-5)


def test_zero_shot_from_an_adapter_and_over_parts(world, few_shot, tmp_path):
    adapter = few_shot / "runs" / "clips" / "msta-2shot" / "seed0" / "adapter"
    catalog = read_catalog(world / "other")
    for k in (1, 2):  # two sets of clips of one data set
        (tmp_path / f"set{k}").mkdir()
        write_catalog(
            tmp_path / f"set{k}" / "clips.csv",
            catalog.classes,
            [c for c in catalog.clips if int(Path(c.path).stem) % 2 == k % 2],
        )
    targets = tuple(f"other={tmp_path / f'set{k}' / 'clips.csv'}" for k in (1, 2))
    run_protocol(asked(world, "zero-shot", target=targets, adapter=adapter), tmp_path / "out", QUIET)
    rows = {row["method"]: row for row in Results(tmp_path / "out").rows()}
    assert set(rows) == {"msta (blocks 1..3, r 8, scale 0.1) adapter", "zero-shot"}
    for row in rows.values():
        assert [run["part"] for run in row["runs"]] == [1, 2]
        assert row["clips"] == 8
        assert row["top1"] == pytest.approx(np.mean([run["top1"] for run in row["runs"]]))
    measured = evaluate_on(msta.load_adapter(adapter), tmp_path / "set1" / "clips.csv", new_classes=True)
    assert rows["msta (blocks 1..3, r 8, scale 0.1) adapter"]["runs"][0]["nll"] == pytest.approx(measured["nll"])
    # another adapter is another cell; another backbone or other views are refused
    again = asked(
        world, "zero-shot", target=targets, adapter=few_shot / "runs" / "clips" / "msta-1shot" / "seed1" / "adapter"
    )
    run_protocol(again, tmp_path / "out", QUIET)
    assert len(list((tmp_path / "out" / "runs").glob("adapter-*"))) == 2
    msta.random_backbone(tiny(), seed=5).save(tmp_path / "backbone")
    for changes in ({"backbone": str(tmp_path / "backbone")}, {"overrides": (*QUICK, "eval.clips=3")}):
        with pytest.raises(MSTAError, match="was run with"):
            run_protocol(asked(world, "zero-shot", target=targets, **changes), tmp_path / "out", QUIET)


def test_supervised_reads_several_views_and_keeps_each(world, tmp_path):
    request = asked(
        world, "supervised", seeds=(0,), methods=("zero-shot",), overrides=("data.workers=0", "eval.clips=2")
    )
    run_protocol(request, tmp_path / "out", QUIET)
    import pyarrow.parquet as pq

    table = pq.read_table(
        tmp_path / "out" / "runs" / "clips" / "zero-shot" / "seed0" / "predictions" / "test.parquet"
    ).to_pylist()
    by_clip: dict = {}
    for row in table:
        by_clip.setdefault(row["clip"], {})[row["view"]] = dict(
            zip(row["top_labels"], row["top_probabilities"], strict=True)
        )
    for views in by_clip.values():
        assert set(views) == {None, *range(6)}  # 2 in time x 3 in space
        for label, probability in views[None].items():
            assert probability == pytest.approx(np.mean([views[v][label] for v in range(6)]), abs=1e-6)


# ---------------------------------------------------------------- going on


def without_times(results: dict) -> dict:
    return {name: value for name, value in results.items() if name != "cost"}


def test_a_stopped_protocol_ends_with_the_same_numbers(world, few_shot, tmp_path, monkeypatch):
    calls, real = [], losses.objective

    def objective(*arguments):
        calls.append(1)
        if len(calls) in (4, 7):  # in the middle of a training
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(losses, "objective", objective)
    stops = 0
    while True:
        try:
            run_protocol(asked(world, "few-shot", shots=(1, 2)), tmp_path / "out", QUIET)
            break
        except Interrupted as error:
            stops += "The same command goes on" in str(error)
    assert stops == 2
    assert without_times(Results(tmp_path / "out").to_json()) == without_times(Results(few_shot).to_json())


def test_what_is_finished_is_not_done_again_and_more_can_be_asked_for(world, few_shot, tmp_path, monkeypatch):
    shutil.copytree(few_shot, tmp_path / "out")
    trained, real = [], running.train
    monkeypatch.setattr(
        running, "train", lambda config, run, *a, **k: trained.append(run.parent.name) or real(config, run, *a, **k)
    )
    run_protocol(asked(world, "few-shot", shots=(1, 2)), tmp_path / "out", QUIET)
    assert trained == []
    request = asked(world, "few-shot", shots=(1, 2), methods=("zero-shot", "msta", "full"), seeds=(0,))
    run_protocol(request, tmp_path / "out", QUIET)
    assert trained == ["full-1shot", "full-2shot"]
    with pytest.raises(MSTAError, match=r"seed0: was run with train.epochs 2, now 3"):
        run_protocol(
            asked(world, "few-shot", shots=(1, 2), overrides=(*QUICK, "train.epochs=3")), tmp_path / "out", QUIET
        )
    with pytest.raises(MSTAError, match="holds the protocol few-shot"):
        run_protocol(asked(world, "supervised"), tmp_path / "out", QUIET)


def test_the_backbone_alone_has_a_report_and_fewer_shots_and_more_targets_can_be_asked_for(world, tmp_path):
    alone = dict(methods=("zero-shot",), seeds=(0,), overrides=())
    run_protocol(asked(world, "few-shot", shots=(3,), **alone), tmp_path / "few", QUIET)
    second = (f"second={world / 'other'}",)
    run_protocol(asked(world, "few-shot", shots=(2, 3), second=second, **alone), tmp_path / "few", QUIET)
    rows = write_report(tmp_path / "few")["rows"]
    assert [(row["dataset"], row["set"]) for row in rows] == [("clips", ""), ("second", "second")]
    assert "<h2>second" not in (tmp_path / "few" / "report.html").read_text()

    target = tuple(f"{name}={world / name}" for name in ("other", "clips"))
    run_protocol(asked(world, "zero-shot", target=target[:1], **alone), tmp_path / "zero", QUIET)
    run_protocol(asked(world, "zero-shot", target=target, **alone), tmp_path / "zero", QUIET)
    assert {row["dataset"] for row in write_report(tmp_path / "zero")["rows"]} == {"other", "clips"}


def test_the_backbone_alone_sees_the_frames_that_were_asked_for(world, tmp_path):
    seen = []
    for frames in (1, 4):
        request = asked(world, "zero-shot", methods=("zero-shot",), seeds=(0,), overrides=(f"data.frames={frames}",))
        run_protocol(request, tmp_path / str(frames), QUIET)
        (file,) = (tmp_path / str(frames) / "runs" / "zero-shot" / "tests").glob("*.parquet")
        seen.append(read_predictions(file))
    assert not np.allclose(seen[0].probabilities, seen[1].probabilities)


def test_data_that_changed_since_are_refused(world, tmp_path):
    shutil.copytree(world / "other", tmp_path / "clips")
    request = asked(
        world, "few-shot", data=(str(tmp_path / "clips"),), shots=(1,), seeds=(0,), methods=("zero-shot",), overrides=()
    )
    run_protocol(request, tmp_path / "out", QUIET)
    shutil.copy(world / "clips" / "nod" / "0.mp4", tmp_path / "clips" / "hug" / "9.mp4")
    with pytest.raises(DataError, match=r"not those that .*split.csv was made of; take another --out"):
        run_protocol(request, tmp_path / "out", QUIET)


# ---------------------------------------------------------------- figures from what was kept


def test_tables_are_made_of_the_predictions_and_are_the_runs_own_figures(few_shot):
    for row in Results(few_shot).rows():
        shots = f"-{row['shots']}shot" if row["shots"] else ""
        for run in row["runs"]:
            metrics = json.loads(
                (
                    few_shot / "runs" / "clips" / f"{row['method']}{shots}" / f"seed{run['seed']}" / "metrics.json"
                ).read_text()
            )
            for name in ("top1", "top5", "mean_class", "nll", "clips"):
                assert run[name] == pytest.approx(metrics[name], abs=1e-5)
        assert row["low"] <= row["top1"] <= row["high"]


def test_validation_predictions_are_those_of_the_checkpoint_that_was_selected(few_shot):
    for run in few_shot.glob("runs/clips/*/*"):
        kept = read_predictions(run / "predictions" / "val.parquet")
        again = evaluate_on(msta.load_adapter(run / "adapter"), run / "split.csv", split="val")
        assert 100 * np.mean(kept.hits) == pytest.approx(again["top1"])
        assert json.loads((run / "metrics.json").read_text())["unknown_below"] == pytest.approx(
            again["unknown_below"], abs=1e-5
        )


def test_nothing_is_selected_by_the_test_clips_but_the_line_that_says_so(few_shot):
    rows = [row for row in Results(few_shot).rows() if row["method"] == "msta"]
    for row in rows:
        assert row["test_leak"] >= row["top1"] - 1e-9  # the best epoch on the test clips
        for seed in (0, 1):
            metrics = json.loads((few_shot / f"runs/clips/msta-{row['shots']}shot/seed{seed}/metrics.json").read_text())
            assert metrics["selected_by"] == "val"


def test_the_harmonic_mean_is_of_the_means(base_to_novel):
    rows = {(row["method"], row["set"]): row for row in Results(base_to_novel).rows()}
    for method in ("zero-shot", "msta"):
        base, novel = rows[method, "base"]["top1"], rows[method, "novel"]["top1"]
        assert rows[method, "harmonic mean"]["top1"] == pytest.approx(2 * base * novel / max(base + novel, 1e-9))
        assert set(rows[method, "base"]["unknown"]) == {"threshold", "kept", "refused", "auroc"}


@given(
    views=st.integers(1, 3),
    clips=st.integers(1, 7),
    classes=st.integers(2, 8),
    embeddings=st.booleans(),
    seed=st.integers(0, 99),
)
def test_predictions_come_back_as_they_were(tmp_path_factory, views, clips, classes, embeddings, seed):
    torch.manual_seed(seed)
    names = [f"class {i}" for i in range(classes)]
    rows = [
        Clip(f"/clips/{i} é,\n.mp4", i % classes, None, *((1.5, None) if i % 2 else (None, None))) for i in range(clips)
    ]
    recorder = Recorder(rows, names, embeddings=embeddings)
    for part in torch.randperm(clips).split(3):  # batches in any order
        labels = torch.tensor([rows[i].label for i in part])
        recorder.add(part, labels, torch.rand(views, len(part), classes).softmax(-1), torch.rand(views, len(part), 5))
    path = tmp_path_factory.mktemp("p") / "deep" / "x.parquet"
    recorder.write(path, split="test")
    then, now = recorder.predictions(), read_predictions(path)
    assert (now.classes, now.clips, now.files) == (then.classes, then.clips, then.files)
    assert dict(zip(now.clips, now.labels, strict=True)) == {r.name: r.label for r in rows}
    assert dict(zip(now.clips, now.files, strict=True)) == {r.name: (r.path, r.span) for r in rows}
    np.testing.assert_allclose(now.probabilities, then.probabilities, atol=1e-7)
    assert (now.embeddings is None) == (not embeddings)
    if embeddings:
        np.testing.assert_allclose(now.embeddings, then.embeddings, atol=1e-6)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 nonsense", b"path,label\n"])
def test_a_damaged_file_of_predictions_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.parquet: no predictions"):
        read_predictions(tmp_path / "x.parquet")


# ---------------------------------------------------------------- the report


class _Links(HTMLParser):
    """What a page would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.cells = 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.cells += tag == "td"
        self.loaded += [value for name, value in attributes if name in ("src", "href") and value]


@pytest.mark.parametrize("name", ["few_shot", "base_to_novel"])
def test_the_report_needs_nothing_else_and_shows_everything(name, request, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(request.getfixturevalue(name), out)
    published = {
        "about": "x",
        "Theirs <1>": {"source": "a paper", "few_shot": {"clips": {"2": 61.2}, "hmdb51": {"4": 7.7}},
                       "base_to_novel": {"Clips": {"base": 61.2, "base_seeds": [1, 2]}, "hmdb51": {"novel": 7.7}}},
    }  # fmt: skip
    (tmp_path / "published.json").write_text(json.dumps(published))
    results = write_report(out, tmp_path / "published.json")
    page = (out / "report.html").read_text()
    links = _Links(page).loaded
    assert len(links) >= 8
    assert all(link.startswith("data:image/") for link in links)
    ours, theirs = page.split("Published on other data sets")
    assert "Theirs &lt;1&gt; †" in ours
    assert "61.2" in ours
    assert ">7.7<" not in ours
    assert "7.7" in theirs
    assert "Not ours" in ours
    for text in ("seed0", "train.epochs=2", "weight_decay: 0.001", "torch " + torch.__version__, "test-leak"):
        assert text in page
    md, tex = (out / "results.md").read_text(), (out / "results.tex").read_text()
    for row in results["rows"]:
        for text in (page, md, tex):
            assert f"{row['top1']:.1f}" in text
    assert "Theirs <1> † |" in md
    assert r"Theirs <1> $^\dagger$" in tex
    again = write_report(out, tmp_path / "published.json")
    assert without_times(again) == without_times(results)
    assert main_table(results["rows"]).markdown().count("\n") >= 2 + len(results["rows"])
    label = next(row["label"] for row in results["rows"] if row["method"] == "msta")
    assert re.fullmatch(r"msta \(blocks 1..3, r 8, scale 0.1\)", label)
    assert label in page
    assert label in md
    assert command(results["asked"]).startswith(f"msta protocol {results['protocol']} --data ")


def test_an_unfinished_protocol_is_no_report(few_shot, tmp_path):
    shutil.copytree(few_shot, tmp_path / "out")
    (tmp_path / "out" / "runs" / "clips" / "msta-1shot" / "seed0" / "cell.json").unlink()
    with pytest.raises(DataError, match="seed0: is not finished"):
        write_report(tmp_path / "out")
    with pytest.raises(DataError, match=r"protocol\.json"):
        write_report(tmp_path)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])), min_size=7, max_size=7))
def test_tables_hold_any_text(cells):
    table = Table([Column("title", str(i)) for i in range(7)], [{str(i): cell for i, cell in enumerate(cells)}])
    row = table.markdown().splitlines()[-1]
    assert len(re.split(r"(?<!\\)\|", row)) >= 7
    body = table.latex("c").splitlines()[7]
    assert len(re.findall(r"(?<!\\)&", body)) == 6
    assert not re.search(r"(?<!\\)%", body)
    page = _Links(table.html())
    assert page.loaded == []
    assert page.cells == 7


def test_published_figures_stand_beside_ours_on_the_same_data_set_without_being_asked_for(few_shot, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(few_shot, out)
    plan = (out / "protocol.json").read_text().replace('"dataset": "clips"', '"dataset": "HMDB-51"')
    (out / "protocol.json").write_text(plan)
    write_report(out)
    assert {p["dataset"] for p in json.loads((out / "results.json").read_text())["published"]} == {"hmdb51"}
    table = (out / "results.md").read_text()
    assert "61.1" in table or "61.2" in table  # 2 shots, the authors' logs: 61.15
    assert "authors' training logs" in table
    assert "ssv2" not in table


def test_the_published_figures_come_along_with_their_sources():
    found = {p.model: p for p in read_published(PACKAGED, "base-to-novel") if p.is_on("HMDB-51")}
    ours = [p for model, p in found.items() if model.startswith("MSTA")]
    assert [p.figures["harmonic_mean"] for p in ours] == [66.3, 65.7]  # the paper, the logs of its first version
    assert "readers of the paper" in ours[0].source
    assert "logs" in ours[1].source
    counts = json.loads(PACKAGED.read_text(encoding="utf-8"))
    assert [counts[p.model]["trainable_parameters"] for p in ours] == [8_712_192, 1_744_000]
    for protocol in PROTOCOLS:
        assert all(p.source for p in read_published(PACKAGED, protocol))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "JSON object"),
        ('{"A": {"few_shot": {}}}', "'A' has no source"),
        ('{"A": {"source": "x", "few_shot": 5}}', "few_shot"),
        ("{", "no valid JSON"),
    ],
)
def test_a_bad_file_of_published_figures_is_named(tmp_path, content, words):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(DataError, match=r"p\.json.*" + words):
        read_published(tmp_path / "p.json", "few-shot")


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("protocol", "changes", "error", "words"),
    [
        ("few-shoot", {}, ConfigError, "no protocol 'few-shoot'"),
        ("few-shot", {"data": ()}, ConfigError, "takes --data"),
        ("few-shot", {"source": ("x",)}, ConfigError, "--source and --adapter go with zero-shot"),
        ("few-shot", {"target": ("x",)}, ConfigError, "takes no --target"),
        ("zero-shot", {"target": ()}, ConfigError, "--target"),
        ("zero-shot", {"data": ("x",)}, ConfigError, "no --data"),
        ("few-shot", {"methods": ("magic",)}, ConfigError, "no method 'magic'"),
        ("zero-shot", {"methods": ("zero-shot", "linear-probe")}, ConfigError, "linear-probe answers for the classes"),
        ("few-shot", {"methods": ("msta", "msta")}, ConfigError, "given twice"),
        ("few-shot", {"methods": ()}, ConfigError, "--method"),
        ("few-shot", {"seeds": (-1,)}, ConfigError, "--seeds"),
        ("few-shot", {"shots": (0,)}, ConfigError, "--shots"),
        ("supervised", {"shots": (1,)}, ConfigError, "trains on all clips"),
        ("base-to-novel", {"shots": (1, 2)}, ConfigError, "one number of shots"),
        ("few-shot", {"shots": (1, 99)}, DataError, "'nod' has 6 clips to train on, 99 needed"),
        ("few-shot", {"overrides": ("method.rank=4",)}, ConfigError, "no setting method.rank of zero-shot, msta"),
        ("few-shot", {"overrides": ("train.lr_=4",)}, ConfigError, "no setting train.lr_"),
        ("few-shot", {"overrides": ("train.seed=4",)}, ConfigError, "train.seed is the protocol's"),
        ("few-shot", {"data": ("nowhere",)}, DataError, "nowhere: no such folder or file"),
        ("zero-shot", {"target": ("nowhere",)}, DataError, "nowhere: no such folder or file"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_before_anything_runs(world, tmp_path, protocol, changes, error, words):
    with pytest.raises(error, match=words):
        run_protocol(asked(world, protocol, **changes), tmp_path / "out", QUIET)
    assert not (tmp_path / "out").exists()  # so that the same --out serves the mended command


def test_a_test_clip_that_is_trained_on_is_named(world, tmp_path):
    clips = draw(tmp_path / "clips", "a b", 4, 5)
    shutil.copy(clips / "a" / "0.mp4", clips / "a" / "copy.mp4")  # the same bytes under another name
    catalog = read_catalog(clips)
    twins = {"0": "train", "copy": "test", "1": "train", "2": "test", "3": "val"}
    write_catalog(
        tmp_path / "list.csv", catalog.classes, [Clip(c.path, c.label, twins[Path(c.path).stem]) for c in catalog.clips]
    )
    request = asked(world, "supervised", data=(str(tmp_path / "list.csv"),))
    with pytest.raises(
        DataError, match=r"list\.csv.*the test clip .*copy.mp4 is also trained on, as .*0.mp4; take it out"
    ):
        run_protocol(request, tmp_path / "out", QUIET)
    request = asked(world, "zero-shot", source=(str(world / "clips"),), target=(str(world / "clips"),))
    with pytest.raises(DataError, match="clips and clips: the test clip .* is also trained on"):
        run_protocol(request, tmp_path / "transfer", QUIET)
    assert not (tmp_path / "transfer").exists()
    refuse_overlap([Clip(str(clips / "a" / "1.mp4"), 0)], [Clip(str(clips / "a" / "2.mp4"), 0)], "x")


def test_a_catalog_whose_files_moved_is_named(world, tmp_path):
    catalog = read_catalog(world / "other")
    write_catalog(tmp_path / "list.csv", catalog.classes, [*catalog.clips, Clip(str(tmp_path / "gone.mp4"), 0)])
    with pytest.raises(DataError, match=r"list\.csv: 1 of its 9 files are not where it says, .*gone\.mp4"):
        run_protocol(asked(world, "few-shot", data=(str(tmp_path / "list.csv"),)), tmp_path / "out", QUIET)


def test_data_sets_are_told_apart(world, tmp_path):
    shutil.copytree(world / "other", tmp_path / "clips")
    both = [str(world / "clips"), str(tmp_path / "clips")]
    with pytest.raises(ConfigError, match=r"2 data sets are called 'clips'; say NAME=PATH"):
        parse_datasets(both, "--data")
    parts = parse_datasets([f"x={path}" for path in both], "--data")
    assert [(p.dataset, p.number, p.folder) for p in parts] == [("x", 1, "x-1"), ("x", 2, "x-2")]
    (part,) = parse_datasets([f"x={both[0]}?layout=folder&split_number=2"], "--data")
    assert part.settings == {"layout": "folder", "split_number": "2"}
    with pytest.raises(ConfigError, match="split_number"):
        part.read()
    with pytest.raises(ConfigError, match=r"expected PATH\?setting=value"):
        parse_datasets([f"x={both[0]}?seed"], "--data")
    with pytest.raises(ConfigError, match="val_fraction does not say how data are read"):
        parse_datasets([f"{both[0]}?val_fraction=0.5"], "--data")


def test_ranges_of_a_video_are_other_clips_unless_they_overlap(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"x")
    train = [Clip(str(tmp_path / "v.mp4"), 0, None, 0, 5)]
    refuse_overlap(train, [Clip(str(tmp_path / "v.mp4"), 0, None, 5, 9)], "x")
    with pytest.raises(DataError, match=r"v\.mp4 \[4-9 s\] is also trained on"):
        refuse_overlap(train, [Clip(str(tmp_path / "v.mp4"), 0, None, 4, 9)], "x")


def test_descriptions_of_all_classes_are_cut_to_the_base_classes(world, tmp_path):
    sentences = {str(i): [f"about {name}"] for i, name in enumerate(read_catalog(world / "clips").classes)}
    (tmp_path / "s.json").write_text(json.dumps(sentences))
    overrides = (*QUICK, f"descriptions.spatial={tmp_path / 's.json'}", "train.epochs=1")
    request = asked(world, "base-to-novel", shots=(1,), seeds=(0,), methods=("msta",), overrides=overrides)
    run_protocol(request, tmp_path / "out", QUIET)
    folder = tmp_path / "out" / "data" / "clips" / "base-seed0"
    assert [json.loads(file.read_text()) for file in folder.glob("spatial-*.json")] == [
        {"0": ["about nod"], "1": ["about pull"]}
    ]
    log = (tmp_path / "out" / "runs" / "clips" / "msta-1shot" / "seed0" / "log.jsonl").read_text()
    assert json.loads(log.splitlines()[0])["consistency"] > 0
    (tmp_path / "s.json").write_text(json.dumps({i: ["something else"] for i in sentences}))
    with pytest.raises(MSTAError, match="was run with descriptions.spatial"):
        run_protocol(request, tmp_path / "out", QUIET)


def test_each_method_of_base_to_novel_reads_its_own_descriptions(world, tmp_path):
    own = []
    for method in ("msta", "mma"):
        file = tmp_path / f"{method}.json"
        file.write_text(json.dumps({str(i): [f"{method} {i}"] for i in range(4)}))
        own.append((method, (f"descriptions.spatial={file}",)))
    request = asked(world, "base-to-novel", shots=(1,), seeds=(0,), methods=("msta", "mma"), own=tuple(own))
    cells = list(PROTOCOLS["base-to-novel"](request, tmp_path / "out"))
    said = {cell.method: cell.config.descriptions.load(("nod", "pull")).sentences("spatial") for cell in cells}
    assert said == {m: {"nod": (f"{m} 0",), "pull": (f"{m} 1",)} for m in ("msta", "mma")}
