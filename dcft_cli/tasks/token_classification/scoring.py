"""Entities in the tags of words, and their precision, recall and F1 as defined by CoNLL.

Tjong Kim Sang and De Meulder 2003 (CoNLL-2003 shared task), and its script conlleval: a predicted
entity is right if it has the first word, the last word and the type of a true one. As in that
script, tags are read leniently: IOB1, IOB2 and BIOES are all understood, and tags that no scheme
allows (an I- after O) still mark an entity.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from dcft_cli.errors import DataError

OUTSIDE = "O"
TAGGING = "Tag the first word of an entity B-TYPE, its other words I-TYPE, and all others O."
"""What to do about other labels."""

Tag = tuple[str, str]
"""Mark (B, I, E, S, or O outside of entities) and type of a tag; plain B and I have the type ""."""

_TAG = re.compile(r"([BIESLU])(?:-(.+))?")
_ANY_TAG = re.compile(r"([BIESLU])[-_./:| ](.+)", re.IGNORECASE)
# BILOU's marks of the last word, and of the only one.
_SAME_MARK = {"L": "E", "U": "S"}


def are_entity_tags(labels: Sequence[str]) -> bool:
    """Return whether labels are tags of entities (B-PER, I-PER, O), not of words (NOUN, VERB).

    Raises:
        DataError: only some of them are, or they are written in another way.
    """
    tags, others = tags_and_others(labels)
    if others:
        raise DataError(
            f"The labels mix tags of entities ({tags[0]}) with others ({', '.join(others)}).",
            TAGGING,
        )
    return bool(tags)


def tags_and_others(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the tags of entities among labels, and the labels beside them that are none.

    Both are without O; both are empty if the labels are those of words.

    Raises:
        DataError: they are tags of entities, but written in another way.
    """
    if wrong := _other_form(labels):
        mark, type_ = wrong.groups()
        raise DataError(
            f"The label {wrong.group()} looks like the tag of an entity, which is written"
            f" {mark.upper()}-{type_}; {OUTSIDE} marks words outside of entities.",
            "Rewrite the labels in the data. To score other labels by the word, name them"
            " differently.",
        )
    inside = [label for label in labels if label != OUTSIDE]
    tags = [label for label in inside if _TAG.fullmatch(label)]
    others = [label for label in inside if label not in tags]
    begin = any(label[0] in "BI" and (len(label) == 1 or label[1] == "-") for label in tags)
    typed = OUTSIDE in labels and not others and all(len(label) > 1 for label in tags)
    if not (begin or typed):  # typed: all entities have one word (S-PER, O)
        return [], []
    if others and all(len(label) == 1 for label in tags):
        return [], []  # single letters that happen to be marks: classes A, B, C
    return tags, others


def _other_form(labels: Sequence[str]) -> re.Match[str] | None:
    """Return a tag of an entity in another form than B-TYPE, if all labels are such tags or O."""
    tags = [label for label in labels if label.upper() != OUTSIDE]
    matches = [match for label in tags if (match := _ANY_TAG.fullmatch(label))]
    if len(tags) == len(labels) or len(matches) < len(tags):
        return None
    return next((match for match in matches if not _TAG.fullmatch(match.group())), None)


def read_tag(label: str) -> Tag:
    """Return mark and type of an entity tag."""
    if label == OUTSIDE:
        return OUTSIDE, ""
    mark, _, type_ = label.partition("-")
    return _SAME_MARK.get(mark, mark), type_


def entities(tags: Sequence[Tag]) -> Iterator[tuple[int, int, str]]:
    """Yield first word, last word and type of every entity in a sentence, in order."""
    first = 0
    for word, (mark, type_) in enumerate(tags):
        if mark == OUTSIDE:
            continue
        before = tags[word - 1] if word else (OUTSIDE, "")
        after = tags[word + 1] if word + 1 < len(tags) else (OUTSIDE, "")
        if mark in "BS" or before[0] in "OES" or before[1] != type_:
            first = word
        if mark in "ES" or after[0] in "OBS" or after[1] != type_:
            yield first, word, type_


def count_entities(
    predicted: Sequence[Sequence[Tag]], expected: Sequence[Sequence[Tag]]
) -> dict[str, tuple[int, int, int]]:
    """Count the entities of all sentences: right ones, predicted ones, and true ones, by type.

    Args:
        predicted: tags of each sentence.
        expected: true tags, as many.
    """
    hits, found, present = Counter[str](), Counter[str](), Counter[str]()
    for tags, true_tags in zip(predicted, expected, strict=True):
        guesses, truths = set(entities(tags)), set(entities(true_tags))
        hits.update(type_ for _, _, type_ in guesses & truths)
        found.update(type_ for _, _, type_ in guesses)
        present.update(type_ for _, _, type_ in truths)
    return {t: (hits[t], found[t], present[t]) for t in sorted(found.keys() | present.keys())}


def score_entities(
    predicted: Sequence[Sequence[Tag]], expected: Sequence[Sequence[Tag]]
) -> dict[str, float]:
    """Return precision, recall and F1 over the entities of all sentences; 0 if undefined.

    Args:
        predicted: tags of each sentence.
        expected: true tags, as many.
    """
    counts = count_entities(predicted, expected).values()
    hits, found, present = (sum(count[part] for count in counts) for part in range(3))
    return {
        "f1": 2 * hits / max(found + present, 1),
        "precision": hits / max(found, 1),
        "recall": hits / max(present, 1),
    }
