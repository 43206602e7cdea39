"""What a file is, by its content: every format and compression, and sentences for what is none of ours."""

import bz2
import gzip
import json
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import sources
from features.errors import SourceError
from features.sources.formats import detect

ROWS = [{"user_id": f"u{n}", "product_id": n, "timestamp": 1_700_000_000 + n, "tags": "[{"} for n in range(3)]
CSV = "user_id,product_id,timestamp\n" + "".join(f"u{n},{n},{1_700_000_000 + n}\n" for n in range(3))


def test_every_format_and_compression_gives_the_same_events(tmp_path: Path) -> None:
    array, lines = json.dumps(ROWS, indent=1).encode(), b"\n".join(json.dumps(row).encode() for row in ROWS)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "p")
    expected = list(sources.read(tmp_path / "p"))
    assert len(expected) == 3
    bom = b"\xef\xbb\xbf"
    texts = {
        "array": array,
        "lines": lines,
        "bom": bom + lines,
        "bomarray": bom + array,
        "csv": CSV.encode(),
        "crlf": CSV.replace("\n", "\r\n").encode(),
    }
    packings = {
        "": bytes,
        "gzip": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zstd": lambda text: pa.Codec("zstd").compress(text, asbytes=True),
    }
    for name, text in texts.items():
        for packing, pack in packings.items():
            if packing and name != "csv" and packing != "gzip":
                continue
            (tmp_path / "file").write_bytes(pack(text))
            assert detect(tmp_path / "file").compression == packing
            assert list(sources.read(tmp_path / "file")) == expected, (name, packing)


def test_blocks_cut_neither_arrays_nor_quoted_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    (tmp_path / "q.csv").write_text("user,note,item,ts\n" + "".join(f'u{n},"a\n""{n}""",i{n},{1_700_000_000 + n}\n' for n in range(9)))
    expected = [list(sources.Reading(tmp_path / name).events()) for name in ("a.json", "q.csv")]
    assert list(map(len, expected)) == [3, 9]
    for size in (1, 7, 40):
        monkeypatch.setattr("features.sources.objects.BLOCK_BYTES", size)
        monkeypatch.setattr("features.sources.delimited.BLOCK_BYTES", size)
        assert [list(sources.Reading(tmp_path / name).events()) for name in ("a.json", "q.csv")] == expected


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty: give a file with rows"),
        (b"hello", "first line names"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x00\x01\x02", "neither text nor parquet"),
        (b"\xff\xfeu\x00", "UTF-16"),
        ("user,item\n".encode("utf-16-le"), "-f UTF-16LE -t UTF-8"),
        ("user,item\n".encode("utf-16-be"), "-f UTF-16BE -t UTF-8"),
        ("user,item\n".encode("utf-32"), "-f UTF-32 -t UTF-8"),
        (b"nothing,,here\n1,2,3\n", "its columns are nothing, '', here: choose them"),
        (",".join(f"c{n}" for n in range(10_000)).encode() + b"\n", r"c29, \.\.\. \(9,970 more\): choose them"),
        (b"PAR1 and no more", "is it complete"),
        (gzip.compress(b"user,item,ts\n" * 999, mtime=0)[:40], "is it complete"),
        (b'[{"user": 1, "item": 2, "ts": 1700000000}, {"user"', "not closed"),
        (b'[{"user": 1, "item": 2, "ts": 1700000000}] [', "after the array"),
        (b'{\n "a": 1\n}\n', "one object a line"),
        (b"123,2016-01-01T00:00:00Z,5,0\n", "looks like data"),
        (b"user,item,ts,user\n1,2,3,4\n", "several columns called user"),
        (b"visitor_id,customer_id,item,ts\n1,2,3,4\n", r"several columns for user \(visitor_id, customer_id\)"),
        (b"nothing,here\n1,2\n", "no column for user, item, time; its columns are nothing, here"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_remedy(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(SourceError, match=sentence) as raised:
        sources.Reading(tmp_path / "file")
    assert str(tmp_path / "file") in str(raised.value)


@pytest.mark.parametrize("choice", [{"time": "ts", "item": "ts"}, {"user": "TS"}, {"time": "user", "item": "User"}])
def test_a_column_is_chosen_for_one_role(tmp_path: Path, choice: dict[str, str]) -> None:
    (tmp_path / "file").write_text("user,item,ts\nu1,i1,1700000000\n")
    expected = "chooses column '.*' for .* and .*: choose a column of its own for each" if len(choice) > 1 else "no column for time"
    with pytest.raises(SourceError, match=expected):
        sources.Reading(tmp_path / "file", sources.How(choice))


def test_a_folder_and_a_zip_of_one_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is a folder"):
        sources.Reading(tmp_path)
    with zipfile.ZipFile(tmp_path / "z.csv", "w") as archive:
        archive.writestr("events.csv", CSV)
    with pytest.raises(SourceError, match="unpack it"):
        sources.Reading(tmp_path / "z.csv")
    with pytest.raises(FileNotFoundError):
        sources.Reading(tmp_path / "nowhere")


def test_a_broken_row_costs_only_itself(tmp_path: Path) -> None:
    lines = [
        b"user,item,ts",
        b"a,1,1700000000",
        b"b\xff,1,1700000000",
        b"c,1",
        b'd,"open,1700000000',
        b'e,"x"y,1700000000',
        b"",
        b"f,1,1700000001",
    ]
    (tmp_path / "e.csv").write_bytes(b"\n".join(lines))
    reading = sources.Reading(tmp_path / "e.csv")
    assert [event.user_id for event in reading.events()] == ["a", "f"]
    assert [(refused.row, str(refused.reason)) for refused in reading.refusals.first] == [
        (3, "not_utf8"), (4, "wrong_shape"), (5, "wrong_shape"), (6, "wrong_shape"),
    ]  # fmt: skip
