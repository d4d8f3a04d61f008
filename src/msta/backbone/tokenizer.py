"""Text to token ids: one small interface over CLIP's own BPE and Hugging Face tokenizer files.

Every tokenizer brackets a text with a start and an end token; ids are zero-padded to the tower's context length.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Regex as HFRegex
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, normalizers, pre_tokenizers
from torch import Tensor

from msta.errors import CheckpointError
from msta.notices import notice

CLIP_VOCAB_SIZE = 49408


class Tokenizer:
    """Turns texts into padded ids.

    Args:
        encode: one text -> its ids, without start and end.
        start: id of the start-of-text token.
        end: id of the end-of-text token.
        source: "clip", "folded", or the tokenizer file's content as JSON; what :meth:`DualEncoder.save` keeps.
    """

    def __init__(self, encode: Callable[[str], list[int]], start: int, end: int, source: str) -> None:
        self._encode = encode
        self.start = start
        self.end = end
        self.source = source

    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        """K texts -> int64 [K, context_length], zero-padded; a longer text loses its last words, never its end token.

        Raises:
            TypeError: a single string instead of a list.
        """
        if isinstance(texts, str):
            raise TypeError("tokenize takes a list of texts, got one string")
        ids = torch.zeros(len(texts), context_length, dtype=torch.int64)
        for row, text in zip(ids, texts, strict=True):
            tokens = self._encode(text)
            if len(tokens) > context_length - 2:
                notice(f"A text is longer than the backbone's {context_length} tokens and is cut: {text!r}")
                tokens = tokens[: context_length - 2]
            row[: len(tokens) + 2] = torch.tensor([self.start, *tokens, self.end])
        return ids

    def length(self, text: str) -> int:
        """Tokens of a text, start and end included, however long it is."""
        return len(self._encode(text)) + 2


@functools.cache
def _clip_encode() -> Callable[[str], list[int]]:
    """CLIP's BPE from the package instant-clip-tokenizer, or from the Hub where it has no wheel (Python >= 3.13)."""
    try:
        import instant_clip_tokenizer
    except ImportError:
        try:
            hub = HFTokenizer.from_pretrained("openai/clip-vit-base-patch32")
        except Exception as error:
            raise CheckpointError(
                "CLIP's tokenizer is neither installed (pip install instant-clip-tokenizer) nor reachable on the Hub: "
                f"{error}"
            ) from error
        return lambda text: hub.encode(text, add_special_tokens=False).ids
    encode: Callable[[str], list[int]] = instant_clip_tokenizer.Tokenizer().encode
    return encode


def clip_tokenizer(vocab_size: int = CLIP_VOCAB_SIZE) -> Tokenizer:
    """CLIP's BPE; the two special tokens are the last of the vocabulary.

    A checkpoint of another size has a vocabulary we do not have: ids are then folded into it, distinct words mostly
    staying distinct. That is enough for tests and tiny random models and means nothing to trained weights.
    """
    if vocab_size == CLIP_VOCAB_SIZE:
        return Tokenizer(_encode_clip, vocab_size - 2, vocab_size - 1, "clip")
    return Tokenizer(functools.partial(_encode_folded, vocab_size), vocab_size - 2, vocab_size - 1, "folded")


# Functions with names, so that a model that holds one can be pickled for another process.


def _encode_clip(text: str) -> list[int]:
    return _clip_encode()(text)


def _encode_folded(vocab_size: int, text: str) -> list[int]:
    notice(
        f"This backbone has {vocab_size} tokens, not CLIP's {CLIP_VOCAB_SIZE}, and brings no tokenizer: "
        "CLIP's ids are folded into its vocabulary."
    )
    return [1 + i % (vocab_size - 3) for i in _clip_encode()(text)]


def _encode_hf(tokenizer: HFTokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def tokenizer_from_json(content: str) -> Tokenizer:
    """A Hugging Face ``tokenizer.json``. Start and end are found under the names CLIP gives them."""
    hf = HFTokenizer.from_str(content)
    start, end = hf.token_to_id("<|startoftext|>"), hf.token_to_id("<|endoftext|>")
    if start is None or end is None:
        raise CheckpointError("the tokenizer lacks <|startoftext|> or <|endoftext|>")
    hf.no_padding()
    hf.no_truncation()
    return Tokenizer(functools.partial(_encode_hf, hf), start, end, hf.to_str())


def tokenizer_from_directory(directory: Path, vocab_size: int) -> Tokenizer:
    """The tokenizer of a Hugging Face CLIP directory: ``tokenizer.json``, else ``vocab.json`` and ``merges.txt``."""
    if (directory / "tokenizer.json").is_file():
        return tokenizer_from_json((directory / "tokenizer.json").read_text(encoding="utf-8"))
    vocab, merges = directory / "vocab.json", directory / "merges.txt"
    if not (vocab.is_file() and merges.is_file()):
        return clip_tokenizer(vocab_size)
    bpe = models.BPE.from_file(
        str(vocab),
        str(merges),
        end_of_word_suffix="</w>",
        continuing_subword_prefix="",
        unk_token="<|endoftext|>",
    )
    hf = HFTokenizer(bpe)
    hf.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(HFRegex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # CLIP's own pattern
    hf.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(HFRegex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer_from_json(hf.to_str())
