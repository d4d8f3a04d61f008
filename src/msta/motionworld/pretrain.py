"""Pretrain the small backbone on MotionWorld: CLIP's loss, tube masking as in ViCLIP, and auxiliary heads.

Contrast alone leaves a small model at chance for tens of thousands of clips: nothing tells it to look for what moves.
So positions start as sine waves as strong as the patches, and auxiliary heads, which are dropped at the end, ask four
questions: whether the main thing is in a patch, and where it goes next (after half of the blocks), along which path it
went, and which motion it was (from the class token). Read top to bottom: settings, clips, model, loss, loop.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

from msta.adapters.inputs import backbone_format
from msta.adapters.model import class_logits
from msta.backbone.architecture import Architecture, VideoAttention
from msta.backbone.blocks import TowerShape
from msta.backbone.checkpoints import load_backbone
from msta.backbone.dual_encoder import DualEncoder, random_backbone
from msta.backbone.tokenizer import tokenizer_from_json
from msta.errors import ConfigError
from msta.files import read_json, replacing, write_bytes, write_json
from msta.motionworld import ALL_MOTIONS, MOTIONS, MotionWorld, WorldConfig, naming, same_meaning
from msta.motionworld.measure import measure
from msta.training.loop import lr_factor

# ---------------------------------------------------------------- settings

END = 1
"""Id of the end-of-text token: the second special token of the tokenizer that is trained here."""


CONTINUED = {"steps": 3000, "easy": 0.15, "easy_steps": 0, "lr": 6e-4, "warmup": 100}
"""What differs if a pretraining goes on from another backbone."""


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides the weights.

    Attributes:
        start: "" for random weights, or a backbone whose weights and tokenizer to begin with; its architecture must
            be this one's, but for the attention.
        attention: "joint", all patches of a clip, as in ViCLIP; "frame-wise", as in CLIP: the model then knows what
            each frame shows, and not their order.
        clips: how many are drawn, once; every step takes its batch from them.
        easy: share of them with plain backgrounds, which come first: see ``easy_steps``.
        steps: optimizer steps.
        easy_steps: the first steps, which see the easy clips alone; over as many again the others come in.
        batch: clips per step.
        lr: highest learning rate; warm-up, then half a cosine.
        keep: share of the patches kept in training, whole tubes through time; where more changes, more is kept.
        whole_steps: the last steps, which keep all patches, as a model does in use.
        whole_lr: the learning rate they begin with; it falls to zero in a straight line.
        ema: decay of the running mean of the weights, which is what is saved; shorter as a stage begins.
        captions: wordings per clip, one of which a step reads.
        width: of the video tower; a multiple of 64.
        save_every: steps between saved states and measurements, on ``measured`` clips a figure.
        precision: in which the towers and heads compute; weights, their mean and the losses are fp32.
        seed: of clips, weights, order and masks.
    """

    start: str = ""
    attention: VideoAttention = "joint"
    clips: int = 80_000
    easy: float = 0.25
    steps: int = 4_000
    easy_steps: int = 600
    batch: int = 96
    lr: float = 1e-3
    warmup: int = 150
    weight_decay: float = 0.05
    keep: float = 0.3125
    whole_steps: int = 160
    whole_lr: float = 2e-4
    ema: float = 0.998
    captions: int = 8
    vocab_size: int = 4096
    size: int = 64
    frames: int = 8
    patch: int = 8
    width: int = 128
    save_every: int = 200
    measured: int = 400
    precision: str = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "clips",
            "steps",
            "batch",
            "captions",
            "size",
            "frames",
            "patch",
            "width",
            "save_every",
            "measured",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if self.precision not in ("bf16", "fp32"):
            raise ConfigError(f"precision: expected bf16 or fp32, got {self.precision!r}")
        if not 0 <= self.whole_steps < self.steps:
            raise ConfigError(f"steps: expected more than the last {self.whole_steps}, got {self.steps}")

    @property
    def masked_steps(self) -> int:
        """Steps before the last ones, which keep all patches."""
        return self.steps - self.whole_steps

    def architecture(self) -> Architecture:
        """ViCLIP's, small: 3 M parameters, with exact GELU.

        QuickGELU is three passes over the widest activations where GELU is one, and at this width on a CPU memory is
        what a step waits for.
        """
        return Architecture(
            attention=self.attention,
            image_size=self.size,
            patch_size=self.patch,
            frames=self.frames,
            embed_dim=128,
            video=TowerShape(self.width, layers=6, heads=self.width // 32, mlp_width=4 * self.width, activation="gelu"),
            text=TowerShape(width=128, layers=6, heads=4, mlp_width=512, activation="gelu"),
            vocab_size=self.vocab_size,
            context_length=48,
            eos_token_id=END,
            pixel_mean=(0.5, 0.5, 0.5),
            pixel_std=(0.25, 0.25, 0.25),
            fit="squash",
        )


# ---------------------------------------------------------------- clips, drawn once and kept on disk

SHARD = 1000


def _draw_shard(folder: Path, number: int, config: PretrainConfig) -> None:
    """Clips number * SHARD and on, as one file; drawn aside, then renamed."""
    target = folder / f"{number:04d}.npz"
    if target.exists():
        return
    easy = number * SHARD < config.easy * config.clips
    world = MotionWorld(
        WorldConfig(config.size, config.frames, busy=0.25 if easy else 1.0, captions=config.captions), config.seed
    )
    batch = world.batch(range(number * SHARD, min((number + 1) * SHARD, config.clips)))
    with replacing(target) as aside, aside.open("wb") as file:
        np.savez(
            file,
            video=batch.video.numpy(),
            captions=np.array(json.dumps(batch.captions)),
            meaning=batch.meaning.numpy(),
            trajectory=batch.trajectory.numpy(),
            occupancy=(255 * batch.occupancy.numpy()).astype(np.uint8),
        )


class Pool:
    """All clips of a pretraining in memory: uint8 video and what the heads are asked for."""

    def __init__(self, folder: Path, config: PretrainConfig, workers: int, console: Console) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        numbers = range(math.ceil(config.clips / SHARD))
        start = time.perf_counter()
        jobs = ([folder] * len(numbers), numbers, [config] * len(numbers))
        if workers:
            context = get_context("spawn")
            with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as executor:
                list(executor.map(_draw_shard, *jobs))
        else:
            list(map(_draw_shard, *jobs))
        console.print(f"{config.clips} clips drawn in {time.perf_counter() - start:.0f} s")
        shards = [np.load(folder / f"{number:04d}.npz") for number in numbers]

        def column(name: str) -> Tensor:
            """All shards' arrays of a name, read one by one: the whole is in memory once."""
            first = shards[0][name]
            whole = np.empty((config.clips, *first.shape[1:]), first.dtype)
            for i, shard in enumerate(shards):
                whole[i * SHARD : (i + 1) * SHARD] = shard[name]
            return torch.from_numpy(whole)

        self.video = column("video")
        self.meaning = column("meaning")
        self.trajectory = column("trajectory")
        self.occupancy = column("occupancy")
        self.change = torch.cat([change(video, config.patch) for video in self.video.split(SHARD)])
        self.captions: list[list[str]] = [c for shard in shards for c in json.loads(str(shard["captions"]))]


def change(video: Tensor, patch: int) -> Tensor:
    """How much each patch changes over time, as its rank in its clip, 0..1: uint8 [B, T, 3, H, W] -> [B, N]."""
    spread = video.amax(1).int() - video.amin(1)
    rank = F.avg_pool2d(spread.sum(1, keepdim=True).float(), patch).flatten(1).argsort(1).argsort(1)
    return rank / (rank.shape[1] - 1)


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> str:
    """A byte-level BPE that knows every text (no unknowns), as the JSON of a tokenizer file."""
    hf = HFTokenizer(models.BPE())
    hf.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), normalizers.Strip()])
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    hf.train_from_iterator(texts, trainer)
    return hf.to_str()


# ---------------------------------------------------------------- model


class Pretrainer(nn.Module):
    """The dual encoder with the heads that help it learn."""

    def __init__(self, backbone: DualEncoder, frames: int) -> None:
        super().__init__()
        self.backbone = backbone
        width = backbone.architecture.video.width
        self.frames = frames
        self.middle = backbone.architecture.video.layers // 2
        self.where = nn.Linear(width, 3)
        places = frames if backbone.architecture.attention == "joint" else 1  # told by each class token
        self.path = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 2 * places))
        self.motion = nn.Linear(width, len(ALL_MOTIONS))

    def forward(self, video: Tensor, kept: Tensor) -> dict[str, Tensor]:
        """Video [B, T, 3, H, W] and kept patches [B, n] -> what the losses read.

        embedding [B, D]; of every kept patch, where [B, n, T, 3]: whether the thing is in it, and its shift to the
        next frame; path [B, T, 2]; motion [B, motions].
        """
        tower = self.backbone.video
        x, layout = tower.embed(video)
        x, layout = layout.keep(x, kept)
        x = tower.run(x, 0, self.middle, layout=layout)
        where = self.where(layout.over_time(x)[:, :, -layout.patches :]).transpose(1, 2)
        x = tower.run(x, self.middle, layout=layout)
        tokens = tower.ln_post(x[:, 0]).unflatten(0, (len(video), -1))  # one for the clip, or one for each frame
        out = {
            "embedding": tower.pool(x, layout),
            "where": where,
            "path": self.path(tokens).reshape(len(video), self.frames, 2),
            "motion": self.motion(tokens.mean(1)),
        }
        return {name: value.float() for name, value in out.items()}


class LowPrecision:
    """A copy of a model that computes in bf16 for it: weights go there before a step, gradients come back after it.

    Autocast would cast activations to and fro in every layer instead; on a CPU that costs what bf16 saves.
    """

    def __init__(self, model: Pretrainer) -> None:
        self.copy = copy.deepcopy(model).bfloat16()
        self.pairs = list(zip(model.parameters(), self.copy.parameters(), strict=True))

    @torch.no_grad()
    def refresh(self) -> Pretrainer:
        """The copy, with today's weights and no gradients."""
        for weight, low in self.pairs:
            low.copy_(weight)
            low.grad = None
        return self.copy

    def give_back(self) -> None:
        """Add the copy's gradients to the model's."""
        for weight, low in self.pairs:
            if low.grad is not None:
                grad = low.grad.float()
                weight.grad = grad if weight.grad is None else weight.grad + grad


@torch.no_grad()
def start_positions(backbone: DualEncoder) -> None:
    """Sine waves over x, y and t, as strong as the patch embedding, in place of small random positions."""
    tower = backbone.video
    width, grid = tower.shape.width, tower.grid

    def waves(count: int, channels: int) -> Tensor:
        angle = torch.arange(count)[:, None] * torch.exp(-math.log(50) * torch.arange(channels // 2) / (channels // 2))
        return torch.cat((angle.sin(), angle.cos()), dim=1)

    half = width // 2 // 2 * 2
    spatial = torch.zeros(grid, grid, width)
    spatial[:, :, : half // 2] = waves(grid, half // 2)[:, None]
    spatial[:, :, half // 2 : half] = waves(grid, half // 2)[None]
    tower.positional_embedding[1:] = spatial.flatten(0, 1)
    if tower.attention == "joint":
        frames = len(tower.temporal_positional_embedding)
        temporal = torch.zeros(frames, width)
        temporal[:, half:] = waves(frames, width - half)
        tower.temporal_positional_embedding.copy_(temporal)
    nn.init.normal_(tower.patch_embedding.weight, std=(3 * tower.patch_size**2) ** -0.5)


# ---------------------------------------------------------------- loss


def contrast(video: Tensor, text: Tensor, logit_scale: Tensor, meaning: Tensor) -> Tensor:
    """CLIP's symmetric loss; clips and captions of the same meaning are no negatives of each other."""
    logits = class_logits(video, text, logit_scale)
    same = same_meaning(meaning) & ~torch.eye(len(meaning), dtype=torch.bool)
    logits = logits.masked_fill(same, -torch.inf)
    target = torch.arange(len(video))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def named(video: Tensor, names: Tensor, logit_scale: Tensor, meaning: Tensor) -> Tensor:
    """Cross-entropy over one name of every motion [C, D]; one that could be said of the clip too is no negative."""
    logits = class_logits(video, names, logit_scale)
    same = same_meaning(meaning, torch.arange(len(names)))
    same[torch.arange(len(meaning)), meaning] = False
    return F.cross_entropy(logits.masked_fill(same, -torch.inf), meaning)


def losses(
    out: dict[str, Tensor], texts: Tensor, names: Tensor, pool: Pool, index: Tensor, kept: Tensor, logit_scale: Tensor
) -> dict[str, Tensor]:
    """Every term of the objective by name."""
    meaning = pool.meaning[index]
    occupancy = pool.occupancy[index].float().flatten(2).transpose(1, 2) / 255  # [B, N, T]
    occupancy = occupancy.gather(1, kept[..., None].expand(-1, -1, occupancy.shape[-1]))
    trajectory = pool.trajectory[index]
    off = (out["path"] - trajectory).abs().clamp_max(1)
    shift = (trajectory[:, 1:] - trajectory[:, :-1]).clamp(-0.5, 0.5)[:, None]  # [B, 1, T - 1, 2]
    missed = (10 * (out["where"][:, :, :-1, 1:] - shift)).abs().mean(-1).clamp_max(5)
    on = occupancy[..., :-1]
    return {
        "contrast": contrast(out["embedding"], texts, logit_scale, meaning),
        "name": named(out["embedding"], names, logit_scale, meaning),
        "where": F.binary_cross_entropy_with_logits(out["where"][..., 0], occupancy),
        "shift": (missed * on).sum() / on.sum().clamp_min(1),
        "path": off.mean(),
        "motion": F.cross_entropy(out["motion"], meaning, label_smoothing=0.05),
    }


WEIGHTS = {"contrast": 1.0, "name": 1.0, "where": 2.0, "shift": 0.2, "path": 4.0, "motion": 0.5}


# ---------------------------------------------------------------- loop


def pretrain(config: PretrainConfig, out: Path, console: Console, workers: int = 2) -> dict[str, float]:
    """Draw the clips, train, and save: ``out``/backbone (our own format, fp16, with settings and log), state.pt, pool/.

    Called again on the same ``out`` it goes on from the last saved step.

    Raises:
        ConfigError: ``out`` holds a pretraining with other settings, or ``config.start`` has another architecture.
        CheckpointError: ``config.start`` is no backbone.
    """
    settings = out / "config.json"
    if settings.exists() and read_json(settings, ConfigError) != asdict(config):
        raise ConfigError(f"{out}: holds a pretraining with other settings; choose another folder")
    start = _other_attention(load_backbone(config.start), config) if config.start else None
    out.mkdir(parents=True, exist_ok=True)
    write_json(settings, asdict(config))
    pool = Pool(out / "pool", config, workers, console)
    torch.manual_seed(config.seed)
    backbone = start or _random(config, pool, out / "tokenizer.json")
    model = Pretrainer(backbone.requires_grad_(True), config.frames)
    average = copy.deepcopy(backbone).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    step = 0
    state_file = out / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    ids = torch.stack([backbone.tokenize(captions) for captions in pool.captions])  # [clips, captions, L]
    easy = max(1, int(config.easy * config.clips))
    names = [naming(motion) for motion in MOTIONS]
    low = LowPrecision(model) if config.precision == "bf16" else None
    form = backbone_format(backbone)
    patches = (config.size // config.patch) ** 2
    count = max(1, round(config.keep * patches))
    started, first = time.perf_counter(), step
    measured: dict[str, float] = {}
    _forget_after(out / "log.jsonl", step)
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        while step < config.steps:
            rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
            index = torch.randint(easy, (config.batch,), generator=rng)
            if step > config.easy_steps:
                ready = torch.rand(config.batch, generator=rng) < step / max(1, config.easy_steps) - 1
                index = torch.where(ready, torch.randint(config.clips, (config.batch,), generator=rng), index)
            score = pool.change[index] + torch.rand(config.batch, patches, generator=rng)
            keep = count if step < config.masked_steps else patches
            kept = score.argsort(1, descending=True)[:, :keep].sort(1).values
            wording = torch.randint(config.captions, (config.batch,), generator=rng)
            said = [n[int(torch.randint(len(n), (), generator=rng))] for n in names]
            video = vary(pool.video[index].float() / 255, rng)
            _set_lr(optimizer, config, step)
            working = low.refresh() if low else model
            result = working(form.normalise(video).to(working.where.weight.dtype), kept)
            texts = working.backbone.encode_text(trim(ids[index, wording]))
            called = working.backbone.encode_text(trim(backbone.tokenize(said)))
            parts = losses(result, texts, called, pool, index, kept, backbone.logit_scale)
            loss = sum((WEIGHTS[name] * part for name, part in parts.items()), start=torch.zeros(()))
            optimizer.zero_grad()
            loss.backward()
            if low:
                low.give_back()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                backbone.logit_scale.clamp_(max=math.log(100))
                past = step if step < config.masked_steps else step - config.masked_steps
                decay = min(config.ema, (1 + past) / (10 + past))
                for mean, value in zip(average.parameters(), backbone.parameters(), strict=True):
                    mean.lerp_(value, 1 - decay)
            step += 1
            if step % 20 == 0:
                line = {"step": step, "lr": optimizer.param_groups[0]["lr"], "scale": backbone.logit_scale.exp().item()}
                line |= {name: round(part.item(), 4) for name, part in parts.items()}
                line["seconds"] = round((time.perf_counter() - started) / (step - first), 3)
                log.write(json.dumps(line) + "\n")
                log.flush()
            if step % config.save_every == 0 or step == config.steps:
                _save(state_file, model, average, optimizer, step)
                measured = measure(average, config.measured, config.seed)
                console.print(step, measured)
                log.write(json.dumps({"step": step, **measured}) + "\n")
    target = out / "backbone"
    if not target.exists():
        average.save(target, dtype=torch.float16)
        shutil.copy(settings, target / "pretraining.json")
        shutil.copy(out / "log.jsonl", target)
    return measured or measure(average, config.measured, config.seed)


def _random(config: PretrainConfig, pool: Pool, tokenizer_file: Path) -> DualEncoder:
    """Random weights, and a tokenizer of the captions."""
    if not tokenizer_file.exists():
        corpus = (text for captions in pool.captions for text in captions)
        write_bytes(tokenizer_file, train_tokenizer(corpus, config.vocab_size).encode())
    backbone = random_backbone(config.architecture(), config.seed)
    backbone.tokenizer = tokenizer_from_json(tokenizer_file.read_text(encoding="utf-8"))
    start_positions(backbone)
    backbone.logit_scale.fill_(math.log(1 / 0.07))
    return backbone


def _other_attention(start: DualEncoder, config: PretrainConfig) -> DualEncoder:
    """``start`` with the attention of the settings. A frame by itself has the mean of the places in time."""
    if replace(start.architecture, attention=config.attention) != config.architecture():
        raise ConfigError(f"start: {config.start} has another architecture than these settings")
    if start.architecture.attention == config.attention:
        return start
    if config.attention == "joint":
        raise ConfigError(f"start: {config.start} has no places in time, which joint attention needs")
    backbone = random_backbone(config.architecture(), config.seed)
    backbone.tokenizer = start.tokenizer
    weights = start.state_dict()
    in_time = weights.pop("video.temporal_positional_embedding").mean(0)
    weights["video.positional_embedding"] = torch.cat(
        (weights["video.positional_embedding"][:1], weights["video.positional_embedding"][1:] + in_time)
    )
    backbone.load_state_dict(weights)
    return backbone


def vary(video: Tensor, rng: torch.Generator) -> Tensor:
    """Light, tint, now and then grey, and a slight zoom, the same in all frames of a clip [B, T, 3, H, W] in 0..1.

    What the auxiliary heads are asked about is not zoomed; it moves by 0.09 of the frame at most, at the edges.
    """
    b = len(video)
    gain = 1 + 0.4 * (torch.rand(b, 1, 1, 1, 1, generator=rng) - 0.5)
    gain = gain * (1 + 0.3 * (torch.rand(b, 1, 3, 1, 1, generator=rng) - 0.5))
    shift = 0.3 * (torch.rand(b, 1, 1, 1, 1, generator=rng) - 0.5)
    zoom = 1 - 0.15 * torch.rand(b, generator=rng)
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    grid = F.affine_grid(theta, [b, 1, *video.shape[-2:]], align_corners=False)
    flat = F.grid_sample(video.flatten(1, 2), grid, align_corners=False, padding_mode="border")
    grey = torch.rand(b, generator=rng) < 0.15
    varied = flat.view_as(video)
    varied[grey] = varied[grey].mean(2, keepdim=True)
    return (varied * gain + shift).clamp_(0, 1)


def trim(ids: Tensor) -> Tensor:
    """Without the columns that are padding in every row."""
    return ids[:, : int((ids == END).int().argmax(1).max()) + 1]


def _set_lr(optimizer: torch.optim.Optimizer, config: PretrainConfig, step: int) -> None:
    if step < config.masked_steps:
        lr = config.lr * max(0.01, lr_factor(step, config.masked_steps, config.warmup))
    else:
        lr = config.whole_lr * (config.steps - step) / config.whole_steps
    for group in optimizer.param_groups:
        group["lr"] = lr


def _forget_after(log: Path, step: int) -> None:
    """Drop the lines that a stopped run wrote beyond the step it goes on from."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    write_bytes(log, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step).encode())


def _save(file: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
    }
    with replacing(file) as aside:
        torch.save(state, aside)
