"""`dcft export`: write an adapter, or base + adapter, for other tools, and verify the result."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from dcft_cli.adapter_file.contents import Contents
from dcft_cli.adapter_file.read import read_contents
from dcft_cli.addresses import local_path
from dcft_cli.atomic import atomic_path
from dcft_cli.errors import ExportError, UserError
from dcft_cli.exporting.onnx import MODEL_FILE, write_onnx
from dcft_cli.exporting.peft import write_peft
from dcft_cli.exporting.peft_methods import write_peft_method
from dcft_cli.exporting.readme import readme
from dcft_cli.merging.merge import base_section, trained_config
from dcft_cli.merging.output import new_folder, save_tokenizer
from dcft_cli.merging.proof import TOLERANCE, probes
from dcft_cli.methods.build import build
from dcft_cli.methods.dcft import DCFT
from dcft_cli.methods.load import load_method, settings_of
from dcft_cli.methods.peft_method import PEFTMethod
from dcft_cli.models.loading import load_model, quiet_transformers
from dcft_cli.models.tokenizers import load_tokenizer
from dcft_cli.recipe import ModelSection
from dcft_cli.runs.folder import adapter_file

Format = Literal["peft", "onnx"]
_PACKAGES: dict[Format, tuple[str, ...]] = {
    "peft": ("peft",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
}


@dataclass(frozen=True)
class ExportResult:
    """An exported adapter or model.

    Attributes:
        difference: largest logit difference between base + adapter and what was written, in
            float32 (`proof.largest_difference`).
        method: that trained the adapter.
        layers: number of adapted layers.
        ranks: smallest and largest rank of the matrices of a DCFT adapter as LoRA; None else.
        bytes: of all files written.
        local_base: path of the base model, if the files name it by one; None: a name on the Hub.
    """

    folder: Path
    to: Format
    difference: float
    method: str
    layers: int
    ranks: tuple[int, int] | None
    bytes: int
    local_base: str | None


def export(adapter: str, out: str, *, to: Format, base: str | None = None) -> ExportResult:
    """Write an adapter for PEFT, or its base with the adapter merged as an ONNX model.

    The folder also gets the tokenizer, and a README with a script that predicts without dcft. It
    is written under a temporary name and renamed after the proof: what was written is loaded by
    the other tool, and its logits must be those of base + adapter.

    Args:
        adapter: run folder, checkpoint folder or adapter file.
        out: folder to write; must not exist, or be empty.
        to: "peft" or "onnx".
        base: Hub name, folder or `package://` address of the base model in full precision; None:
            the one that the adapter's run or file names.

    Raises:
        UserError: a package is missing, the output exists, or the adapter does not belong to the
            base.
        ExportError: the format cannot hold the adapter, or the logits differ by more than 1e-4;
            nothing is kept.
    """
    _require_packages(to)
    quiet_transformers()
    with new_folder(out) as folder:
        return replace(_export(adapter, folder, to, base), folder=Path(out))


def _export(adapter: str, folder: Path, to: Format, base: str | None) -> ExportResult:
    """Write an adapter or a model into a new folder; see `export`."""
    contents = read_contents(adapter_file(adapter))
    _refuse_method(contents, to)
    section = _findable(base_section(base, contents))
    tokenizer = load_tokenizer(section)
    config = trained_config(section, contents, tokenizer)
    loaded = load_model(section, config, str(contents.model["class"]))
    method = load_method(loaded.model, contents)
    model = loaded.model.train(False)
    ranks: tuple[int, int] | None = None
    with atomic_path(folder) as part:
        part.mkdir()
        save_tokenizer(tokenizer, contents, part)
        head = loaded.missing_keys | contents.head.keys()
        if to == "onnx":
            difference = write_onnx(model, method.merge, tokenizer, part)
        elif isinstance(method, PEFTMethod):
            difference = write_peft_method(method, section, head, probes(model), part)
        else:
            difference, ranks = write_peft(model, section, head, probes(model), part)
        if not difference <= TOLERANCE:  # NaN is a failure
            raise ExportError(
                f"The exported model differs from base + adapter by {difference:.2e} in its logits "
                f"(allowed: {TOLERANCE:.0e}). Nothing was written.",
                "Merge the adapter instead (dcft merge), and please report this.",
            )
        onnx_file = MODEL_FILE if to == "onnx" else None
        text = readme(contents, section, config, tokenizer, onnx_file=onnx_file)
        (part / "README.md").write_text(text, encoding="utf-8")
        for file in part.iterdir():  # safetensors lets only the owner read its files
            file.chmod((part / "README.md").stat().st_mode)
    return ExportResult(
        folder=folder,
        to=to,
        difference=difference,
        method=contents.method,
        layers=len(contents.modules),
        ranks=ranks,
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
        local_base=section.name if Path(section.name).is_absolute() else None,
    )


def _refuse_method(contents: Contents, to: Format) -> None:
    """Raise UserError, before anything is loaded, if a file's method cannot be exported."""
    method = build(settings_of(contents), seed=0)
    if to == "onnx":
        method.refuse_unmergeable()
    elif not isinstance(method, DCFT | PEFTMethod):
        raise ExportError(
            f"PEFT has no {contents.method}: {contents.path} cannot become one of its adapters.",
            "Use `dcft predict`, or `dcft merge` if the method can be merged.",
        )


def _require_packages(to: Format) -> None:
    """Raise UserError, before any work, if a package that the export needs is missing."""
    if missing := [name for name in _PACKAGES[to] if find_spec(name) is None]:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(
            f"--to {to} needs {', '.join(missing)}, which {verb} not installed.",
            f'Install the extra: pip install "dcft-cli[{to}]".',
        )


def _findable(section: ModelSection) -> ModelSection:
    """Return a base model whose folder, if it is one, is absolute: its name is written down."""
    path = local_path(section.name)
    return section.model_copy(update={"name": str(path.absolute())}) if path.exists() else section
