"""Entities and actions of a query, by simple rules instead of a language model.

The rules know English function words, some suffixes and a list of everyday verbs. They are meant to be
good enough to say which things and actions a caption should attend to, not to parse: an unusual verb
after a plural subject is taken for an entity, adjectives count as entities, and in a language other
than English every word is an entity.
"""

from __future__ import annotations

import re

from vmr.backends.base import Focus

_WORD = re.compile(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DETERMINERS = _words(
    "a an the this that these those my your his her its our their some any each every no another "
    "both several many few more most all one two three four five six seven eight nine ten"
)
_LINKS = _words(
    "i you he she it we they me him us them who whom whose which what himself herself itself "
    "themselves someone somebody something anyone anything "
    "of in on at to from with without by for about into onto over under up down out off through "
    "across along around near behind beside between among above below inside outside against "
    "toward towards upon after before during until while when where as then next again together "
    "away back and or but so if because than how there here not very too also just only still "
    "front "
    "is are was were be been being am do does did has have had having will would can could may "
    "might must shall should starts start begins begin"
)
_BEFORE_VERBS = _words("to then who i you he she it we they")
_BE = _words("is are was were be been being")
_PREPOSITIONS = _words("of with in on from at by")
_PARTICLES = _words("up down out off away back on in over")
_VERBS = _words(
    "answer applaud bake bite blow brush build buy call carry catch chase chop clap clean climb "
    "close come cook crawl cross cry cut dance dig dive drag draw dress drink drive drop dry eat "
    "enter explain fall feed fight fill film fish fix float fly fold fry get give go grab greet hang "
    "hide hit hold hug hunt jump kick kiss kneel knock laugh lay leave lie lift light listen load "
    "look make march mix open order pack paint park peel perform pet pick play point pour pull "
    "push put read record ride row run sail saw sew shake shave shop show sing sit skate ski sleep "
    "slice smile sneeze speak spray stand stir stop swim swing take talk taste teach tear text "
    "throw tidy tie touch train travel try turn type undress unpack use vacuum wait wake walk wash "
    "watch wave wear wipe work wrap write yell"
)
_PAST = _words(
    "ate bought brought built came caught drank drew drove fell flew found gave got held hung lay "
    "left made put ran read rode sang sat saw slept spoke stood swam took taught threw woke wore "
    "wrote"
)


def focus_of(query: str) -> Focus:
    """The entities and actions that a query-aware caption should attend to.

    Args:
        query: A sentence in any language; only English is told apart into entities and actions.

    Returns:
        The query with its distinct entities and actions, lower case, in order of appearance.
    """
    words = [word.lower() for word in _WORD.findall(query)]
    entities: dict[str, None] = {}
    actions: dict[str, None] = {}
    after_action = False
    for place, word in enumerate(words):
        directly_after, after_action = after_action, False
        if word in _DETERMINERS or word in _LINKS:
            continue
        before = words[place - 1] if place else ""
        after = words[place + 1] if place + 1 < len(words) else ""
        if len(word) > 2 and word.endswith("ly") and word not in {"fly", "family", "belly"}:
            continue  # an adverb
        before_that = words[place - 2] if place > 1 else ""
        # What follows a verb directly is its object: "holding signs".
        if not directly_after and _is_action(word, before_that, before, after):
            actions[word] = None
            after_action = True
        else:
            entities[word] = None
    return Focus(query, tuple(entities), tuple(actions))


def _is_action(word: str, before_that: str, before: str, after: str) -> bool:
    """Whether the word is a verb, judged from its form and its neighbours."""
    if not word.isascii() or before in _DETERMINERS:
        return False
    if word.endswith("ing") and len(word) > 5:
        return True  # "a girl riding a horse"; not "a building", which follows a determiner
    if before in _BE and word.endswith("ed"):
        return True
    leads = after == "" or after in _DETERMINERS or after in _LINKS or after in _PARTICLES
    if word in _VERBS or word in _PAST:
        return before not in _PREPOSITIONS | {""} or leads
    if before == "" or before in _LINKS - _BEFORE_VERBS:
        # "and" joins two verbs as often as two nouns: only a known stem decides.
        return before in {"and", "to"} and _known_stem(word)
    if _known_stem(word):
        return True
    if before_that in _PREPOSITIONS:
        return False  # "of snowy mountains"
    # "a chef garnishes the steak": an -s or -ed form between a noun and a function word.
    return leads and len(word) > 3 and word.endswith(("s", "ed")) and not word.endswith("ss")


def _known_stem(word: str) -> bool:
    """Whether an -s or -ed form belongs to an everyday verb."""
    suffixes = ("", "s", "es", "ed", "d")
    stems = [word.removesuffix(suffix) for suffix in suffixes if word.endswith(suffix)]
    if word.endswith(("ies", "ied")):
        stems.append(word[:-3] + "y")
    return any(
        stem in _VERBS or (len(stem) > 3 and stem[-1] == stem[-2] and stem[:-1] in _VERBS)
        for stem in stems
    )
