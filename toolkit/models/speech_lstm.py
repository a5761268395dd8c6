"""A recurrent network that hears words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from toolkit.data.spec import DataSpec
from toolkit.errors import ToolkitError
from toolkit.models.checks import check_data, refuse
from toolkit.types import NonNegative, Positive, Share, Size

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
        hop_ms: from one window to the next; there are `speech_lstm_frames` of them.
        mels: frequency bands.
        low_hz: where the lowest band begins.
        high_hz: where the highest band ends; None for half of the sample rate.
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

    from toolkit.models.layers.log_mel import LogMel
    from toolkit.models.layers.masked import MaskedPooling, StridedConvolution, UtteranceNormalization

    check_data(spec, "audio", model="speech_lstm")
    rate = spec.sample_rate or 0
    refuse(_check({"frame_ms": frame_ms, "hop_ms": hop_ms, "low_hz": low_hz, "high_hz": high_hz}))
    _check_frame(rate, frame_ms, hop_ms)
    _check_bands(rate, frame_ms, mels, low_hz, high_hz)
    samples = keras.Input((None,), dtype="float32", name="samples")
    lengths = keras.Input((), dtype="int32", name="lengths")
    log_mel = LogMel(
        sample_rate=rate, frame_ms=frame_ms, hop_ms=hop_ms, mels=mels, low_hz=low_hz, high_hz=high_hz, name="log_mel"
    )
    x, valid = log_mel(samples, lengths)  # (batch, frames, mels), (batch, frames)
    x = UtteranceNormalization(name="normalize")(x, valid)
    for i, channels in enumerate(convolutions, start=1):
        x, valid = StridedConvolution(channels, width=5, stride=2, name=f"convolution{i}")(x, valid)
        x = kl.LayerNormalization(epsilon=1e-6, name=f"convolution{i}_norm")(x)
        x = kl.Dropout(dropout, name=f"convolution{i}_dropout")(x)
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
    return keras.Model({"samples": samples, "lengths": lengths}, logits, name="speech_lstm")


def speech_lstm_frames(samples: Any, spec: DataSpec, *, frame_ms: float = 25.0, hop_ms: float = 10.0) -> Any:
    """How many frames `speech_lstm` makes of `samples` samples (an int or an integer array): at least one."""
    from toolkit.models.layers.log_mel import count_frames, to_samples

    rate = spec.sample_rate or 0
    return count_frames(samples, frame=to_samples(frame_ms, rate), hop=to_samples(hop_ms, rate))


def _check_frame(rate: int, frame_ms: float, hop_ms: float) -> None:
    if rate * frame_ms < 2000 or rate * hop_ms < 1000:
        raise ToolkitError(
            f"model.frame_ms is {frame_ms} and model.hop_ms {hop_ms}, but a frame needs two samples and a hop one, and "
            f"the data have {rate} samples per second: raise them, usual are 25 and 10."
        )


def _check_bands(rate: int, frame_ms: float, mels: int, low_hz: float, high_hz: float | None) -> None:
    from toolkit.models.layers.log_mel import fft_length, mel_filters, to_samples

    high = rate / 2 if high_hz is None else high_hz
    if not low_hz < high <= rate / 2:
        raise ToolkitError(
            f"model.low_hz is {low_hz} and model.high_hz {high}, but bands lie between 0 and half of the sample rate, "
            f"{rate / 2:g} Hz, low below high: change one of them."
        )
    bins = fft_length(to_samples(frame_ms, rate)) // 2 + 1
    filters = mel_filters(bins=bins, mels=mels, sample_rate=rate, low_hz=low_hz, high_hz=high)
    if not filters.any(axis=0).all():
        raise ToolkitError(
            f"model.mels is {mels}, so many that some bands from {low_hz:g} to {high:g} Hz fall between the "
            f"frequencies that a frame of {frame_ms:g} ms tells apart: lower mels or raise frame_ms."
        )


def _check(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What shows without data: (key, what is wrong)."""
    problems = []
    hop, frame = arguments["hop_ms"], arguments["frame_ms"]
    if hop > frame:
        text = f"hop_ms is {hop}, longer than model.frame_ms with {frame}, so sound between two frames would never be "
        problems.append(("hop_ms", text + "heard: lower hop_ms, usual is 10"))
    low, high = arguments["low_hz"], arguments["high_hz"]
    if high is not None and low >= high:
        problems.append(
            ("high_hz", f"high_hz is {high:g}, not above model.low_hz with {low:g}: raise it or leave it out")
        )
    return problems


speech_lstm.check = _check  # type: ignore[attr-defined]
