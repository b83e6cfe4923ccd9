"""Sentences that systems are asked about a video."""

from __future__ import annotations

from collections.abc import Sequence

from vmr.errors import InputError

MAX_QUERY_CHARACTERS = 1000
"""A query is a sentence or a few; what is longer is refused."""


def checked_queries(queries: str | Sequence[str], who: str = "retrieve") -> list[str]:
    """The sentences without blanks around them.

    Args:
        queries: One sentence or several.
        who: Was asked, for messages.

    Raises:
        InputError: There is none, or one is empty, overlong or no text.
    """
    sentences = [queries] if isinstance(queries, str) else list(queries)
    if not sentences:
        raise InputError(f"{who}: queries: expected at least one sentence, got none")
    for query in sentences:
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"{who}: queries: expected a sentence, got {query!r}")
        if len(query) > MAX_QUERY_CHARACTERS:
            raise InputError(
                f"{who}: queries: expected at most {MAX_QUERY_CHARACTERS} characters, "
                f"got {len(query)}: {query[:40]!r}..."
            )
    return [query.strip() for query in sentences]
