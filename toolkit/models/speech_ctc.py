"""A recurrent network that writes down what it hears."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from toolkit.data.spec import DataSpec
from toolkit.models import speech_input
from toolkit.models.checks import check_data
from toolkit.types import Count, NonNegative, Positive, Share, Size

if TYPE_CHECKING:
    import keras


def speech_ctc(
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
    convolutions: tuple[Size, ...] = (128,),
    cell: Literal["lstm", "gru"] = "lstm",
    layers: Size = 2,
    units: Size = 128,
    bidirectional: bool = True,
    dropout: Share = 0.3,
) -> keras.Model:
    """Waveform → log-mel → normalisation per clip → convolutions → recurrent layers → logits of every frame, for CTC.

    Inputs: `samples`, float32 `(batch, time)` in [-1, 1], and `lengths`, int32 `(batch,)`, how many samples of each row
    are sound; what follows is ignored at every step. Output: float32 `(batch, frames, units of the vocabulary + 1)`,
    logits; the first is that of CTC's blank. Frames past a clip's end are certain blanks, so that the loss over all
    frames is that over the clip's own.

    Args:
        frame_ms: length of the window that a spectrum is taken of.
        hop_ms: from one window to the next.
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
            steps, ReLU and layer normalisation: fewer steps are faster, but each unit of a transcript needs one, and a
            repeated unit one more.
        cell: kind of the recurrent layers.
        layers: number of recurrent layers, one on the other.
        units: width of a recurrent layer, in each direction.
        bidirectional: read every layer's input forwards and backwards, and join the two.
        dropout: share of each convolution's and recurrent layer's output that is set to zero in training, in [0, 1).

    Raises:
        ToolkitError: the data are no sounds with transcripts, a frame holds fewer than two samples or is shorter than
            the hop, the bands do not fit below half of the sample rate, or are too many for the frame.

    Source: Graves et al. 2006, "Connectionist Temporal Classification"; Graves et al. 2013 (arXiv:1303.5778) for stacks
    of bidirectional LSTMs under it; Amodei et al. 2016 (arXiv:1512.02595) for strided convolutions before them.
    """
    import keras
    from keras import layers as kl

    from toolkit.models.layers.masked import CertainBlanks

    check_data(spec, "audio", model="speech_ctc", task="transcription")
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
        recurrent = (kl.LSTM if cell == "lstm" else kl.GRU)(units, return_sequences=True, name=f"recurrent{i}")
        if bidirectional:
            recurrent = kl.Bidirectional(recurrent, name=f"recurrent{i}")
        x = recurrent(x, mask=valid)  # (batch, frames, units), twice the units if bidirectional
        x = kl.Dropout(dropout, name=f"recurrent{i}_dropout")(x)
    x = kl.Dense(spec.outputs, dtype="float32", name="logits")(x)
    logits = CertainBlanks(name="certain_blanks")(x, valid)
    return keras.Model(inputs, logits, name="speech_ctc")


def speech_ctc_frames(
    samples: int,
    rate: int,
    *,
    frame_ms: float = 25.0,
    hop_ms: float = 10.0,
    convolutions: Sequence[int] = (128,),
    **_: Any,
) -> int:
    """How many frames `speech_ctc` with these hyperparameters makes of `samples` samples at `rate` Hz: at least one."""
    frames: int = speech_input.count_log_mel_frames(samples, rate, frame_ms=frame_ms, hop_ms=hop_ms)
    return int(-(-frames // 2 ** len(convolutions)))


speech_ctc.check = speech_input.check  # type: ignore[attr-defined]
speech_ctc.frames = speech_ctc_frames  # type: ignore[attr-defined]
