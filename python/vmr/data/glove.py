"""Word vectors from a GloVe text file, and the words that they are looked up by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vmr.errors import InputError

_LONGEST_LINE = 2**16

# One-word contractions that count as two words.
_JOINED = {
    "cannot": ("can", "not"),
    "gimme": ("gim", "me"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "wanna": ("wan", "na"),
}

_WORD = r"[^\s.,:;?!\"'`@#$%&()\[\]{}<>’‘“”]"
_TOKEN = re.compile(
    rf"""
    \.{{2,}} | --+ | ``                 # an ellipsis, a dash, an opening quote
    | n't(?!\w)                         # the second half of "don't"
    | '(?:s|m|d|ll|re|ve)(?!\w)         # what "it's", "I'm" ... end with
    | (?:(?!n't(?!\w)|--)               # a word; its halves are what is above
         (?:{_WORD}
            | (?<=\w)\.(?=\w)           # u.s
            | (?<=\d)[,:](?=\d)         # 3,000 and 10:30
            | (?<=\w)'(?!(?:s|m|d|ll|re|ve|t)(?!\w))(?=\w)   # o'clock
         )
      )+
    | \S
    """,
    re.VERBOSE,
)


def tokenise(sentence: str) -> tuple[str, ...]:
    """The words of a sentence in lower case, much as the Penn Treebank counts them.

    "A man doesn't close the fridge's door." becomes a, man, does, n't, close, the, fridge, 's, door and
    a full stop. It stands in for NLTK's word_tokenize, whose sentence splitter is a trained model: here
    every full stop at the end of a word is a word of its own, after an abbreviation ("mr.") too.
    """
    words: list[str] = []
    for found in _TOKEN.finditer(sentence.strip().lower()):
        word = found[0]
        if word == '"':
            before = sentence.strip()[: found.start()]
            words.append("``" if not before or before[-1] in " ([{<" else "''")
        else:
            words.extend(_JOINED.get(word, (word,)))
    return tuple(words)


class GloveFile:
    """The vectors of the words that were asked for; the file is read for no others.

    Reading through glove.840B.300d.txt takes many seconds, so :meth:`load` all words that will be needed
    at once.

    Args:
        path: One word a line, then ``dim`` numbers, with one blank between.
        dim: Numbers a word.
    """

    def __init__(self, path: Path, dim: int) -> None:
        self.path = path
        self.dim = dim
        self._known: dict[str, npt.NDArray[np.float32]] = {}
        self._looked_for: set[str] = set()

    def load(self, words: Iterable[str]) -> None:
        """Reads the vectors of the words that were not looked for before.

        Lines with another number of fields are passed over, as the code bases do (a few words of
        glove.840B hold blanks); of a word that occurs twice the last line counts.

        Raises:
            InputError: The file is missing, or a needed line holds no finite numbers, or no line at all
                has ``dim`` numbers.
        """
        needed = {word.encode() for word in words} - {word.encode() for word in self._looked_for}
        if not needed:
            return
        fitting = False
        try:
            with self.path.open("rb") as file:
                number = 0
                while line := file.readline(_LONGEST_LINE):
                    number += 1
                    word, _, rest = line.strip().partition(b" ")
                    if fitting and word not in needed:
                        continue
                    if rest.count(b" ") != self.dim - 1:
                        continue
                    fitting = True
                    if word in needed:
                        self._known[word.decode(errors="replace")] = self._numbers(rest, number)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from None
        if not fitting:
            raise InputError(
                f"{self.path}: expected lines of a word and {self.dim} numbers, got none; the file must "
                "be GloVe's text, unpacked"
            )
        self._looked_for.update(word.decode() for word in needed)

    def __contains__(self, word: str) -> bool:
        """Whether the file holds the word."""
        self.load([word])
        return word in self._known

    def vectors(self, words: Iterable[str]) -> npt.NDArray[np.float32]:
        """[words, dim]; zeros for a word that the file lacks."""
        words = list(words)
        self.load(words)
        rows = np.zeros((len(words), self.dim), dtype=np.float32)
        for place, word in enumerate(words):
            if word in self._known:
                rows[place] = self._known[word]
        return rows

    def _numbers(self, rest: bytes, line: int) -> npt.NDArray[np.float32]:
        try:
            row = np.array([float(number) for number in rest.split(b" ")], dtype=np.float32)
        except ValueError:
            row = np.full(1, np.nan, dtype=np.float32)
        if not np.isfinite(row).all():
            raise InputError(f"{self.path}, line {line}: expected {self.dim} finite numbers")
        return row
