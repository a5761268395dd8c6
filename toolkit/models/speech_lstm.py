"""A recurrent network that hears words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from toolkit.data.spec import DataSpec
from toolkit.models import speech_input
from toolkit.models.checks import check_data
from toolkit.types import Count, NonNegative, Positive, Share, Size

if TYPE_CHECKING:
    import keras


def speech_lstm(
    spec: DataSpec,
    *,
    frame_ms: Positive = 25.0,
    hop_ms: Positive = 10.0,
    mels: Size = 40,
    low_hz: NonNegative = 20.0,
    high_hz: Positive | None = None,
    top_db: Positive | None = None,
    normalization: speech_input.Normalization = "mean_variance",
    mask_bands: Count = 0,
    mask_time: Share = 0.0,
    convolutions: tuple[Size, ...] = (),
    cell: Literal["lstm", "gru"] = "lstm",
    layers: Size = 1,
    units: Size = 128,
    bidirectional: bool = False,
    pooling: Literal["mean", "max", "last"] = "mean",
    dropout: Share = 0.3,
) -> keras.Model:
    """Waveform → log-mel → normalisation per clip → convolutions → recurrent layers → pooling over time → logits.

    Inputs: `samples`, float32 `(batch, time)` in [-1, 1], and `lengths`, int32 `(batch,)`, how many samples of each row
    are sound; what follows is ignored at every step. Output: float32 `(batch, classes)`, logits.

    Args:
        frame_ms: length of the window that a spectrum is taken of.
        hop_ms: from one window to the next; no frame reaches beyond the end of a clip.
        mels: frequency bands.
        low_hz: where the lowest band begins.
        high_hz: where the highest band ends; None for half of the sample rate.
        top_db: what lies more than so many decibels below the loudest band of a clip counts as if it lay there, so that
            the quiet of one recording is that of another; None leaves it as it is.
        normalization: over each clip, of every band: to mean 0 and variance 1, or (`mean`) to mean 0 alone, after which
            all bands of the clip are divided by one deviation.
        mask_bands: in training two ranges of up to so many bands are silenced, in each clip others.
        mask_time: in training two ranges of up to this share of a clip are silenced, in [0, 1).
        convolutions: channels of convolutions over time, each over 5 steps with stride 2, which halves the number of
            steps that the recurrent layers take, ReLU and layer normalisation; none by default.
        cell: kind of the recurrent layers.
        layers: number of recurrent layers, one on the other.
        units: width of a recurrent layer, in each direction.
        bidirectional: read every layer's input forwards and backwards, and join the two.
        pooling: mean or maximum over the frames, or only the last state (of each direction).
        dropout: share of each convolution's and recurrent layer's output, and of the pooled features, set to zero in
            training, in [0, 1).

    Raises:
        ToolkitError: the data are no sounds, a frame holds fewer than two samples or is shorter than the hop, the bands
            do not fit below half of the sample rate, or are too many for the frame.

    Source: Hochreiter & Schmidhuber 1997 (LSTM), Cho et al. 2014 (GRU, arXiv:1406.1078), Schuster & Paliwal 1997
    (bidirectional), Sainath et al. 2015 (convolutions before an LSTM, doi:10.1109/ICASSP.2015.7178838); the features
    are `toolkit.models.layers.log_mel`'s.
    """
    import keras
    from keras import layers as kl

    from toolkit.models.layers.masked import MaskedPooling

    check_data(spec, "audio", model="speech_lstm")
    inputs, x, valid = speech_input.log_mel_input(
        spec,
        frame_ms=frame_ms,
        hop_ms=hop_ms,
        mels=mels,
        low_hz=low_hz,
        high_hz=high_hz,
        top_db=top_db,
        normalization=normalization,
        mask_bands=mask_bands,
        mask_time=mask_time,
    )
    x, valid = speech_input.convolved(x, valid, convolutions, dropout=dropout)
    for i in range(1, layers + 1):
        whole = i < layers or pooling != "last"
        recurrent = (kl.LSTM if cell == "lstm" else kl.GRU)(units, return_sequences=whole, name=f"recurrent{i}")
        if bidirectional:
            recurrent = kl.Bidirectional(recurrent, name=f"recurrent{i}")
        x = recurrent(x, mask=valid)  # (batch, frames, units), twice the units if bidirectional
        if i < layers:
            x = kl.Dropout(dropout, name=f"recurrent{i}_dropout")(x)
    if pooling != "last":
        x = MaskedPooling(pooling, name="pool")(x, valid)  # (batch, units)
    x = kl.Dropout(dropout, name="pool_dropout")(x)
    logits = kl.Dense(len(spec.class_names), dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="speech_lstm")


speech_lstm.check = speech_input.check  # type: ignore[attr-defined]
