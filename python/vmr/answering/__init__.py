"""A training-free system over a whole benchmark: the videos of an annotation file, into official jsonl.

A run over thousands of videos is stopped at some time. Each video's answers are appended to
``FILE.partial`` when they are there, ``FILE.run.json`` says what made them, and the same call goes on
where the last one stopped. The file gets its own name when every video had its turn.
"""

from __future__ import annotations

from vmr.answering.file import Unanswered
from vmr.answering.parts import Shard, find_videos
from vmr.answering.run import Outcome, answer_file, answers, clip_scores

__all__ = [
    "Outcome",
    "Shard",
    "Unanswered",
    "answer_file",
    "answers",
    "clip_scores",
    "find_videos",
]
