"""A Transformer that reads a text and judges it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from toolkit.data.spec import DataSpec
from toolkit.models.checks import check_data, refuse
from toolkit.types import Count, Share, Size

if TYPE_CHECKING:
    import keras


def text_transformer(
    spec: DataSpec,
    *,
    width: Size = 64,
    ngram: Size = 1,
    stride: Size = 1,
    heads: Size = 2,
    blocks: Size = 1,
    feed_forward: Size = 128,
    norm: Literal["pre", "post"] = "pre",
    pooling: Literal["mean", "max"] = "mean",
    dropout: Share = 0.1,
    embedding_dropout: Share = 0.1,
    token_dropout: Share = 0.0,
    pairs: Count = 0,
    bag_width: Size = 32,
    bag_dropout: Share = 0.3,
) -> keras.Model:
    """Token and position embedding → a convolution, if asked for → encoder blocks → pooling over the words → logits.

    With `pairs` the logits see, beside what the blocks made of the text, a bag of its words and of its pairs of
    neighbouring words: of each kind the sum of n vectors, divided by √n. So "not good" counts wherever it stands, and
    in a long text more than it would in a mean.

    Input: `tokens`, int32 `(batch, time)`, 0 for padding at the end, time at most the last of the data's `lengths`.
    Output: float32 `(batch, classes)`, logits. Padding is masked in attention and pooling; a text without any word is
    read as one padding token.

    Args:
        width: of a token's vector.
        ngram: tokens that a convolution before the first block sees at once; 1 and `stride` 1: there is none.
        stride: tokens from one place of that convolution to the next: the blocks see so many times fewer positions.
        heads: of each attention; each has width / heads dimensions.
        blocks: encoder blocks, one on the other: attention, then two dense layers, each with a residual.
        feed_forward: units of a block's first dense layer, with ReLU.
        norm: layer normalisation before each half of a block, and once more at the end; or after each half.
        pooling: mean or maximum over the words.
        dropout: share of attention weights, of each half block's output and of the pooled features set to zero in
            training, in [0, 1).
        embedding_dropout: share of the embeddings' numbers set to zero in training, in [0, 1).
        token_dropout: share of the tokens whose whole vector is set to zero in training, in [0, 1).
        pairs: vectors for pairs of neighbouring words, which share them by a hash; 0: there is no bag.
        bag_width: of a vector in the bag; a word has another one here than the blocks see.
        bag_dropout: share of the bag's words and pairs whose whole vector is set to zero in training, in [0, 1).

    Raises:
        ToolkitError: the data are no texts, or `heads` does not divide `width`.

    Source: encoder of Vaswani et al. 2017 (arXiv:1706.03762) with learnt positions; `pre` after Xiong et al. 2020
    (arXiv:2002.04745); the bag is that of Joulin et al. 2017 (arXiv:1607.01759), beside a deep network as in Cheng
    et al. 2016 (arXiv:1606.07792). The attention has no biases: that of the keys cancels in the softmax and would never
    learn.
    """
    import keras
    from keras import layers

    from toolkit.models.layers.masked import MaskedPooling, PaddingMask, StridedConvolution
    from toolkit.models.layers.position_embedding import PositionEmbedding
    from toolkit.models.layers.word_pairs import WordPairs

    check_data(spec, "text", model="text_transformer")
    refuse(_check({"width": width, "heads": heads}))
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    words = valid = PaddingMask(name="padding_mask")(tokens)  # (batch, time)
    x = layers.Embedding(len(spec.vocabulary), width, name="token_embedding")(tokens)  # (batch, time, width)
    # Before the positions are added: a token that is dropped leaves its place behind.
    x = layers.Dropout(token_dropout, noise_shape=(None, None, 1), name="token_dropout")(x)
    x = PositionEmbedding(spec.lengths[-1], name="position_embedding")(x)
    x = layers.Dropout(embedding_dropout, name="embedding_dropout")(x)
    if ngram > 1 or stride > 1:
        x, valid = StridedConvolution(width, width=ngram, stride=stride, name="ngrams")(x, valid)
        x = layers.Dropout(dropout, name="ngrams_dropout")(x)
    for i in range(1, blocks + 1):
        attend = _attention(valid, width=width, heads=heads, dropout=dropout, name=f"block{i}_attention")
        x = _residual(x, attend, norm=norm, dropout=dropout, name=f"block{i}_attention")
        feed = _feed_forward(width=width, units=feed_forward, name=f"block{i}_feed")
        x = _residual(x, feed, norm=norm, dropout=dropout, name=f"block{i}_feed")
    if norm == "pre":
        x = layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    x = MaskedPooling(pooling, name="pool")(x, valid)  # (batch, width)
    if pairs:
        numbers, neighbours = WordPairs(pairs, name="pairs")(tokens)
        for name, rows, of, there in (
            ("words", len(spec.vocabulary), tokens, words),
            ("pairs", pairs, numbers, neighbours),
        ):
            y = layers.Embedding(rows, bag_width, name=f"{name}_embedding")(of)  # (batch, time, bag_width)
            y = layers.Dropout(bag_dropout, noise_shape=(None, None, 1), name=f"{name}_dropout")(y)
            y = MaskedPooling("sqrtn", name=f"{name}_pool")(y, there)  # (batch, bag_width)
            x = layers.Concatenate(name=f"join_{name}")([x, y])
    x = layers.Dropout(dropout, name="pool_dropout")(x)
    logits = layers.Dense(len(spec.class_names), dtype="float32", name="logits")(x)
    return keras.Model({"tokens": tokens}, logits, name="text_transformer")


def _attention(valid: Any, *, width: int, heads: int, dropout: float, name: str) -> Any:
    """Attention of a sequence to its own valid positions."""
    from keras import layers

    attention = layers.MultiHeadAttention(heads, width // heads, dropout=dropout, use_bias=False, name=name)
    return lambda x: attention(x, x, value_mask=valid)


def _feed_forward(*, width: int, units: int, name: str) -> Any:
    """Two dense layers, the first with ReLU."""
    from keras import layers

    first = layers.Dense(units, activation="relu", name=f"{name}1")
    second = layers.Dense(width, name=f"{name}2")
    return lambda x: second(first(x))


def _residual(x: Any, half: Any, *, norm: str, dropout: float, name: str) -> Any:
    """`x` + `half`(x) with dropout, and the normalisation before `half` or after the sum."""
    from keras import layers

    normalize = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")
    y = half(normalize(x) if norm == "pre" else x)
    y = layers.Dropout(dropout, name=f"{name}_dropout")(y)
    y = layers.Add(name=f"{name}_add")([x, y])
    return y if norm == "pre" else normalize(y)


def _check(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What shows without data: (key, what is wrong)."""
    width, heads = arguments["width"], arguments["heads"]
    if width % heads == 0:
        return []
    text = f"width is {width} and model.heads {heads}, but each head takes an equal share of the width: make width a "
    return [("width", text + "multiple of heads")]


text_transformer.check = _check  # type: ignore[attr-defined]
