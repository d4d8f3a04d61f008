"""The presets: each protocol's recipe is the row of the paper's table that has its name."""

from __future__ import annotations

import pytest

import msta
from msta.config import make_config, presets, read_config, read_preset
from msta.errors import ConfigError

TABLE = {  # protocol -> (blocks, r, epochs, clips per step, rate, parameters on ViT-B/16)
    "few-shot": ((8, 12), 128, 50, 32, 1e-3, 1_744_000),
    "base-to-novel": ((1, 12), 256, 11, 32, 1e-3, 8_712_192),
    "zero-shot": ((1, 12), 256, 100, 256, 8e-3, 8_712_192),
    "supervised": ((1, 12), 256, 100, 256, 8e-3, 8_712_192),
}
VIEWS = {"HMDB-51": (10, 3), "UCF-101": (5, 3), "k400": (4, 3), "something-something-v2": (2, 3), "mine": (1, 1)}


@pytest.fixture(scope="module")
def viclip():
    return msta.random_backbone("viclip-b16")


@pytest.mark.parametrize("protocol", TABLE)
@pytest.mark.parametrize("processes", [1, 8])
def test_the_papers_recipes(viclip, protocol, processes):
    blocks, dim, epochs, clips, rate, parameters = TABLE[protocol]
    config = make_config("paper", {"data.path": "."}, protocol=protocol)
    assert config == make_config(f"paper:{protocol}", {"data.path": "."})
    method, train = config.method_config(), config.train
    pairs = method.block_pairs(12, 12)
    assert (pairs[0][0], pairs[-1][0]) == blocks
    assert (method.dim, train.epochs, train.step_clips(processes), train.lr) == (dim, epochs, clips, rate)
    assert (method.init, method.scale, train.warmup_epochs, train.weight_decay) == ("kaiming", 0.005, 5, 1e-3)
    assert (config.descriptions.alpha, config.descriptions.per_class) == (1, 2)
    assert msta.attach(viclip, method).num_trainable() == parameters


def test_training_by_the_paper_is_its_few_shot_recipe():
    assert make_config("paper", {"data.path": "."}) == make_config("paper:few-shot", {"data.path": "."})


@pytest.mark.parametrize("protocol", ["few-shot", "base-to-novel"])
@pytest.mark.parametrize("dataset", VIEWS)
def test_views_and_sentences_by_data_set(protocol, dataset):
    config = make_config("paper", {"data.path": "."}, protocol=protocol, dataset=dataset)
    assert (config.eval.clips, config.eval.crops) == VIEWS[dataset]
    many = protocol == "few-shot" and dataset in ("UCF-101", "something-something-v2")
    assert config.descriptions.per_class == (8 if many else 2)
    assert make_config("paper", {"data.path": f"/data/{dataset}"}, protocol=protocol).eval == config.eval


def test_transfer_is_tested_on_one_view():
    views = make_config("paper", {"data.path": "."}, protocol="zero-shot", dataset="kinetics400").eval
    assert (views.clips, views.crops) == (1, 1)


def test_the_logs_recipe_of_base_to_novel_is_another_one(viclip):
    config = make_config("paper-logs", {"data.path": "."}, protocol="base-to-novel", dataset="kinetics400")
    assert config.train.epochs == 50
    assert config.descriptions.alpha == 0
    assert msta.attach(viclip, config.method_config()).num_trainable() == 1_744_000


def test_small_and_upper_are_the_same_for_all_protocols():
    for preset in ("small", "upper"):
        assert len({str(read_preset(preset, protocol, "ucf101")) for protocol in TABLE}) == 1


@pytest.mark.parametrize(
    ("preset", "protocol", "message"),
    [
        ("papper", "few-shot", "no preset 'papper'; there are paper, paper-logs, small, upper"),
        ("paper:transfer", "few-shot", "preset paper: has no recipe for 'transfer'; it has few-shot, base-to-novel, "),
        ("paper:", "few-shot", "preset paper: has no recipe for ''; it has few-shot"),
        (
            "paper-logs",
            "supervised",
            "preset paper-logs: has no recipe for 'supervised'; it has few-shot, base-to-novel",
        ),
        ("small:few-shot", "few-shot", "preset small: is the same for all protocols; leave ':few-shot' out"),
    ],
)
def test_a_preset_that_is_not_there_is_one_clear_line(preset, protocol, message):
    with pytest.raises(ConfigError) as error:
        make_config(preset, {"data.path": "."}, protocol=protocol)
    assert str(error.value).startswith(message)


def test_there_are_four():
    assert presets() == ["paper", "paper-logs", "small", "upper"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_settings_are_read_back_in_any_encoding(tmp_path, encoding):
    config, file = make_config("small", {"data.path": "Küche"}), tmp_path / "config.yaml"
    file.write_text(config.to_yaml(), encoding=encoding)
    assert read_config(file) == config


@pytest.mark.parametrize("content", [b"", b"- a\n", b"\xff\xfe\xff", b"a: \xe9\n", b"a: [\n"])
def test_a_file_without_settings_is_named(tmp_path, content):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="config.yaml: "):
        read_config(file)
