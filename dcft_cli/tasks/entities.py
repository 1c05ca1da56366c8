"""Entities from tags of words, and their precision, recall and F1 by the definition of CoNLL.

Tjong Kim Sang and De Meulder 2003 (CoNLL-2003 shared task), and its script conlleval: a predicted
entity is right if it has the first word, the last word and the type of a true one. As there, tags
are read with indulgence, so that IOB1, IOB2 and BIOES all mean what they are meant to, and tags
that no scheme allows (an I- after O) still mark an entity.
"""

import re
from collections.abc import Iterator, Sequence

from dcft_cli.errors import DataError

METRICS_OF_ENTITIES = ("f1", "precision", "recall")
OUTSIDE = "O"

Tag = tuple[str, str]
"""Mark (B, I, E, S, or O outside of entities) and type of a tag; plain B and I have the type ""."""

_TAG = re.compile(r"([BIESLU])(?:-(.+))?")
# BILOU's names for the last word, and for the only one.
_SAME_MARK = {"L": "E", "U": "S"}


def mark_entities(labels: Sequence[str]) -> bool:
    """Whether labels are tags of entities (B-PER, I-PER, O), not of single words (NOUN, VERB).

    Raises:
        DataError: some are, others are not.
    """
    tags = [label for label in labels if label != OUTSIDE]
    matching = [label for label in tags if _TAG.fullmatch(label)]
    if not any(label[0] in "BI" and (len(label) == 1 or label[1] == "-") for label in matching):
        return False
    others = [label for label in tags if label not in matching]
    if others and all(len(label) == 1 for label in matching):
        return False  # single letters that happen to be marks: classes A, B, C
    if others:
        raise DataError(
            f"The labels mix tags of entities ({matching[0]}) with others ({', '.join(others)}).",
            "Write B-TYPE for the first word of an entity, I-TYPE for the others, O outside.",
        )
    return True


def read_tag(label: str) -> Tag:
    """Mark and type of a label of which `mark_entities` holds."""
    if label == OUTSIDE:
        return OUTSIDE, ""
    mark, _, type_ = label.partition("-")
    return _SAME_MARK.get(mark, mark), type_


def entities(tags: Sequence[Tag]) -> Iterator[tuple[int, int, str]]:
    """First word, last word and type of every entity in a sentence, in their order."""
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


def score_entities(
    guessed: Sequence[Sequence[Tag]], expected: Sequence[Sequence[Tag]]
) -> dict[str, float]:
    """Precision, recall and F1 over the entities of all sentences; 0 where they are undefined.

    Args:
        guessed: predicted tags of each sentence.
        expected: true tags, as many.
    """
    hits = predicted = present = 0
    for found, true in zip(guessed, expected, strict=True):
        own, right = set(entities(found)), set(entities(true))
        hits += len(own & right)
        predicted += len(own)
        present += len(right)
    return {
        "f1": 2 * hits / max(predicted + present, 1),
        "precision": hits / max(predicted, 1),
        "recall": hits / max(present, 1),
    }
