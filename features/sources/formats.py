"""The format and the compression of a file, recognised by its content, never by its name."""

import csv
import io
import lzma
import re
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import pyarrow as pa

from features.errors import SourceError

HEAD_BYTES = 256 * 1024
BOM = b"\xef\xbb\xbf"
DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}
_TAOBAO = re.compile(rb"\d+,\d+,\d+,(pv|cart|fav|buy),\d{10}\r?")
_TAOBAO_LINES = 20
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4", b"\xfd7zXZ\x00": "xz"}
_OTHERS = {
    b"PK\x03\x04": "a zip archive (or an Excel workbook): unpack it and give the file inside, or save the sheet as CSV",
    b"7z\xbc\xaf": "a 7z archive: unpack it and give the file inside",
    b"Rar!": "a RAR archive: unpack it and give the file inside",
    b"ARROW1": "an Arrow or Feather file: write it as parquet",
    b"Obj\x01": "an Avro file: write it as parquet or JSON lines",
    b"ORC": "an ORC file: write it as parquet",
    b"SQLite format 3": "an SQLite database: export the table as CSV",
    b"\x89HDF": "an HDF5 file: write it as parquet",
    b"\x80\x04": "a Python pickle: write it as parquet",
    b"\x80\x05": "a Python pickle: write it as parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save the sheet as CSV (UTF-8)",
    b"PARE": "an encrypted parquet file: decrypt it first",
    b"\xff\xfe\0\0": "text in UTF-32: save it as UTF-8 (iconv -f UTF-32 -t UTF-8)",
    b"\0\0\xfe\xff": "text in UTF-32: save it as UTF-8 (iconv -f UTF-32 -t UTF-8)",
    b"\xff\xfe": "text in UTF-16: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "text in UTF-16: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"%PDF": "a PDF document: export the data as CSV",
    b"<": "markup (XML or HTML): give CSV, JSON lines or parquet",
}


class Format(StrEnum):
    """Formats that `features.sources` reads."""

    PARQUET = "parquet"
    DELIMITED = "delimited text"
    TAOBAO_CSV = "Taobao's UserBehavior.csv"
    JSON_LINES = "JSON lines"
    JSON_ARRAY = "JSON array"


class Detected(NamedTuple):
    """A file's format, its compression (empty: none), its delimiter, and the names in its first line."""

    format: Format
    compression: str = ""
    delimiter: str = ","
    header: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = f"{DELIMITERS[self.delimiter]}-separated text" if self.format is Format.DELIMITED else str(self.format)
        return f"{name}, {self.compression}" if self.compression else name


def detect(path: Path) -> Detected:
    """Detect the format of a file from its first bytes.

    Raises:
        SourceError: the format is unknown; the message says what the file looks like and what to do.
        FileNotFoundError: the file does not exist.
    """
    if path.is_dir():
        raise SourceError(f"{path} is a folder", "give one file (several parts can be joined into one)")
    with path.open("rb") as file:
        magic = file.read(512)
    if magic.startswith(b"PAR1"):
        return Detected(Format.PARQUET)
    _refuse_others(path, magic)
    compression = next((name for start, name in _COMPRESSIONS.items() if magic.startswith(start)), "")
    try:
        with open_bytes(path, compression) as stream:
            head = stream.read(HEAD_BYTES)
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise SourceError(f"{path} cannot be unpacked as {compression}: {error}; is it complete?") from error
    if compression:
        _refuse_others(path, head)
        if head.startswith(b"PAR1"):
            raise SourceError(f"{path} is parquet inside {compression}", "unpack it first (parquet is compressed by itself)")
    whole = len(head) < HEAD_BYTES
    return _text(path, head.removeprefix(BOM), compression, whole)


def open_bytes(path: Path, compression: str) -> BinaryIO:
    """The decompressed bytes of a file, including a BOM."""
    if compression == "xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression=compression or None)))


def _refuse_others(path: Path, head: bytes) -> None:
    if head[257:262] == b"ustar":
        raise SourceError(f"{path} is a tar archive", "unpack it and give the file inside")
    for start, sentence in _OTHERS.items():
        if head.startswith(start):
            raise SourceError(f"{path} is {sentence}")


def _text(path: Path, head: bytes, compression: str, whole: bool) -> Detected:
    start = head.lstrip()
    if not start:
        raise SourceError(f"{path} is empty", "give a file with rows")
    if order := _utf16(head):
        raise SourceError(f"{path} is text in UTF-16", f"save it as UTF-8 (iconv -f {order} -t UTF-8)")
    if b"\0" in head:
        raise SourceError(f"{path} is neither text nor parquet", "give parquet, CSV with a header line, or JSON lines")
    if start.startswith(b"["):
        return Detected(Format.JSON_ARRAY, compression)
    lines = head.split(b"\n")
    lines = lines if whole else lines[:-1]
    if start.startswith(b"{"):
        if start.split(b"\n", 1)[0].strip() == b"{":
            raise SourceError(f"{path} is one JSON document over several lines", "write one object a line (jq -c '.[]'), or a JSON array")
        return Detected(Format.JSON_LINES, compression)
    if not lines or (b"\r" in head and b"\n" not in head):
        raise SourceError(f"{path} has no line ends (\\n) in its first {HEAD_BYTES:,} bytes", "write one row per line")
    first = [line for line in lines if line.strip()][:_TAOBAO_LINES]
    if 2 * sum(_TAOBAO.fullmatch(line) is not None for line in first) >= len(first):
        return Detected(Format.TAOBAO_CSV, compression)
    return _delimited(path, first[0], compression)


def _utf16(head: bytes) -> str:
    """The name of the encoding if the first bytes are Latin text in UTF-16 without a byte order mark; else empty."""
    first = head[:64]
    for order, zeros, letters in (("UTF-16LE", first[1::2], first[::2]), ("UTF-16BE", first[::2], first[1::2])):
        if len(zeros) > 1 and not any(zeros) and all(byte >= 32 or byte in b"\t\r\n" for byte in letters):
            return order
    return ""


def _delimited(path: Path, line: bytes, compression: str) -> Detected:
    try:
        text = line.decode().rstrip("\r")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: its first line is not UTF-8 ({error})", "save the file as UTF-8") from error
    split = {delimiter: next(csv.reader([text], delimiter=delimiter), []) for delimiter in DELIMITERS}
    delimiter = max(split, key=lambda found: len(split[found]))
    header = tuple(name.strip() for name in split[delimiter])
    if len(header) < 2:
        raise SourceError(
            f"{path} is neither parquet, JSON, nor a table: give parquet, JSON lines, a JSON array, or text whose first line names "
            "the columns, separated by comma, tab, semicolon or pipe"
        )
    _check_header(path, header)
    return Detected(Format.DELIMITED, compression, delimiter, header)


def _check_header(path: Path, header: tuple[str, ...]) -> None:
    data = [name for name in header if re.fullmatch(r"[+-]?\d+(\.\d+)?|\d{4}-\d\d-\d\d.*", name)]
    if data:
        raise SourceError(
            f"{path}: its first line looks like data ({', '.join(data[:3])}), not like names of columns: put a header line first, "
            "such as user,item,time"
        )
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise SourceError(f"{path} has several columns called {', '.join(twice)}", "rename all but one of them")
