"""Pictures of results, and the page that shows a run."""

from __future__ import annotations

from vmr.viz.figures import save_figure
from vmr.viz.page import save_page
from vmr.viz.scores import score_curves, similarity_map
from vmr.viz.timeline import key_frames, save_timeline, timeline

__all__ = [
    "key_frames",
    "save_figure",
    "save_page",
    "save_timeline",
    "score_curves",
    "similarity_map",
    "timeline",
]
