"""All that is odd about a feature pack, for the queries that want to use it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec

from vmr.data.arrays import MissingKeyError
from vmr.data.pack_problems import Level, Notice, PackError
from vmr.errors import InputError
from vmr.progress import Progress

if TYPE_CHECKING:
    from vmr.data.packs import FeaturePack
    from vmr.data.records import Query

_EXAMPLES = 5

Where = Literal["video", "query", "pack"]
_NAMES = {"video": ("video", "videos"), "query": ("query", "queries"), "pack": ("pack", "packs")}


class Finding(msgspec.Struct, frozen=True):
    """One kind of oddity.

    Attributes:
        level: "error": such videos or queries cannot be read; "warning": they can, and results will
            probably suffer; "note": good to know.
        kind: What it is, in few words.
        found_in: What is counted.
        count: How many of them have it.
        examples: Names of up to five of them.
        message: About the first.
    """

    level: Level
    kind: str
    found_in: Where
    count: int
    examples: tuple[str, ...]
    message: str


class PackCheck(msgspec.Struct, frozen=True):
    """What :meth:`vmr.FeaturePack.check` found.

    Attributes:
        pack: The pack's name.
        folder: Where its files lie.
        width: Columns of a video's features; None where no video could be read.
        columns: What they are, in their order: sources and TEF, each with its columns.
        queries, videos: How many were looked at.
        rows: Fewest and most rows of a video on disk; None where no video could be read.
        findings: Errors first.
    """

    pack: str
    folder: str
    width: int | None
    columns: tuple[tuple[str, int], ...]
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
        lines = [
            f"{self.pack} in {self.folder}: {_count(self.queries, 'query')} on "
            f"{_count(self.videos, 'video')}"
        ]
        if self.rows is not None:
            least, most = self.rows
            order = " + ".join(f"{name} {width}" for name, width in self.columns)
            lines.append(
                f"  {least if least == most else f'{least} to {most}'} rows a video, "
                f"{self.width} columns: {order}"
            )
        for finding in self.findings:
            more = ", ..." if finding.count > len(finding.examples) else ""
            named = "qid " if finding.found_in == "query" else ""
            lines.append(
                f"  {finding.level}: {finding.kind}: {_count(finding.count, finding.found_in)} "
                f"({named}{', '.join(finding.examples)}{more})"
            )
            lines.append(f"      {finding.message}")
        return "\n".join(lines if self.findings else [*lines, "  nothing odd"])


def _count(count: int, of: Where) -> str:
    return f"{count:,} {_NAMES[of][count != 1]}"


class _Tally:
    def __init__(self) -> None:
        self._found: dict[tuple[Level, str, Where], tuple[dict[str, None], str]] = {}

    def about(self, where: Where) -> Notice:
        """What is told of what is odd about a video, or about a query."""
        return partial(self._add, where)

    def _add(self, where: Where, level: Level, kind: str, subject: str, message: str) -> None:
        subjects, _ = self._found.setdefault((level, kind, where), ({}, message))
        subjects[subject] = None

    def error(self, error: InputError, where: Where, subject: str) -> None:
        kind = error.kind if isinstance(error, PackError) else "unreadable"
        self._add(where, "error", kind, subject, str(error))

    def findings(self) -> tuple[Finding, ...]:
        order: list[Level] = ["error", "warning", "note"]
        return tuple(
            Finding(level, kind, where, len(subjects), tuple(subjects)[:_EXAMPLES], message)
            for (level, kind, where), (subjects, message) in sorted(
                self._found.items(), key=lambda item: order.index(item[0][0])
            )
        )


def check_pack(pack: FeaturePack, queries: Sequence[Query], progress: Progress) -> PackCheck:
    """Reads every video and every text of the queries (see :meth:`vmr.FeaturePack.check`)."""
    tally = _Tally()
    # A video that queries give two durations is held against each.
    durations = dict.fromkeys((query.video, query.duration) for query in queries)
    totals: dict[str, int] = {}
    width = None
    for done, (vid, duration) in enumerate(durations, 1):
        try:
            rows, totals[vid] = pack.read_video(vid, duration, tally.about("video"))
        except InputError as error:
            tally.error(error, "video", vid)
        else:
            width = rows.shape[1]
        progress("videos", done, len(durations))
    try:
        pack.prepare(queries)
    except InputError as error:
        tally.error(error, "pack", pack.name)
    else:
        for done, query in enumerate(queries, 1):
            _check_text(pack, query, tally)
            progress("queries", done, len(queries))
    _check_cut(pack, queries, totals, tally)
    return PackCheck(
        pack=pack.name,
        folder=str(pack.files.folder),
        width=width,
        columns=pack.widths if width is not None else (),
        queries=len(queries),
        videos=len({vid for vid, _ in durations}),
        rows=(min(totals.values()), max(totals.values())) if totals else None,
        findings=tally.findings(),
    )


def _check_text(pack: FeaturePack, query: Query, tally: _Tally) -> None:
    text = pack.spec.text
    notice = tally.about("query")
    try:
        if pack.spec.glove is not None:
            rows = pack.read_text(query, notice)
            unknown = [
                word for word, row in zip(pack.words(query), rows, strict=True) if not row.any()
            ]
            if unknown:
                notice(
                    "note", "unknown words", str(query.qid),
                    f"{', '.join(unknown)}: not in the GloVe file; their rows are zeros",
                )  # fmt: skip
        if text is not None and text.key is not None:
            pack.read_text(query, notice)
            if text.pooled_key is not None:
                _check_pooled(pack, query, notice)
        elif text is not None:
            pack.read_pooled_text(query, notice)
    except InputError as error:
        tally.error(error, "query", str(query.qid))


def _check_pooled(pack: FeaturePack, query: Query, notice: Notice) -> None:
    """The sentence's vector beside the tokens, which not all files have and few models need."""

    def odd(level: Level, kind: str, subject: str, message: str) -> None:
        # Most such vectors have length 1 already, whatever the tokens have.
        if level != "note":
            notice(level, kind, subject, message)

    try:
        pack.read_pooled_text(query, odd)
    except InputError as error:
        absent = isinstance(error, PackError) and error.kind == "missing text"
        if not absent and not isinstance(error, MissingKeyError):
            raise
        notice("note", "no pooled text", str(query.qid), f"{error}; only pooled text needs it")


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
        tally.about("video")(
            "note", "cut videos", query.video,
            f"has {totals[query.video]} rows, of which {spec.max_rows} ({reach:g} s) are kept",
        )  # fmt: skip
        if query.windows and all(start >= reach for start, _ in query.windows):
            tally.about("query")(
                "warning", "moments out of reach", str(query.qid),
                f"all its windows begin after the {reach:g} s that are kept of its video; raise "
                "`max_rows` to reach them",
            )  # fmt: skip
