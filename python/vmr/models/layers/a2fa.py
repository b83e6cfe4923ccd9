"""A2FA, the anchor-aware feature alignment of Tan et al. (CVPR 2025), equations 1 to 12."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr import ops
from vmr.errors import InputError
from vmr.models.layers.kept import Kept, may_keep
from vmr.models.layers.padding import check_lengths, row_mask, unit_rows, without_padding


class Frames(NamedTuple):
    """The frames of videos as A2FA takes them; all queries of a video share them.

    Attributes:
        features: [U, N, D], at length one where the module normalises.
        lengths: [U] frames of each video.
        gram: [U, N, N] their dot products.
    """

    features: Tensor
    lengths: Tensor
    gram: Tensor


class Alignment(NamedTuple):
    """How the frames of a video go together with a query.

    Attributes:
        videos: [B] the video that each query is about.
        queries: [B, D], at length one where the module normalises.
        anchors: [B] the anchor frame (eq. 2); the middle of an interval that was given.
        segments: [B, 2] first and last frame of the anchor-aware segment (eq. 5), both inside.
        relevance: [B, N] r (eq. 9); ones without reweighting, zeros in the padding.
        weights: [B, N] alpha (eq. 11); zeros outside the segment.
        dots: [B, N] of frames and query.
    """

    videos: Tensor
    queries: Tensor
    anchors: Tensor
    segments: Tensor
    relevance: Tensor
    weights: Tensor
    dots: Tensor

    @property
    def norms(self) -> Tensor:
        """[B] squared lengths of the queries."""
        return self.queries.square().sum(dim=-1)


class _Products(NamedTuple):
    """Products of A2FA's matrices: what multiplies a query or a pooled frame at once."""

    pool: Tensor | None
    relevance: Tensor | None
    match: Tensor | None


class A2FA(nn.Module):
    """Anchor-aware feature alignment: frames and a sentence go in, aligned frames come out.

    The frame that is most like the sentence is the anchor; around it, a segment of frames that go with
    it takes part in the alignment. A frame becomes

    ::

        v^a_i = alpha_i q + (1 - alpha_i) r_i v_i

    with its relevance r (eqs. 7 to 9) and its match with the sentence alpha (eq. 11), which is zero
    outside the segment. As a plug-in, call it in place of a model's own alignment. :meth:`frames`,
    :meth:`align` and :meth:`similarity` are its parts; the last gives the similarity of aligned frames
    without making them.

    Where nothing learns, products of its weights are kept between calls.

    Args:
        dim: D, columns of frames and sentences, which lie in one space, as CLIP's do.
        bias: Whether the learned maps have a bias; the paper's are matrices.
        normalize: Whether frames and sentences are brought to length one first. The paper does not say;
            without it, the lengths of the features count in eqs. 1, 7, 9 and 11.
        reach_end: Lets the segment reach the last frame. As eq. 4 stands it ends before it, because the
            last frame's similarity to itself, which is 1, counts on the right side only.
        reweight: Without it, r is 1 (the paper's Table 6).
        align: Without it, alpha is 0.
        relevance_scale: What w of eq. 9 begins with.

    Attributes:
        scale, shift: w and beta of eq. 9.

    Raises:
        InputError: ``dim`` is below 1.
    """

    def __init__(
        self,
        dim: int,
        *,
        bias: bool = False,
        normalize: bool = True,
        reach_end: bool = False,
        reweight: bool = True,
        align: bool = True,
        relevance_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if dim < 1:
            raise InputError(f"A2FA: dim: expected at least 1, got {dim}")
        self.dim, self.normalize, self.reach_end = dim, normalize, reach_end
        self.reweight, self.align_frames = reweight, align

        def learned(bias: bool = bias) -> nn.Linear:
            layer = nn.Linear(dim, dim, bias=bias)
            nn.init.xavier_uniform_(layer.weight)
            if bias:
                nn.init.zeros_(layer.bias)
            return layer

        if reweight:
            # A bias of the keys would add the same to all frames of a softmax.
            self.pool_query, self.pool_key = learned(), learned(bias=False)
            self.pool_value = learned()
            self.relevance_frame, self.relevance_pooled = learned(), learned()
            self.scale = nn.Parameter(torch.tensor(float(relevance_scale)))
            self.shift = nn.Parameter(torch.tensor(0.0))
        if align:
            self.alignment_frame, self.alignment_query = learned(), learned()
        self._products: Kept[_Products] = Kept()

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"dim={self.dim}, normalize={self.normalize}, reach_end={self.reach_end}, "
            f"reweight={self.reweight}, align={self.align_frames}"
        )

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        queries: Tensor,
        videos: Tensor | None = None,
        *,
        segments: Tensor | None = None,
        anchor_frames: Tensor | None = None,
        anchor_queries: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Aligned frames, and which of them are in the anchor-aware segment.

        Args:
            frames: [U, N, D] of U videos.
            lengths: [U] frames of each video, 1 to N; what lies beyond changes nothing.
            queries: [B, D] sentences as one vector each.
            videos: [B] the video that each query is about; None for one query a video, in order.
            segments: [B, 2] ready intervals in place of eqs. 1 to 5: first and last frame.
            anchor_frames: [U, N, E] features of another model that eqs. 1 to 5 read instead.
            anchor_queries: [B, E] its sentences; both or none.

        Returns:
            [B, N, D] aligned frames (eq. 12), zeros in the padding, and [B, N] truth values (eq. 6).

        Raises:
            InputError: Shapes do not go together.
        """
        video = self.frames(frames, lengths, gram=False)
        found = self.align(
            video,
            queries,
            videos,
            segments=segments,
            anchor_frames=anchor_frames,
            anchor_queries=anchor_queries,
        )
        aligned = self.aligned(video, found)
        places = torch.arange(frames.shape[1], device=frames.device)
        mask = (places >= found.segments[:, :1]) & (places <= found.segments[:, 1:])
        return aligned, mask

    # ---- the parts ------------------------------------------------------------------------------------

    def frames(self, features: Tensor, lengths: Tensor, *, gram: bool = True) -> Frames:
        """What all queries of a video share.

        Args:
            features: [U, N, D].
            lengths: [U] frames of each video, 1 to N.
            gram: Whether the Gram matrix is made, which :meth:`similarity` needs.

        Raises:
            InputError: The frames have another width.
        """
        if features.dim() != 3 or features.shape[-1] != self.dim:
            raise InputError(
                f"A2FA: frames: expected [U, N, {self.dim}], got {list(features.shape)}"
            )
        check_lengths("A2FA", lengths, features.shape[0])
        if self.normalize:
            mask = row_mask(lengths, features.shape[1])
            features = unit_rows(without_padding(features, mask))
        made = ops.gram_matrix(features, lengths) if gram else features.new_empty(0)
        return Frames(features, lengths, made)

    def align(
        self,
        frames: Frames,
        queries: Tensor,
        videos: Tensor | None = None,
        *,
        segments: Tensor | None = None,
        anchor_frames: Tensor | None = None,
        anchor_queries: Tensor | None = None,
    ) -> Alignment:
        """Anchor, segment, relevance and weights of each query (eqs. 1 to 9 and 11).

        The arguments are :meth:`forward`'s.

        Raises:
            InputError: Shapes do not go together.
        """
        videos = self._check(frames, queries, videos, segments, anchor_frames, anchor_queries)
        if self.normalize:
            queries = unit_rows(queries)
        if segments is not None:
            anchors = segments.sum(dim=1) // 2
        else:
            seen, asked = frames.features, queries
            if anchor_frames is not None and anchor_queries is not None:
                seen, asked = anchor_frames, anchor_queries
            anchors, segments = ops.anchor_segment(
                seen,
                asked,
                frames.lengths,
                videos,
                normalize=self.normalize,
                reach_end=self.reach_end,
            )
        kept = self._kept()
        vectors, offsets = self._relevance(frames, queries, segments, videos, kept)
        matches, match_offsets = self._matches(queries, kept)
        relevance, weights, dots = ops.frame_alignment(
            frames.features,
            queries,
            vectors,
            offsets,
            matches,
            match_offsets,
            segments,
            frames.lengths,
            videos,
            reweight=self.reweight,
            align=self.align_frames,
        )
        return Alignment(videos, queries, anchors, segments, relevance, weights, dots)

    def similarity(self, frames: Frames, found: Alignment) -> Tensor:
        """S^a: [B, N, N] cosines of a query's aligned frames; zeros in the padding."""
        return ops.aligned_similarity(
            frames.gram,
            found.dots,
            found.norms,
            found.relevance,
            found.weights,
            frames.lengths,
            found.videos,
        )

    def aligned(self, frames: Frames, found: Alignment) -> Tensor:
        """V^a: [B, N, D] aligned frames (eqs. 10 and 12); zeros in the padding."""
        return ops.aligned_frames(
            frames.features,
            found.queries,
            found.relevance,
            found.weights,
            frames.lengths,
            found.videos,
        )

    # ---- the learned maps, on the side of the query ---------------------------------------------------

    def _relevance(
        self,
        frames: Frames,
        queries: Tensor,
        segments: Tensor,
        videos: Tensor,
        kept: _Products | None,
    ) -> tuple[Tensor, Tensor]:
        """What a frame's dot product with, and one added to it, is the argument of eq. 9's tanh."""
        if not self.reweight:
            return queries, queries.new_zeros(queries.shape[0])
        ask, key, value = self.pool_query, self.pool_key, self.pool_value
        one, two = self.relevance_frame, self.relevance_pooled
        if kept is not None and kept.pool is not None and kept.relevance is not None:
            asked = F.linear(queries, kept.pool)
            pooled, _ = ops.attention_pool(frames.features, asked, segments, videos)
            return F.linear(pooled, kept.relevance), self.shift.expand(queries.shape[0])
        pooled, _ = ops.attention_pool(frames.features, ask(queries) @ key.weight, segments, videos)
        compared = two(value(pooled))
        offsets = self.shift.expand(queries.shape[0])
        if one.bias is not None:
            offsets = offsets + self.scale * (compared @ one.bias)
        return self.scale * (compared @ one.weight), offsets

    def _matches(self, queries: Tensor, kept: _Products | None) -> tuple[Tensor, Tensor]:
        """The same for eq. 11's sigmoid, whose frames are the reweighted ones."""
        zeros = queries.new_zeros(queries.shape[0])
        if not self.align_frames:
            return queries, zeros
        if kept is not None and kept.match is not None:
            return F.linear(queries, kept.match), zeros
        asked = self.alignment_query(queries)
        bias = self.alignment_frame.bias
        return asked @ self.alignment_frame.weight, zeros if bias is None else asked @ bias

    def _kept(self) -> _Products | None:
        """Products of the weights, where nothing learns and no map has a bias."""
        weights = list(self.parameters())
        if not weights or not may_keep(weights):
            return None
        if any(layer.bias is not None for layer in self.children()):
            return None
        return self._products.get("products", weights, self._multiply)

    def _multiply(self) -> _Products:
        pool = relevance = match = None
        if self.reweight:
            pool = self.pool_key.weight.T @ self.pool_query.weight
            compared = self.relevance_pooled.weight @ self.pool_value.weight
            relevance = self.scale * (self.relevance_frame.weight.T @ compared)
        if self.align_frames:
            match = self.alignment_frame.weight.T @ self.alignment_query.weight
        return _Products(pool, relevance, match)

    def _check(
        self,
        frames: Frames,
        queries: Tensor,
        videos: Tensor | None,
        segments: Tensor | None,
        anchor_frames: Tensor | None,
        anchor_queries: Tensor | None,
    ) -> Tensor:
        """Shapes that do not go together; gives ``videos``."""
        count, rows = frames.features.shape[:2]
        if queries.dim() != 2 or queries.shape[1] != self.dim:
            raise InputError(
                f"A2FA: queries: expected [B, {self.dim}], one vector a sentence, got "
                f"{list(queries.shape)}"
            )
        if videos is None:
            if queries.shape[0] != count:
                raise InputError(
                    f"A2FA: expected a query for each of {count} videos, or `videos` that says which "
                    f"video each is about; got {queries.shape[0]} queries"
                )
            videos = torch.arange(count, device=queries.device)
        elif videos.shape != queries.shape[:1]:
            raise InputError(
                f"A2FA: videos: expected [{queries.shape[0]}], got {list(videos.shape)}"
            )
        if segments is not None and segments.shape != (queries.shape[0], 2):
            raise InputError(
                f"A2FA: segments: expected [{queries.shape[0]}, 2], got {list(segments.shape)}"
            )
        # Elsewhere the look would wait for the device, or end up in the graph.
        if segments is not None and segments.is_cpu and not torch.compiler.is_compiling():
            first, last, own = segments[:, 0], segments[:, 1], frames.lengths[videos]
            wrong = (first < 0) | (first > last) | (last >= own)
            if bool(wrong.any()):
                place = int(wrong.nonzero()[0])
                raise InputError(
                    f"A2FA: segments: expected first and last frame, in order and within the video's "
                    f"{int(own[place])}, got {segments[place].tolist()} for query {place}"
                )
        if (anchor_frames is None) != (anchor_queries is None):
            raise InputError("A2FA: expected anchor_frames and anchor_queries together, got one")
        if anchor_frames is not None and anchor_queries is not None:
            wanted = [count, rows, anchor_queries.shape[-1]]
            if list(anchor_frames.shape) != wanted or anchor_queries.shape[0] != queries.shape[0]:
                raise InputError(
                    f"A2FA: anchor_frames and anchor_queries: expected [{count}, {rows}, E] and "
                    f"[{queries.shape[0]}, E], got {list(anchor_frames.shape)} and "
                    f"{list(anchor_queries.shape)}"
                )
        return videos
