"""TextTower: CLIP's causal transformer, read at the end-of-text token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msta.backbone.blocks import Tower, TowerShape, pick


class TextTower(Tower):
    """A causal transformer over token ids.

    Args:
        shape: width, layers, heads …
        embed_dim: size of the embedding shared with video.
        vocab_size: number of tokens.
        context_length: longest text, in tokens.
        eos_token_id: where the text is read: at the first of these, or, if None, at the highest id in the text
            (OpenAI and ViCLIP, whose end of text is the last entry of the vocabulary).
    """

    def __init__(
        self,
        shape: TowerShape,
        embed_dim: int,
        vocab_size: int,
        context_length: int,
        eos_token_id: int | None,
    ) -> None:
        super().__init__(shape, causal=True)
        self.context_length = context_length
        self.eos_token_id = eos_token_id
        self.token_embedding = nn.Embedding(vocab_size, shape.width)
        self.positional_embedding = nn.Parameter(torch.zeros(context_length, shape.width))
        self.ln_final = nn.LayerNorm(shape.width, eps=shape.layer_norm_eps)
        self.proj = nn.Parameter(torch.zeros(shape.width, embed_dim))

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids int64 [k, l], zero-padded -> embeddings [k, embed_dim], not L2-normalised."""
        return self.pool(self.run(self.embed(token_ids)), token_ids)

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids [k, l] -> [k, l, d]. Any l up to the context length: the mask is causal, padding is never seen.

        Raises:
            ValueError: not [k, l], or longer than the context.
        """
        if token_ids.ndim != 2 or not 1 <= token_ids.shape[1] <= self.context_length:
            raise ValueError(
                f"expected token ids [texts, 1..{self.context_length} tokens], got {list(token_ids.shape)}"
            )
        return self.token_embedding(token_ids) + self.positional_embedding[: token_ids.shape[1]]

    def pool(self, x: Tensor, token_ids: Tensor) -> Tensor:
        """Tokens after the last block [k, l, d] -> [k, embed_dim]."""
        return self.project(pick(x, self.end_of_text(token_ids)))

    def end_of_text(self, token_ids: Tensor) -> Tensor:
        """Where each text is read: int64 [k]."""
        if self.eos_token_id is None:
            return token_ids.argmax(dim=-1)
        return (token_ids == self.eos_token_id).int().argmax(dim=-1)

    def project(self, x: Tensor) -> Tensor:
        """The tokens that are read, [k, 1, d] -> [k, embed_dim]."""
        return self.ln_final(x[:, 0]) @ self.proj
