"""Token embeddings in the fewest bits that hold them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from ift_kernels.quantized_linear import QuantizedWeight


class TokenEmbeddings:
    """A table that is only ever read by rows, so it need not be in the dtype that is computed in.

    A float32 table on the CPU whose values bf16 holds, as that of a model stored in bf16, is kept as bf16.
    """

    def __init__(self, table: Tensor | QuantizedWeight, dtype: torch.dtype) -> None:
        """table: ``[V, d]``. dtype: of the rows that are given."""
        self._table = table
        self._dtype = dtype
        if isinstance(table, Tensor) and table.dtype == torch.float32 and table.device.type == "cpu":
            narrow = table.to(torch.bfloat16)
            if torch.equal(narrow.to(torch.float32), table):
                self._table = narrow

    def __call__(self, ids: Tensor) -> Tensor:
        """``[T]`` -> ``[T, d]``."""
        if isinstance(self._table, Tensor):
            return embedding(ids, self._table).to(self._dtype)
        return self._table.rows(ids).to(self._dtype)

    def dense(self) -> Tensor:
        """``[V, d]`` in the dtype of the rows."""
        table = self._table if isinstance(self._table, Tensor) else self._table.dense()
        return table.to(self._dtype)
