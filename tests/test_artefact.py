"""An adapter on disk: what comes back is what went in, and what does not fit is refused."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import stir, tiny
from video_files import write_video

import msta
from msta import methods
from msta.adapters import artefact
from msta.adapters.task import Task
from msta.errors import CheckpointError, MSTAError
from msta.inference import Predictor, predictor
from msta.inference.predictor import load_models


@pytest.fixture
def saved(tmp_path):
    msta.random_backbone(tiny()).save(tmp_path / "backbone")
    model = stir(msta.attach(msta.load_backbone(tmp_path / "backbone"), msta.MSTAConfig(dim=8)))
    model.task = Task(("push", "hug", "shake hands"), "a clip of {}.", frames=3)
    model.save(tmp_path / "adapter", {"top1": 50.0})
    return model, tmp_path / "adapter"


@pytest.mark.parametrize("method", [msta.MSTAConfig(dim=8), msta.MSTAConfig(dim=8, shared=False), "zero-shot", "full"])
def test_save_load_predict_again(tmp_path, backbone, method):
    model = stir(msta.attach(backbone, method), 0.05)
    model.task = Task(("push", "hug"))
    model.save(tmp_path / "adapter")
    clip = write_video(tmp_path / "clip.mp4", 12)
    again = msta.load_adapter(tmp_path / "adapter", backbone)
    assert Predictor(again)(clip) == Predictor(model)(clip)
    assert sum(p.probability for p in Predictor(again)(clip)) == pytest.approx(1)


def test_a_temperature_is_saved_unless_the_metrics_have_one(saved, tmp_path):
    model, folder = saved
    assert msta.load_adapter(folder).temperature == 1.0
    model.temperature = 2.5
    for name, metrics, expected in (("a", None, 2.5), ("b", {"top1": 1.0}, 2.5), ("c", {"temperature": None}, 1.0)):
        model.save(tmp_path / name, metrics)
        assert msta.load_adapter(tmp_path / name).temperature == expected


def test_the_backbone_is_found_again_and_the_task_comes_along(saved):
    model, folder = saved
    again = msta.load_adapter(folder)
    assert again.task == model.task
    video = torch.randn(1, 3, 3, 32, 32)
    assert torch.equal(again.encode_video(video), model.encode_video(video))
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "classes.json", "metrics.json",
    ]  # fmt: skip
    card = (folder / "README.md").read_text()
    assert "shake hands" in card
    assert "top1: 50.0" in card


@pytest.mark.parametrize("given", [True, False])
def test_several_adapters_share_one_backbone_and_nothing_is_read_twice(saved, tmp_path, monkeypatch, given):
    model, folder = saved
    model.save(tmp_path / "other")
    read = []

    def counted(load):
        return lambda source, **options: read.append(str(source)) or load(source, **options)

    monkeypatch.setattr(artefact, "load_file", counted(artefact.load_file))
    for module in (methods, predictor):
        monkeypatch.setattr(module, "load_backbone", counted(module.load_backbone))
    one, other = load_models([folder, tmp_path / "other"], str(tmp_path / "backbone") if given else None)
    assert one.backbone.video.patch_embedding.weight is other.backbone.video.patch_embedding.weight
    assert one.task == other.task == model.task
    weights = [str(each / artefact.WEIGHTS) for each in (folder, tmp_path / "other")]
    assert sorted(read) == sorted([str(tmp_path / "backbone"), *weights])


def test_another_backbone_is_refused(saved, tmp_path):
    _, folder = saved
    with pytest.raises(CheckpointError, match=r"adapter: was trained on the backbone .*other weights"):
        msta.load_adapter(folder, msta.random_backbone(tiny(), seed=1))
    (tmp_path / "backbone").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="cannot be loaded; if it moved, give it as backbone"):
        msta.load_adapter(folder)
    msta.load_adapter(folder, msta.load_backbone(tmp_path / "moved"))


def test_nothing_is_overwritten_and_nothing_left_half_written(saved, tmp_path, monkeypatch):
    model, folder = saved
    with pytest.raises(MSTAError, match="adapter: exists already"):
        model.save(folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MSTAError, match="file: exists already, as a file"):
        model.save(tmp_path / "file")

    def no_space(*_):
        raise OSError(28, "No space left on device", "adapter_model.safetensors")

    before = sorted(p.name for p in tmp_path.iterdir())
    monkeypatch.setattr("msta.adapters.artefact.write_bytes", no_space)
    with pytest.raises(OSError, match="No space left"):
        model.save(tmp_path / "second")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "adapter_config.json").unlink(), "no adapter directory: there is no adapter_config.json"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json: no valid JSON"),
        (lambda f: edit(f / "adapter_config.json", format="other"), "format 'other'"),
        (lambda f: edit(f / "adapter_config.json", method="other"), "was trained by the method 'other', which is not there"),
        (lambda f: edit(f / "adapter_config.json", settings={"dim": 4}), "do not fit: .*size mismatch"),
        (lambda f: edit(f / "adapter_config.json", settings={"rank": 4}), "do not fit: .*rank"),
        (lambda f: edit(f / "adapter_config.json", backbone={}), "adapter_config.json: damaged or not ours"),
        (lambda f: edit(f / "adapter_config.json", backbone="toy"), "adapter_config.json: damaged or not ours"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "adapter_model.safetensors: damaged"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x" * 100), "adapter_model.safetensors: damaged"),
        (lambda f: edit(f / "classes.json", names=["push", "push"]), "classes.json: names: a class is there twice"),
        (lambda f: edit(f / "classes.json", names=[]), "classes.json: names: expected a list"),
        (lambda f: edit(f / "classes.json", template="no place"), "classes.json: template"),
        (lambda f: edit(f / "classes.json", frames=-1), "classes.json: frames"),
    ],
)  # fmt: skip
def test_a_damaged_adapter_is_named(saved, damage, message):
    _, folder = saved
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        msta.load_adapter(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_predictor_takes_any_labels_and_refuses_none_or_twins(saved, tmp_path):
    model, _ = saved
    clip = write_video(tmp_path / "clip.mp4", 12)
    assert {p.label for p in Predictor(model, ["run", "jump"])(clip)} == {"run", "jump"}
    with pytest.raises(MSTAError, match="twice"):
        Predictor(model, ["run", "run"])
    model.task = None
    with pytest.raises(MSTAError, match="no classes"):
        Predictor(model)
