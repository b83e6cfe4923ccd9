"""Templates of file names."""

from __future__ import annotations

import pytest

from vmr.errors import InputError
from vmr.exports import CLIP_FIELDS
from vmr.exports.names import Template, safe, told_apart

VALUES = {
    "video": "bikes",
    "query": "a red car",
    "rank": 3,
    "start": 5.5,
    "end": 70.25,
    "score": 0.6,
}


def name(text: str, **changed: str | float) -> str:
    return Template(text, CLIP_FIELDS).render({**VALUES, **changed})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{video}-{query}-{rank:02d}", "bikes-a-red-car-03"),
        ("{start:06.2f}_{end}_{score:.1f}", "005.50_70.250_0.6"),
        ("{query:.5}", "a-red"),
        ("{{{rank}}}", "{3}"),
        ("plain", "plain"),
    ],
)
def test_fields_and_formats(text: str, expected: str) -> None:
    assert name(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "{qurey}",
            r"expected fields of \{video\}, .*\{score\}; got \{qurey\}.*did you mean 'query'",
        ),
        ("{}", "expected fields"),
        ("{0}", "expected fields"),
        ("{query.__class__}", "expected fields"),
        ("{query[0]}", "expected fields"),
        ("{query!r}", "no conversion"),
        ("{rank:{rank}}", "nothing nested"),
        ("{rank:0999999999d}", "no width above 99"),
        ("{query:d}", "does not fit"),
        ("{rank:.2s}", "does not fit"),
        ("{query", "expected '}'"),
        ("a/{query}", "without folders"),
        ("..\\{query}", "without folders"),
        ("  ", "expected a file name"),
    ],
)
def test_what_no_name_is_made_of(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Template(text, CLIP_FIELDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("../../etc/passwd", "etc passwd"),
        ('a<b>c:d"e|f?g*h\\i', "a b c d e f g h i"),
        ("two\nlines\t\x00\u2028end", "two lines end"),
        ("  .hidden. ", "hidden"),
        ("e\u0301te\u0301 走る \u202egpj", "été 走る gpj"),
        ("half \ud800", "half"),
        ("nul", "_nul"),
        ("COM1.old", "_COM1.old"),
        ("console", "console"),
        ("100% 'sure' -now", "100% 'sure' -now"),
        ("???", ""),
    ],
)
def test_safe(text: str, expected: str) -> None:
    assert safe(text) == expected


def test_an_empty_name_is_unnamed() -> None:
    assert name("{query}", query="??") == "unnamed"
    assert name("{query}-{rank}", query="") == "-3"


def test_a_long_text_leaves_the_rest_of_the_name() -> None:
    made = name("{video}-{query}-{rank:02d}", query="走る " * 200, video="v" * 150)
    assert made.endswith("-03")
    assert len(made.encode()) <= 200
    made.encode().decode()  # no letter was cut in two
    assert name("x" * 300) == "x" * 200


def test_equal_names_are_told_apart() -> None:
    assert told_apart(["a", "A", "b", "a-2", "a"]) == ["a", "A-2", "b", "a-2-2", "a-3"]
