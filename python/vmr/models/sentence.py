"""What models share that compare frames with the sentence as one vector of the same space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import torch
from torch import Tensor

from vmr.errors import InputError
from vmr.models.base import ModelConfig, MomentModel
from vmr.models.layers.padding import row_mask
from vmr.progress import Progress, silent

if TYPE_CHECKING:
    from vmr.data.dataset import Batch, MomentDataset


class SentenceConfig(ModelConfig, frozen=True, kw_only=True):
    """What says where in the features the frames' vectors are.

    Attributes:
        source: Of the feature pack, whose columns lie in the sentence's space; None takes the one that
            is as wide as the sentence.
        first_column: Of the source; None where the video features are as wide as the sentence, and
            where fit finds it.
    """

    source: str | None = None
    first_column: int | None = None


class SentenceModel(MomentModel):
    """A model that reads one source of the features beside the sentence as one vector.

    ``text_dim`` is the number of columns of both.
    """

    config: SentenceConfig
    wants_pooled = True

    def sentences(self, batch: Batch) -> Tensor:
        """The sentences of a batch, [B, text_dim], whose features were looked at.

        Raises:
            InputError: The batch has no pooled sentences or features of another width, or there is NaN
                or an infinity in them.
        """
        if batch.pooled is None:
            raise InputError(
                f"{self.kind}: expected sentences as one vector; MomentDataset gives them with "
                "pooled=True, where the pack has pooled text"
            )
        widths = batch.video.shape[-1], batch.pooled.shape[-1]
        if widths != self.widths:
            raise InputError(
                f"{self.kind}: expected video features of {self.widths[0]} columns and sentences of "
                f"{self.widths[1]}, got {widths[0]} and {widths[1]}: it was made for other features"
            )
        self.check_finite(batch)
        return batch.pooled

    def source_columns(self, video: Tensor) -> slice:
        """The columns of video features [..., video_dim] that lie in the sentence's space.

        Raises:
            InputError: The model does not know them yet, or the features are too narrow.
        """
        dim, width = self.widths[1], video.shape[-1]
        if width == dim:
            return slice(0, dim)
        first = self.config.first_column
        if first is None or width < first + dim:
            raise InputError(
                f"{self.kind}: expected it to be fit on training queries or loaded first, or features "
                f"of {dim} columns alone; got {width}"
            )
        return slice(first, first + dim)

    def fit(self, dataset: MomentDataset, progress: Progress = silent) -> None:
        """Finds the columns of the source that lies in the sentence's space.

        Raises:
            InputError: No source, or more than one, fits the sentence.
        """
        first, _ = dataset.pack.columns_like(self.widths[1], self.config.source)
        self.config = msgspec.structs.replace(self.config, first_column=first)

    def check_finite(self, batch: Batch) -> None:
        """Refuses NaN and infinities: each would spread over its video.

        Raises:
            InputError: With the place of the first.
        """
        videos = {"": batch.video, "anchor ": batch.anchor_video}
        sentences = {"": batch.pooled, "anchor ": batch.anchor_pooled}
        sums = [part.sum() for part in (*videos.values(), *sentences.values()) if part is not None]
        if bool(torch.stack(sums).isfinite().all()):
            return
        rows = row_mask(batch.video_lengths, batch.video.shape[1])
        for place, query in enumerate(batch.queries):
            for which, video in videos.items():
                if video is None:
                    continue
                broken = ~video[place].isfinite().all(dim=-1) & rows[place]
                if bool(broken.any()):
                    row = int(broken.nonzero()[0])
                    raise InputError(
                        f"{self.kind}: expected finite features, got NaN or an infinity in {which}row "
                        f"{row} of video {query.video}"
                    )
            for which, sentence in sentences.items():
                if sentence is not None and not bool(sentence[place].isfinite().all()):
                    raise InputError(
                        f"{self.kind}: expected finite features, got NaN or an infinity in the {which}"
                        f"sentence of query {query.qid} on video {query.video}"
                    )
