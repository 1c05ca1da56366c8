"""Lines of text files, as UTF-8."""

from collections.abc import Iterator
from typing import BinaryIO

from dcft_cli.errors import DataError

# How files begin that are not UTF-8 texts. UTF-32's mark begins like that of UTF-16.
_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_BINARY = {
    b"PK\x03\x04": ("a zip archive, such as an Excel workbook", "Save it as CSV (UTF-8)."),
    b"\x1f\x8b": ("compressed with gzip", "Unpack it: gunzip FILE"),
    b"PAR1": ("a parquet file", "Set data.format=parquet."),
}


def decode_lines(file: BinaryIO, source: str) -> Iterator[str]:
    r"""Yield the lines of a text, with their ends.

    Lines end at newlines only: texts may contain U+2028 and the like. A mark at the beginning
    (BOM) is removed, and in the lines where files were put together.

    Raises:
        DataError: a line is not UTF-8; names the encoding, if the file begins as texts in it do.
    """
    for number, line in enumerate(file, start=1):
        if number == 1:
            _check_beginning(line, source)
        try:
            yield line.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{source}, line {number}: not UTF-8 (byte {error.start + 1} of the line is"
                f" 0x{line[error.start]:02x}).",
                "Convert the file, for example: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW",
            ) from None


def _check_beginning(line: bytes, source: str) -> None:
    for mark, (what, hint) in _BINARY.items():
        if line.startswith(mark):
            raise DataError(f"{source} is {what}, not a text file.", hint)
    encoding = next((name for mark, name in _MARKS.items() if line.startswith(mark)), None)
    if encoding is None and 0 in line[:2]:  # without a mark; every other byte of ASCII is 0
        encoding = "UTF-16BE" if line[0] == 0 else "UTF-16LE"
    if encoding:
        raise DataError(
            f"{source} is a text in {encoding}, not in UTF-8.",
            f"Convert it: iconv -f {encoding} -t UTF-8 OLD > NEW",
        )
