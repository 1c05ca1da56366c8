"""The README of an export: a script that predicts with the other tool, without dcft."""

import json
from dataclasses import dataclass

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from dcft_cli.adapter_file.contents import Contents
from dcft_cli.models.loading import revision_of
from dcft_cli.recipe import ModelSection
from dcft_cli.tasks.known import known_task
from dcft_cli.tasks.token_classification.windows import needs_spaces

_README = """\
{front}# {title}

Written by `dcft export`. The base model is `{base}`.

This script predicts without dcft (`pip install {packages}`). Run it in this folder, or set \
`folder`. It cuts inputs longer than `max_length` tokens.

```python
{script}
```
"""

_PEFT = """\
import numpy as np
import torch
from peft import PeftModel
from transformers import AutoTokenizer, {model_class}

folder = "."  # the one of this README
{inputs}

tokenizer = AutoTokenizer.from_pretrained(folder)
base = {model_class}.from_pretrained(
    {base!r},
    revision={revision!r},
    id2label={id2label!r},
    pad_token_id={pad_token_id!r},
    dtype=torch.float32,
    ignore_mismatched_sizes=True,  # the head comes with the adapter
)
model = PeftModel.from_pretrained(base, folder).eval()  # a plain model: .merge_and_unload()
{encode}
with torch.no_grad():
    outputs = model(**encoded)
{outputs} = (outputs[name].numpy() for name in {names})
{decode}"""

_ONNX = """\
import numpy as np
import onnxruntime
from transformers import AutoTokenizer

folder = "."  # the one of this README
{inputs}

tokenizer = AutoTokenizer.from_pretrained(folder)
session = onnxruntime.InferenceSession(f"{{folder}}/{onnx_file}")
{encode}
names = [node.name for node in session.get_inputs()]
{outputs} = session.run({names}, {{name: encoded[name] for name in names}})
{decode}"""

_NUMBERS = """\
for number, *text in zip(logits[:, 0], {texts}):
    print(number, text)"""

_CLASSES = """\
scores = np.exp((logits - logits.max(-1, keepdims=True)) / {temperature})
probabilities = scores / scores.sum(-1, keepdims=True)
for row, *text in zip(probabilities, {texts}):
    print(labels[row.argmax()], row.max(), text)"""

_LABELS = """\
probabilities = 1 / (1 + np.exp(-logits / {temperature}))
thresholds = np.array({thresholds})
for row, *text in zip(probabilities, {texts}):
    print([labels[number] for number in np.flatnonzero(row >= thresholds)], text)"""

_WORDS = """\
for row, words in enumerate(sentences):
    first_tokens = {word: n for n, word in reversed([*enumerate(encoded.word_ids(row))])}
    for number, word in enumerate(words):
        if number in first_tokens:  # else it was cut
            print(word, labels[logits[row, first_tokens[number]].argmax()])"""

_ANSWERS = """\
for row, context in enumerate(contexts):
    inside = np.array([part == 1 for part in encoded.sequence_ids(row)])
    spans = np.triu(np.tril(np.outer(inside, inside), {longest} - 1))
    scores = start_logits[row][:, None] + end_logits[row][None, :]
    scores = np.where(spans, scores, -np.inf)
    first, last = np.unravel_index(scores.argmax(), scores.shape)
    answer = context[offsets[row][first][0] : offsets[row][last][1]].strip()
    print(repr(answer), scores.max(), questions[row])"""

_NO_ANSWER = """\
    none = (np.asarray(encoded["input_ids"][row]) == tokenizer.cls_token_id).argmax()
    if start_logits[row, none] + end_logits[row, none] - scores.max() > {null_threshold}:
        answer = ""  # the text does not answer the question
"""


@dataclass(frozen=True)
class _Task:
    """The parts of a script that depend on the task.

    Attributes:
        inputs: lines that define the texts.
        call: arguments for the tokenizer.
        decode: lines that print predictions for logits, which are numpy arrays.
        outputs: names of the model's outputs.
    """

    inputs: str
    call: str
    decode: str
    outputs: tuple[str, ...] = ("logits",)


def readme(
    contents: Contents,
    section: ModelSection,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    onnx_file: str | None,
) -> str:
    """Return the text of README.md.

    Args:
        contents: the adapter; task, labels and longest input come from it.
        section: the base model.
        config: of the model.
        tokenizer: which the folder has too.
        onnx_file: in the folder; None: it has a PEFT adapter.
    """
    task = _task(contents, tokenizer)
    max_length = contents.about().data.max_length
    encode = (
        f"encoded = tokenizer(\n    {task.call},\n    max_length={max_length},\n"
        f'    padding=True,\n    return_tensors="{"np" if onnx_file else "pt"}",\n)'
    )
    if "offsets" in task.call:
        encode += '\noffsets = encoded.pop("offset_mapping")'
    inputs = task.inputs
    if labels := contents.model["labels"]:
        inputs = f"labels = {labels!r}\n{inputs}"
    script = (_ONNX if onnx_file else _PEFT).format(
        inputs=inputs,
        encode=encode,
        outputs=f"[{', '.join(task.outputs)}]",
        names=json.dumps(task.outputs),
        decode=task.decode,
        onnx_file=onnx_file,
        model_class=contents.model["class"],
        base=section.name,
        revision=revision_of(section),
        id2label=config.id2label,
        pad_token_id=config.pad_token_id,
    )
    return _README.format(
        front="" if onnx_file else "---\nlibrary_name: peft\n---\n\n",
        title="ONNX model" if onnx_file else "PEFT adapter",
        packages="onnxruntime transformers" if onnx_file else "peft transformers",
        base=section.name,
        script=script,
    )


def _task(contents: Contents, tokenizer: PreTrainedTokenizerBase) -> _Task:
    model_class = str(contents.model["class"])
    about = contents.about()
    settings, decision = about.task, about.decision.chosen()
    known = known_task(settings.name)
    if "ForTokenClassification" in model_class:
        words = "sentences"
        if needs_spaces(tokenizer):
            words = '[[" " + word for word in words] for words in sentences]'
        return _Task(
            inputs='sentences = [["Write", "your", "words", "here", "."]]',
            call=f"{words},\n    is_split_into_words=True,\n    truncation=True",
            decode=_WORDS,
        )
    if "ForQuestionAnswering" in model_class:
        decode = _ANSWERS.format(longest=settings.max_answer_length)
        if settings.unanswerable or (known and known.unanswerable):
            *lines, last = decode.splitlines(keepends=True)
            threshold = decision.get("null_threshold", settings.null_threshold)
            decode = "".join([*lines, _NO_ANSWER.format(null_threshold=threshold), last])
        return _Task(
            inputs='questions = ["Your question?"]\ncontexts = ["The text that answers it."]',
            call='questions,\n    contexts,\n    truncation="only_second",\n'
            "    return_offsets_mapping=True",
            decode=decode,
            outputs=("start_logits", "end_logits"),
        )
    columns = about.data.text or (known.text if known else ())
    pairs = len(columns) > 1
    template = {"regression": _NUMBERS, "multi_label_classification": _LABELS}.get(
        contents.model["problem_type"], _CLASSES
    )
    thresholds = decision.get("thresholds", settings.threshold)
    if isinstance(thresholds, dict):
        thresholds = [thresholds[name] for name in contents.model["labels"]]
    texts = "firsts, seconds" if pairs else "texts"
    return _Task(
        inputs='firsts = ["The first text."]\nseconds = ["The second text."]'
        if pairs
        else 'texts = ["Write your texts here."]',
        call=f"{texts},\n    truncation=True",
        decode=template.format(
            texts=texts, temperature=decision.get("temperature", 1.0), thresholds=thresholds
        ),
    )
