"""Pictures of results."""

from __future__ import annotations

from vmr.viz.timeline import key_frames, save_timeline, timeline

__all__ = ["key_frames", "save_timeline", "timeline"]
