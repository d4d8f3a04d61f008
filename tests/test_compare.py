"""msta compare: the same clips for all, a search that costs all the same, figures that follow from the predictions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny
from rich.console import Console
from video_files import draw

import msta
from msta.cli import main
from msta.config import make_config, read_config
from msta.errors import ConfigError, MSTAError
from msta.evaluation.intervals import Answers, paired_test
from msta.evaluation.metrics import harmonic_mean
from msta.evaluation.predictions import read_predictions
from msta.methods import METHODS
from msta.studies import comparison, tuning
from msta.studies.comparison import Comparison, compare
from msta.studies.comparison_report import markdown

QUIET = Console(quiet=True)
QUICK = ("train.epochs=1", "train.batch_size=4", "data.workers=0", "method.dim=8", "eval.batch_size=4")
COSTS = {"trainable": 5, "share": 1.0, "step": 0.1, "clips": 9.0, "memory": 1e6}


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Comparison:
    root = tmp_path_factory.mktemp("world")
    draw(root / "clips", "push pull wave nod", 6, 0)
    draw(root / "other", "kick hug", 3, 1)
    msta.random_backbone(tiny()).save(root / "backbone")
    return Comparison(
        data=(f"mine={root / 'clips'}",), methods=("linear-probe", "mma", "msta"), cases=comparison.CASES, shots=2,
        seeds=(0, 1), second=(f"other={root / 'other'}",), trials=2, overrides=QUICK, backbone=str(root / "backbone"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def compared(asked, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "compared"
    content = compare(asked, out, QUIET)
    return out, content


def test_all_methods_see_the_same_clips(asked, compared):
    out, _ = compared
    for seed in asked.seeds:
        splits = {
            (out / "few-shot" / "mine" / "runs" / "mine" / run / f"seed{seed}" / "split.csv").read_text()
            for run in ("linear-probe-2shot", "mma-2shot", "msta-2shot")
        }
        assert len(splits) == 1


def test_rows_are_what_the_predictions_say(compared):
    out, content = compared
    rows = {(row["case"], row["method"]): row for row in content["rows"]}
    assert set(rows) == {(c, m) for c in comparison.CASES for m in ("zero-shot", "linear-probe", "mma", "msta")}

    def answers(case: str, run: str, file: str) -> Answers:
        folder = out / case / "mine" / "runs" / "mine" / run
        found = [read_predictions(folder / f"seed{seed}" / file) for seed in (0, 1)]
        return Answers((p.clips, p.hits) for p in found)

    mine, theirs = (answers("few-shot", run, "predictions/test.parquet") for run in ("msta-2shot", "mma-2shot"))
    assert rows["few-shot", "msta"]["value"] == pytest.approx(mine.mean())
    assert rows["few-shot", "mma"]["difference"] == pytest.approx(theirs.mean() - mine.mean())
    assert rows["few-shot", "mma"]["p"] == paired_test(theirs, mine)["p"]
    assert "p" not in rows["few-shot", "msta"]  # what the others are held against
    base, novel = (
        answers("base-to-novel", "msta-2shot", f) for f in ("predictions/test.parquet", "tests/mine-novel.parquet")
    )
    row = rows["base-to-novel", "msta"]
    assert (row["base"], row["novel"]) == pytest.approx((base.mean(), novel.mean()))
    assert row["value"] == pytest.approx(harmonic_mean(base.mean(), novel.mean()))
    assert row["low"] <= row["value"] + 1e-9 <= row["high"] + 2e-9 or row["value"] == 0


def test_a_closed_method_borrows_the_novel_classes_and_is_marked(compared):
    _, content = compared
    rows = {row["method"]: row for row in content["rows"] if row["case"] == "base-to-novel"}
    assert rows["linear-probe"]["borrowed"]
    assert not rows["msta"]["borrowed"]
    assert rows["linear-probe"]["novel"] == rows["zero-shot"]["novel"]
    assert "linear-probe" not in {row["method"] for row in content["forgetting"]}
    text = markdown(content)
    assert "* knows its own classes alone" in text


def test_forgetting_is_measured_on_the_second_data_set(compared):
    _, content = compared
    for case in comparison.CASES:
        own = {row["method"]: row for row in content["forgetting"] if row["case"] == case}
        assert set(own) == {"zero-shot", "mma", "msta"}
        assert own["msta"]["change"] == pytest.approx(own["msta"]["value"] - own["zero-shot"]["value"])
        assert own["msta"]["tested_on"] == "other"


def test_each_search_has_its_trials_and_the_best_is_used(asked, compared):
    out, _ = compared
    for case in comparison.CASES:
        for method in ("linear-probe", "mma", "msta"):
            folder = out / "search" / case / "mine" / method
            made = json.loads((folder / "search.json").read_text())
            assert len(made["trials"]) == asked.trials
            assert made["trials"][0]["settings"] == []
            assert made["best"] == max(made["trials"], key=lambda t: (t["top1"], -t["nll"]))["settings"]
            run = out / case / "mine" / "runs" / "mine" / f"{method}-2shot" / "seed1" / "config.yaml"
            trial = read_config(
                folder
                / f"trial-{made['trials'].index(max(made['trials'], key=lambda t: t['settings'] == made['best']))}"
                / "config.yaml"
            )
            assert read_config(run).train.lr == trial.train.lr
            assert read_config(run).method == trial.method
    assert not (out / "search" / "few-shot" / "mine" / "zero-shot" / "search.json").exists()


def test_a_base_to_novel_search_sees_no_novel_clip(compared):
    out, _ = compared
    split = (out / "search" / "base-to-novel" / "mine" / "msta" / "trial-0" / "split.csv").read_text()
    novel = read_predictions(
        out / "base-to-novel" / "mine" / "runs" / "mine" / "msta-2shot" / "seed0" / "tests" / "mine-novel.parquet"
    )
    assert not any(clip in split for clip in novel.clips)


def test_again_nothing_is_run(asked, compared, monkeypatch):
    out, content = compared

    def no(*_: object, **__: object) -> None:
        raise AssertionError("was run again")

    monkeypatch.setattr(comparison, "measure_costs", no)
    monkeypatch.setattr("msta.training.prepare.set_up", no)
    again = compare(asked, out, QUIET)
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(content))


def test_other_settings_in_the_same_folder_are_refused(asked, compared):
    out, _ = compared
    with pytest.raises(MSTAError, match="was made with trials 2, now 3"):
        compare(replace(asked, trials=3), out, QUIET)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("zero-shot",)}, "at least one beside zero-shot"),
        ({"methods": ("magic",)}, "no method 'magic'"),
        ({"cases": ("one-shot",)}, "--cases: no 'one-shot'"),
        ({"cases": ()}, "at least one of --cases"),
        ({"schedule": "mine"}, "--schedule: 'mine'"),
        ({"own": (("lora", ("train.lr=1e-3",)),)}, "settings for lora, which is not among the methods"),
        ({"own": (("msta", ("train.seed=1",)),)}, "train.seed is the protocol's to set"),
        ({"overrides": ("data.labels=names.csv",)}, r"data.labels is a data set's own: .*'PATH\?labels=…'"),
        ({"own": (("linear-probe", ("method.dim=8",)),)}, "no setting method.dim of linear-probe"),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(asked, tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        compare(replace(asked, **changes), tmp_path / "out", QUIET)
    assert not (tmp_path / "out").exists()


def test_a_setting_of_one_method_is_its_own_and_is_not_searched(asked, tmp_path, monkeypatch):
    seen = {}

    def validated(config, run, console):
        seen.setdefault(config.method_config().name, []).append(config)
        return {"top1": 50.0, "nll": 0.0}

    monkeypatch.setattr(tuning, "_run", validated)
    own = replace(asked, own=(("msta", ("descriptions.alpha=7", "train.lr=0.02")),))
    ((_, _, request), *_) = comparison._requests(own)
    for method in ("msta", "mma"):
        (tmp_path / method).mkdir()
        comparison._settings(own, request, method, tmp_path / method, QUIET)
    assert {(c.descriptions.alpha, c.train.lr) for c in seen["msta"]} == {(7, 0.02)}
    assert {c.descriptions.alpha for c in seen["mma"]} == {1}
    assert len({c.train.lr for c in seen["mma"]}) == len({c.method_config().scale for c in seen["msta"]}) == 2


def test_the_command_tells_settings_of_all_from_those_of_one_method(asked, compared, monkeypatch, capsys):
    told, (_, content) = [], compared
    monkeypatch.setattr("msta.studies.comparison.compare", lambda asked, *_: told.append(asked) or content)
    given = ["train.epochs=2", "msta:descriptions.bank=C:/bank.json", "msta:method.dim=8", "mma:method.dim=4"]
    monkeypatch.setattr("sys.argv", ["msta", "compare", "--data", asked.data[0], "--out", "o", "--json", *given])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0, capsys.readouterr()
    assert told[0].overrides == ("train.epochs=2",)
    assert told[0].own == (("msta", ("descriptions.bank=C:/bank.json", "method.dim=8")), ("mma", ("method.dim=4",)))


def test_costs_are_measured_in_a_process_of_their_own(asked, compared):
    _, content = compared
    costs = {m["method"]: m for m in content["methods"]}
    assert costs["zero-shot"]["step"] == 0
    assert costs["zero-shot"]["trainable"] == 0
    assert costs["msta"]["step"] > 0
    assert all(m["clips"] > 0 and m["memory"] > 0 for m in costs.values())
    assert costs["msta"]["artefact"] > 4 * costs["msta"]["trainable"]


def test_the_command_prints_json_alone(asked, compared, monkeypatch, capsys):
    out, content = compared
    words = ["msta", "compare", "--data", asked.data[0], "--out", str(out), "--methods", "linear-probe,mma,msta"]
    words += ["--cases", "few-shot,base-to-novel", "--shots", "2", "--seeds", "0,1", "--trials", "2"]
    words += ["--second", asked.second[0], "--backbone", asked.backbone, "--json", *asked.overrides]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out)["means"] == content["means"]


# ---------------------------------------------------------------- settings of methods


def test_a_methods_own_rate_is_taken_unless_another_is_told(tmp_path):
    def rate(*overrides: str, method: str | None = None) -> float:
        return make_config("small", {"data.path": str(tmp_path)}, overrides, method=method).train.lr

    assert rate() == 2e-2
    assert rate(method="full") == rate("method=full") == METHODS["full"].default_overrides["train.lr"]
    assert rate("train.lr=0.5", "method=full") == 0.5


@pytest.mark.parametrize("key", ["method", "method.name"])
def test_a_method_in_the_settings_is_chosen_as_one_among_the_overrides(tmp_path, key):
    settings = {"data.path": str(tmp_path)}
    for preset in ("small", "paper"):
        assert make_config(preset, settings | {key: "mma"}) == make_config(preset, settings, [f"{key}=mma"])


@pytest.mark.parametrize("method", METHODS)
def test_recipes_and_ranges_name_settings_that_exist(tmp_path, method):
    for values in (METHODS[method].paper_overrides, METHODS[method].default_overrides, *({n: x} for n, r in METHODS[method].search_space.items() for x in r)):  # fmt: skip
        overrides = [f"{name}={value}" for name, value in values.items()]
        assert make_config("small", {"data.path": str(tmp_path)}, overrides, method=method)


@pytest.mark.parametrize("preset", ["small", "upper", "paper"])
@pytest.mark.parametrize("method", METHODS)
def test_what_a_preset_sets_lies_inside_the_range_that_is_searched(tmp_path, method, preset):
    config = make_config(preset, {"data.path": str(tmp_path)}, method=method)
    for name, (low, high) in METHODS[method].search_space.items():
        section, field = name.split(".")
        assert low <= getattr({"train": config.train, "method": config.method_config()}[section], field) <= high, name


def test_a_setting_that_is_given_is_not_searched(tmp_path, monkeypatch):
    seen = []

    def validated(config, run, console):
        seen.append(config)
        return {"top1": np.random.default_rng(len(seen)).random(), "nll": 0.0}

    monkeypatch.setattr(tuning, "_run", validated)
    (tmp_path / "out").mkdir()
    tuning.tune("msta", lambda o: o, tmp_path / "out", QUIET, trials=4, fixed={"method.scale"})
    assert [len(overrides) for overrides in seen] == [0, 1, 1, 1]
    assert all(o.startswith("train.lr=") for overrides in seen for o in overrides)


def test_a_method_that_trains_the_first_layers_goes_without_the_cache(asked, tmp_path, monkeypatch):
    seen = {}

    def validated(config, run, console):
        seen.setdefault(config.method_config().name, config)
        return {"top1": 50.0, "nll": 0.0}

    monkeypatch.setattr(tuning, "_run", validated)
    cached = replace(asked, overrides=(*QUICK, "cache.views=1", f"cache.path={tmp_path / 'cache'}"))
    ((_, _, request), *_) = comparison._requests(replace(cached, methods=("msta", "full")))
    for method in ("msta", "full"):
        (tmp_path / method).mkdir()
        comparison._settings(cached, request, method, tmp_path / method, QUIET)
    assert (seen["msta"].cache.views, seen["full"].cache.views) == (1, 0)


def test_costs_are_measured_again_for_other_settings_of_a_method(asked, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(comparison, "measure_costs", lambda config: measured.append(config.method["name"]) or {})
    request = next(comparison._requests(asked))[2]
    for own in ((), (), (("msta", ("method.dim=4",)),)):
        comparison._costs(asked, replace(request, own=own), tmp_path, QUIET)
    assert measured == ["linear-probe", "mma", "msta", "msta"]
