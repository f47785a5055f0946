from hypothesis import given
from hypothesis import strategies as st

from bimo.text.document import DataHash, cut_point, text_digest


@given(st.text("ab \n中", min_size=1), st.integers(2, 7))
def test_a_cut_makes_progress_and_keeps_to_the_limit(text, limit):
    cut = cut_point(text, limit)
    assert 0 < cut <= max(limit, 1)
    assert cut == len(text) or len(text) > limit


def test_the_cut_prefers_blank_lines_then_line_ends_then_spaces():
    assert cut_point("aaaa\n\nb\nc dd", 11) == 8  # the blank line lies before the half: the line end is taken
    assert cut_point("aaaa\n\nb\nc dd", 9) == 6
    assert cut_point("aaaaaaa bbb", 9) == 8
    assert cut_point("中中中中中中中", 5) == 5
    assert cut_point("short", 5) == 5


def test_the_data_hash_depends_on_texts_their_order_and_their_bounds():
    def hashed(*texts):
        data_hash = DataHash()
        for text in texts:
            data_hash.add(text_digest(text))
        return data_hash.hex()

    assert hashed("a", "b") == hashed("a", "b")
    assert len({hashed("a", "b"), hashed("b", "a"), hashed("ab"), hashed("ab", ""), hashed()}) == 5
