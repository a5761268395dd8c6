"""Which pairs of neighbouring words a text holds, as numbers that an embedding takes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="toolkit")
class WordPairs(keras.layers.Layer):
    """int32 tokens `(batch, time)` → int32 numbers of pairs `(batch, time)` below `buckets`, and bool `(batch, time)`.

    Place i stands for the tokens i and i + 1, and is true where neither is padding; the last is always false. A pair's
    number is a hash, so that different pairs may share one: with a vocabulary of 20,000 there are more pairs than any
    table holds, and most are never seen.

    Args:
        buckets: how many numbers there are.

    Source: the features of Joulin et al. 2017 (arXiv:1607.01759); the hash, (a · 73856093) xor (b · 19349663) in 32
    bits, from Teschner et al. 2003, "Optimized Spatial Hashing for Collision Detection of Deformable Objects".
    """

    def __init__(self, buckets: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.buckets = buckets

    def call(self, tokens: Any) -> tuple[Any, Any]:
        """Numbers of the pairs, and which of them are there."""
        after = ops.pad(tokens[:, 1:], ((0, 0), (0, 1)))
        mixed = ops.bitwise_xor(tokens * 73856093, after * 19349663)  # wraps around
        return ops.mod(mixed, self.buckets), ops.logical_and(tokens != 0, after != 0)

    def compute_output_spec(self, tokens: Any) -> tuple[Any, Any]:
        """Shapes and types of the two."""
        return keras.KerasTensor(tokens.shape, dtype="int32"), keras.KerasTensor(tokens.shape, dtype="bool")

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor needs."""
        return {**super().get_config(), "buckets": self.buckets}
