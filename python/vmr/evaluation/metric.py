"""A metric that a training loop feeds batch by batch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vmr.data.records import Query
from vmr.errors import InputError
from vmr.evaluation.predictions import Prediction, as_predictions
from vmr.evaluation.protocols import protocol_named
from vmr.evaluation.scoring import Evaluation, check, evaluate


class MomentMetric:
    """Collects predictions with their ground truth, and scores them all at once.

    ::

        metric = vmr.MomentMetric("qvhighlights")
        for batch in loader:
            metric.update(predictions_of(model(batch)), batch.queries)
        print(metric.compute()["MR-full-mAP"])
        metric.reset()

    Where ``torch.distributed`` runs, :meth:`compute` gathers what all processes collected, so every
    process must call it; each then has the numbers of the whole. A query that several processes
    scored (a distributed sampler fills the last batch up with repeats) counts once.

    Args:
        protocol: One of :data:`vmr.evaluation.PROTOCOLS`; None for the one that fits the ground truth.
        as_published: See :func:`vmr.evaluate`.
        limit: See :func:`vmr.evaluate`.

    Raises:
        InputError: For an unknown protocol.
    """

    def __init__(
        self,
        protocol: str | None = None,
        *,
        as_published: bool = False,
        limit: float | None = None,
    ) -> None:
        if protocol is not None:
            protocol_named(protocol)
        self._protocol = protocol
        self._as_published = as_published
        self._limit = limit
        self._collected: dict[int | str, tuple[Prediction, Query]] = {}

    def __len__(self) -> int:
        """How many queries this process collected."""
        return len(self._collected)

    def update(
        self,
        predictions: Sequence[Prediction] | Sequence[Mapping[str, Any]],
        queries: Sequence[Query],
    ) -> None:
        """Adds a batch; a query that is there already gets the new prediction.

        Args:
            predictions: One a query, records or mappings in the official layout; windows [M, 3] and
                scores [clips] may be tensors.
            queries: Their ground truth, in the same order.

        Raises:
            InputError: Where the two do not go together, or for what :func:`vmr.evaluate` refuses;
                nothing of the batch is added then.
        """
        records, _ = as_predictions(predictions)
        if len(records) != len(queries):
            raise InputError(
                f"MomentMetric.update: expected one prediction a query, got {len(records)} for "
                f"{len(queries)}"
            )
        for record, query in zip(records, queries, strict=True):
            if record.qid != query.qid:
                raise InputError(
                    f"MomentMetric.update: expected predictions in the order of the queries, got "
                    f"{record.qid!r} for {query.qid!r}"
                )
        check(records, queries, self._protocol, self._as_published)
        for record, query in zip(records, queries, strict=True):
            self._collected[query.qid] = (record, query)

    def __call__(
        self,
        predictions: Sequence[Prediction] | Sequence[Mapping[str, Any]],
        queries: Sequence[Query],
    ) -> dict[str, float | None]:
        """Adds a batch, and gives the headline numbers of the batch alone."""
        self.update(predictions, queries)
        return evaluate(
            predictions,
            queries,
            protocol=self._protocol,
            as_published=self._as_published,
            limit=self._limit,
        ).brief

    def evaluate(self) -> Evaluation:
        """The whole evaluation of what all processes collected.

        Raises:
            InputError: Where nothing was collected, or as :func:`vmr.evaluate`.
        """
        collected: dict[int | str, tuple[Prediction, Query]] = {}
        for part in reversed(self._of_all_processes()):
            collected |= part
        if not collected:
            raise InputError("MomentMetric.compute: nothing was collected; call update first")
        # In one order, whoever collected what, so that sums round alike in all processes.
        pairs = [
            collected[qid]
            for qid in sorted(collected, key=lambda qid: (str(qid), type(qid).__name__))
        ]
        return evaluate(
            [record for record, _ in pairs],
            [query for _, query in pairs],
            protocol=self._protocol,
            as_published=self._as_published,
            limit=self._limit,
        )

    def compute(self) -> dict[str, float | None]:
        """The headline numbers by their official keys (see :attr:`Evaluation.brief`)."""
        return self.evaluate().brief

    def reset(self) -> None:
        """Forgets what was collected."""
        self._collected = {}

    def _of_all_processes(self) -> list[dict[int | str, tuple[Prediction, Query]]]:
        # Nobody can have begun a process group without having imported torch.
        torch = sys.modules.get("torch")
        if torch is None or not torch.distributed.is_available():
            return [self._collected]
        distributed = torch.distributed
        if not distributed.is_initialized():
            return [self._collected]
        gathered: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(gathered, self._collected)
        return gathered
