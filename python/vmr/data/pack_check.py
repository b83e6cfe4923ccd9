"""All that is odd about a feature pack, for the queries that want to use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from vmr.data.lines import read_document
from vmr.data.pack_problems import Level, PackError
from vmr.errors import InputError
from vmr.progress import Progress

if TYPE_CHECKING:
    from vmr.data.packs import FeaturePack
    from vmr.data.records import Query

_EXAMPLES = 5


class Finding(msgspec.Struct, frozen=True):
    """One kind of oddity.

    Attributes:
        level: "error": such videos or queries cannot be read; "warning": they can, and results will
            probably suffer; "note": good to know.
        kind: What it is, in few words.
        count: Videos or queries that it was found in.
        examples: Up to five of them.
        message: About the first.
    """

    level: Level
    kind: str
    count: int
    examples: tuple[str, ...]
    message: str


class PackCheck(msgspec.Struct, frozen=True):
    """What :meth:`vmr.FeaturePack.check` found.

    Attributes:
        pack: The pack's name.
        folder: Where its files lie.
        width: Columns of a video's features; None where no video could be read.
        queries, videos: How many were looked at.
        rows: Fewest and most rows of a video on disk; None where no video could be read.
        findings: Errors first.
    """

    pack: str
    folder: str
    width: int | None
    queries: int
    videos: int
    rows: tuple[int, int] | None
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether everything can be read."""
        return all(finding.level != "error" for finding in self.findings)

    def summary(self) -> str:
        """What a person reads."""
        size = "" if self.rows is None else f", {self.rows[0]} to {self.rows[1]} rows a video"
        width = "" if self.width is None else f", {self.width} columns"
        lines = [
            f"{self.pack} in {self.folder}: {self.queries} queries on {self.videos} videos{size}{width}"
        ]
        for finding in self.findings:
            more = ", ..." if finding.count > len(finding.examples) else ""
            examples = ", ".join(finding.examples) + more
            lines.append(f"  {finding.level}: {finding.kind}: {finding.count} ({examples})")
            lines.append(f"      {finding.message}")
        return "\n".join(lines if self.findings else [*lines, "  nothing odd"])


class _Tally:
    def __init__(self) -> None:
        self._found: dict[tuple[Level, str], tuple[dict[str, None], str]] = {}

    def add(self, level: Level, kind: str, subject: str, message: str) -> None:
        subjects, _ = self._found.setdefault((level, kind), ({}, message))
        subjects[subject] = None

    def error(self, error: InputError, subject: str) -> None:
        self.add(
            "error",
            error.kind if isinstance(error, PackError) else "unreadable",
            subject,
            str(error),
        )

    def findings(self) -> tuple[Finding, ...]:
        order: list[Level] = ["error", "warning", "note"]
        return tuple(
            Finding(level, kind, len(subjects), tuple(subjects)[:_EXAMPLES], message)
            for (level, kind), (subjects, message) in sorted(
                self._found.items(), key=lambda item: order.index(item[0][0])
            )
        )


def check_pack(pack: FeaturePack, queries: Sequence[Query], progress: Progress) -> PackCheck:
    """Reads every video and every text of the queries (see :meth:`vmr.FeaturePack.check`)."""
    tally = _Tally()
    durations = {query.video: query.duration for query in queries}
    totals: dict[str, int] = {}
    width = None
    for done, (vid, duration) in enumerate(durations.items(), 1):
        try:
            rows, totals[vid] = pack.read_video(vid, duration, tally.add)
        except InputError as error:
            tally.error(error, vid)
        else:
            width = rows.shape[1]
        progress("videos", done, len(durations))
    try:
        pack.prepare(queries)
    except InputError as error:
        tally.error(error, pack.name)
    else:
        for done, query in enumerate(queries, 1):
            _check_text(pack, query, tally)
            progress("queries", done, len(queries))
    _check_cut(pack, queries, totals, tally)
    _check_lengths(pack, totals, tally)
    return PackCheck(
        pack=pack.name,
        folder=str(pack.files.folder),
        width=width,
        queries=len(queries),
        videos=len(durations),
        rows=(min(totals.values()), max(totals.values())) if totals else None,
        findings=tally.findings(),
    )


def _check_text(pack: FeaturePack, query: Query, tally: _Tally) -> None:
    text = pack.spec.text
    try:
        if pack.spec.glove is not None:
            rows = pack.read_text(query, tally.add)
            unknown = [
                word for word, row in zip(pack.words(query), rows, strict=True) if not row.any()
            ]
            if unknown:
                tally.add(
                    "note", "unknown words", str(query.qid),
                    f"{', '.join(unknown)}: not in the GloVe file; their rows are zeros",
                )  # fmt: skip
        elif text is not None and text.key is not None:
            pack.read_text(query, tally.add)
        elif text is not None:
            pack.read_pooled_text(query, tally.add)
    except InputError as error:
        tally.error(error, str(query.qid))


def _check_cut(
    pack: FeaturePack, queries: Sequence[Query], totals: dict[str, int], tally: _Tally
) -> None:
    spec = pack.spec
    if spec.max_rows is None or spec.longer != "cut" or spec.seconds_per_row is None:
        return
    reach = spec.max_rows * spec.seconds_per_row
    for query in queries:
        if totals.get(query.video, 0) <= spec.max_rows:
            continue
        tally.add(
            "note", "cut videos", query.video,
            f"has {totals[query.video]} rows, of which {spec.max_rows} ({reach:g} s) are kept",
        )  # fmt: skip
        if query.windows and all(start >= reach for start, _ in query.windows):
            tally.add(
                "warning", "moments out of reach", str(query.qid),
                f"all its windows begin after the {reach:g} s that are kept of its video; raise "
                "`max_rows` to reach them",
            )  # fmt: skip


def _check_lengths(pack: FeaturePack, totals: dict[str, int], tally: _Tally) -> None:
    for name in pack.spec.sources:
        if (path := pack.files.lengths(name)) is None:
            continue
        try:
            lengths = msgspec.json.decode(read_document(path), type=dict[str, int])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            tally.add("warning", "lengths", path.name, f"{path}: is not {{video: rows}}: {error}")
            continue
        for vid, total in totals.items():
            if vid not in lengths:
                message = "is not in it; the code base that the pack is of leaves such a video out"
            elif lengths[vid] != total:
                message = f"has {total} rows, and by this file {lengths[vid]}"
            else:
                continue
            tally.add("warning", "lengths", vid, f"{path}: video {vid} {message}")
