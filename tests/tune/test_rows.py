from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from bimo.errors import DataError, UsageError
from bimo.tune.columns import by_role, find_columns
from bimo.tune.rows import Row, Rows, read_rows
from bimo.tune.task import Role

ROWS = [{"text": "他说：“好”，走了", "label": "正"}, {"text": 'a "quoted", line\nbreak', "label": "neg"}]


def written(folder: Path, name: str, content: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    data = content.encode(encoding)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def values(found: Rows) -> list[dict]:
    return [dict(row.values) for row in found.rows]


CSV = 'text,label\n他说：“好”，走了,正\n"a ""quoted"", line\nbreak",neg\n'
JSONL = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.csv.gz", CSV),
        ("semicolons.csv", CSV.replace("text,label", "text;label").replace("走了,", "走了;").replace('",neg', '";neg')),
        ("a.jsonl", JSONL),
        ("a.json", json.dumps(ROWS)),
        ("wrapped.json", json.dumps({"version": 1, "data": ROWS})),
        ("really_lines.json", JSONL),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, content: str):
    found = read_rows([written(tmp_path, name, content)])
    assert values(found) == ROWS and found.columns == ["text", "label"] and not found.broken
    assert found.hash == read_rows([written(tmp_path, "b.jsonl", JSONL)]).hash


def test_parquet_gb18030_and_a_byte_order_mark(tmp_path: Path):
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert values(read_rows([tmp_path / "a.parquet"])) == ROWS
    assert values(read_rows([written(tmp_path, "a.csv", CSV, "utf-8-sig")])) == ROWS
    long = "text,label\n" + "话说天下大势，分久必合，合久必分。,正\n" * 9
    assert read_rows([written(tmp_path, "b.csv", long, "gb18030")]).rows[8].values["label"] == "正"


def test_a_quote_is_a_character_in_tab_separated_lines(tmp_path: Path):
    content = 'en\tzh\n"Yes" she said\t“好”\n"in ""quotes"""\t行\n'
    found = read_rows([written(tmp_path, "pairs.tsv", content)])
    assert values(found) == [{"en": '"Yes" she said', "zh": "“好”"}, {"en": 'in "quotes"', "zh": "行"}]


def test_what_is_broken_is_named_and_the_rest_is_kept(tmp_path: Path):
    lines = '{"a": 1}\n{"a": 2\n\n[1]\n{"a": 3}\n'
    found = read_rows([written(tmp_path, "m.jsonl", lines)])
    assert [row.where for row in found.rows] == ["m.jsonl line 1", "m.jsonl line 5"]
    assert "2 of 4 rows cannot be read: m.jsonl line 2: broken JSON at character" in found.told()
    assert "m.jsonl line 4: a JSON list" in found.told()
    found = read_rows([written(tmp_path, "t.csv", 'a,b\n1,2\n"x,3\n4,5\n6\n')])
    assert [row.values["a"] for row in found.rows] == ["1", "4"]
    assert "t.csv row 2: a quote that is never closed" in found.told() and "row 4: 1 fields" in found.told()


def test_nothing_to_read_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="nothing to learn from.*line 1"):
        read_rows([written(tmp_path, "m.jsonl", "{")])
    with pytest.raises(DataError, match="neither a path nor a corpus"):
        read_rows([tmp_path / "none.csv"])
    with pytest.raises(DataError, match="not a table"):
        read_rows([written(tmp_path, "m.txt", "text")])
    with pytest.raises(DataError, match="two columns are called 'a'"):
        read_rows([written(tmp_path, "m.csv", "a,a\n1,2\n")])


def test_a_folder_of_sources_is_rows_of_texts(tmp_path: Path):
    written(tmp_path, "a.py", "x = 1\n")
    written(tmp_path, "b.py", "# 你好\n")
    assert [row.values["text"] for row in read_rows([tmp_path], documents=True).rows] == ["x = 1\n", "# 你好\n"]


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5))
def test_any_json_lines_are_read_back(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]):
    rows = [{"q": one, "a": other} for one, other in pairs]
    path = tmp_path_factory.mktemp("rows") / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert values(read_rows([path])) == rows


ROLES = (Role("text", ("text", "review")), Role("label", ("label", "类别")), Role("id", ("id",), needed=False))


def of_columns(*names: str) -> Rows:
    return Rows("r.csv", [Row(0, "r.csv row 1", dict.fromkeys(names, "x"))], list(names))


def test_columns_are_told_by_their_names():
    assert find_columns(of_columns("Review", "类别", "id"), ROLES, {}) == {
        "text": "Review",
        "label": "类别",
        "id": "id",
    }
    assert find_columns(of_columns("body", "label"), ROLES, {"text": "body"}) == {"text": "body", "label": "label"}
    # a column that is named for one role is not taken for another
    assert find_columns(of_columns("text", "label"), ROLES, {"label": "text", "text": "label"})["label"] == "text"


@pytest.mark.parametrize(
    ("names", "text", "label"),
    [
        (("text_id", "Review Text", "sentiment label"), "Review Text", "sentiment label"),
        (("reviewText", "verdict"), "reviewText", "verdict"),
        (("\ufeffid", "商品评论", "商品类别", "类别编号"), "商品评论", "商品类别"),
        (("编号", "says", "label"), "says", "label"),
        (("", "review", "stars"), "review", "stars"),
        (("text", "review_text", "label"), "text", "label"),
    ],
)
def test_a_column_is_told_by_the_end_of_its_name_or_as_the_only_one_left(names: tuple[str, ...], text: str, label: str):
    roles = (Role("text", ("text", "review", "评论")), Role("label", ("label", "类别")))
    assert find_columns(of_columns(*names), roles, {}) == {"text": text, "label": label}


def test_a_role_that_need_not_be_there_is_not_guessed():
    roles = (Role("question", ("question",)), Role("system", ("system",), needed=False))
    assert find_columns(of_columns("question", "operating_system"), roles, {}) == {"question": "question"}
    with pytest.raises(UsageError, match="called like the label"):
        find_columns(of_columns("text", "row_id"), ROLES, {})


def test_a_wrong_column_gets_the_nearest_name():
    with pytest.raises(UsageError, match="no column 'lable' to be the label.*one of text, label.*Did you mean 'label'"):
        find_columns(of_columns("text", "label"), ROLES, {"label": "lable"})
    with pytest.raises(UsageError, match="No column of r.csv is called like the label.*--columns label=NAME"):
        find_columns(of_columns("text", "stars", "verdict"), ROLES, {})
    with pytest.raises(UsageError, match="--columns text=Txet label=labels"):
        find_columns(of_columns("id", "Txet", "labels"), ROLES, {})


def test_values_come_by_role_and_empty_ones_are_left_out():
    row = by_role(Row(3, "r row 4", {"a": "x", "b": "", "c": 0}), {"text": "a", "label": "b", "id": "c"})
    assert row.values == {"text": "x", "id": 0} and row.number == 3
