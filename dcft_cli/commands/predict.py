"""`dcft predict`."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from dcft_cli.commands.devices import Devices, device_of, start_processes

_OVERRIDE = re.compile(r"\w+\.[\w.]+=")


def predict(
    context: typer.Context,
    adapter: Annotated[
        str | None,
        typer.Argument(metavar="ADAPTER", help="Run folder or adapter file; none with --adapters."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Rows without labels: jsonl, csv, tsv, parquet or conll; - is standard input.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Overrides of the recipe, such as data.text=message for the column of texts.",
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Predict this text instead of a file; may be repeated. Question answering: the "
            "question.",
        ),
    ] = None,
    text_pair: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Second text of a pair, one for each --text. Question answering: the context.",
        ),
    ] = None,
    adapters: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Instead of ADAPTER: a folder of several adapters of one base model, NAME/ or "
            "NAME.safetensors. Every row names its own.",
        ),
    ] = None,
    adapter_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column of the rows that names an adapter of --adapters."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write: .jsonl, .csv, .tsv or .parquet. It appears when it is complete. "
            "Default: lines of JSON on stdout.",
        ),
    ] = None,
    file_format: Annotated[
        Literal["jsonl", "csv", "tsv", "parquet", "conll", "conllu", "text"] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Of the rows: jsonl, csv, tsv, parquet, conll, conllu or text (one per line). "
            "Default: by the ending of FILE; standard input is jsonl.",
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cuda", "mps", "cpu"] | None,
        typer.Option(metavar="DEVICE", help="auto, cuda, mps or cpu. Default: as in the recipe."),
    ] = None,
    devices: Devices = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Rows per batch. Default: as dcft eval.")
    ] = None,
) -> None:
    """Predict classes, numbers, entities or answers for new rows.

    Each row is written with what is predicted for it.

    dcft predict runs/tickets --text "My card was charged twice."
    dcft predict runs/tickets new.csv --output predictions.csv
    cat new.jsonl | dcft predict runs/tickets - data.text=message
    dcft predict --adapters runs --adapter-column customer new.csv
    """
    arguments = [value for value in (adapter, file, *(overrides or ())) if value is not None]
    adapter = arguments.pop(0) if arguments and adapters is None else None
    is_file = bool(arguments) and not _OVERRIDE.match(arguments[0])
    file = arguments.pop(0) if is_file else None

    from dcft_cli.commands.imports import gc_paused
    from dcft_cli.console.output import waiting
    from dcft_cli.console.progress import counting_rows
    from dcft_cli.console.tables import show_prediction
    from dcft_cli.errors import UserError
    from dcft_cli.prediction.request import Request

    if (adapters is None) != (adapter_column is None) or (adapters is not None and text):
        raise UserError(
            "--adapters DIR, --adapter-column COLUMN and a file of rows belong together.",
            "For one adapter: dcft predict ADAPTER.",
        )
    if adapter is None and adapters is None:
        raise UserError("No adapter is named.", "Name a run folder: dcft predict runs/NAME FILE.")
    known = device or ("auto" if adapter is None else None)
    if start_processes(context, devices, lambda: known or device_of(str(adapter), arguments)):
        return
    request = Request(file, text or (), text_pair or (), file_format, output)
    with waiting("Loading the model"):
        with gc_paused():
            from dcft_cli.prediction.mixed import load_mixed
            from dcft_cli.prediction.predictor import load
            from dcft_cli.prediction.stream import predict_stream

        if adapter is not None:
            predictor = load(adapter, arguments, device=device, batch_size=batch_size)
        else:
            assert adapters is not None and adapter_column is not None
            predictor = load_mixed(
                adapters, adapter_column, arguments, device=device, batch_size=batch_size
            )
    with counting_rows(predictor.machine.is_main, to_file=output is not None) as advance:
        result = predict_stream(predictor, request, advance)
    if predictor.machine.is_main:
        show_prediction(result)
