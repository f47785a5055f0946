import json

import pytest

from bimo.text.decode import Unreadable
from bimo.text.readers.record import Text


def test_text_and_code_without_outputs(read):
    cells = [
        {"cell_type": "markdown", "source": ["# 笔墨\n", "ink\r\n"]},
        {"cell_type": "code", "source": "x = 1\nprint(x)", "outputs": [{"text": "1"}]},
        {"cell_type": "code", "source": []},
        {"cell_type": "raw", "source": "raw"},
        {"cell_type": "code", "source": "'''\n```\n'''"},
        "no cell",
        {"cell_type": "markdown", "source": 7},
    ]
    notebook = {"cells": cells, "metadata": {"language_info": {"name": "R"}}, "nbformat": 4}
    text = "# 笔墨\nink\n\n```r\nx = 1\nprint(x)\n```\n\n````r\n'''\n```\n'''\n````"
    assert read(".ipynb", json.dumps(notebook).encode()) == [Text("", text, "code")]


def test_the_old_format(read):
    cells = [{"cell_type": "heading", "level": 2, "source": "Ink"}, {"cell_type": "code", "input": ["x = 1"]}]
    notebook = {"worksheets": [{"cells": cells}], "metadata": {"kernelspec": {"language": "python 3"}}}
    assert read(".ipynb", json.dumps(notebook).encode())[0].text == "## Ink\n\n```python\nx = 1\n```"


def test_what_is_no_notebook(read, monkeypatch):
    for data, reason in (
        ("{", "broken JSON"),
        ("[" * 9999, "broken JSON"),
        ("[]", "no cells"),
        ('{"cells": 1}', "no cells"),
    ):
        with pytest.raises(Unreadable, match=reason):
            read(".ipynb", data.encode())
    monkeypatch.setattr("bimo.text.readers.notebook.RECORD_BYTES", 3)
    with pytest.raises(Unreadable, match="larger than 64 MB"):
        read(".ipynb", b'{"cells": []}')
