"""Who sees whom, against the definition written as loops; and both kernels, against attention head by head."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bimo.models.attention import attend, positions_and_mask


@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=5, max_size=5), min_size=1, max_size=3),
    window=st.none() | st.integers(1, 6),
    with_segments=st.booleans(),
)
def test_the_mask_is_causal_within_segment_and_window(rows, window, with_segments):
    ids = torch.tensor(rows)
    segment_ids = ids if with_segments else None
    positions, mask = positions_and_mask(ids, None, segment_ids, None, torch.float32, window)
    assert positions.tolist() == [list(range(5))]
    assert mask is not None
    for row, segments in enumerate(rows):
        for query in range(5):
            for key in range(5):
                near = query - key < (window or 99)
                same = not with_segments or segments[query] == segments[key]
                seen = key <= query and near and same
                assert mask.expand(len(rows), 1, 5, 5)[row, 0, query, key] == (0 if seen else -math.inf)


def test_given_positions_are_kept():
    given_ids = torch.tensor([[0, 1, 0]])
    positions, _ = positions_and_mask(torch.zeros(1, 3, dtype=torch.long), given_ids, None, None, torch.float32)
    assert positions is given_ids


@pytest.mark.parametrize("written_out", [True, False])
@pytest.mark.parametrize("key_heads", [1, 2, 6])
@pytest.mark.parametrize(("queries", "masked"), [(1, False), (3, False), (7, False), (3, True), (7, True)])
def test_attention_is_the_definition_head_by_head(written_out, key_heads, queries, masked, monkeypatch):
    if not written_out:
        monkeypatch.setattr("bimo.models.attention.WRITTEN_OUT_UP_TO", 0)
    generator = torch.Generator().manual_seed(0)
    rows, heads, size, keys = 2, 6, 5, 7
    q = torch.randn(rows, heads, queries, size, generator=generator)
    k, v = torch.randn(2, rows, key_heads, keys, size, generator=generator)
    visible = torch.ones(rows, 1, queries, keys, dtype=torch.bool).tril(keys - queries)
    mask = None
    if masked:
        visible[1, :, :, 1:3] = False
        mask = torch.zeros(visible.shape).masked_fill(~visible, -math.inf)
    result = attend(q, k, v, mask)
    assert result.shape == q.shape
    for row in range(rows):
        for head in range(heads):
            shared = head // (heads // key_heads)
            for query in range(queries):
                seen = visible[row, 0, query]
                scores = k[row, shared][seen] @ q[row, head, query] / math.sqrt(size)
                expected = scores.softmax(0) @ v[row, shared][seen]
                assert torch.allclose(result[row, head, query], expected, atol=1e-6)
