"""Word pieces: the words of a query as numbers (WordPiece, Schuster and Nakajima, 2012).

The vocabulary is learnt from captions by Hugging Face's `tokenizers`, and is the list of pieces
that a checkpoint holds: with the fixed rules here (BERT's: lower case, accents off, words and
punctuation apart) it is all that a query needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from tokenizers.trainers import WordPieceTrainer

__all__ = ["PAD", "START", "WordPieces", "learn_pieces"]

PAD: Final = 0
"""Id of what fills a text up."""

START: Final = 2
"""Id of what every text begins with."""

_SPECIAL: Final = ("[PAD]", "[UNK]", "[START]")
_LONGEST: Final = 1 << 14
"""Characters of a query that are looked at."""


def _tokenizer(pieces: Sequence[str]) -> Tokenizer:
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(WordPiece(vocab=vocabulary, unk_token=_SPECIAL[1]))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def learn_pieces(captions: Iterable[str], count: int) -> tuple[str, ...]:
    """A vocabulary of captions; the same captions give the same one.

    Args:
        captions: Texts.
        count: The most pieces, but letters alone and inside words are always among them.

    Returns:
        Id to piece. The first three are padding, the unknown word, and the start of a text.
    """
    texts = sorted(captions)
    learnt = _tokenizer(_SPECIAL)
    normal = learnt.normalizer.normalize_str
    letters = sorted({letter for text in texts for letter in normal(text) if not letter.isspace()})
    # Numbers of letters decide between equal pairs, and the trainer gives them as a hash table
    # has them; those of what is stated come first, in order.
    stated = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    trainer = WordPieceTrainer(
        vocab_size=max(count, len(stated)),
        special_tokens=stated,
        show_progress=False,
        min_frequency=1,
    )
    learnt.train_from_iterator(texts, trainer)
    known = learnt.get_vocab()
    return tuple(sorted(known, key=known.__getitem__))


class WordPieces:
    """Texts to numbers.

    Args:
        pieces: The vocabulary, see `learn_pieces`.
        length: n, to which texts are filled up or cut.
    """

    def __init__(self, pieces: Sequence[str], length: int) -> None:
        self.length = length
        self._tokenizer = _tokenizer(pieces)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Texts to ids, int32 [texts, n]: a start, pieces, padding."""
        ids = np.full((len(texts), self.length), PAD, np.int32)
        ids[:, 0] = START
        for row, found in zip(ids, self.encoded(texts), strict=True):
            kept = found[: self.length - 1]
            row[1 : 1 + len(kept)] = kept
        return ids

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Texts to the numbers of all their pieces, without start and padding."""
        cut = [text[:_LONGEST] for text in texts]
        return [found.ids for found in self._tokenizer.encode_batch(cut)]
