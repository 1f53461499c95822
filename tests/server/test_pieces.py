"""Outputs in pieces: none has more than its bound, and together they are the output."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from ift_serve.engine.protocol.generate import CandidateOutput
from ift_serve.server.pieces import entries, pieces
from ift_serve.sharing.loop_shares import FREE_ENTRIES


@example(alternatives=[0] * 20 + [20] * 40)
@given(alternatives=st.lists(st.integers(0, 20), min_size=1, max_size=80))
def test_pieces_keep_their_bound_whatever_each_token_carries(alternatives: list[int]) -> None:
    whole = CandidateOutput(
        request_id="a",
        candidate=0,
        token_ids=list(range(len(alternatives))),
        statistics=[],
        top_log_probs=[[(place, -1.0) for place in range(count)] for count in alternatives],
    )
    cut = list(pieces(whole))
    assert all(entries(piece) <= FREE_ENTRIES for piece in cut)
    assert [token for piece in cut for token in piece.token_ids] == whole.token_ids
    assert [top for piece in cut for top in piece.top_log_probs] == whole.top_log_probs
