"""Windows in seconds as points (first frame, last frame), and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vmr.models.layers.padding import row_mask

if TYPE_CHECKING:
    from vmr.data.dataset import Batch


def nearest_frames(windows: Tensor, row_seconds: Tensor, lengths: Tensor) -> Tensor:
    """The frames i to j whose time, from i to j + 1, has the largest IoU with a window.

    Each bound has two candidates, the frames' edges below and above it: between edges the IoU only grows
    towards one of them. Of equal ones the earliest counts.

    Args:
        windows: [..., 2] (start s, end s), of which something lies within the video.
        row_seconds: Seconds from one frame to the next; broadcast against the windows' leading sizes.
        lengths: Frames of the video; likewise.

    Returns:
        [..., 2] int64.
    """
    bounds = windows.double() / row_seconds[..., None].double()
    below = bounds.floor()
    starts = torch.stack((below[..., 0], below[..., 0] + 1), dim=-1)
    ends = torch.stack((below[..., 1], below[..., 1] + 1), dim=-1)
    start, end = starts[..., :, None], ends[..., None, :]
    # A candidate outside the video, or one that is empty, is moved to the nearest that is neither.
    last = lengths[..., None, None].double()
    start = start.clamp(min=0).minimum(last - 1).expand(*windows.shape[:-1], 2, 2)
    end = end.expand_as(start).minimum(last).maximum(start + 1)
    shared = end.minimum(bounds[..., 1, None, None]) - start.maximum(bounds[..., 0, None, None])
    whole = end.maximum(bounds[..., 1, None, None]) - start.minimum(bounds[..., 0, None, None])
    best = (shared.clamp(min=0) / whole).flatten(-2).argmax(dim=-1, keepdim=True)
    found = (start.flatten(-2).gather(-1, best), end.flatten(-2).gather(-1, best) - 1)
    return torch.cat(found, dim=-1).long()


def point_times(points: Tensor, row_seconds: Tensor) -> Tensor:
    """The time (start s, end s) of points: frames i to j are the time from i to j + 1.

    Args:
        points: [..., 2] first and last frame.
        row_seconds: Seconds from one frame to the next; broadcast against the points' leading sizes.
    """
    return (points + points.new_tensor([0, 1])) * row_seconds.float()[..., None]


def window_points(batch: Batch) -> tuple[Tensor, Tensor]:
    """The ground truth of a batch as points.

    A window of which nothing lies within the time that the features cover is left out.

    Returns:
        [P, 2] first and last frame, query after query, and [B + 1] where each query's begin and end.
    """
    extents = (batch.video_lengths * batch.row_seconds)[:, None, None]
    windows = batch.windows.float()
    here = row_mask(batch.window_counts, windows.shape[1])
    cut = windows.clamp(min=0).minimum(extents)
    here = here & (cut[..., 1] > cut[..., 0])
    found = nearest_frames(cut, batch.row_seconds[:, None], batch.video_lengths[:, None])
    counts = here.sum(dim=1)
    return found[here], torch.cat((counts.new_zeros(1), counts.cumsum(dim=0)))
