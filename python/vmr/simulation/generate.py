"""From annotation files to a folder that trains and tests models as one of real features does."""

from __future__ import annotations

import itertools
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from vmr.backends import SentenceEncoder, load_sentence_encoder
from vmr.cache import Cache
from vmr.data.annotations import write_queries
from vmr.data.lines import read_document
from vmr.data.pack_spec import fill
from vmr.data.packs import load_pack
from vmr.data.records import Query, clipped
from vmr.encoding import SentenceVectors
from vmr.errors import InputError, VmrWarning
from vmr.progress import Progress, silent
from vmr.simulation.calibration import Calibration, calibrate
from vmr.simulation.classes import Classes, pseudo_classes, timeline_classes
from vmr.simulation.corpus import (
    TRAIN,
    Corpus,
    make_corpus,
    negative_queries,
    permuted_windows,
    read_split,
)
from vmr.simulation.folder import GLOVE, TEXT, VIDEO, Folder, fingerprint, packs
from vmr.simulation.narrations import GENERIC, Narration, Source, narrate
from vmr.simulation.parameters import Simulation
from vmr.simulation.queries import SHARED, QueryViews, view, words_of
from vmr.simulation.randomness import generator
from vmr.simulation.scenes import Track, make_track
from vmr.simulation.statistics import Report, measure, plain, shares_of
from vmr.simulation.vectors import Array, noise, unit

_NARRATIONS = "narrations.jsonl"
_NARRATED = "narration_features/{vid}.npz"
_REPORT = "report.json"


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a corpus is simulated from.

    Attributes:
        train: Annotations of the training split, of any layout that vmr reads.
        val: Of the validation split.
        tests: Of other splits, each named after its file.
        durations: Lengths of the videos for Charades-STA txt (:func:`vmr.read_queries`).
        timelines: Actions of the videos as in Charades' charades.json; None looks for that file where
            the durations of a Charades-STA txt are, and else makes pseudo-classes.
        narrations: What other annotators said of the videos.
        queries: At least so many training queries, of whole videos; None takes all.
        other_queries: The same for each other split; None takes the share that ``queries`` takes.
    """

    train: Path
    val: Path | None = None
    tests: tuple[Path, ...] = ()
    durations: Path | None = None
    timelines: Path | None = None
    narrations: Path | None = None
    queries: int | None = None
    other_queries: int | None = None

    def splits(self) -> dict[str, Path]:
        """The files by split.

        Raises:
            InputError: Two have one name.
        """
        found = {TRAIN: self.train}
        if self.val is not None:
            found["val"] = self.val
        for test in self.tests:
            name = test.stem if len(self.tests) > 1 else "test"
            if name in found or name in ("narrations", "negatives"):
                raise InputError(
                    f"{test}: a test split is named after its file, and {name!r} is taken; copy it "
                    "under another name"
                )
            found[name] = test
        return found

    def found_timelines(self) -> Path | None:
        """The timelines, named or beside a Charades-STA txt."""
        if self.timelines is not None or self.train.suffix != ".txt":
            return self.timelines
        beside = self.durations or self.train.with_name("charades.json")
        return beside if beside.is_file() and b'"actions"' in read_document(beside) else None


def simulate(
    inputs: Inputs,
    out: str | os.PathLike[str],
    simulation: Simulation | None = None,
    *,
    encoders: tuple[SentenceEncoder, SentenceEncoder] | None = None,
    cache: Cache | None = None,
    progress: Progress = silent,
) -> Report:
    """Makes a simulated corpus, or goes on where it was stopped.

    The folder gets the queries (train.jsonl, val.jsonl, ...), a feature pack (pack.yaml; with word
    vectors instead of tokens pack-glove.yaml), narrations, negatives, simulation.yaml that says how it
    was made, and report.json that says what it is like. docs/simulated-corpora.md tells how.

    Args:
        inputs: The files, and how much of them.
        out: The folder.
        simulation: The parameters; None takes the defaults.
        encoders: What the videos' latents are made of, and what queries are seen through; None takes
            MiniLM and multilingual-e5-small.
        cache: Where sentence vectors are kept.
        progress: Is told how far each stage is.

    Returns:
        What report.json holds. A share of hits that could not be reached is also a
        :class:`vmr.VmrWarning`.

    Raises:
        InputError: A file is not right, or the folder holds something else.
        BackendError: A model is not installed.
        CacheError: A file cannot be written.
    """
    simulation = simulation or Simulation()
    paths = inputs.splits()
    if encoders is None:
        from vmr.backends.e5 import E5Small

        encoders = load_sentence_encoder("embedded"), E5Small()
    timelines = inputs.found_timelines()
    witnesses = () if inputs.narrations is None else read_split(inputs.narrations, inputs.durations)
    corpus = make_corpus(
        {split: read_split(path, inputs.durations) for split, path in paths.items()},
        simulation,
        queries=inputs.queries,
        other_queries=inputs.other_queries,
        witnesses=witnesses,
    )
    named = {**paths, "timelines": timelines, "narrations": inputs.narrations}
    claim = {
        "about": corpus.about,
        "parameters": msgspec.to_builtins(simulation),
        "inputs": {name: fingerprint(path) for name, path in named.items() if path is not None},
        "encoders": {"latents": encoders[0].name, "queries": encoders[1].name},
    }
    return _Run(corpus, timelines, Folder(out, claim), simulation, encoders, cache, progress).run()


class _Run:
    """A simulation under way."""

    def __init__(
        self,
        corpus: Corpus,
        timelines: Path | None,
        folder: Folder,
        simulation: Simulation,
        encoders: tuple[SentenceEncoder, SentenceEncoder],
        cache: Cache | None,
        progress: Progress,
    ) -> None:
        self._corpus = corpus
        self._folder = folder
        self._simulation = simulation
        self._progress = progress
        self._train = [query.text for query in corpus.splits[TRAIN]]
        self._seen = SentenceVectors(encoders[0], cache, progress)
        self._read = SentenceVectors(encoders[1], cache, progress)
        self._encode()
        self._mean = self._seen.rows(self._train).mean(axis=0)
        latents = self._latents(self._train)
        self._pseudo = timelines is None
        self._classes = self._classified(timelines, latents)
        self._views = QueryViews(self._read, self._train, latents, simulation)
        self._frames = view(simulation, "frames", SHARED, latents.shape[1], simulation.dim)
        self._told = view(simulation, "narrations", "narrations", latents.shape[1], simulation.dim)
        self._lengths = np.array(
            [
                end - start
                for query in corpus.splits[TRAIN]
                for start, end in clipped(query.windows or (), query.duration)
            ]
        )
        if not len(self._lengths):
            raise InputError(f"{TRAIN}: expected windows within the videos, got none")

    def _encode(self) -> None:
        """All sentences and words. What others say must not move the training sentences' vectors."""
        rest = [timed.text for said in self._corpus.scenes.values() for timed in said]
        told = [timed.text for said in self._corpus.witnesses.values() for timed in said]
        asked = [query.text for part in self._corpus.splits.values() for query in part]
        self._seen.add(self._train, "training sentences")
        self._seen.add(GENERIC, "narrations")
        self._seen.add(told, "narrations")
        self._seen.add(rest, "sentences")
        self._read.add(self._train, "training queries")
        self._read.add(sorted(words_of(self._train)), "words of training queries")
        self._read.add(asked, "queries")
        self._read.add(sorted(words_of(asked)), "words")

    def _latents(self, texts: Sequence[str]) -> Array:
        return unit(self._seen.rows(texts) - self._mean)

    def _classified(self, timelines: Path | None, latents: Array) -> Classes:
        if timelines is not None:
            return timeline_classes(self._corpus, self._train, latents, timelines)
        known = set(self._train)
        others = {text: self._latents([text])[0] for text in self._seen if text not in known}
        return pseudo_classes(self._corpus, self._train, latents, others, self._simulation)

    def run(self) -> Report:
        """Writes what is not there yet."""
        folder, simulation, corpus = self._folder, self._simulation, self._corpus
        folder.claim()
        for name, text in packs(simulation, corpus.about, folder.identity).items():
            folder.write(name, text)
        splits = self._write_splits()
        calibration = calibrate(
            corpus.splits[TRAIN], self._track, self._frames, self._views, simulation, self._progress
        )
        if not calibration.in_reach:
            few = self._pseudo and 20 * simulation.classes > len(self._train)
            advice = "; fewer `classes` may help so few sentences" if few else ""
            warnings.warn(
                f"hit={simulation.hit:g} is out of reach: of {calibration.queries} training queries "
                f"{calibration.hit:.3f} have their most similar frame in the ground truth{advice}",
                VmrWarning,
                stacklevel=3,
            )
        lines = self._write_videos(calibration)
        self._write_text()
        sources: list[Source] = [line.source for line in lines]
        pack = load_pack(folder.path)
        report = Report(
            about=corpus.about,
            parameters=simulation,
            calibration=calibration,
            splits={
                split: measure(queries, split, pack, simulation, self._progress)
                for split, queries in splits.items()
            },
            narrations=len(lines),
            sources=shares_of(sources),
        )
        folder.write(_REPORT, json.dumps(plain(report), indent=1) + "\n")
        return report

    def _write_splits(self) -> Mapping[str, tuple[Query, ...]]:
        """The queries as models see them, and their negatives."""
        seed, null = self._simulation.seed, self._simulation.null
        splits = dict(self._corpus.splits)
        negatives: list[str] = []
        for split, queries in splits.items():
            if null == "windows":
                splits[split] = permuted_windows(queries, seed, split)
            write_queries(self._folder.path / f"{split}.jsonl", splits[split])
            found = negative_queries(splits[split], seed, split, unrelated=null == "negatives")
            negatives += [
                json.dumps({"qid": qid, "neg_query_ids": others}) for qid, others in found.items()
            ]
        self._folder.write("negatives.jsonl", "\n".join(negatives) + "\n")
        return splits

    def _track(self, video: str) -> Track:
        duration = self._corpus.durations[video]
        return make_track(video, duration, self._classes, self._lengths, self._simulation)

    def _write_videos(self, calibration: Calibration) -> list[Narration]:
        """Frames and narrations of all videos."""
        durations = self._corpus.durations
        asked: dict[str, list[str]] = {video: [] for video in durations}
        for query in itertools.chain.from_iterable(self._corpus.splits.values()):
            asked[query.video].append(query.text)
        lines: list[Narration] = []
        for done, (video, duration) in enumerate(durations.items(), 1):
            track = self._track(video)
            said = self._corpus.witnesses.get(video, ())
            told, whole = narrate(
                video, duration, track, self._classes, said, asked[video], self._simulation
            )
            lines += told
            frames, narrated = fill(VIDEO, vid=video), fill(_NARRATED, vid=video)
            if not self._folder.has(frames):
                self._folder.save(
                    frames, features=self._frames(track.latents(calibration.strength))
                )
            if not self._folder.has(narrated):
                times = np.array([line.time for line in told])
                self._folder.save(narrated, features=self._narrated(video, whole), times=times)
            self._progress("videos", done, len(durations))
        if not self._folder.has(_NARRATIONS):
            encoded = [msgspec.json.encode(line).decode() for line in lines]
            self._folder.write(_NARRATIONS, "\n".join(encoded) + "\n")
        return lines

    def _narrated(self, video: str, texts: Sequence[str]) -> Array:
        """Features of narrations [n, dim]."""
        rng = generator(self._simulation.seed, "narration noise", video)
        latents = self._latents(texts)
        by = np.float32(self._simulation.narration_noise)
        return self._told(unit(latents + by * noise(rng, *latents.shape)))

    def _write_text(self) -> None:
        """Text features of all queries, and the word vectors."""
        queries = [query for part in self._corpus.splits.values() for query in part]
        for done, query in enumerate(queries, 1):
            name = fill(TEXT, qid=query.qid)
            if not self._folder.has(name):
                arrays: dict[str, Any] = {
                    "last_hidden_state": self._views.tokens(query),
                    "pooler_output": self._views.pooled(query),
                }
                self._folder.save(name, **arrays)
            self._progress("queries", done, len(queries))
        if not self._folder.has(GLOVE):
            words = sorted(words_of(query.text for query in queries))
            rows = self._views.word_vectors(words)
            lines = [
                f"{word} {' '.join(f'{value:.5f}' for value in row)}"
                for word, row in zip(words, rows, strict=True)
            ]
            self._folder.write(GLOVE, "\n".join(lines) + "\n")
