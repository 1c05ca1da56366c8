"""Real data for two tasks: hand-labelled addresses, as words with tags and as texts with labels.

The package usaddress (MIT) publishes its training data with its source:

    pip download --no-binary usaddress --no-deps usaddress==0.5.16 && tar xf usaddress-0.5.16.tar.gz
    python benchmarks/address_data.py usaddress-0.5.16/training/labeled.xml DATA

writes address-train.conll and address-dev.conll (word, tag), address-train.csv and
address-dev.csv (text, its labels parted by |). A hash of the text decides which part a row is in.
"""

import csv
import hashlib
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

DEV_SHARE = 0.2


def rows(labelled: Path) -> dict[str, list[tuple[str, str]]]:
    """Words and their labels by text; a text that comes again is left out."""
    found: dict[str, list[tuple[str, str]]] = {}
    for address in ET.parse(labelled).getroot():
        words = [(word, part.tag) for part in address for word in (part.text or "").split()]
        text = " ".join(word for word, _ in words)
        if words and text.lower() not in {known.lower() for known in found}:
            found[text] = words
    return found


def in_dev(text: str) -> bool:
    digest = hashlib.sha256(text.lower().encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < DEV_SHARE


def tagged(words: list[tuple[str, str]]) -> str:
    """One word a line; a label goes on (I-) as long as it stays the same."""
    before = ["", *(label for _, label in words)]
    return "".join(
        f"{word}\t{'I' if label == last else 'B'}-{label}\n"
        for (word, label), last in zip(words, before, strict=False)
    )


def main(labelled: str, folder: str) -> None:
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    found = rows(Path(labelled))
    for part in ("train", "dev"):
        ours = {text: words for text, words in found.items() if in_dev(text) == (part == "dev")}
        blocks = "\n".join(tagged(words) for words in ours.values())
        (out / f"address-{part}.conll").write_text(blocks, encoding="utf-8")
        with (out / f"address-{part}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "labels"])
            for text, words in ours.items():
                writer.writerow([text, "|".join(sorted({label for _, label in words}))])
        print(f"{part}: {len(ours)} addresses")


if __name__ == "__main__":
    main(*sys.argv[1:])
