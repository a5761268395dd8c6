"""Log-mel features: how loud a sound is in bands as wide as the ear hears them, frame by frame."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops


def mel_filters(*, bins: int, mels: int, sample_rate: int, low_hz: float, high_hz: float) -> np.ndarray[Any, Any]:
    """Triangular filters that sum a power spectrum into bands: float32 `(bins, mels)`.

    mel(f) = 1127 · ln(1 + f/700). The corners of the triangles are `mels` + 2 points evenly spaced in mel from `low_hz`
    to `high_hz`; each triangle rises and falls linearly in mel between three neighbours, with height 1.

    Args:
        bins: of the spectrum, from 0 Hz to half of `sample_rate`.

    Source: O'Shaughnessy 1987 for the scale, the HTK book (section 5.4) for the triangles.
    """

    def mel(hz: Any) -> Any:
        return 1127.0 * np.log1p(np.asarray(hz, "float64") / 700.0)

    corners = np.linspace(mel(low_hz), mel(high_hz), mels + 2)
    spacing = corners[1] - corners[0]
    at = mel(np.linspace(0, sample_rate / 2, bins))[:, None]
    filters = np.maximum(0, 1 - np.abs(at - corners[None, 1:-1]) / spacing)
    filters[0] = 0  # 0 Hz is the recording's offset, no sound
    return np.asarray(filters, "float32")


def to_samples(ms: float, sample_rate: int) -> int:
    """A time in milliseconds as a number of samples, at least one."""
    return max(1, round(sample_rate * ms / 1000))


def fft_length(frame: int) -> int:
    """The next power of two, at least 2."""
    return 1 << max(1, (frame - 1).bit_length())


def count_frames(samples: Any, *, frame: int, hop: int) -> Any:
    """How many whole frames lie within `samples` samples, at least one: 1 + (samples − frame) // hop.

    Args:
        samples: an int, or an integer tensor or array of any shape.
        frame: samples in a frame.
        hop: samples from the start of a frame to the start of the next.
    """
    if isinstance(samples, int):
        return max(samples - frame, 0) // hop + 1
    return ops.maximum(samples - frame, 0) // hop + 1


@keras.saving.register_keras_serializable(package="toolkit")
class LogMel(keras.layers.Layer):
    """Waveform to log-mel features and their mask.

    Float32 `(batch, time)` in [-1, 1] and lengths int32 `(batch,)` → float32 `(batch, frames, mels)` and bool
    `(batch, frames)`, true where a frame lies within its clip. Frames start at 0, hop, 2·hop …; none reaches beyond the
    end of a clip, but a clip shorter than one frame is filled up with zeros and has one. Each is weighted with a
    periodic Hann window and filled up with zeros to the next power of two; the squared magnitude of its spectrum is
    summed by `mel_filters`, and a feature is ln(sum + `floor`). With `top_db` what lies further below the loudest
    feature of its clip is raised to that distance: recordings then differ less by how quiet their silence is. In
    float32 whatever the dtype policy says.

    Args:
        sample_rate: in Hz.
        frame_ms: length of a frame.
        hop_ms: from the start of a frame to the start of the next.
        mels: number of bands.
        low_hz: where the lowest band begins.
        high_hz: where the highest band ends; None for half of `sample_rate`.
        floor: keeps the logarithm of silence finite; about the noise of 16-bit samples.
        top_db: in decibels of power; None raises nothing.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        frame_ms: float = 25.0,
        hop_ms: float = 10.0,
        mels: int = 40,
        low_hz: float = 20.0,
        high_hz: float | None = None,
        floor: float = 1e-6,
        top_db: float | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.sample_rate, self.frame_ms, self.hop_ms, self.mels = sample_rate, frame_ms, hop_ms, mels
        self.low_hz, self.high_hz, self.floor, self.top_db = low_hz, high_hz, floor, top_db
        self.frame = to_samples(frame_ms, sample_rate)
        self.hop = to_samples(hop_ms, sample_rate)
        self.fft = fft_length(self.frame)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.frame) / self.frame)
        self.window = window.astype("float32")
        self.filters = mel_filters(
            bins=self.fft // 2 + 1,
            mels=mels,
            sample_rate=sample_rate,
            low_hz=low_hz,
            high_hz=sample_rate / 2 if high_hz is None else high_hz,
        )

    def call(self, samples: Any, lengths: Any) -> tuple[Any, Any]:
        """Features `(batch, frames, mels)` and mask `(batch, frames)`."""
        length = ops.shape(samples)[1]
        inside = ops.arange(length)[None, :] < lengths[:, None]
        samples = ops.where(inside, samples, ops.zeros_like(samples))
        samples = ops.pad(samples, ((0, 0), (0, self.frame)))  # a batch shorter than one frame still has one
        frames = ops.arange(count_frames(length, frame=self.frame, hop=self.hop))  # (frames,)
        # A gather, because it copies exactly: JAX's own framing is a convolution, which a GPU rounds to ten bits.
        framed = ops.take(samples, frames[:, None] * self.hop + ops.arange(self.frame)[None, :], axis=1)
        real, imaginary = ops.rfft(
            framed * ops.convert_to_tensor(self.window), fft_length=self.fft
        )  # (batch, frames, bins)
        power = ops.square(real) + ops.square(imaginary)
        features = ops.log(ops.matmul(power, ops.convert_to_tensor(self.filters)) + self.floor)
        valid = frames[None, :] < count_frames(lengths, frame=self.frame, hop=self.hop)[:, None]
        if self.top_db is not None:
            loudest = ops.max(ops.where(valid[:, :, None], features, -math.inf), axis=(1, 2), keepdims=True)
            features = ops.maximum(features, loudest - self.top_db * math.log(10) / 10)
        return features, valid

    def compute_output_spec(self, samples: Any, lengths: Any) -> tuple[Any, Any]:
        """Shapes and types of features and mask."""
        batch, length = samples.shape
        frames = None if length is None else count_frames(length, frame=self.frame, hop=self.hop)
        features = keras.KerasTensor((batch, frames, self.mels), dtype=self.compute_dtype)
        return features, keras.KerasTensor((batch, frames), dtype="bool")

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor needs."""
        own = ("sample_rate", "frame_ms", "hop_ms", "mels", "low_hz", "high_hz", "floor", "top_db")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
