"""Pictures of results, and the page that shows a run."""

from __future__ import annotations

from vmr.viz.attention import frame_attention
from vmr.viz.distributions import cosine_distributions
from vmr.viz.figures import save_figure
from vmr.viz.maps import alignment_maps, moment_scores, similarity_map
from vmr.viz.page import save_page
from vmr.viz.scores import score_curves
from vmr.viz.timeline import key_frames, save_timeline, timeline

__all__ = [
    "alignment_maps",
    "cosine_distributions",
    "frame_attention",
    "key_frames",
    "moment_scores",
    "save_figure",
    "save_page",
    "save_timeline",
    "score_curves",
    "similarity_map",
    "timeline",
]
