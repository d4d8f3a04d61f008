"""The loop: it learns, it repeats, it goes on where it stopped, and it says what it does."""

from __future__ import annotations

import gc
import json
import math
import multiprocessing
import os
import shutil
import signal
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import read_log
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file

import msta
from msta.config import make_config
from msta.data.reading import read_catalog
from msta.descriptions import anchors as anchors_module
from msta.descriptions.bank import Described, DescriptionBank
from msta.descriptions.prompts import ENSEMBLE
from msta.errors import CheckpointError, ConfigError, DataError, Interrupted, MSTAError
from msta.evaluation.evaluate import class_embeddings, evaluate_on
from msta.evaluation.metrics import accuracy
from msta.notices import notice
from msta.training import losses as objective_module
from msta.training import measure, prepare
from msta.training.loop import lr_factor, train
from msta.training.state import saved_states

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def clips(moving_clips) -> Path:
    return moving_clips


@pytest.fixture(scope="module")
def backbone(tiny_backbone) -> Path:
    return tiny_backbone


def config(clips: Path, backbone: Path, *overrides: str, method: str = "msta", shots: int | None = 4):
    quick = ["train.epochs=2", "train.batch_size=4", "data.workers=0", "method.dim=8"]
    quick = quick if method == "msta" else quick[:3]
    settings = {"data.path": str(clips), "data.shots": shots, "backbone": str(backbone)}
    return make_config("small", settings, [*quick, *overrides], method=method)


def test_the_loss_on_eight_clips_falls_to_near_zero(clips, backbone, tmp_path):
    # no augmentation: random times alone remain; and steps large enough for a random backbone
    plain = ["data.jitter=0", "data.greyscale=0", "data.flip=0", "data.crop_area=[1,1]", "train.epochs=25"]
    quick = ["method.dim=24", "method.scale=1", "train.lr=3e-3", "train.eval_every=25", "train.warmup_epochs=1"]
    train(config(clips, backbone, *plain, *quick), tmp_path / "run", QUIET)
    losses = [line["loss"] for line in read_log(tmp_path / "run") if "loss" in line]
    assert losses[0] > 0.4
    assert np.mean(losses[-4:]) < 0.05


def test_who_changes_the_objective_changes_the_training(clips, backbone, tmp_path, monkeypatch):
    one = ["train.epochs=2", "train.warmup_epochs=0", "train.select=last"]
    train(config(clips, backbone, *one), tmp_path / "before", QUIET)
    real = objective_module.objective

    def other(*arguments):
        loss, terms = real(*arguments)
        return -loss, terms

    monkeypatch.setattr(objective_module, "objective", other)
    train(config(clips, backbone, *one), tmp_path / "after", QUIET)
    before, after = (load_file(tmp_path / run / "adapter" / "adapter_model.safetensors") for run in ("before", "after"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert next(line["loss"] for line in read_log(tmp_path / "after") if "loss" in line) < 0


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("msta", []),
        ("zero-shot", []),
        ("full", []),
        ("full-text", []),
        ("linear-probe", ["train.precision=bf16"]),
        ("tip-adapter", ["method.views=2"]),
        ("tip-adapter", ["method.views=2", "method.trained=true"]),
        ("bitfit", ["train.precision=bf16"]),
        ("lora", ["train.precision=bf16", "method.modules=qkv,fc2"]),
        ("prompts", ["method.kind=maple", "train.precision=bf16"]),
        ("prompts", ["method.tokens=2", "method.first_block=2"]),
        ("aim", ["method.first_block=2", "train.precision=bf16"]),
        ("st-adapter", ["method.before=both", "train.precision=bf16"]),
        ("adaptformer", ["cache.views=2", "cache.dtype=fp32", "method.first_block=2"]),
    ],
    ids=str,
)
def test_a_run_leaves_what_it_promises(clips, backbone, tmp_path, method, overrides):
    cache = f"cache.path={tmp_path / 'cache'}"
    metrics = train(config(clips, backbone, cache, *overrides, method=method), tmp_path / "run", QUIET)
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"adapter", "config.yaml", "split.csv", "log.jsonl", "metrics.json", "tensorboard"} <= names
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    assert 0 <= metrics["top1"] <= metrics["top5"] == 100
    assert metrics["clips"] == 2 * (9 - 4 - 1)
    steps = [line for line in read_log(tmp_path / "run") if "loss" in line]
    assert len(steps) == metrics["steps"] == (2 * 2 if metrics["trainable_parameters"] else 0)
    adapter = msta.load_adapter(tmp_path / "run" / "adapter")
    assert adapter.task.classes == ("go back", "go there")
    again = evaluate_on(adapter, tmp_path / "run" / "split.csv")
    near = 0.05 if "train.precision=bf16" in overrides else 1e-6  # the second time it is fp32
    assert (again["clips"], again["split"]) == (metrics["clips"], "test")
    assert again["nll"] == pytest.approx(metrics["nll"], rel=near)
    assert near > 1e-6 or again["top1"] == pytest.approx(metrics["top1"])


def test_a_finished_run_leaves_no_process_and_no_model_behind(clips, backbone, tmp_path, monkeypatch):
    models = []
    set_up = prepare.set_up

    def seen(*arguments):
        made = set_up(*arguments)
        models.append(weakref.ref(made.model))
        return made

    monkeypatch.setattr(prepare, "set_up", seen)
    gc.disable()  # nothing may wait for it: a comparison trains hundreds of times
    try:
        train(config(clips, backbone, "data.workers=1"), tmp_path / "run", QUIET)
        assert models[0]() is None
    finally:
        gc.enable()
    assert not multiprocessing.active_children()


def test_the_same_seed_gives_the_same_run_and_another_another(clips, backbone, tmp_path):
    runs = {
        name: train(config(clips, backbone, f"train.seed={seed}"), tmp_path / name, QUIET)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    }
    losses = {name: [line["loss"] for line in read_log(tmp_path / name) if "loss" in line] for name in runs}
    assert losses["a"] == losses["b"] != losses["c"]
    assert runs["a"]["nll"] == runs["b"]["nll"]


class _StopAt:
    """Sends this process a Ctrl-C once the log shows the wanted step."""

    def __init__(self, run: Path, step: int, number: int = signal.SIGINT) -> None:
        self.thread = threading.Thread(target=self._wait, args=(run, step, number), daemon=True)
        self.thread.start()

    def _wait(self, run: Path, step: int, number: int) -> None:
        while not ((run / "log.jsonl").exists() and len([x for x in read_log(run) if "loss" in x]) >= step):
            time.sleep(0.002)
        os.kill(os.getpid(), number)


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGINT), (5, signal.SIGINT), (3, signal.SIGTERM)])
def test_an_interrupted_run_goes_on_to_the_same_end(clips, backbone, tmp_path, step, number):
    settings = config(clips, backbone, "train.epochs=4", "train.batch_size=3")
    whole = train(settings, tmp_path / "whole", QUIET)
    _StopAt(tmp_path / "run", step, number)
    with pytest.raises(Interrupted, match=r"Stopped at step \d+ of 12, saved. Go on with: msta train --resume .*run"):
        train(settings, tmp_path / "run", QUIET)
    assert not (tmp_path / "run" / "metrics.json").exists()
    resumed = train(settings, tmp_path / "run", QUIET, resume=True)
    same = ("top1", "nll", "steps", "selected_at")
    assert {k: resumed[k] for k in same} == {k: whole[k] for k in same}
    steps = [[x["loss"] for x in read_log(tmp_path / name) if "loss" in x] for name in ("whole", "run")]
    assert steps[0] == steps[1]
    ours, theirs = (load_file(tmp_path / n / "adapter" / "adapter_model.safetensors") for n in ("run", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert train(settings, tmp_path / "run", QUIET, resume=True) == resumed  # finished: nothing happens


@pytest.mark.parametrize("mended", [False, True])
def test_a_trained_cache_goes_on_where_it_stopped_without_the_clips_that_could_not_be_read(
    clips, backbone, tmp_path, mended
):
    mine = tmp_path / "clips"
    shutil.copytree(clips, mine)
    (mine / "go_back" / "bad.mp4").write_text("no video")
    options = ["method.views=2", "method.trained=true", "train.epochs=3", "train.batch_size=3"]
    settings = config(mine, backbone, *options, method="tip-adapter", shots=8)
    whole = train(settings, tmp_path / "whole", QUIET)
    _StopAt(tmp_path / "run", 2)
    with pytest.raises(Interrupted):
        train(settings, tmp_path / "run", QUIET)
    if mended:
        shutil.copy(next((mine / "go_back").glob("*0.mp4")), mine / "go_back" / "bad.mp4")
    stopped = load_file(saved_states(tmp_path / "run" / "checkpoints")[0] / "adapter.safetensors")
    train(settings, tmp_path / "run", QUIET, resume=True)
    ours, theirs = (load_file(tmp_path / n / "adapter" / "adapter_model.safetensors") for n in ("run", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if not mended)
    assert torch.equal(ours["adapter.labels"], theirs["adapter.labels"])
    assert not torch.equal(ours["adapter.keys"], stopped["adapter.keys"]), "it goes on training"
    read = [
        c for c in read_catalog(tmp_path / "whole" / "split.csv").clips if c.split == "train" and "bad" not in c.path
    ]
    assert theirs["adapter.keys"].shape == (len(read), 24)
    assert sorted(theirs["adapter.labels"].tolist()) == sorted(c.label for c in read)
    assert whole["trainable_parameters"] == len(read) * 24
    assert len(read) == 15  # the damaged one was among the 16


@pytest.mark.parametrize("keep", ["0.5", "1"])
def test_a_method_that_needs_the_grid_refuses_to_drop_patches_before_it_starts(clips, backbone, tmp_path, keep):
    settings = config(clips, backbone, "method.kernel=[3,3,3]", f"train.keep_tokens={keep}", method="st-adapter")
    if keep == "1":
        train(settings, tmp_path / "run", QUIET)
        return
    with pytest.raises(ConfigError, match=r"train\.keep_tokens: st-adapter needs the grid"):
        train(settings, tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_resuming_on_other_clips_or_a_damaged_state_is_refused(clips, backbone, tmp_path):
    mine = tmp_path / "clips"
    shutil.copytree(clips, mine)
    settings = config(mine, backbone, "train.epochs=3")
    _StopAt(tmp_path / "run", 1)
    with pytest.raises(Interrupted):
        train(settings, tmp_path / "run", QUIET)
    weights = [state / "adapter.safetensors" for state in saved_states(tmp_path / "run" / "checkpoints")]
    contents = [file.read_bytes() for file in weights]
    for file, content in zip(weights, contents, strict=True):
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        CheckpointError, match=r"step-\d+: adapter\.safetensors is not what was written.*: cannot go on"
    ):
        train(settings, tmp_path / "run", QUIET, resume=True)
    for file, content in zip(weights, contents, strict=True):
        file.write_bytes(content)
    shutil.copy(mine / "go_back" / "0.mp4", mine / "go_back" / "new.mp4")
    with pytest.raises(DataError, match=r"not those the run in .* began with"):
        train(settings, tmp_path / "run", QUIET, resume=True)


def test_descriptions_switch_the_consistency_term_on(clips, backbone, tmp_path):
    for kind in "st":
        (tmp_path / f"{kind}.json").write_text(json.dumps({"0": [f"{kind} one"], "1": [f"{kind} two", "more"]}))
    files = [f"descriptions.spatial={tmp_path / 's.json'}", f"descriptions.temporal={tmp_path / 't.json'}"]
    train(config(clips, backbone, *files, "descriptions.alpha=2"), tmp_path / "on", QUIET)
    train(config(clips, backbone), tmp_path / "off", QUIET)
    on, off = ([x for x in read_log(tmp_path / name) if "loss" in x] for name in ("on", "off"))
    assert all(x["consistency"] > 0 for x in on)
    assert all(x["loss"] == pytest.approx(x["cross_entropy"] + 2 * x["consistency"], rel=1e-5) for x in on)
    assert all(x["consistency"] == 0 for x in off)
    assert on[0]["cross_entropy"] == off[0]["cross_entropy"]  # both start from the frozen model
    assert "t.json" in (tmp_path / "on" / "adapter" / "classes.json").read_text()


def test_every_part_of_the_term_is_a_setting_and_in_the_summary(clips, backbone, tmp_path, monkeypatch):
    both = Described(("seen one", "seen two"), ("first this", "then that", "then what"))
    DescriptionBank("", {"Go Back": both, "other": both, "go_there": both}).save(tmp_path / "bank.json")
    read = []
    real = anchors_module.embed
    monkeypatch.setattr(
        anchors_module, "embed", lambda b, texts, *rest, **how: read.append(texts) or real(b, texts, *rest, **how)
    )
    given = [f"descriptions.bank={tmp_path / 'bank.json'}", "descriptions.kinds=temporal", "descriptions.alpha=3",
             "descriptions.alpha_warmup=1", "descriptions.distance=l1", "descriptions.average=sentences"]  # fmt: skip
    metrics = train(config(clips, backbone, *given), tmp_path / "run", QUIET)
    assert len(read) == 1  # the temporal ones of the run's two classes, once in the run
    assert len(read[0]) == 6
    assert metrics["consistency"] == {
        "alpha": 3, "alpha_warmup": 1, "distance": "l1", "average": "sentences", "sentences": {"temporal": 6},
        "source": str(tmp_path / "bank.json"),
    }  # fmt: skip
    steps = [line for line in read_log(tmp_path / "run") if "loss" in line]
    alphas = [0, 1.5, 3, 3]  # two steps an epoch
    for step, alpha in zip(steps, alphas, strict=True):
        assert step["loss"] == pytest.approx(step["cross_entropy"] + alpha * step["consistency"], rel=1e-5)
        assert step["consistency"] > 0
    assert train(config(clips, backbone), tmp_path / "off", QUIET)["consistency"] is None


def test_descriptions_that_are_read_as_another_class_are_told(clips, backbone, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("msta.descriptions.check.CLEARLY", 0)  # to a random backbone all sentences are much alike
    swapped = {"go back": "go there", "go there": "go back"}
    said = {name: Described((f"a video of {other}.",), (f"a video of {other}.",)) for name, other in swapped.items()}
    DescriptionBank("", said).save(tmp_path / "bank.json")
    train(config(clips, backbone, f"descriptions.bank={tmp_path / 'bank.json'}"), tmp_path / "run", QUIET)
    assert "Descriptions of 2 of 2 classes are read as another class's" in caplog.text
    caplog.clear()
    DescriptionBank("", {name: said[other] for name, other in swapped.items()}).save(tmp_path / "right.json")
    train(config(clips, backbone, f"descriptions.bank={tmp_path / 'right.json'}"), tmp_path / "other", QUIET)
    assert "are read as" not in caplog.text


def test_several_class_prompts_are_averaged_in_training_and_afterwards(clips, backbone, tmp_path):
    metrics = train(config(clips, backbone, "data.template=ensemble"), tmp_path / "run", QUIET)
    adapter = msta.load_adapter(tmp_path / "run" / "adapter")
    assert adapter.task.template == ENSEMBLE
    assert evaluate_on(adapter, tmp_path / "run" / "split.csv")["nll"] == pytest.approx(metrics["nll"])
    texts = [F.normalize(class_embeddings(adapter, ["go back"], one), dim=-1) for one in ENSEMBLE]
    assert torch.allclose(class_embeddings(adapter, ["go back"], ENSEMBLE), sum(texts) / len(ENSEMBLE), atol=1e-6)
    alone = train(config(clips, backbone, 'data.template=["a video of {}."]'), tmp_path / "one", QUIET)
    assert alone["nll"] == train(config(clips, backbone), tmp_path / "plain", QUIET)["nll"]
    for wrong in ('["a", "b {}"]', '["{}", "{}"]', "[]"):
        with pytest.raises(ConfigError, match=r"data\.template"):
            config(clips, backbone, f"data.template={wrong}")


def test_unreadable_clips_are_left_out_and_listed_or_stop_the_run(clips, backbone, tmp_path):
    mine = tmp_path / "clips"
    shutil.copytree(clips, mine)
    for name in ("go_back", "go_there"):
        (mine / name / "bad 0.mp4").write_text("no video")
    metrics = train(config(mine, backbone, shots=8), tmp_path / "run", QUIET)
    assert set(metrics["unreadable"].values()) == {"not a video file FFmpeg can read"}
    assert len(metrics["unreadable"]) == 2
    with pytest.raises(DataError, match=r"bad 0\.mp4: not a video"):
        train(config(mine, backbone, "data.on_error=fail", shots=8), tmp_path / "strict", QUIET)
    for file in mine.rglob("*.mp4"):
        file.write_text("no video")
    with pytest.raises(DataError, match="not one of the training clips can be read"):
        train(config(mine, backbone), tmp_path / "none", QUIET)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_precision_and_accumulation(clips, backbone, tmp_path, precision):
    settings = [f"train.precision={precision}", "train.batch_size=2", "train.accumulate=2"]
    train(config(clips, backbone, *settings), tmp_path / "run", QUIET)
    halves = [x["loss"] for x in read_log(tmp_path / "run") if "loss" in x]
    assert len(halves) == 4
    assert all(math.isfinite(x) for x in halves)


def test_accumulated_steps_move_the_adapter_as_whole_batches_do(clips, backbone, tmp_path):
    plain = ["train.epochs=1", "train.eval_every=9", "train.select=last", "train.clip_grad=null"]
    for name, batch, accumulate in (("whole", 4, 1), ("parts", 2, 2)):
        overrides = [*plain, f"train.batch_size={batch}", f"train.accumulate={accumulate}"]
        train(config(clips, backbone, *overrides), tmp_path / name, QUIET)
    whole, parts = (load_file(tmp_path / n / "adapter" / "adapter_model.safetensors") for n in ("whole", "parts"))
    assert all(torch.allclose(whole[name], parts[name], atol=2e-4) for name in whole)


def test_the_plan_says_what_is_frozen_and_trained(clips, backbone, tmp_path):
    console = Console(record=True, width=200, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
    train(config(clips, backbone, "train.epochs=3"), tmp_path / "run", console)
    text = console.export_text()
    model = msta.load_adapter(tmp_path / "run" / "adapter")
    total = sum(p.numel() for p in model.parameters())
    assert f"{model.num_trainable():,} parameters" in text
    assert f"{total - model.num_trainable():,} parameters" in text
    assert "blocks 1..3 of the video tower" in text
    assert "8 train, 2 val, 8 test; 2 classes" in text
    assert "3 epochs x 2 = 6" in text
    assert "s per step: about 0:00:" in text
    assert "GB of memory" in text


@pytest.fixture
def spy(monkeypatch):
    """Every call of evaluate in the loop: the clips it measured; the figures it gives fall from call to call."""
    calls, real = [], measure.evaluate

    def evaluate(model, batches, *rest, **options):
        calls.append(batches.dataset)
        result = real(model, batches, *rest, **options)
        return {**result, "top1": 100.0 - len(calls)}

    monkeypatch.setattr(measure, "evaluate", evaluate)
    return calls


def test_the_best_checkpoint_is_what_is_saved(clips, backbone, tmp_path, spy):
    metrics = train(config(clips, backbone, "train.epochs=4"), tmp_path / "run", QUIET)
    assert metrics["selected_at"]["epoch"] == 1
    saved = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    state = saved_states(tmp_path / "run" / "checkpoints")[0]
    best, last = load_file(state / "best.safetensors"), load_file(state / "adapter.safetensors")
    assert all(torch.equal(saved[name], best[name]) for name in saved)
    assert not all(torch.equal(saved[name], last[name]) for name in saved)


def test_validation_sees_the_validation_clips_and_test_the_test_clips_once(clips, backbone, tmp_path, spy):
    options = ["train.epochs=4", "train.eval_every=2", "eval.clips=2", "eval.crops=3", "data.frames=3", "data.size=16"]
    train(config(clips, backbone, *options), tmp_path / "run", QUIET)
    assert [{c.split for c in read_catalog(tmp_path / "run" / "split.csv").clips if c.path in paths(d)} for d in spy] == [
        {"val"}, {"val"}, {"test"},
    ]  # fmt: skip
    video = spy[0][0, 0]["video"]
    assert video.shape == (6, 3, 3, 16, 16)
    task = msta.load_adapter(tmp_path / "run" / "adapter").task
    assert (task.frames, task.size) == (3, 16)


def paths(dataset) -> set[str]:
    return {os.path.abspath(c.path) for c in dataset.clips}


def test_the_flip_is_off_in_the_loop_when_a_class_is_told_by_its_side(clips, backbone, tmp_path, monkeypatch):
    import msta.training.batches as batches

    seen, real = [], batches.ClipDataset
    monkeypatch.setattr(batches, "ClipDataset", lambda *a, **k: seen.append(k.get("augmentation")) or real(*a, **k))
    train(config(clips, backbone, "data.greyscale=0.3"), tmp_path / "plain", QUIET)
    sided = tmp_path / "sided"
    shutil.copytree(clips, sided)
    (sided / "go_back").rename(sided / "go_left")
    train(config(sided, backbone), tmp_path / "run", QUIET)
    training = [a for a in seen if a is not None]
    assert [a.flip for a in training] == [0.5, 0]
    assert training[0].greyscale == 0.3


def test_the_optimizer_gets_the_rate_the_decay_and_clipped_gradients(clips, backbone, tmp_path, monkeypatch):
    norms, real = [], torch.optim.AdamW.step

    def step(self, *a, **k):
        group = self.param_groups[0]
        gradients = [p.grad for p in group["params"] if p.grad is not None]
        norms.append((torch.stack([g.norm() for g in gradients]).norm().item(), group["weight_decay"]))
        return real(self, *a, **k)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    options = [
        "train.epochs=6",
        "train.warmup_epochs=2",
        "train.clip_grad=0.01",
        "train.weight_decay=0.07",
        "train.lr=2e-3",
    ]
    train(config(clips, backbone, *options), tmp_path / "run", QUIET)
    assert all(norm <= 0.0101 and decay == 0.07 for norm, decay in norms)
    rates = [x["lr"] for x in read_log(tmp_path / "run") if "loss" in x]
    assert rates == pytest.approx([2e-3 * lr_factor(s, 12, 4) for s in range(12)])


def test_a_run_may_not_lie_inside_its_data(clips, backbone):
    with pytest.raises(ConfigError, match="inside the data"):
        train(config(clips, backbone), clips / "run", QUIET)
    assert not (clips / "run").exists()


def test_a_run_stopped_before_its_metrics_were_written_can_be_finished(clips, backbone, tmp_path):
    settings = config(clips, backbone)
    first = train(settings, tmp_path / "run", QUIET)
    (tmp_path / "run" / "metrics.json").unlink()
    again = train(settings, tmp_path / "run", QUIET, resume=True)
    assert again["nll"] == first["nll"]


def test_the_split_has_a_seed_of_its_own(clips, backbone, tmp_path):
    for name, options in (("a", []), ("b", ["train.seed=7"]), ("c", ["data.seed=7"])):
        train(config(clips, backbone, "train.epochs=1", *options), tmp_path / name, QUIET)
    a, b, c = ((tmp_path / name / "split.csv").read_text() for name in "abc")
    assert a == b != c


def test_selection_by_validation_by_test_or_not_at_all(clips, backbone, tmp_path, caplog):
    notice.cache_clear()
    chosen = {}
    for select in ("val", "last", "test-leak"):
        chosen[select] = train(config(clips, backbone, f"train.select={select}"), tmp_path / select, QUIET)
    assert [chosen[s]["selected_by"] for s in chosen] == ["val", "last", "test-leak"]
    assert chosen["last"]["selected_at"] == {}
    assert "selected on the test clips" in caplog.text
    seen = [x["test"] for x in read_log(tmp_path / "test-leak") if "test" in x]
    assert chosen["test-leak"]["nll"] in [pytest.approx(s["nll"]) for s in seen]
    assert not any("test" in x for x in read_log(tmp_path / "val"))


def test_an_existing_folder_is_not_touched(clips, backbone, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(MSTAError, match="mine: exists already, as a folder with other contents"):
        train(config(clips, backbone), tmp_path / "mine", QUIET)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    train(config(clips, backbone), tmp_path / "run", QUIET)
    with pytest.raises(MSTAError, match="holds a run already; go on with it by msta train --resume"):
        train(config(clips, backbone), tmp_path / "run", QUIET)


def test_evaluation_fits_the_classes_or_says_so(clips, backbone, tmp_path):
    train(config(clips, backbone), tmp_path / "run", QUIET)
    adapter = msta.load_adapter(tmp_path / "run" / "adapter")
    assert evaluate_on(adapter, clips)["clips"] == 18
    renamed = tmp_path / "renamed"
    shutil.copytree(clips, renamed)
    (renamed / "go_back").rename(renamed / "return")
    with pytest.raises(DataError, match=r"'return' is not among the adapter's 2 .*--new-classes"):
        evaluate_on(adapter, renamed)
    assert evaluate_on(adapter, renamed, new_classes=True)["clips"] == 18
    shutil.rmtree(renamed / "go_there")
    (renamed / "return").rename(renamed / "go_back")
    alone = evaluate_on(adapter, renamed)  # a subset of the classes, still told from all of them
    assert alone["clips"] == 9
    with pytest.raises(DataError, match="no clips in the split 'val'"):
        evaluate_on(adapter, renamed, split="val")


# ---------------------------------------------------------------- small parts


@given(steps=st.integers(2, 500), share=st.floats(0, 0.9))
def test_the_learning_rate_warms_up_then_falls(steps, share):
    warmup = int(steps * share)
    factors = [lr_factor(s, steps, warmup) for s in range(steps)]
    assert max(factors) == pytest.approx(1, abs=1e-6)
    assert all(0 < f <= 1 for f in factors)
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)


@given(n=st.integers(1, 30), k=st.integers(2, 9), seed=st.integers(0, 99))
def test_accuracy_equals_counting(n, k, seed):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(n, k, generator=generator).softmax(-1)
    labels = torch.randint(k, (n,), generator=generator)
    ranks = [int((p > p[y]).sum()) for p, y in zip(probabilities, labels, strict=True)]
    result = accuracy(probabilities, labels)
    assert result["top1"] == pytest.approx(100 * sum(r == 0 for r in ranks) / n)
    assert result["top5"] == pytest.approx(100 * sum(r < 5 for r in ranks) / n)
    classes = sorted(set(labels.tolist()))
    means = [np.mean([r == 0 for r, y in zip(ranks, labels, strict=True) if y == c]) for c in classes]
    assert result["mean_class"] == pytest.approx(100 * np.mean(means))
