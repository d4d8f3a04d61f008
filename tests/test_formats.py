"""What trainers wrap around a model, and how people store it: found, or refused with the true reason."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_checkpoints import hugging_face, state

import msta
from msta.backbone.tensor_files import WEIGHTS
from msta.errors import CheckpointError

TINY = ("viclip_tiny.pth", "openai_clip_tiny.pt")
PRINTS = {name: msta.load_backbone(DATA / name).fingerprint() for name in TINY}
CLIP = state("openai_clip_tiny.pt")
OTHER = {name: tensor + 1 for name, tensor in CLIP.items()}


def loaded(content: object, file: Path, options: str = "") -> str:
    torch.save(content, file)
    return msta.load_backbone(f"{file}{options}").fingerprint()


def before(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def refusal(place: Path | str) -> str:
    with pytest.raises(CheckpointError) as error:
        msta.load_backbone(place)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- around a model

WRAPPERS = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]
PARTS = ["vision_encoder.", "text_encoder.", "visual.", r"resblocks\.\d+\.", "mlp."]
WORDS = st.sampled_from(["model", "net", "backbone", "student", "base_model", "clip", "_forward_module", *WRAPPERS])
PLACES = st.sampled_from(["state_dict", "model", "network", "params", "weights", "ema_state_dict", "clip"])


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(TINY),
    outer=st.lists(WORDS, max_size=3),
    inner=st.dictionaries(st.sampled_from(PARTS), st.sampled_from(WRAPPERS), max_size=3),
    places=st.lists(PLACES, max_size=3),
    data=st.data(),
)
def test_a_model_is_found_whatever_is_around_it(tmp_path_factory, name, outer, inner, places, data):
    tensors = state(name)
    for part, wrapper in inner.items():
        tensors = {re.sub(f"({part})", rf"\g<1>{wrapper}.", key): value for key, value in tensors.items()}
    content = before("".join(f"{word}." for word in outer), tensors)
    scalar = next(key for key in content if key.endswith(("temp", "logit_scale")))
    content[scalar] = content[scalar].reshape(data.draw(st.sampled_from([(), (1,), (1, 1)])))
    if outer:  # a metric, and what AveragedModel counts
        content |= {"train_acc.tp": torch.zeros(3), "n_averaged": torch.tensor(3)}
    for place in reversed(places):
        optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}}
        content = {place: content, "best": torch.tensor(1.0), "loss": {"weight": torch.ones(2)}, "optimizer": optimizer}
    assert loaded(content, tmp_path_factory.mktemp("c") / "c.pth") == PRINTS[name]


@pytest.mark.parametrize(
    ("one", "other"),
    [("model.", "clip."), ("model.", "clip_model."), ("net.", "clip_model."), ("module.", ""), ("model.", "model_ema.module.")],
)  # fmt: skip
def test_of_two_models_the_user_says_which(tmp_path, one, other):
    file = tmp_path / "c.ckpt"
    for content in (before(one, OTHER) | before(other, CLIP), before(other, CLIP) | before(one, OTHER)):
        torch.save({"state_dict": content}, file)
        said = refusal(file)
        for prefix, tensors in ((one, OTHER), (other, CLIP)):
            option = f"?prefix=state_dict/{prefix}"
            assert option in said
            assert loaded({"state_dict": content}, file, option) == loaded(tensors, tmp_path / "plain.pt")
    assert "there are 'state_dict/" in refusal(f"{file}?prefix=none.")
    assert loaded(before(one, CLIP) | before(other, CLIP), file) == PRINTS["openai_clip_tiny.pt"]


def test_another_model_beside_it_is_asked_about_too(tmp_path):
    """The frozen tower of a teacher, and the same CLIP under other names."""
    renamed = {re.sub(r"^visual\.", "image_encoder.", name): tensor for name, tensor in OTHER.items()}
    tower = {name: tensor for name, tensor in OTHER.items() if name.startswith("visual.")}
    for content in (renamed | before("clip.", CLIP), before("model.", CLIP) | before("teacher.", tower)):
        torch.save(content, tmp_path / "c.pt")
        assert "say which: ?prefix=" in refusal(tmp_path / "c.pt")
    torch.save(CLIP | {"image_encoder.proj": torch.zeros(2, 2)}, tmp_path / "c.pt")
    assert "unexpected: video.proj (again, as image_encoder.proj)" in refusal(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        ({"model_ema": OTHER, "model": CLIP}, "model/"),
        ({"state_dict": before("module.", CLIP), "ema": {"state_dict": OTHER}}, "state_dict/module."),
        ({"teacher": OTHER, "student": CLIP}, None),
        ({"model": OTHER, "state_dict": CLIP}, None),
    ],
)
def test_plain_weights_come_before_their_average_and_of_others_none(tmp_path, caplog, content, taken, every_notice):
    file = tmp_path / "c.pt"
    if taken:
        assert loaded(content, file) == PRINTS["openai_clip_tiny.pt"]
        assert f"c.pt: {taken} is read, not " in caplog.text
    else:
        torch.save(content, file)
        assert all(f"?prefix={place}/" in refusal(file) for place in content)


# ---------------------------------------------------------------- files and folders


def shards(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """As accelerate.save_model leaves them."""
    folder.mkdir()
    names = list(tensors)
    weight_map = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in set(weight_map.values()):
        save_file({name: tensors[name].contiguous() for name in names if weight_map[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("name", TINY)
def test_shards_are_read_through_their_index(tmp_path, name):
    folder = shards(tmp_path / "f", before("module.", state(name)))
    for place in (folder, folder / "model.safetensors.index.json", folder / "model-00002-of-00002.safetensors"):
        assert msta.load_backbone(place).fingerprint() == PRINTS[name]
    (folder / "model-00001-of-00002.safetensors").unlink()
    assert "model-00001-of-00002.safetensors: No such file" in refusal(folder)


@pytest.mark.parametrize("end", [end for end in WEIGHTS if end != ".safetensors"])
def test_the_only_weights_in_a_folder_are_read_whatever_their_name(tmp_path, end):
    assert loaded({"state_dict": CLIP}, tmp_path / f"last{end}") == PRINTS["openai_clip_tiny.pt"]
    assert msta.load_backbone(tmp_path).fingerprint() == PRINTS["openai_clip_tiny.pt"]


def test_a_config_of_open_clip_beside_an_epoch_of_its_trainer(tmp_path):
    source = DATA / "open_clip" / "gelu-wide-heads"
    shutil.copy(source / "open_clip_config.json", tmp_path)
    tensors = load_file(source / "open_clip_model.safetensors")
    torch.save({"epoch": 5, "state_dict": before("module.", tensors)}, tmp_path / "epoch_5.pt")
    assert msta.load_backbone(tmp_path).fingerprint() == msta.load_backbone(source).fingerprint()


@pytest.mark.filterwarnings("ignore")
def test_the_file_that_is_named_is_read_and_not_its_neighbour(tmp_path):
    hugging_face(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / "tuned.safetensors")
    tuned, folder = (msta.load_backbone(tmp_path / name) for name in ("tuned.safetensors", ""))
    assert torch.allclose(tuned.video.proj, folder.video.proj + 1)
    tuned.save(tmp_path / "own")
    save_file(folder.state_dict(), tmp_path / "own" / "first.safetensors")
    assert msta.load_backbone(tmp_path / "own" / "first.safetensors").fingerprint() == folder.fingerprint()


def test_a_file_is_read_by_its_content_and_named_for_what_it_is(tmp_path):
    assert loaded(CLIP, tmp_path / "c.safetensors") == PRINTS["openai_clip_tiny.pt"]
    torch.save(CLIP, tmp_path / "model.pth")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.write(tmp_path / "model.pth", "model.pth")
    assert "c.zip: no checkpoint, but an archive of model.pth; unpack it" in refusal(tmp_path / "c.zip")
    np.savez(tmp_path / "c.npz", **{"visual.proj": np.zeros(2)})
    assert "c.npz: no checkpoint, but an archive of visual.proj.npy" in refusal(tmp_path / "c.npz")


def test_stochastic_weight_averaging_is_not_taken_for_open_vclip(tmp_path):
    assert loaded(CLIP, tmp_path / "swa_best.pt") == PRINTS["openai_clip_tiny.pt"]


@pytest.mark.filterwarnings("ignore")
def test_an_image_tower_alone_is_called_that(tmp_path):
    torch.save({name: tensor for name, tensor in CLIP.items() if name.startswith("visual.")}, tmp_path / "c.pt")
    hugging_face(tmp_path / "hf")
    tensors, config = load_file(tmp_path / "hf" / "model.safetensors"), tmp_path / "hf" / "config.json"
    seen = {name: tensor for name, tensor in tensors.items() if name.startswith("vis")}
    save_file(seen, tmp_path / "hf" / "model.safetensors")
    for place in (tmp_path / "c.pt", tmp_path / "hf"):
        said = refusal(place)
        assert "it has no text tower" in said
        assert "ViFi" not in said
    config.write_text(json.dumps({"model_type": "clip_vision_model"}))
    for place in (tmp_path / "hf", tmp_path / "hf" / "model.safetensors"):
        assert "one tower of a model" in refusal(place)
