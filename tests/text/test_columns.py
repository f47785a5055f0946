import datetime
import io
import json

import pytest

from bimo.errors import ConfigError
from bimo.text.readers import READERS
from bimo.text.readers.columns import iso_time, parse_template
from bimo.text.readers.record import Bad, Options
from bimo.text.source import open_source


def read(rows, suffix=".jsonl", **options):
    data = rows if isinstance(rows, str) else "\n".join(json.dumps(row) for row in rows)
    return list(READERS[suffix](io.BytesIO(data.encode()), Options(**options)))


def test_a_template_makes_a_text_of_several_columns():
    rows = [
        {"title": "笔墨", "body": "one\r\ntwo", "stars": 5},
        {"title": None, "body": "no title"},
        {"body": "b"},
        {"title": ["a"], "body": "b"},
    ]
    found = read(rows, template=r"{title}\n\n{body} {{x}}")
    assert [record.text for record in found[:2]] == ["笔墨\n\none\ntwo {x}", "\n\nno title {x}"]
    assert found[2] == Bad("line 3", "no column 'title' (see --template). Known: body.")
    assert found[3] == Bad("line 4", "column 'title' is of type list, which a template cannot show")
    assert read(rows[:1], template="{stars}/{title}")[0].text == "5/笔墨"
    table = 'no;title;body\n1;曹操;"a;b"\n2;x\n'
    assert [record.text for record in read(table, ".csv", template="{body} {title}")[:1]] == ["a;b 曹操"]
    assert read(table, ".csv", template="{body}")[1] == Bad("row 2", "fewer fields than the header")


def test_a_template_reaches_no_attribute_of_a_value():
    found = read([{"title": "t"}], template="{title.__class__}")
    assert found == [Bad("line 1", "no column 'title.__class__' (see --template). Did you mean 'title'?")]
    assert read([{"a[0].b": "odd name"}], template="{a[0].b}")[0].text == "odd name"


@pytest.mark.parametrize("template", ["{", "{title", "}", "{}", "{title!r}", "{title:>9}", "no columns", "{a}{}"])
def test_a_template_that_makes_no_sense_is_refused(template, tmp_path):
    with pytest.raises(ConfigError, match="template"):
        parse_template(template)
    with pytest.raises(ConfigError, match="template"):
        open_source(tmp_path, template=template)


def test_the_usual_names_of_a_text_are_tried():
    found = read([{"id": 1, "content": "a"}, {"正文": "乙"}, {"content": "a", "body": "b"}, {"text": "t", "body": "b"}])
    assert [record.text for record in found if not isinstance(record, Bad)] == ["a", "乙", "t"]
    assert found[0].notes == ("text from column 'content'",)
    assert found[3].notes == ()
    assert found[2] == Bad("line 3", "no column 'text' (see --text-column). Did you mean 'content'?")
    assert isinstance(read([{"content": "a"}], text_column="review")[0], Bad)
    (row,) = read("id,Body,body\n1,x,y\n", ".csv")
    assert (row.text, row.notes) == ("y", ("text from column 'body'",))


def test_the_time_of_a_record():
    rows = [
        {"text": "a", "when": "2024-02-29T08:00:00Z"},
        {"text": "b", "when": "yesterday"},
        {"text": "c"},
        {"text": "d", "when": 1709193600},
    ]
    found = read(rows, time_column="when")
    assert [record.time for record in found] == ["2024-02-29T08:00:00+00:00", "", "", "2024-02-29T08:00:00+00:00"]
    assert [record.notes for record in found] == [(), ("no time: 'yesterday'",), ("no time: no column 'when'",), ()]
    (row,) = read("text,when\na,2024-02-29\n", ".csv", time_column="when")
    assert row.time == "2024-02-29"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2019, "2019"),
        ("2019", "2019"),
        ("2019-05", "2019-05"),
        ("2019-05-06", "2019-05-06"),
        ("2019-05-06 07:08:09", "2019-05-06T07:08:09"),
        (datetime.datetime(2019, 5, 6, 7), "2019-05-06T07:00:00"),
        (datetime.date(2019, 5, 6), "2019-05-06"),
        (1557126489, "2019-05-06T07:08:09+00:00"),
        (1557126489000, "2019-05-06T07:08:09+00:00"),
        ("Mon, 06 May 2019 07:08:09 +0200", "2019-05-06T07:08:09+02:00"),
        ("", ""),
        (None, ""),
        (True, ""),
        (float("nan"), ""),
        (1e300, ""),
        ([1], ""),
        ("最近", ""),
    ],
)
def test_times_become_iso_8601(value, expected):
    assert iso_time(value) == expected


def test_columns_of_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    when = [datetime.datetime(2019, 5, 6, 7, 8, 9), None]
    table = pyarrow.table({"title": ["一", "b"], "body": ["x", "y"], "when": when, "heavy": [[1], [2]]})
    parquet.write_table(table, tmp_path / "a.parquet")
    source = open_source(tmp_path, template="{title}: {body}", time_column="when")
    assert [(document.text, document.time) for document in source] == [("一: x", "2019-05-06T07:08:09"), ("b: y", "")]
    guessed = list(open_source(tmp_path))
    assert [(document.text, document.notes) for document in guessed] == [
        ("x", ("text from column 'body'",)),
        ("y", ("text from column 'body'",)),
    ]
