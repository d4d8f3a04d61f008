"""TextTower: a transformer over token ids, one token of which becomes the embedding; in CLIP the end-of-text token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msta.backbone.architecture import Architecture
from msta.backbone.blocks import Tower, pick


class TextTower(Tower):
    """A transformer over token ids, built as ``architecture`` says.

    With the pooling "end", the token at the first of ``eos_token_id`` becomes the embedding; or, if that is None, the
    token with the highest id in the text (OpenAI and ViCLIP, whose end-of-text token is the last in the vocabulary).
    """

    def __init__(self, architecture: Architecture) -> None:
        a, shape = architecture, architecture.text
        super().__init__(shape, a.causal)
        self.causal = a.causal
        self.context_length = a.context_length
        self.eos_token_id = a.eos_token_id
        self.pooling = a.text_pooling
        self.token_embedding = nn.Embedding(a.vocab_size, shape.width)
        self.positional_embedding = nn.Parameter(torch.zeros(a.context_length, shape.width))
        self.ln_final = nn.LayerNorm(shape.width, eps=shape.layer_norm_eps)
        self.proj = nn.Parameter(torch.zeros(shape.width, a.embed_dim))
        if a.text_projection == "linear":
            self.proj_bias = nn.Parameter(torch.zeros(a.embed_dim))

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids int64 [k, l], padded -> embeddings [k, embed_dim], not L2-normalised."""
        return self.pool(self.run(self.embed(token_ids)), token_ids)

    def check(self, token_ids: Tensor) -> None:
        """Refuse input that is not token ids.

        Raises:
            TypeError: not a tensor of whole numbers.
            ValueError: not [k, l], or longer than the context.
        """
        if not isinstance(token_ids, Tensor) or token_ids.is_floating_point():
            got = f"{token_ids.dtype} numbers" if isinstance(token_ids, Tensor) else f"a {type(token_ids).__name__}"
            raise TypeError(f"encode_text: expected token ids, int64 [texts, tokens], as tokenize gives, got {got}")
        if token_ids.ndim != 2 or not 1 <= token_ids.shape[1] <= self.context_length:
            raise ValueError(
                f"expected token ids [texts, 1..{self.context_length} tokens], got {list(token_ids.shape)}"
            )

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids [k, l] -> [k, l, d].

        If the tower is causal, any l up to the context length gives the same result, because padding is never seen.
        Otherwise padding counts, and l must be the context length, as in pretraining.

        Raises:
            TypeError, ValueError: see :meth:`check`.
        """
        self.check(token_ids)
        return self.token_embedding(token_ids) + self.positional_embedding[: token_ids.shape[1]]

    def pool(self, x: Tensor, token_ids: Tensor) -> Tensor:
        """Tokens after the last block [k, l, d] -> [k, embed_dim]."""
        return self.project(pick(x, self.end_of_text(token_ids)))

    def end_of_text(self, token_ids: Tensor) -> Tensor:
        """The position of the token that becomes the embedding of each text: int64 [k]."""
        if self.pooling == "last":
            return torch.full_like(token_ids[:, 0], token_ids.shape[1] - 1)
        if self.eos_token_id is None:
            return token_ids.argmax(dim=-1)
        return (token_ids == self.eos_token_id).int().argmax(dim=-1)

    def project(self, x: Tensor) -> Tensor:
        """The tokens at those positions [k, 1, d] -> [k, embed_dim]."""
        embedding = self.ln_final(x[:, 0]) @ self.proj
        return embedding + self.proj_bias if hasattr(self, "proj_bias") else embedding
