"""What kind of file annotations are in, or that a file holds none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vmr
from vmr.data.annotations import read_queries, write_queries
from vmr.data.layouts import UnknownLayoutError

ROW = {"qid": 7, "query": "a dog", "vid": "v", "duration": 9, "relevant_windows": [[0, 4]]}
VIDEO = {"duration": 9.5, "timestamps": [[0, 4]], "sentences": ["one"]}


def test_layouts_are_told_by_the_whole_first_line(tmp_path: Path) -> None:
    # An object first, as in a file by video.
    lines = ({"meta": {"by": "me"}, **ROW}, {"meta": {}, **ROW, "qid": 8})
    (tmp_path / "a").write_text("\n".join(map(json.dumps, lines)))
    queries = read_queries(tmp_path / "a")
    assert (queries.kind, list(queries.by_qid)) == ("qvhighlights", [7, 8])
    # Videos by names that a record has as keys.
    for indent in (None, 1):
        (tmp_path / "a").write_text(json.dumps({"qid": VIDEO, "query": VIDEO}, indent=indent))
        assert read_queries(tmp_path / "a").kind == "activitynet"


def test_a_file_has_as_many_annotators_everywhere(tmp_path: Path) -> None:
    queries = [
        vmr.Query(qid=qid, video="v", text="x", duration=2.0, saliency=saliency)
        for qid, saliency in (
            (1, None), (2, vmr.Saliency((), (), 1, 2.0)),
            (3, vmr.Saliency((0,), ((1.0,),), 1, 2.0)), (4, vmr.Saliency((0,), ((1.0, 2.0),), 1, 2.0)),
        )
    ]  # fmt: skip
    write_queries(tmp_path / "out", queries[:3])
    with pytest.raises(
        vmr.InputError, match=r"query 4: saliency_scores: expected 1 .*as in query 3, got 2"
    ):
        write_queries(tmp_path / "out", queries)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"version": 1, "videos": [{"a": 1}]}, indent=2),
        json.dumps({"version": 1, "videos": [{"a": 1}]}),
        json.dumps({"settings": {"a": 1}, "videos": 3}, indent=2),
        json.dumps({"settings": {"a": 1}, "videos": 3}),
        '{"a": {"b": // a comment\n 1}}',
        '{"a": 1, // a comment\n "b": 2}',
        '{{ template }}',
        '## Heading\n',
        '# A ## B\n',
    ],
)  # fmt: skip
def test_what_holds_no_annotations(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(UnknownLayoutError, match=str(tmp_path)):
        read_queries(tmp_path / "a")


def test_broken_annotations_are_no_other_kind_of_file(tmp_path: Path) -> None:
    for text in (
        json.dumps({"v": VIDEO}, indent=1)[:-3],
        json.dumps({"v": VIDEO, "w": 3}),
        json.dumps(ROW)[:-3],
        "v 1 x##y",
    ):
        (tmp_path / "a").write_text(text)
        with pytest.raises(vmr.InputError) as caught:
            read_queries(tmp_path / "a", durations={"v": 9.5})
        assert type(caught.value) is vmr.InputError
