"""Prompts: learned tokens between the tokens of the frozen towers. CoOp, VPT, IVLP and MaPLe do this.

With P_i the prompts of block i, [n, d], the sequence that enters block i is

    text    [ start, P_i, the rest of the text ]         P_1 takes the positions 1..n, the words move on by n
    video   [ class token, patches, P_i ]                of each frame if each has a class token, else of the clip

for the first ``depth`` blocks. The next block's prompts replace the outputs of this block's prompts; after the last of
these blocks the outputs are kept. A ``depth`` of 1 is shallow prompting.

    kind    trains                                     n    depth     ViT-B/16    from
    coop    text                                       16   1              8,192  Zhou et al., IJCV 2022
    vpt     video                                      10   all 12        92,160  Jia et al., ECCV 2022
    ivlp    both, by themselves                        10   all 12       153,600  Rasheed et al., CVPR 2023 (ViFi-CLIP)
    maple   text, and d_t -> d_v linear layers that     2   9 of 12    3,555,072  Khattak et al., CVPR 2023
            make the video's prompts of the text's

n and depth are those of the authors' code. VPT's depend on the data; here they are ViFi-CLIP's. Prompts start at random
with a standard deviation of 0.02, and MaPLe's first ones as the words "a photo of a". The learned prompts come before
the class name, as in the papers. Here the words of the template stay between them, so set ``data.template={}.`` for
CoOp as published. The adapted model does not start as the frozen one, because tokens are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from msta.adapters.method import MethodConfig
from msta.adapters.model import AdaptedModel
from msta.backbone.blocks import Block
from msta.backbone.dual_encoder import DualEncoder
from msta.backbone.layout import VideoLayout
from msta.backbone.prefix import Tokens
from msta.errors import ConfigError
from msta.methods.full import VIFI_CLIP

Kind = Literal["coop", "vpt", "ivlp", "maple"]
_TOKENS: dict[Kind, int] = {"coop": 16, "vpt": 10, "ivlp": 10, "maple": 2}


class PromptsConfig(MethodConfig):
    """Which prompts are learned.

    Args:
        kind: "coop", "vpt", "ivlp" or "maple", see above.
        tokens: n, prompts per block. Unset: 16, 10, 10, 2.
        depth: number of blocks with their own prompts. Unset: 1 for coop, three quarters of the blocks for maple, else
            all.
        first_block: where prompts enter, from 1. The blocks below are a frozen prefix, in which n copies of
            the start token hold the places of the text prompts.
        words: the first text prompts start as these words, which must have at least n tokens. Unset: "a photo of a"
            for maple (random, if n is larger), else random.
    """

    name: ClassVar[str] = "prompts"
    paper_overrides: ClassVar[dict[str, float]] = VIFI_CLIP | {"train.lr": 8e-3}
    kind: Kind = "ivlp"
    tokens: int | None = Field(None, ge=1)
    depth: int | None = Field(None, ge=1)
    first_block: int = Field(1, ge=1)
    words: str | None = None

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """Wrap the prompted blocks.

        Raises:
            ConfigError: more blocks than a prompted tower has, or more prompts than a text may have tokens; or the
                method does not support the backbone.
        """
        if self.kind != "vpt" and not backbone.text.causal:
            raise ConfigError(
                f"prompts: {self.kind} needs a text tower that is causal, as CLIP's, with a start token before the "
                "prompts; this backbone has none (kind=vpt prompts the video tower alone)"
            )
        if self.kind != "coop" and backbone.architecture.rotary:
            raise ConfigError(f"prompts: {self.kind} adds tokens, which have no place among rotary positions")
        view = backbone.view()
        tokens = self.tokens or _TOKENS[self.kind]
        if self.kind != "vpt" and tokens + 3 > view.text.context_length:
            raise ConfigError(f"method.tokens: {tokens} leave no room in texts of {view.text.context_length} tokens")
        adapter = nn.ModuleDict()
        text_blocks = self._prompted("text", len(view.text.blocks), len(view.video.blocks))
        video_blocks = self._prompted("video", len(view.video.blocks), len(view.text.blocks))
        if self.kind != "vpt":
            prompts = {i: _drawn(tokens, view.text.shape.width) for i in text_blocks}
            self._put_words(backbone, prompts[text_blocks[0]])
            adapter["text"] = nn.ParameterDict({str(i + 1): p for i, p in prompts.items()})
            positions = view.text.positional_embedding if self.first_block == 1 else None
            for i, prompt in prompts.items():
                view.text.blocks[i] = TextPrompts(view.text.blocks[i], prompt, positions)  # type: ignore[arg-type]
                positions = None  # of the first alone
        if self.kind != "coop":
            made: dict[int, nn.Module]
            if self.kind == "maple":
                coupled = {i: nn.Linear(view.text.shape.width, view.video.shape.width) for i in video_blocks}
                adapter["coupling"] = nn.ModuleDict({str(i + 1): layer for i, layer in coupled.items()})
                made = {i: Coupled(prompts[i], layer) for i, layer in coupled.items()}
            else:
                made = {i: Free(_drawn(tokens, view.video.shape.width)) for i in video_blocks}
                adapter["video"] = nn.ModuleDict({str(i + 1): prompt for i, prompt in made.items()})
            last = len(view.video.blocks) - 1
            for i in sorted({*video_blocks, last}):
                view.video.blocks[i] = VideoPrompts(
                    view.video.blocks[i],  # type: ignore[arg-type]
                    made.get(i),
                    tokens,
                    norm=view.video.ln_pre if i == 0 else None,
                    enter=i == video_blocks[0],
                    leave=i == last,
                )
        where = {"coop": "the text tower", "vpt": "the video tower"}.get(self.kind, "both towers")
        depth = len(video_blocks if self.kind == "vpt" else text_blocks)
        trains = f"{tokens} prompts ({self.kind}) in {depth} block(s) of {where}, from block {self.first_block} on"
        return PromptedModel(self, adapter, view, origin=backbone, trains=trains, tokens=tokens)

    def _prompted(self, name: str, blocks: int, others: int) -> range:
        """The blocks, from 0, of a tower that get prompts of their own."""
        if self.kind == "maple":
            blocks = min(blocks, others)
        free = blocks - self.first_block + 1
        unset = {"coop": 1, "maple": min(free, max(1, 3 * blocks // 4))}.get(self.kind, free)
        depth = self.depth or max(1, unset)
        used = {"coop": "text", "vpt": "video"}.get(self.kind, name) == name
        if used and depth > free:
            raise ConfigError(
                f"method.{'depth' if free > 0 else 'first_block'}: prompts in blocks "
                f"{self.first_block}..{self.first_block + depth - 1}, "
                f"but {self.kind} can prompt blocks 1..{blocks} of the {name} tower"
            )
        return range(self.first_block - 1, self.first_block - 1 + depth)

    @torch.no_grad()
    def _put_words(self, backbone: DualEncoder, prompt: nn.Parameter) -> None:
        words = "a photo of a" if self.words is None and self.kind == "maple" else self.words
        if not words:
            return
        ids = backbone.tokenize([words])
        if len(prompt) > int(backbone.text.end_of_text(ids)) - 1:
            if self.words is not None:
                raise ConfigError(
                    f"method.words: {words!r} has fewer than {len(prompt)} tokens; set method.tokens lower"
                )
            return  # MaPLe's code draws at random, too, if there are more prompts than words
        prompt.copy_(backbone.text.token_embedding.weight[ids[0, 1 : 1 + len(prompt)]])


def _drawn(tokens: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(tokens, width).normal_(std=0.02))


class Free(nn.Module):
    """Prompts of a block: [n, d]."""

    def __init__(self, prompt: nn.Parameter) -> None:
        super().__init__()
        self.prompt = prompt

    def forward(self) -> Tensor:
        """[n, d]."""
        return self.prompt


class Coupled(nn.Module):
    """MaPLe: a linear layer computes the video prompts [n, d_v] from the text prompts [n, d_t]."""

    def __init__(self, prompt: nn.Parameter, layer: nn.Linear) -> None:
        super().__init__()
        self.prompt, self.layer = prompt, layer

    def forward(self) -> Tensor:
        """[n, d_v]."""
        return self.layer(self.prompt)


class TextPrompts(nn.Module):
    """A text block whose tokens 1..n are prompts. It has a block's interface."""

    def __init__(self, block: Block, prompt: nn.Parameter, positions: nn.Parameter | None) -> None:
        super().__init__()
        self.block, self.prompt, self.positions = block, prompt, positions

    def forward(self, x: Tensor, layout: VideoLayout | None = None, query_index: Tensor | None = None) -> Tensor:
        """x [b, s, d] -> [b, s, d], or [b, 1, d] at positions ``query_index`` [b]."""
        n = len(self.prompt)
        prompt = self.prompt if self.positions is None else self.prompt + self.positions[1 : 1 + n]
        x = torch.cat((x[:, :1], prompt.to(x.dtype).expand(x.shape[0], -1, -1), x[:, 1 + n :]), dim=1)
        return self.block(x, layout, query_index)


class VideoPrompts(nn.Module):
    """A video block with prompts after its tokens. It has a block's interface.

    ``prompts`` is None in a last block without its own prompts. ``norm`` is the layer norm before the first block; its
    prompts go through it, as its tokens do. ``leave`` removes the prompts after the last block, so that the tokens have
    their usual layout.
    """

    mixes_frames = False

    def __init__(
        self, block: Block, prompts: nn.Module | None, tokens: int, norm: nn.Module | None, enter: bool, leave: bool
    ) -> None:
        super().__init__()
        self.block, self.prompts, self.norm = block, prompts, norm
        self.tokens, self.enter, self.leave = tokens, enter, leave

    def forward(self, x: Tensor, layout: VideoLayout | None = None, query_index: Tensor | None = None) -> Tensor:
        """x [b, s, d], or [b, s + n, d] after a prompted block -> [b, s + n, d], but [b, s, d] after the last block."""
        if self.prompts is not None:
            prompt = self.prompts()
            if self.norm is not None:
                prompt = self.norm(prompt)
            tokens = x if self.enter else x[:, : -self.tokens]
            x = torch.cat((tokens, prompt.to(x.dtype).expand(x.shape[0], -1, -1)), dim=1)
        x = self.block(x, layout, query_index)
        return x[:, : -self.tokens] if self.leave and query_index is None else x


class PromptedModel(AdaptedModel):
    """Makes room for text prompts: n more start tokens after a text's own. The first prompted block replaces them."""

    def __init__(
        self, config: PromptsConfig, adapter: nn.Module, backbone: DualEncoder, *, origin: DualEncoder, trains: str,
        tokens: int,
    ) -> None:  # fmt: skip
        super().__init__(config, adapter, backbone, origin, trains)
        self.room = 0 if config.kind == "vpt" else tokens

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """K strings -> int64 [K, L - n], cut so that the prompts fit into the context of L tokens."""
        return self.backbone.tokenizer(texts, self.backbone.text.context_length - self.room)

    def encode_text(self, token_ids: Tensor | Tokens) -> Tensor:
        """As in the base class. The ids may fill the context if their last n columns are padding.

        Raises:
            ValueError: with the prompts, a text is longer than the context.
        """
        return super().encode_text(token_ids if isinstance(token_ids, Tokens) else self._with_room(token_ids))

    def text_prefix(self, token_ids: Tensor) -> Tokens:
        """As in the base class."""
        return super().text_prefix(self._with_room(token_ids))

    def _with_room(self, ids: Tensor) -> Tensor:
        length = self.backbone.text.context_length - self.room
        if ids.shape[1] > length:
            if int(self.backbone.text.end_of_text(ids).max()) >= length:
                raise ValueError(f"a text has more than {length} tokens, all that {self.room} prompts leave")
            ids = ids[:, :length]
        return torch.cat((ids[:, :1], ids[:, :1].expand(-1, self.room), ids[:, 1:]), dim=1)
