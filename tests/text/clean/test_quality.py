from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.clean.quality import PROFILES, RULES, STOP_CHARACTERS, Config, build
from bimo.text.document import KINDS, Document, Drop

PROSE = (
    "The bells of the old town rang over the river that morning, and the people who had slept in the square woke up. "
    "They had come with carts and with children to the market. Nobody knew what the day would bring to them.\n"
    "A man stood on the steps of the church and read from a paper. What he said was soon forgotten. But those who "
    "heard him have told of his voice, which was clear, and of the silence that came after it.\n"
) * 2
CHINESE = (
    "却说那座老城里的钟声在清晨响起，睡在广场上的人们都醒了过来。他们赶着车、带着孩子来赶集，不知道这一天会有什么事情。"
    "一个人站在教堂的台阶上念着一张纸。他说了些什么，大家很快就忘了。但是听过他说话的人，都记得他的声音是那样清亮。\n"
) * 2
JAPANESE = (
    "その朝、古い町の鐘が川の向こうまで鳴り響き、広場で眠っていた人々は目を覚ました。荷車を引き、子どもを連れて市場に来た人たちである。"
    "一人の男が教会の階段に立ち、紙に書かれたものを読み上げた。何を言ったのかはすぐに忘れられた。\n"
) * 2
POEM = "床前明月光，\n疑是地上霜。\n举头望明月，\n低头思故乡。"
PLAY = "HAMLET.\nTo be, or not to be, that is the question:\n\nOPHELIA.\nGood my lord!\n\n" * 9


def verdict(text: str, profile: str = "own", kind: str = "prose", **limits: float) -> Document | Drop:
    return build(Config(profile=profile, **limits))(Document("a", text, "a.txt", kind=kind))


def evidence(text: str, profile: str = "own", **limits: float) -> str:
    result = verdict(text, profile, **limits)
    return result.evidence if isinstance(result, Drop) else ""


@given(st.text(), st.sampled_from(sorted(PROFILES)), st.sampled_from(KINDS))
def test_a_document_is_kept_as_it_is_or_dropped_for_a_known_reason(text: str, profile: str, kind: str) -> None:
    document = Document("a", text, "a.txt", kind=kind)
    result = build(Config(profile=profile))(document)
    assert result is document or (
        isinstance(result, Drop) and result.reason in {rule.reason for rule in RULES.values()} and result.evidence
    )


@pytest.mark.parametrize("profile", sorted(PROFILES))
@pytest.mark.parametrize("text", [PROSE, CHINESE, JAPANESE], ids=["en", "zh", "ja"])
def test_prose_of_three_languages_passes_every_profile(text: str, profile: str) -> None:
    limits = {"max_repeated_line_characters": 1.0} if profile in ("fineweb", "web") else {}  # it stands twice
    assert evidence(text, profile, **limits) == ""


@pytest.mark.parametrize(
    "text", [POEM, PLAY, "- milk and bread\n- two eggs\n", "# 2.1 API\n\n```\nf(x) {}\n```\nCalls f."]
)
def test_what_a_person_keeps_in_a_folder_passes_our_own_limits(text: str) -> None:
    assert evidence(text) == ""


@pytest.mark.parametrize(
    ("profile", "text", "rule"),
    [
        ("own", "1 2 3\n4 5 6 7\n" * 20, "min_alphabetic_words"),
        ("own", ("QWxhZGRpbjpvcGVuIHNlc2FtZQ" * 3 + "\n") * 20, "max_word_length"),
        ("own", "", "min_words"),
        ("own", " ".join(["sneakers shoes discount outlet cheap"] * 11), "min_stop_words"),
        ("own", "鞋子 运动鞋 打折 便宜 促销 " * 20, "min_stop_words"),
        ("gopher", "Only the few words of a short note.", "min_words"),
        ("gopher", POEM, "min_words"),
        ("gopher", "word to be " * 40_000, "max_words"),
        ("gopher", "a b c d of to be the " * 9, "min_word_length"),
        ("gopher", "internationalisation telecommunications the of " * 20, "max_word_length"),
        ("gopher", PROSE + "# " * 40, "max_hashes"),
        ("gopher", PROSE.replace(" ", " ...", 40), "max_ellipses"),
        ("gopher", "\n".join(f"- the length of a line that we have {i}" for i in "abcdefgh"), "max_bullet_lines"),
        ("gopher", PROSE + "and so it ends...\n" * 4, "max_ellipsis_lines"),
        ("gopher", CHINESE + "欲知后事如何……\n" * 4, "max_ellipsis_lines"),
        ("gopher", PROSE + "12 34 56 " * 40, "min_alphabetic_words"),
        ("c4", PROSE + "Lorem ipsum dolor sit amet.", "max_lorem_ipsum"),
        ("c4", PROSE + "function () { }", "max_curly_brackets"),
        (
            "c4",
            "One sentence here. And another one.\nmenu\nhome\nPlease enable JavaScript to go on. Thank you all.",
            "min_sentences",
        ),
        ("c4", "这里只有一句话而已。\n首页\n关于我们", "min_sentences"),
        ("fineweb", "\n".join(f"the line {i} of a menu has no full stop at all" for i in range(20)), "min_ended_lines"),
        ("fineweb", PROSE[:100] + ".\n" + "\n".join(f"item {i}." for i in range(9)), "max_short_lines"),
        ("fineweb", CHINESE[:50] + "。\n" + "\n".join(f"{i}号货。" for i in range(9)), "max_short_lines"),
        ("fineweb", PROSE, "max_repeated_line_characters"),
        (
            "fineweb",
            "extraordinarily.\n\nunimaginably complicated.\n\n" + "internationalisation, of telecommunications.\n\n",
            "max_line_breaks",
        ),
        ("web", "Only the few words of a short note.", "min_words"),
        ("web", PROSE + "{", "max_curly_brackets"),
    ],
)
def test_each_rule_drops_what_it_is_for(profile: str, text: str, rule: str) -> None:
    assert evidence(text, profile).startswith(f"{rule}: "), evidence(text, profile)


def test_a_limit_of_the_user_replaces_that_of_the_profile() -> None:
    assert verdict(POEM, "own", min_words=50) == Drop("too few words", "min_words: 12.5, expected at least 50")
    assert evidence("Only the few words of a short note.", "gopher", min_words=3) == ""


def test_code_and_tables_are_not_judged() -> None:
    for kind in ("code", "table"):
        assert isinstance(verdict("1,2,3\n4,5,6", kind=kind), Document)
    assert isinstance(verdict("1,2,3\n4,5,6", kind="mail"), Drop)


def test_stop_words_of_other_languages_count() -> None:
    french = "Le chat de la voisine dort sur une chaise dans le jardin et il rêve des souris du grenier. " * 4
    assert evidence(french, "gopher") == ""
    assert all("的" not in others for others in STOP_CHARACTERS[1:])


def test_scripts_without_a_list_of_stop_words_are_not_dropped_for_having_none() -> None:
    for sentence in (
        "დღეს კარგი ამინდია და ჩვენ ვსეირნობთ ქალაქში. ",  # Georgian
        "오늘은 날씨가 좋아서 우리는 공원에서 산책했다. ",  # Korean
        "இன்று வானிலை நன்றாக இருக்கிறது, நாங்கள் நடக்கிறோம். ",  # Tamil
        "ថ្ងៃនេះអាកាសធាតុល្អណាស់យើងដើរលេងនៅសួន។ ",  # Khmer
    ):
        assert evidence(sentence * 20) == ""
    swahili = "Leo hali ya hewa ni nzuri na watoto wanacheza nje ya nyumba yao kwa furaha. "
    assert evidence(swahili * 20) == ""


def test_every_rule_can_be_set() -> None:
    assert [field.name for field in fields(Config) if field.default is None] == sorted(
        RULES, key=[field.name for field in fields(Config)].index
    )
