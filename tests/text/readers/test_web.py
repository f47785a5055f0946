import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.decode import Unreadable
from bimo.text.readers.record import Text
from bimo.text.readers.web import page_text

PROSE = st.text(st.characters(categories=["L", "Nd"], exclude_characters="\ufdd0"), min_size=1, max_size=9)


def test_main_content_in_paragraphs_and_lines(read):
    page = """<!DOCTYPE html><html><head><title>Ink &amp; stone</title><style>p{}</style><script>1</script></head><body>
    <nav><a href="/">Home</a></nav><header class="navbar"><a href="/a">About</a></header>
    <main><h2>How it is made</h2><p>Soot and\n  glue,<br>kneaded.</p><ul><li>pine soot</li><li>oil soot</li></ul>
    <table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table><pre>x = 1\n\n  y = 2</pre>
    <p>End.<img alt="a picture"></p></main><footer>Copyright</footer></body></html>"""
    text = (
        "Ink & stone\n\nHow it is made\n\nSoot and glue,\nkneaded.\n\n  • pine soot\n  • oil soot\na\t\tb\nc\t\td\n"
        "x = 1\n\n  y = 2\n\nEnd."
    )
    assert read(".html", page.encode()) == [Text("", text, "web")]


def test_menus_go_and_lists_of_text_stay_wherever_they_stand():
    menu = "<ul class='menu'><li><a href=a>Home</a><li><a href=b>Contact</a></ul>"
    links = "<ul><li><a href=a>Home</a><li><a href=b>Contact</a></ul>"
    found = "<ul><li>pine soot, the oldest kind<li>oil soot</ul>"
    for depth in range(5):
        before, after = "<div>" * depth, "</div>" * depth
        text = page_text(f"<p>One.</p>{menu}{before}{links}{found}{after}<p>Two.</p>")
        assert text == "One.\n\n  • pine soot, the oldest kind\n  • oil soot\n\nTwo."


def test_texts_of_one_character_stay_and_icons_go():
    page = "<p><i>a</i>、<i>b</i>和 <i>c</i>&mdash;<b>中</b><i>&#8217;</i><i>où</i><i>\uf015</i><i>&#xf015;</i>é</p>"
    assert page_text(page) == "a、b和 c—中’oùé"


@given(st.lists(st.lists(PROSE, min_size=1, max_size=4), min_size=1, max_size=4))
def test_no_inline_text_is_lost(paragraphs):
    page = "".join(f"<p>{''.join(f'<i>{text}</i>' for text in texts)}</p>" for texts in paragraphs)
    expected = "\n\n".join("".join(texts) for texts in paragraphs)
    assert page_text(page) == page_text(page, main_content=False) == expected


def test_the_title_is_said_once():
    for title, text in (
        ("墨", "墨\n\n文房四宝之一。"),
        ("Ink", "Ink\n\nText."),
        ("Ink - site", "Ink\n\nText."),
        ("The history of ink, from soot to toner", "Ink\n\nText."),
    ):
        heading, _, rest = text.partition("\n\n")
        found = page_text(f"<title>{title}</title><h1>{heading}</h1><p>{rest}</p>")
        assert found == (text if len(title) < 15 else f"{title}\n\n{text}")
    assert page_text("<title>Ink</title>") == "Ink"
    assert page_text("") == ""


def test_where_there_is_only_a_menu_it_is_the_text():
    assert page_text("<body><nav>Home</nav></body>") == "Home"


def test_xhtml_closes_elements_at_once():
    page = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body><p>a<br/>b</p>'
    assert page_text(page + '<p><a id="x"/>c</p></body></html>') == "a\nb\n\nc"


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("declaration", ['<meta charset="{}">', "<meta content='text/html; charset={}'>", ""])
def test_encodings_that_are_named_or_not(read, encoding, declaration):
    text = "文房四寶是筆墨紙硯，" * 20
    page = f"<html><head>{declaration.format(encoding)}</head><body><p>{text}</p></body></html>"
    (record,) = read(".html", page.encode(encoding))
    assert record.text == text
    assert bool(record.notes) == (encoding != "utf-8")


def test_a_wrong_declaration_does_no_harm(read):
    for wrong in ("iso-8859-1", "gb2312", "nonsense", "utf-16"):
        (record,) = read(".html", f"<meta charset={wrong}><p>笔墨，很好。</p>".encode())
        assert record.text == "笔墨，很好。"


def test_what_is_no_page(read):
    with pytest.raises(Unreadable, match="binary file"):
        read(".html", b"<p>\0\1\2</p>")


def test_a_page_that_is_too_large_is_refused(read, monkeypatch):
    monkeypatch.setattr("bimo.text.readers.streams.RECORD_BYTES", 20)
    assert read(".html", b"<p>123456789 12</p>")
    with pytest.raises(Unreadable, match="larger than 64 MB"):
        read(".html", b"<p>123456789 123456789</p>")


def test_a_page_of_too_many_tags_is_refused(monkeypatch):
    monkeypatch.setattr("bimo.text.readers.web.MOST_TAGS", 3)
    assert page_text("<p>a<p>b<p>c") == "a\n\nb\n\nc"
    with pytest.raises(Unreadable, match="more than 3 tags"):
        page_text("<p>a<p>b<p>c</p>")


def test_deep_nesting_takes_no_time():
    assert page_text("<div>" * 200_000 + "ink") == "ink"  # minutes, were main content searched for
