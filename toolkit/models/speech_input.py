"""From waveforms to normalised log-mel frames: what the models that hear have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from toolkit.data.spec import DataSpec
from toolkit.errors import ToolkitError
from toolkit.models.checks import refuse

if TYPE_CHECKING:
    import keras

Normalization = Literal["mean_variance", "mean"]


def log_mel_input(
    spec: DataSpec,
    *,
    frame_ms: float,
    hop_ms: float,
    mels: int,
    low_hz: float,
    high_hz: float | None,
    top_db: float | None = None,
    normalization: Normalization = "mean_variance",
    mask_bands: int = 0,
    mask_time: float = 0.0,
) -> tuple[dict[str, keras.KerasTensor], Any, Any]:
    """The inputs `samples` and `lengths`, features `(batch, frames, mels)` and their mask `(batch, frames)`.

    Each band is normalised over each clip: to mean 0 and variance 1, or (`mean`) to mean 0 alone, all bands by one
    deviation. Padding is 0. In training ranges of up to `mask_bands` bands and of up to
    `mask_time` of a clip are silenced.

    Raises:
        ToolkitError: a frame holds fewer than two samples or is shorter than the hop, the bands do not fit below half
            of the sample rate, or are too many for the frame.
    """
    import keras

    from toolkit.models.layers.log_mel import LogMel
    from toolkit.models.layers.masked import SpectrumMasking, UtteranceNormalization

    refuse(check({"frame_ms": frame_ms, "hop_ms": hop_ms, "low_hz": low_hz, "high_hz": high_hz}))
    rate = spec.sample_rate or 0
    _check_frame(rate, frame_ms, hop_ms)
    _check_bands(rate, frame_ms, mels, low_hz, high_hz)
    samples = keras.Input((None,), dtype="float32", name="samples")
    lengths = keras.Input((), dtype="int32", name="lengths")
    log_mel = LogMel(
        sample_rate=rate,
        frame_ms=frame_ms,
        hop_ms=hop_ms,
        mels=mels,
        low_hz=low_hz,
        high_hz=high_hz,
        top_db=top_db,
        name="log_mel",
    )
    features, valid = log_mel(samples, lengths)  # (batch, frames, mels), (batch, frames)
    features = UtteranceNormalization(shared_variance=normalization == "mean", name="normalize")(features, valid)
    if mask_bands or mask_time:
        features = SpectrumMasking(bands=mask_bands, time=mask_time, dtype="float32", name="mask")(features, valid)
    return {"samples": samples, "lengths": lengths}, features, valid


def convolved(x: Any, valid: Any, convolutions: Sequence[int], *, dropout: float) -> tuple[Any, Any]:
    """Convolutions of so many channels over time, each over 5 steps with stride 2, ReLU and layer normalisation."""
    from keras import layers as kl

    from toolkit.models.layers.masked import StridedConvolution

    for i, channels in enumerate(convolutions, start=1):
        x, valid = StridedConvolution(channels, width=5, stride=2, name=f"convolution{i}")(x, valid)
        x = kl.LayerNormalization(epsilon=1e-6, name=f"convolution{i}_norm")(x)
        x = kl.Dropout(dropout, name=f"convolution{i}_dropout")(x)
    return x, valid


def count_log_mel_frames(samples: Any, rate: int, *, frame_ms: float, hop_ms: float) -> Any:
    """How many frames `log_mel_input` makes of `samples` samples (an int or an integer array): at least one."""
    from toolkit.models.layers.log_mel import count_frames, to_samples

    return count_frames(samples, frame=to_samples(frame_ms, rate), hop=to_samples(hop_ms, rate))


def check(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
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
