"""Other libraries' attention over the same tensors; None where one is not there or cannot do it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Work = Callable[[], object]
BLOCK = 16


def sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool) -> Work | None:
    """cuDNN's attention, pinned: torch's default on Hopper is an older one. None where it cannot run."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention as attend

    def work() -> Tensor:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION if query.is_cuda else SDPBackend.MATH):
            return attend(query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=True)

    try:
        work()
    except RuntimeError:
        return None
    return work


def flex(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, bias: Tensor, *, causal: bool) -> Work | None:
    """FlexAttention with the same bias."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if not query.is_cuda:
        return None

    def score(s: Tensor, b: Tensor, h: Tensor, _: Tensor, j: Tensor) -> Tensor:
        return s + bias[h] * mask[b, j]

    blocks = None
    if causal:
        blocks = create_block_mask(lambda b, h, i, j: i >= j, None, None, query.shape[2], key.shape[2])
    compiled = torch.compile(flex_attention)
    return lambda: compiled(query, key, value, score_mod=score, block_mask=blocks, enable_gqa=True)


def flashinfer_decode(query: Tensor, keys: Tensor, values: Tensor, tables: Tensor, length: int) -> Work | None:
    """FlashInfer over the same blocks, where it can be imported."""
    try:
        import flashinfer
    except ImportError:
        return None
    rows, heads, width = query.shape
    blocks = tables.shape[1]
    cache = (keys.transpose(2, 3).transpose(1, 2).contiguous(), values.transpose(1, 2).contiguous())
    space = torch.empty(128 * 2**20, dtype=torch.uint8, device=query.device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(space, "NHD")
    bounds = torch.arange(0, rows * blocks + 1, blocks, dtype=torch.int32, device=query.device)
    last = torch.full((rows,), (length - 1) % BLOCK + 1, dtype=torch.int32, device=query.device)
    wrapper.plan(bounds, tables.flatten(), last, heads, keys.shape[1], width, BLOCK, q_data_type=query.dtype)
    return lambda: wrapper.run(query, cache)
