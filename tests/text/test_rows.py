import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlepton.errors import DataInvalid, DataNotFound, OutputError
from openlepton.text import rows
from openlepton.text.rows import Row, in_batches, read_rows, row_writer


def texts(found):
    return [row.text if isinstance(row, Row) else str(row) for row in found]


def test_lines_keep_their_order_and_empty_ones_count():
    found = list(read_rows(io.BytesIO(b"\xef\xbb\xbfone\r\n\ntwo \n\xe4\xb8\xad")))
    assert [(row.number, row.text) for row in found] == [(1, "one"), (2, ""), (3, "two "), (4, "中")]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_byte_that_is_not_utf8_is_named_and_the_rest_is_read(tmp_path, start):
    path = tmp_path / "in.txt"
    path.write_bytes(start + b"ok \xff\nfine\nab\xc3\n")
    first, second, third = texts(read_rows(path))
    assert first == f"{path}: line 1: not UTF-8 text: byte {len(start) + 3} of the file is 0xff"
    assert second == "fine"
    assert f"byte {len(start) + 12} of the file is 0xc3" in third


def test_json_lines_and_tables_say_what_is_wrong_in_the_place_of_the_row(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a", "id": 7}\n\n{"text": 3}\n[\n"plain"\n', encoding="utf-8")
    good, number, broken, plain = read_rows(path)
    assert (good.text, good.fields, good.number) == ("a", {"text": "a", "id": 7}, 1)
    assert "line 3: text: expected text, got int" in str(number)
    assert "line 4: not JSON" in str(broken)
    assert plain.text == "plain"
    table = tmp_path / "in.csv"
    table.write_bytes(b'id,review\n1,"two\nlines, and a ""comma"""\n2\n3,\xff\n4,last\n')
    found = list(read_rows(table, column="review"))
    assert texts(found)[0] == 'two\nlines, and a "comma"'
    assert "line 4: expected 2 cells, got 1" in str(found[1])
    assert "line 5: not UTF-8 text: byte 45" in str(found[2])
    assert found[3].fields == {"id": "4", "review": "last"}
    with pytest.raises(DataInvalid, match="no column 'text'; columns: id, review"):
        next(read_rows(table))


def test_a_line_that_is_too_long_is_skipped_not_kept(monkeypatch):
    monkeypatch.setattr(rows, "MAX_LINE", 10)
    found = texts(read_rows(io.BytesIO(b"0123456789\n" + b"x" * 95 + b"\nshort\n" + b"y" * 11)))
    assert found[0] == "0123456789"
    assert found[2] == "short"
    assert "line 2: 96 bytes, a line has at most 10" in found[1]
    assert "line 4: 11 bytes" in found[3]


def test_gz_is_read_and_what_is_missing_or_damaged_is_said(tmp_path):
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n'))
    assert texts(read_rows(path)) == ["a"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataInvalid, match=r"not a whole \.gz"):
        list(read_rows(path))
    with pytest.raises(DataNotFound, match="No such file"):
        list(read_rows(tmp_path / "none.txt"))


@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=20),
    st.sampled_from([".jsonl", ".csv", ".tsv"]),
)
def test_rows_read_back_as_they_were_written(tmp_path_factory, given_texts, ending):
    path = tmp_path_factory.mktemp("rows") / f"out{ending}"
    wanted = given_texts if ending == ".jsonl" else [text.replace("\r", "").replace("\0", "") for text in given_texts]
    with row_writer(path, columns=["id", "text"]) as write:
        for number, text in enumerate(wanted):
            write({"id": number, "text": text, "more": "left out of tables"})
    assert texts(read_rows(path)) == wanted or not wanted


def test_a_failed_writer_leaves_what_was_there(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("before", encoding="utf-8")
    with pytest.raises(UnicodeEncodeError), row_writer(path) as write:
        write({"text": "a\ud800"})
    assert [(file.name, file.read_text(encoding="utf-8")) for file in tmp_path.iterdir()] == [("out.csv", "before")]
    with pytest.raises(OutputError, match="cannot be written"), row_writer(tmp_path / "no" / "out.csv") as write:
        write({"text": "a"})


def test_a_stream_gets_json_lines_and_batches_keep_the_order():
    out = io.StringIO()
    with row_writer(out) as write:
        write({"label": "积极"})
    assert json.loads(out.getvalue()) == {"label": "积极"}
    assert "积极" in out.getvalue()
    assert list(in_batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert csv.field_size_limit() < rows.MAX_LINE
