"""The toolkit's models in native PyTorch: the same architecture, with which `benchmark_training.py` compares speed.

Each has the mathematics, the trainable parameters and the distributions of start values of its builder in
`toolkit/models/`, and takes the same dictionary of inputs, as tensors. Two things differ in training, not in what is
computed from given weights: torch's running variances are unbiased, Keras's are not; and its LSTM has a second bias,
which is kept at 0.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import rnn

from toolkit import registry
from toolkit.data.spec import DataSpec
from toolkit.models.blocks import MOMENTUM

Inputs = Mapping[str, torch.Tensor]


def build(name: str, arguments: Mapping[str, Any], spec: DataSpec) -> nn.Module:
    """The twin of the shipped model `name`; `arguments` as in a config's `model`, the rest are its builder's defaults.

    Its `forward` takes `{"image": …}`, `{"samples": …, "lengths": …}` or `{"tokens": …}` and gives float32 logits.
    """
    bound = inspect.signature(registry.resolve("models", name)).bind(spec, **arguments)
    bound.apply_defaults()
    return TWINS[name](*bound.args, **bound.kwargs).apply(_start_as_keras)


# --- images ----------------------------------------------------------------------------------------------------------


class Images(nn.Module):
    """Layers on uint8 images `(batch, height, width, channels)`, which lie in memory as channels_last has them."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for name, layer in layers.items():
            self.layers.add_module(name, layer)
        self.to(memory_format=torch.channels_last)

    def forward(self, inputs: Inputs) -> torch.Tensor:
        return self.layers(inputs["image"].permute(0, 3, 1, 2).float() / 255)


class FlattenChannelsLast(nn.Module):
    """To `(batch, height * width * channels)`, which channels_last gives without a copy."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def mnist_dense(spec: DataSpec, *, hidden: int, dropout: float) -> nn.Module:
    numbers = math.prod(side or 0 for side in spec.shape)
    return Images({"flatten": FlattenChannelsLast(), **_head(numbers, hidden, dropout, spec)})


def simple_cnn(
    spec: DataSpec, *, filters: Sequence[int], convolutions: int, units: int, dropout: float, batch_norm: bool
) -> nn.Module:
    height, width, before = (side or 0 for side in spec.shape)
    layers: dict[str, nn.Module] = {}
    for i, channels in enumerate(filters, start=1):
        for j in range(1, convolutions + 1):
            name = f"block{i}" if j == 1 else f"block{i}_{j}"
            layers |= _convolution(before, channels, 3, batch_norm=batch_norm, name=name)
            before = channels
        layers[f"block{i}_pool"] = nn.MaxPool2d(2)
    flat = height * width // 4 ** len(filters) * before
    return Images({**layers, "flatten": FlattenChannelsLast(), **_head(flat, units, dropout, spec)})


def cat_dog_cnn(
    spec: DataSpec, *, stem: int, blocks: Sequence[Sequence[int]], batch_norm: bool, dropout: float
) -> nn.Module:
    layers = _convolution(spec.shape[-1] or 0, stem, 5, stride=2, batch_norm=batch_norm, name="stem")
    before = stem
    for i, block in enumerate(blocks, start=1):
        for j, channels in enumerate(block, start=1):
            layers |= _convolution(before, channels, 3, batch_norm=batch_norm, name=f"block{i}_{j}")
            before = channels
        if i < len(blocks):
            layers[f"block{i}_pool"] = nn.MaxPool2d(2)
    end = {"pool_dropout": nn.Dropout(dropout), "logits": nn.Linear(before, spec.outputs)}
    return Images({**layers, "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), **end})


def _convolution(
    before: int, channels: int, size: int, *, stride: int = 1, batch_norm: bool, name: str
) -> dict[str, nn.Module]:
    """Padding as TensorFlow's `same` for even sides: where it cannot be equal, one row or column more stands behind."""
    layers: dict[str, nn.Module] = {}
    padding, rest = divmod(size - stride, 2)
    if rest:
        layers[f"{name}_pad"] = nn.ZeroPad2d((0, 1, 0, 1))
    layers[f"{name}_conv"] = nn.Conv2d(before, channels, size, stride, padding, bias=not batch_norm)
    if batch_norm:
        layers[f"{name}_norm"] = nn.BatchNorm2d(channels, eps=1e-3, momentum=1 - MOMENTUM)
    return {**layers, f"{name}_relu": nn.ReLU(inplace=True)}


def _head(before: int, units: int, dropout: float, spec: DataSpec) -> dict[str, nn.Module]:
    hidden = {"hidden": nn.Linear(before, units), "hidden_relu": nn.ReLU(inplace=True)}
    return {**hidden, "hidden_dropout": nn.Dropout(dropout), "logits": nn.Linear(units, spec.outputs)}


# --- sequences -------------------------------------------------------------------------------------------------------


class LogMel(nn.Module):
    """Waveforms to log-mel features, normalised over each clip, and how many frames of each are valid."""

    def __init__(self, spec: DataSpec, *, normalization: str, **arguments: Any) -> None:
        from toolkit.models.layers import log_mel

        super().__init__()
        self.one_deviation = normalization == "mean"
        given = log_mel.LogMel(sample_rate=spec.sample_rate or 0, **arguments)  # only for its numbers
        self.frame, self.hop, self.fft, self.floor = given.frame, given.hop, given.fft, given.floor
        self.top_db = given.top_db
        self.register_buffer("window", torch.from_numpy(given.window), persistent=False)
        self.register_buffer("filters", torch.from_numpy(given.filters), persistent=False)

    def forward(self, samples: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features `(batch, frames, mels)` and counts `(batch,)`."""
        # What lies beyond a clip's end need not be silenced: a valid frame reaches there only if it is its clip's only
        # one, and that becomes 0 whatever it holds.
        samples = functional.pad(samples, (0, max(self.frame - samples.shape[1], 0)))
        spectrum = torch.fft.rfft(samples.unfold(1, self.frame, self.hop) * self.window, n=self.fft)
        power = spectrum.real.square() + spectrum.imag.square()  # (batch, frames, bins)
        features = (power @ self.filters + self.floor).log()
        counts = (lengths - self.frame).clamp(min=0) // self.hop + 1
        valid = _inside(counts, features.shape[1])[:, :, None]
        if self.top_db is not None:
            loudest = features.masked_fill(~valid, -math.inf).amax(dim=(1, 2), keepdim=True)
            features = features.maximum(loudest - self.top_db * math.log(10) / 10)
        weight = valid.float()
        centred = (features - _mean(features, weight)) * weight
        variance = _mean(centred.square(), weight)
        if self.one_deviation:
            variance = variance.mean(dim=2, keepdim=True)
        return centred / (variance + 1e-5).sqrt(), counts


class StridedConvolution(nn.Module):
    """Convolution over time with ReLU, which sees zeros for whatever is not valid."""

    def __init__(self, before: int, channels: int, *, width: int, stride: int) -> None:
        super().__init__()
        self.even = width % 2 == 0  # then one step more lies behind the middle than before it
        self.convolution = nn.Conv1d(before, channels, width, stride, padding=(width - 1) // 2)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """`(batch, time, before)` → `(batch, ceil(time / stride), channels)`."""
        x = (x * valid[:, :, None]).transpose(1, 2)
        if self.even:
            x = functional.pad(x, (0, 1))
        return functional.relu(self.convolution(x)).transpose(1, 2)


class Speech(nn.Module):
    """`speech_lstm`, and without pooling `speech_ctc`, which answers for each frame."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        mels: int,
        convolutions: Sequence[int],
        cell: str,
        layers: int,
        units: int,
        bidirectional: bool,
        dropout: float,
        mask_bands: int,
        mask_time: float,
        pooling: str | None = None,
        **front: Any,
    ) -> None:
        super().__init__()
        if mask_bands or mask_time:
            raise NotImplementedError("the twin has no masks in training")
        self.pooling = pooling
        self.log_mel = LogMel(spec, mels=mels, **front)
        widths = itertools.pairwise((mels, *convolutions))
        self.convolutions = nn.ModuleList(StridedConvolution(*pair, width=5, stride=2) for pair in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(channels, eps=1e-6) for channels in convolutions)
        self.recurrent = (nn.LSTM if cell == "lstm" else nn.GRU)(
            (mels, *convolutions)[-1],
            units,
            layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0,  # between layers
        )
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(units * (1 + bidirectional), spec.outputs)
        blank = torch.where(torch.arange(spec.outputs) == 0, 1e4, -1e4)
        self.register_buffer("blank", blank, persistent=False)

    def forward(self, inputs: Inputs) -> torch.Tensor:
        """Logits `(batch, classes)`, or `(batch, frames, labels)` with certain blanks beyond a clip's end."""
        x, counts = self.log_mel(inputs["samples"], inputs["lengths"])
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self.dropout(norm(convolution(x, _inside(counts, x.shape[1]))))
            counts = (counts + 1) // 2
        frames = x.shape[1]
        packed = rnn.pack_padded_sequence(x, counts.cpu(), batch_first=True, enforce_sorted=False)
        states, last = self.recurrent(packed)
        if self.pooling == "last":
            last = last[0] if isinstance(last, tuple) else last  # (layers * directions, batch, units)
            x = torch.cat(tuple(last[-2:] if self.recurrent.bidirectional else last[-1:]), dim=-1)
            return self.logits(self.dropout(x))
        x, _ = rnn.pad_packed_sequence(states, batch_first=True, total_length=frames)
        valid = _inside(counts, frames)
        if self.pooling:
            x = _pool(x, valid, self.pooling)
        x = self.logits(self.dropout(x))
        return x if self.pooling else torch.where(valid[:, :, None], x, self.blank)


class Attention(nn.Module):
    """Of a sequence to its own valid positions, without biases; one product gives queries, keys and values."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        query, key, value = self.query_key_value(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = functional.scaled_dot_product_attention(
            query, key, value, valid[:, None, None, :], self.dropout if self.training else 0.0
        )
        return self.output(x.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and two dense layers, each with a residual, and normalised before or after it."""

    def __init__(self, width: int, heads: int, units: int, *, norm: str, dropout: float) -> None:
        super().__init__()
        self.pre = norm == "pre"
        self.attention = Attention(width, heads, dropout)
        self.attention_norm, self.feed_norm = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.feed1, self.feed2 = nn.Linear(width, units), nn.Linear(units, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        x = self._residual(x, lambda y: self.attention(y, valid), self.attention_norm)
        return self._residual(x, lambda y: self.feed2(functional.relu(self.feed1(y))), self.feed_norm)

    def _residual(self, x: torch.Tensor, half: Callable[[torch.Tensor], torch.Tensor], norm: nn.Module) -> torch.Tensor:
        return x + self.dropout(half(norm(x))) if self.pre else norm(x + self.dropout(half(x)))


class Text(nn.Module):
    """`text_transformer`."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: int,
        ngram: int,
        stride: int,
        heads: int,
        blocks: int,
        feed_forward: int,
        norm: str,
        pooling: str,
        dropout: float,
        embedding_dropout: float,
        token_dropout: float,
        pairs: int,
        bag_width: int,
        bag_dropout: float,
    ) -> None:
        super().__init__()
        self.stride, self.pooling = stride, pooling
        self.token_dropout, self.bag_dropout = token_dropout, bag_dropout
        self.tokens = nn.Embedding(len(spec.vocabulary), width)
        self.positions = nn.Embedding(spec.lengths[-1], width)
        self.embedding_dropout, self.dropout = nn.Dropout(embedding_dropout), nn.Dropout(dropout)
        convolved = ngram > 1 or stride > 1
        self.ngrams = StridedConvolution(width, width, width=ngram, stride=stride) if convolved else None
        self.blocks = nn.ModuleList(
            Block(width, heads, feed_forward, norm=norm, dropout=dropout) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6) if norm == "pre" else nn.Identity()
        self.words = nn.Embedding(len(spec.vocabulary), bag_width) if pairs else None
        self.pairs = nn.Embedding(pairs, bag_width) if pairs else None
        self.logits = nn.Linear(width + (2 * bag_width if pairs else 0), spec.outputs)

    def forward(self, inputs: Inputs) -> torch.Tensor:
        tokens = inputs["tokens"]
        words = valid = tokens != 0
        valid[:, 0] = True  # a text without any word is one padding token
        x = self._without_some(self.tokens(tokens), self.token_dropout)
        x = self.embedding_dropout(x + self.positions.weight[: tokens.shape[1]])
        if self.ngrams is not None:
            x, valid = self.dropout(self.ngrams(x, valid)), valid[:, :: self.stride]
        for block in self.blocks:
            x = block(x, valid)
        x = _pool(self.norm(x), valid, self.pooling)
        if self.words is not None and self.pairs is not None:
            first, second = tokens[:, :-1].int(), tokens[:, 1:].int()
            numbers = ((first * 73856093) ^ (second * 19349663)) % self.pairs.num_embeddings
            bag = self._bag(self.words(tokens), words), self._bag(self.pairs(numbers), (first != 0) & (second != 0))
            x = torch.cat([x, *bag], dim=1)
        return self.logits(self.dropout(x))

    def _bag(self, vectors: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Sum of the n that are there ÷ √n, `(batch, width)`."""
        weight = there[:, :, None].float()
        return (self._without_some(vectors, self.bag_dropout) * weight).sum(1) / weight.sum(1).clamp(min=1).sqrt()

    def _without_some(self, x: torch.Tensor, share: float) -> torch.Tensor:
        """In training whole vectors of `(batch, time, width)` are dropped."""
        if not self.training or not share:
            return x
        return x * functional.dropout(x.new_ones(*x.shape[:2], 1), share)


def _inside(lengths: torch.Tensor, longest: int) -> torch.Tensor:
    """Bool `(batch, longest)`, true before a row's length."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def _mean(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)


def _pool(x: torch.Tensor, valid: torch.Tensor, pooling: str) -> torch.Tensor:
    """Every row has a valid step."""
    if pooling == "mean":
        return _mean(x, valid[:, :, None].float()).squeeze(1)
    return x.masked_fill(~valid[:, :, None], -torch.inf).amax(1)


# --- start values ----------------------------------------------------------------------------------------------------


def _start_as_keras(module: nn.Module) -> None:
    """Draw a layer's weights as Keras does, so that losses can be compared; its parts have theirs already."""
    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.uniform_(module.weight, -0.05, 0.05)
    elif isinstance(module, Attention):
        for part in module.query_key_value.weight.detach().chunk(3):
            nn.init.xavier_uniform_(part)
    elif isinstance(module, nn.RNNBase):
        for name, weight in module.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(weight)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(weight)
            else:
                nn.init.orthogonal_(weight)
            if isinstance(module, nn.LSTM) and name.startswith("bias_ih"):
                weight.detach()[module.hidden_size : 2 * module.hidden_size] = 1  # of the forget gate
            elif isinstance(module, nn.LSTM) and name.startswith("bias_hh"):
                weight.requires_grad_(False)  # Keras has one bias, which stands for the sum of both


TWINS: dict[str, Callable[..., nn.Module]] = {
    "mnist_dense": mnist_dense,
    "simple_cnn": simple_cnn,
    "cat_dog_cnn": cat_dog_cnn,
    "speech_lstm": Speech,
    "speech_ctc": Speech,
    "text_transformer": Text,
}
