"""Entities and actions of a query by rules."""

from __future__ import annotations

import pytest

from vmr.backends import focus_of


@pytest.mark.parametrize(
    ("query", "entities", "actions"),
    [
        ("a person rides a bicycle down the street", "person bicycle street", "rides"),
        ("Two girls are walking along the beach.", "girls beach", "walking"),
        ("A chef garnishes the steak with rosemary", "chef steak rosemary", "garnishes"),
        ("person holding signs", "person signs", "holding"),
        ("the car is slowly parked", "car", "parked"),
        ("a parked bicycle", "parked bicycle", ""),
        ("She opens it and drinks", "", "opens drinks"),
        ("view of snowy mountains", "view snowy mountains", ""),
        ("the dog chases the dog", "dog", "chases"),
        ("the building", "building", ""),
    ],
)
def test_english(query: str, entities: str, actions: str) -> None:
    focus = focus_of(query)
    assert focus.query == query
    assert focus.entities == tuple(entities.split())
    assert focus.actions == tuple(actions.split())


@pytest.mark.parametrize(
    ("query", "entities"),
    [
        ("一个男人打开冰箱", ("一个男人打开冰箱",)),
        ("Öffnet Kühlschrank", ("öffnet", "kühlschrank")),
        ("", ()),
        ("?! 12 ...", ()),
    ],
)
def test_what_is_not_english_is_all_entities(query: str, entities: tuple[str, ...]) -> None:
    focus = focus_of(query)
    assert (focus.entities, focus.actions) == (entities, ())
