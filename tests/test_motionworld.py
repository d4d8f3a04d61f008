"""MotionWorld: what is drawn, what is said of it, and what is known of it must agree."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest
import torch

from msta.data.decode import read_frames
from msta.data.reading import read_catalog
from msta.descriptions.bank import load_descriptions
from msta.errors import ConfigError, MSTAError
from msta.motionworld import (
    ALL_MOTIONS,
    HELD_OUT_MOTIONS,
    MOTIONS,
    REVERSED,
    Batch,
    MotionWorld,
    WorldConfig,
    descriptions,
    nature,
    same_meaning,
    write_dataset,
)
from msta.motionworld.encounters import passers_by
from msta.motionworld.motions import MEANING, backwards
from msta.motionworld.paths import DIRECTIONS, LEGS, MOVES, OPPOSITE, SHAPES, draw
from msta.motionworld.raster import NOBODY, Canvas, Capsule, Layer, Polygon
from msta.motionworld.surroundings import HELD_OUT_KINDS, KINDS, _exposure
from msta.motionworld.things import (
    COLOURS,
    HELD_OUT_COLOURS,
    HELD_OUT_SILHOUETTES,
    HELD_OUT_TEXTURES,
    SILHOUETTES,
    TEXTURES,
    Looks,
    choose_looks,
    sprite,
)

FIELDS = ("video", "meaning", "trajectory", "visible", "other", "occupancy")


def clips(motion: str, count: int = 12, seed: int = 5, **changes) -> Batch:
    """Clips of one motion, plain unless said otherwise."""
    domain = "shifted" if motion in HELD_OUT_MOTIONS else "train"
    config = WorldConfig(**{"size": 32, "domain": domain, "busy": 0.0, **changes})
    return MotionWorld(config, seed).batch(range(count), [motion] * count)


# ---------------------------------------------------------------- repeatable


def equal(a: Batch, b: Batch, rows: list[int]) -> bool:
    tensors = all(torch.equal(getattr(a, f)[rows].nan_to_num(-9), getattr(b, f).nan_to_num(-9)) for f in FIELDS)
    return tensors and [a.captions[i] for i in rows] == b.captions


@pytest.mark.parametrize("domain", ["train", "shifted", "held-out"])
def test_a_clip_depends_on_seed_and_number_only(domain):
    config = WorldConfig(size=32, domain=domain)
    together = MotionWorld(config, seed=3).batch(range(20))
    torch.manual_seed(7), random.seed(7), np.random.seed(7)
    assert equal(together, MotionWorld(config, seed=3).batch([17, 4]), [17, 4])
    assert not torch.equal(together.video, MotionWorld(config, seed=4).batch(range(20)).video)


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    clips("hug", 3, busy=1.0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


def test_held_out_clips_are_others_of_the_same_kind():
    train, held_out = (MotionWorld(WorldConfig(size=32, domain=d)).batch(range(40)) for d in ("train", "held-out"))
    assert not (train.video == held_out.video).flatten(1).all(1).any()
    assert set(held_out.motions) <= set(MOTIONS)


def test_time_is_continuous():
    """The same clip in more frames: every third of 24 is one of 8, up to where in its third it was taken."""
    few, many = (clips("circle", 6, frames=n, size=64) for n in (8, 24))
    torch.testing.assert_close(few.trajectory, many.trajectory[:, 1::3], atol=1e-4, rtol=0)
    difference = (few.video.int() - many.video[:, 1::3].int()).abs().float().mean()
    assert difference < 1


# ---------------------------------------------------------------- pixels and what is known of them


@pytest.mark.parametrize("motion", ALL_MOTIONS)
def test_every_motion_renders(motion):
    batch = clips(motion, 4, busy=1.0, size=48, grid=6)
    assert batch.video.shape == (4, 8, 3, 48, 48)
    assert batch.video.dtype == torch.uint8
    assert batch.occupancy.shape == (4, 8, 6, 6)
    assert batch.trajectory.isfinite().all()
    assert ((batch.occupancy >= 0) & (batch.occupancy <= 1)).all()
    assert batch.visible.any(1).all(), "the main thing is in no frame at all"
    spread = batch.video.float().std(1).flatten(1).max(1).values
    assert (spread > 10).all() or motion == "stay still"


def test_capsules_and_polygons_cover_the_area_they_should():
    size = 256
    half = np.array([[0.3, 0.5]], np.float32), np.array([[0.7, 0.5]], np.float32), np.array([0.1], np.float32)
    corners = np.array([[[0.2, 0.2], [0.8, 0.2], [0.5, 0.7]]], np.float32)
    for part, area in [
        (Capsule(half[0], half[1], half[2], half[2]), 0.4 * 0.2 + np.pi * 0.01),
        (Capsule(half[0], half[0], half[2], half[2]), np.pi * 0.01),
        (Polygon(corners), 0.15),
        (Polygon(corners[:, ::-1]), 0.15),
    ]:
        canvas = Canvas(np.zeros((3, 1, size, size), np.float32))
        canvas.paint(Layer([part], np.ones(3, np.float32)))
        assert canvas.pixels.mean() == pytest.approx(area, rel=0.01)


def test_trajectory_and_occupancy_match_the_pixels():
    """A thing alone before a plain background: what differs from the background is the thing."""
    batch = clips("bounce", 20, size=64, grid=64)
    pixels = batch.video.float()
    background = pixels.flatten(3).mode(3).values[..., None, None]
    differs = (pixels - background).abs().sum(2) > 24
    occupied = batch.occupancy
    assert differs[occupied > 0.9].float().mean() > 0.98
    assert not differs[occupied == 0].any()
    centres = (torch.arange(64) + 0.5) / 64
    mass = occupied.sum((2, 3))
    centroid = (
        torch.stack([(occupied.sum(2) * centres).sum(2), (occupied.sum(3) * centres).sum(2)], -1) / mass[..., None]
    )
    inside = ((batch.trajectory > 0.2) & (batch.trajectory < 0.8)).all(-1)
    assert (centroid - batch.trajectory)[inside].norm(dim=-1).max() < 0.07


@pytest.mark.parametrize("motion", ["circle", "wave"])
def test_a_fingertip_is_where_the_trajectory_says(motion):
    batch = clips(motion, 40, size=64, grid=64)
    near = torch.nn.functional.max_pool2d(batch.occupancy, 7, 1, 3)
    column, row = (batch.trajectory * 64).long().clamp(0, 63).unbind(-1)
    found = near.gather(3, column[..., None, None].expand(-1, -1, 64, 1))[..., 0].gather(2, row[..., None])[..., 0]
    assert (found[batch.visible] > 0.5).float().mean() > 0.97


def test_busy_adds_what_plain_clips_do_not_have():
    plain, busy = (clips("letter L", 12, size=64, busy=b) for b in (0.0, 1.0))
    share = [(v == v.flatten(3).mode(3).values[..., None, None]).float().mean() for v in (plain.video, busy.video)]
    assert share[0] > 0.7
    assert share[1] < 0.3


# ---------------------------------------------------------------- motions


def course(motion: str, batch: Batch) -> torch.Tensor:
    """A number [B] that is positive for the motions on the left of REVERSED, negative for those on the right."""
    path = batch.trajectory
    way = path[:, -1] - path[:, 0]
    if motion.startswith("circle"):
        x, y = (path - path.mean(1, keepdim=True)).unbind(-1)
        return (x[:, :-1] * y[:, 1:] - x[:, 1:] * y[:, :-1]).sum(1)
    if motion in ("grow", "shrink", "appear", "vanish"):
        area = batch.occupancy.sum((2, 3))
        return area[:, -1] - area[:, 0]
    if motion in ("approach", "move apart"):
        distance = (batch.other - path).norm(dim=-1)
        return distance[:, 0] - distance[:, -1]
    return way @ torch.tensor(DIRECTIONS[motion], dtype=torch.float32)


@pytest.mark.parametrize(("motion", "reverse"), [p for p in REVERSED.items() if "rotate" not in p[0]])
def test_only_the_order_of_frames_tells_reversed_motions_apart(motion, reverse):
    key = motion.removeprefix("swipe ").removeprefix("move ")
    assert (course(key, clips(motion, 25)) > 0).all()
    assert (course(key, clips(reverse, 25)) < 0).all()


@pytest.mark.parametrize("name", DIRECTIONS)
def test_directions_go_where_they_say(name):
    motion = ("swipe " if " " not in name else "move ") + name
    way = (lambda path: path[:, -1] - path[:, 0])(clips(motion, 30).trajectory)
    aim = torch.tensor(DIRECTIONS[name], dtype=torch.float32)
    cosine = torch.cosine_similarity(way, aim[None])
    assert cosine.min() > 0.85, "more than 32 degrees off: nearer to another direction would be 22.5"


@pytest.mark.parametrize("name", sorted(LEGS))
def test_strokes_go_where_the_name_says(name):
    for seed in range(20):
        path = draw(name, np.random.default_rng(seed), size=(0.3, 0.8), inside=(0, 0, 1, 1), idle=0.1, cut=0)
        corners = path.at(path.moments)
        for leg, way in zip(LEGS[name], np.diff(corners, axis=0), strict=True):
            assert way @ DIRECTIONS[leg] > 0.9 * np.linalg.norm(way)


def test_backwards_is_the_motion_that_the_frames_show_in_the_opposite_order():
    assert backwards("left then up then right") == "left then down then right"
    assert backwards("right then down") == "up then left"
    assert backwards("swipe right") == "swipe left"
    assert backwards("left and back") is None  # it looks the same
    assert backwards("left then up") is None  # down then right is the letter L
    assert all(backwards(other) == motion for motion in ALL_MOTIONS if (other := backwards(motion)))


@pytest.mark.parametrize("name", sorted({n for n, legs in LEGS.items() if len(legs) == 2} & {*ALL_MOTIONS}))
def test_compositions_go_first_one_way_then_the_other(name):
    first, _, second = name.split()
    path = clips(name, 16, frames=24).trajectory
    out, then = (
        torch.tensor(DIRECTIONS[d], dtype=torch.float32)
        for d in (first, OPPOSITE[first] if second == "back" else second)
    )
    middle = (path @ (out - then)).argmax(1)  # the corner is farthest out that way
    assert ((middle > 2) & (middle < 23)).all()
    if second == "back":
        assert ((path[:, -1] - path[:, 0]).norm(dim=-1) < 0.35 * (path @ out).amax(1).sub((path[:, 0]) @ out)).all()
    else:
        corner = path[torch.arange(len(path)), middle]
        assert (torch.cosine_similarity(corner - path[:, 0], out[None]) > 0.9).all()
        assert (torch.cosine_similarity(path[:, -1] - corner, then[None]) > 0.9).all()


def test_an_angle_that_grows_turns_clockwise():
    """A hammer's head is its heavy end: up at first, to the right after a quarter turn clockwise."""
    one = np.ones(1, np.float32)
    looks = Looks(SILHOUETTES["hammer"], "red", "", one.repeat(3), one.repeat(3), 0.0)
    offset = []
    for angle in (0.0, np.pi / 2):
        canvas = Canvas(np.zeros((3, 1, 128, 128), np.float32))
        canvas.paint(sprite(looks, np.full((1, 2), 0.5, np.float32), one * 0.3, one * np.float32(angle)))
        rows, columns = canvas.pixels[0, 0].nonzero()
        offset.append((columns.mean() / 128 - 0.5, rows.mean() / 128 - 0.5))
    assert offset[0][1] < -0.05
    assert offset[1][0] > 0.05
    assert abs(offset[1][1]) < 0.03


def test_shapes_vary_and_keep_their_corners():
    """A square has four corners however it is drawn; no two are drawn alike."""
    path = clips("square", 12, frames=200).trajectory
    step = path.diff(dim=1)
    for line, moves in zip(path, step, strict=True):
        moving = moves.norm(dim=-1) > 2e-4
        heading = torch.atan2(moves[moving, 1], moves[moving, 0])
        sides = torch.round((heading + np.pi) / (np.pi / 2)) % 4
        assert set(sides.tolist()) == {0.0, 1.0, 2.0, 3.0}
        assert line.amax(0).sub(line.amin(0)).min() > 0.15
    assert len({tuple(p) for p in path[:, 0].tolist()}) == 12


@pytest.mark.parametrize("motion", ["handshake", "hug", "kick", "punch", "push"])
def test_people_who_act_on_each_other_touch(motion):
    batch = clips(motion, 24, frames=24, size=16)
    distance = (batch.trajectory - batch.other).norm(dim=-1).amin(1)
    assert (distance < 0.45).all()
    assert distance.mean() < 0.25


def test_a_push_moves_the_other_away():
    batch = clips("push", 30, frames=24)
    x = batch.other[..., 0]
    assert ((x[:, -1] - 0.5).abs() > (x[:, 8:16] - 0.5).abs().amin(1)).float().mean() > 0.8


# ---------------------------------------------------------------- captions


FORBIDDEN = {
    "swipe left": "right|up|upwards?|down|downwards?|clockwise",
    "swipe right": "left|up|upwards?|down|downwards?|clockwise",
    "swipe up": "left|right|down|downwards?|falls?",
    "swipe down": "left|right|up|upwards?",
    "move up left": "right|down|lower",
    "move down right": "left|up|upper",
    "circle": "clockwise|counterclockwise|anticlockwise|square|triangle",
    "circle clockwise": "counterclockwise|anticlockwise|counter-clockwise|against",
    "circle counterclockwise": "clockwise",
    "rotate clockwise": "counterclockwise|anticlockwise|counter-clockwise|against",
    "grow": "smaller|shrinks?|shrinking|tiny|away",
    "shrink": "bigger|larger|grows?|growing|closer",
    "approach": "apart,? then away|separates?|leaves|away",
    "move apart": "approach|approaches|towards",
    "walk left": "right",
    "walk right": "left",
    "kick": "hug|fist|shake|pushe?s?",
    "punch": "hug|foot|leg|kicks?",
    "hug": "fist|kicks?|punch",
    "appear": "vanish|disappears?|gone|out$",
    "vanish": "appears?|visible at last",
}
STARTS = r"from (right to left|left to right|bottom to top|top to bottom)|starts on the \w+ side"


@pytest.mark.parametrize("motion", FORBIDDEN)
def test_captions_never_contradict(motion):
    batch = clips(motion, 20, captions=30, size=16, frames=1)
    for caption in (c for row in batch.captions for c in row):
        text = re.sub(STARTS + r"|out of nowhere|pops? up|popping up", "", caption.lower())
        assert not re.search(rf"(?<![\w-])({FORBIDDEN[motion]})(?![\w-])", text), caption


@pytest.mark.parametrize("motion", ALL_MOTIONS)
def test_captions_are_many_and_well_formed(motion):
    batch = clips(motion, 16, captions=16, size=16, frames=1)
    texts = [c for row in batch.captions for c in row]
    assert len({t.lower().strip(".") for t in texts}) >= 60
    for text in texts:
        assert text == text.strip()
        assert "  " not in text
        assert not set("{}/") & set(text), text
        assert len(text) < 220
    assert any(len(t.split()) <= max(4, len(motion.split())) for t in texts), "no bare name"
    assert any(len(t.split()) >= 12 for t in texts), "no description"


def test_no_two_motions_share_a_name():
    """A bare name must tell a clip from all others that count as its negatives."""
    owner: dict[str, str] = {}
    from msta.motionworld.wordings import WORDINGS

    for motion in ALL_MOTIONS:
        for text in (*WORDINGS[motion].names, *WORDINGS[motion].nouns):
            other = owner.setdefault(text.lower(), motion)
            assert other == motion or same_meaning(torch.tensor([MEANING[other]]), torch.tensor([MEANING[motion]])), (
                text
            )


@pytest.mark.parametrize("motion", ALL_MOTIONS)
def test_descriptions_are_sentences_of_either_kind(motion):
    spatial, temporal = descriptions(motion, 4)
    assert len(spatial) == len(temporal) == 4
    assert all(s.startswith("A video about ") for s in spatial)
    assert not any(set("{}") & set(s) for s in (*spatial, *temporal))


# ---------------------------------------------------------------- meaning and domains


def test_meaning_is_the_motion():
    batch = MotionWorld(WorldConfig(size=16, frames=1)).batch(range(60))
    for i in range(60):
        for j in range(60):
            assert (batch.meaning[i] == batch.meaning[j]).item() == (batch.motions[i] == batch.motions[j])
    same = same_meaning(batch.meaning)
    assert same.shape == (60, 60)
    assert torch.equal(same, same.T)
    assert same.diagonal().all()


def test_a_circle_is_no_negative_of_a_clockwise_one():
    circle, right, left, square = torch.tensor(
        [MEANING[m] for m in ("circle", "circle clockwise", "circle counterclockwise", "square")]
    )
    row = same_meaning(torch.stack([circle, right]), torch.stack([circle, right, left, square])).tolist()
    assert row == [[True, True, True, False], [True, True, False, False]]


def test_the_shifted_domain_shares_no_things_colours_textures_or_compositions():
    for known, kept in [
        (SILHOUETTES, HELD_OUT_SILHOUETTES),
        (COLOURS, HELD_OUT_COLOURS),
        (TEXTURES, HELD_OUT_TEXTURES),
        (KINDS, HELD_OUT_KINDS),
    ]:
        assert not set(known) & set(kept)
    assert not set(MOTIONS) & set(HELD_OUT_MOTIONS)
    rng = np.random.default_rng(0)
    for shifted, forms, colours, textures in [
        (False, SILHOUETTES, COLOURS, TEXTURES),
        (True, HELD_OUT_SILHOUETTES, HELD_OUT_COLOURS, HELD_OUT_TEXTURES),
    ]:
        for _ in range(300):
            looks = choose_looks(rng, shifted)
            assert looks.silhouette in forms.values()
            assert looks.colour in colours
            assert looks.pattern in ("", *textures)


def test_train_captions_never_name_what_is_held_out():
    batch = MotionWorld(WorldConfig(size=16, frames=1, captions=8)).batch(range(400))
    words = {w for form in HELD_OUT_SILHOUETTES.values() for w in form.words} | {*HELD_OUT_COLOURS, *HELD_OUT_TEXTURES}
    texts = " ".join(c.lower() for row in batch.captions for c in row)
    found = [w for w in words - {"plus shape"} if re.search(rf"\b{w}\b", texts)]
    assert not found
    assert set(batch.motions) <= set(MOTIONS)


# ---------------------------------------------------------------- files


def test_a_data_set_on_disk_reads_back(tmp_path):
    motions = ("swipe right", "circle", "grow then shrink")
    write_dataset(tmp_path / "set", motions, 2, size=64, frames_per_clip=10, fps=10, seed=1, busy=0.0)
    catalog = read_catalog(tmp_path / "set")
    assert catalog.classes == ("draw a circle", "grow then shrink", "swipe right")
    assert catalog.counts() == [2, 2, 2]
    config = WorldConfig(64, 10, "shifted", motions, 0.0, captions=1, grid=1)
    drawn = MotionWorld(config, 1).clip(MEANING["circle"] << 32, "circle").video
    frames = read_frames(tmp_path / "set" / "circle" / "circle_000.mp4", np.arange(10) / 10)
    assert frames.shape == (10, 64, 64, 3)
    difference = np.abs(frames.astype(int) - drawn.transpose(0, 2, 3, 1))
    assert difference.mean() < 4
    bank = load_descriptions(
        tmp_path / "set" / "descriptions_s.json", tmp_path / "set" / "descriptions_t.json", catalog.classes
    )
    assert bank is not None
    assert bank.sentences("spatial") is not None
    assert bank.sentences("spatial")["draw a circle"] == descriptions("circle")[0]
    assert list(json.loads((tmp_path / "set" / "descriptions_t.json").read_text())) == ["0", "1", "2"]
    same = load_descriptions(None, None, catalog.classes, bank=tmp_path / "set" / "descriptions.json")
    assert (same.sentences("spatial"), same.sentences("temporal")) == (
        bank.sentences("spatial"),
        bank.sentences("temporal"),
    )


def test_the_same_seed_writes_the_same_files(tmp_path):
    for name in ("a", "b"):
        write_dataset(tmp_path / name, ["hug"], 1, size=32, frames_per_clip=6, seed=2)
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*.*")) for n in ("a", "b")]
    assert files[0] == files[1]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files[0])


def test_an_existing_folder_is_refused(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "precious.txt").write_text("!")
    with pytest.raises(MSTAError, match="exists already"):
        write_dataset(tmp_path / "set", ["circle"], 1, size=16, frames_per_clip=2)
    assert [p.name for p in tmp_path.rglob("*")] == ["set", "precious.txt"]


def test_a_failure_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MSTAError, match="cannot be written"):
        write_dataset(tmp_path / "file" / "set", ["circle"], 1, size=16, frames_per_clip=2)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"motions": ("swipe_lft",)}, r"motions: unknown motion 'swipe_lft'; the nearest known one is 'swipe left'"),
        ({"motions": ()}, "motions: expected at least one"),
        ({"motions": ("circle", "circle")}, "'circle' is there twice"),
        ({"motions": ("left then down",)}, "'left then down' is held out; only the shifted domain has it"),
        ({"size": 0}, "size: expected a whole number of at least 16, got 0"),
        ({"size": -64}, "size: "),
        ({"size": 64.0}, "size: "),
        ({"frames": 0}, "frames: expected a whole number of at least 1, got 0"),
        ({"captions": 0}, "captions: "),
        ({"grid": 7}, "grid: expected a divisor of the size 64, got 7"),
        ({"busy": 1.5}, "busy: expected a number from 0 to 1, got 1.5"),
        ({"busy": float("nan")}, "busy: "),
        ({"domain": "test"}, "domain: expected one of train, shifted, held-out, got 'test'"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        WorldConfig(**changes)


def test_wrong_requests_are_named(tmp_path):
    world = MotionWorld(WorldConfig(size=16))
    with pytest.raises(ConfigError, match="indices: expected at least one"):
        world.batch([])
    with pytest.raises(ConfigError, match="no negative number, got -1"):
        world.batch([-1])
    with pytest.raises(ConfigError, match="one for each of 2 clips, got 1"):
        world.batch([0, 1], ["circle"])
    with pytest.raises(ConfigError, match="unknown motion"):
        world.batch([0], ["juggle"])
    with pytest.raises(ConfigError, match="only the shifted domain has it"):
        world.batch([0], ["left then down"])
    with pytest.raises(ConfigError, match="seed: expected no negative number, got -1"):
        MotionWorld(seed=-1)
    for setting in ("clips_per_class", "fps", "sentences", "size", "frames_per_clip"):
        with pytest.raises(ConfigError, match=f"{setting.removesuffix('_per_clip')}.*: expected"):
            write_dataset(tmp_path / "set", ["circle"], **{"clips_per_class": 1, setting: 0})
    with pytest.raises(ConfigError, match="even"):
        write_dataset(tmp_path / "set", ["circle"], 1, size=33)
    assert not (tmp_path / "set").exists()


def test_names_cover_every_group():
    assert {*SHAPES, *MOVES} < set(MOTIONS)
    assert len(MOTIONS) >= 50


# ---------------------------------------------------------------- what is behind the motion


@pytest.mark.parametrize("exponent", [0.6, 1.0, 1.6])
def test_spectral_noise_falls_as_it_says(exponent):
    noise = np.mean([abs(np.fft.fft2(nature.spectral(np.random.default_rng(i), 64, exponent))) for i in range(40)], 0)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    inside = (frequency > 0.05) & (frequency < 0.45)
    slope, _ = np.polyfit(np.log(frequency[inside]), np.log(noise[inside]), 1)
    assert slope == pytest.approx(-exponent, abs=0.1)


@pytest.mark.parametrize("kind", [*nature.KINDS, *nature.HELD_OUT_KINDS])
def test_photographs_are_pictures_with_edges_at_many_scales(kind):
    pictures = [nature.photograph(kind, np.random.default_rng(i), 90, np.ones(3, np.float32)) for i in range(12)]
    assert all(p.shape == (3, 90, 90) and p.min() >= 0 and p.max() <= 1 for p in pictures)
    fine, coarse = ([np.abs(np.diff(p[:, ::step, ::step], axis=2)).mean() for p in pictures] for step in (1, 8))
    assert 0.002 < np.mean(fine) < np.mean(coarse)
    assert len({p.tobytes() for p in pictures}) == 12


def test_passers_by_are_of_no_interest():
    times = (np.arange(8) + 0.5) / 8
    layers = [layer for i in range(20) for layer in passers_by(np.random.default_rng(i), times)]
    assert {layer.owner for layer in layers} == {NOBODY}


def test_an_automatic_exposure_evens_out_the_light():
    """Frames that grow darker are lightened again, never beyond what the sensor can do."""
    frames = np.linspace(0.8, 0.2, 8, dtype=np.float32)[None, :, None, None] * np.ones((3, 8, 4, 4), np.float32)
    times = (np.arange(8) + 0.5) / 8
    gains = np.stack([_exposure(frames, np.random.default_rng(i), times) for i in range(60)])
    assert ((gains > 0.1) & (gains < 6)).all()
    assert (gains[:, -1] > gains[:, 0]).mean() > 0.6


def test_loose_timing_waits_or_is_cut_off():
    inside = (0.0, 0.0, 1.0, 1.0)
    paths = [
        draw("star", np.random.default_rng(i), size=(0.3, 0.8), inside=inside, idle=0.1, cut=0.5) for i in range(90)
    ]
    ends = np.array([path.moments[-1] for path in paths])
    assert (ends > 1).any()
    assert (ends < 0.85).any()
    assert all(np.isfinite(path.at(np.linspace(0, 1, 8))).all() for path in paths)
