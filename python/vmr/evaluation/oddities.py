"""What is odd in a prediction file: refused, or said in the report."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from vmr.data.records import Place
from vmr.errors import InputError

_SHOWN = 5


class Oddity(msgspec.Struct, frozen=True):
    """One kind of thing that was odd.

    Attributes:
        kind: Its name, the same in every report.
        text: What it is and how it was scored.
        count: How often it was found.
        places: The first five, where it has places.
    """

    kind: str
    text: str
    count: int
    places: tuple[Place, ...]

    def __str__(self) -> str:
        if not self.places:
            return self.text
        more = ", ..." if self.count > len(self.places) else ""
        return f"{self.count} x {self.text}: {', '.join(map(str, self.places))}{more}"


class Judge:
    """Refuses what is scored by accident, or only takes note of it.

    Args:
        file: The name of the predictions' file, for errors.
        as_published: Nothing is refused that the published code gives a number for.
    """

    def __init__(self, file: str, as_published: bool) -> None:
        self.file = file
        self.as_published = as_published
        self.oddities: list[Oddity] = []

    def note(self, kind: str, text: str, places: Sequence[Place]) -> None:
        """Takes something into the report, if there is any of it."""
        if places:
            shown = tuple(dict.fromkeys(places))[:_SHOWN]
            self.oddities.append(Oddity(kind, text, len(places), shown))

    def note_whole(self, kind: str, text: str, count: int) -> None:
        """Takes something of the files as a whole into the report, if there is any of it."""
        if count:
            self.oddities.append(Oddity(kind, text, count, ()))

    def refuse(
        self,
        kind: str,
        places: Sequence[Place],
        *,
        expected: str,
        found: str,
        published: str,
        scored: str = "scores it so",
        file: str | None = None,
    ) -> None:
        """An error unless scoring as published, where it goes into the report.

        Args:
            kind: Name of the oddity.
            places: Where; nothing happens without any.
            expected: What was expected and what the first place holds instead, for the error.
            found: What it is, for the report.
            published: What the published code does about it.
            scored: What vmr does about it as published.
            file: Another file than the predictions'.

        Raises:
            InputError: With the first place.
        """
        if not places:
            return
        if self.as_published:
            self.note(kind, f"{found} ({published})", places)
            return
        more = f" ({len(places) - 1} more such)" if len(places) > 1 else ""
        raise InputError(
            f"{file or self.file}, {places[0]}: expected {expected}{more}; {published}, and "
            f"--as-published (as_published=True) {scored}"
        )
