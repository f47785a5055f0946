import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.clean.boilerplate import Config, build
from bimo.text.document import Document

STEP = build(Config())
KINDS = ["web", "mail", "prose", "code", "table"]
PIECES = """
Home
News
A title
It was a dark night.
Share
© 2020 A
Home | News | Contact
We use cookies on this site.
首页
关于我们
责任编辑：张三
上一篇：甲
--
______________________________
------------------------------~-->
ILUG mailing list
http://a.b/listinfo/c
To unsubscribe, go
A wrote:
> quoted
|
-
"""
LINES = st.sampled_from(PIECES.split("\n"))
ANY = st.lists(LINES, max_size=14).map("\n".join) | st.text(st.characters(exclude_categories=[]))


def clean(text, kind="web", **settings):
    return build(Config(**settings))(Document("d", text, "s", kind=kind)).text


@pytest.mark.parametrize("kind", KINDS)
@given(text=ANY)
def test_twice_is_once_and_nothing_raises(kind, text):
    step = build(Config(signatures=True, quotes=True))
    once = step(Document("d", text, "s", kind=kind))
    assert step(once) is once
    assert STEP(STEP(Document("d", text, "s", kind=kind))).text == STEP(Document("d", text, "s", kind=kind)).text


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.characters(min_codepoint=97, max_codepoint=105) | st.sampled_from(" \n.")))
def test_plain_text_is_the_same_object(kind, text):
    document = Document("d", text, "s", kind=kind)
    assert STEP(document) is document


PAGE = """Skip to content
Home
About us
Our work
Our privacy policy
About the Rain

Rain in May

It rained all day. The farmers were glad.

Share this article
Share on Facebook

Related articles
Home | News | Contact us | Site map
We use cookies to improve your experience on this site. Accept
Please enable JavaScript to view the comments.
Next post: Sun in June
Copyright © 2019 The Daily Rain
© The Rain 2019. All rights reserved.
"""


def test_a_page_keeps_its_text_and_the_note_counts_by_rule():
    result = STEP(Document("d", PAGE, "s", kind="web"))
    assert result.text == "Rain in May\n\nIt rained all day. The farmers were glad.\n"
    note = "boilerplate: 15 lines removed (cookies 1, javascript 1, menu 6, next 1, phrase 4, rights 2)"
    assert result.notes == (note,)


SEITE = """首页
新闻中心
联系我们
当前位置：首页 > 新闻 > 正文
五月的雨

今天下了一天雨，农民很高兴。
他说：“首页”是网站的第一页。
（责任编辑：张三）
扫一扫，关注我们的微信公众号
上一篇：四月的风
下一篇：没有了
分享到：微信 微博
相关阅读
设为首页
Copyright © 2019 某某网 版权所有
京ICP备12345678号-1 京公网安备 11010502030143号
未经授权，不得转载或镜像
"""


def test_a_chinese_page_keeps_its_text():
    assert clean(SEITE) == "五月的雨\n\n今天下了一天雨，农民很高兴。\n他说：“首页”是网站的第一页。\n"
    kept = clean(SEITE, "prose")
    assert "ICP" not in kept and "责任编辑" not in kept and "五月的雨" in kept and kept.startswith("首页\n")


def test_a_japanese_page_keeps_its_text():
    above = "ホーム\nお問い合わせ\n"
    below = "\n前の記事：四月の風\n関連記事\n本サイトの無断転載を禁じます。"
    assert clean(f"{above}五月の雨\n\n一日中雨が降った。{below}") == "五月の雨\n\n一日中雨が降った。"


@pytest.mark.parametrize("kind", ["web", "prose", "mail"])
@pytest.mark.parametrize(
    "text",
    [
        "CONTENTS\n\nI. A Scandal in Bohemia\nII. The Red-Headed League\nIII. A Case of Identity\n\nHome\n",
        "Salt\nPepper\nButter\nTwo eggs\nFlour\nSugar",
        "Home is the sailor, home from sea,\nAnd the hunter home from the hill.",
        "This recipe uses cookies. We use cookies and cream for it, too.\nBy using butter, cookies become crisp.",
        "Copyright law protects authors.\nIn 1921 all rights were his.",
        "JavaScript is a language of the web. It was made in 1995.",
        "编辑部的故事\n他是一位编辑，上一篇文章写得很好。\n版权制度是这样的：\n请关注这个问题。",
        "| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |",
        "a = b / c / d\nHAMLET.\nHome.\nNews.",
        "I moved home.\n\nLists\n-----\nOur mailing list is good. I have\nto unsubscribe from nothing.",
    ],
)
def test_text_stays(kind, text):
    document = Document("d", text, "s", kind=kind)
    assert STEP(document) is document


MAIL = """Hello Anna,

it works now. I had
to unsubscribe twice.
> Does it?

--
Tom Smith
Dublin

-------------------------------------------------------
This sf.net email is sponsored by:ThinkGeek
Welcome to geek heaven.
http://thinkgeek.example/sf
_______________________________________________
Razor-users mailing list
Razor-users@lists.example.net
https://lists.example.net/lists/listinfo/razor-users

To unsubscribe from this group, send an email to:
razor-unsubscribe@lists.example.net

Sent from my iPhone
发自我的iPhone
"""


def test_mail_keeps_what_its_author_wrote():
    own, signature, _ = MAIL.partition("\n--\nTom Smith\nDublin\n")
    assert clean(MAIL, "mail") == own + signature
    assert clean(MAIL, "mail", signatures=True) == own.rstrip("\n") + "\n"
    assert clean("On Monday Tom wrote:\n> a\n> b\n\nYes.\n", "mail", quotes=True) == "Yes.\n"
    assert clean(MAIL, "web").startswith("Hello Anna,\n\nit works now.")


def test_code_and_tables_are_not_looked_at():
    for kind in ("code", "table"):
        document = Document("d", PAGE, "s", kind=kind)
        assert STEP(document) is document
