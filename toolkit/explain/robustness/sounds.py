"""Changes of sounds: noise, loudness, place in time, pace, pitch, band and room.

The kinds are those that studies of noisy and distant speech work with; how each is made is said beside it. A changed
sound is int16 as before, and one that was as long as it is stays so, but for `speed`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from toolkit.explain.robustness.change import Array, Change, either_way

_WINDOW = 0.032
"""Seconds: of the spectra that `pitch` works with."""


def white_noise(samples: Array, level: float, random: np.random.Generator, rate: int) -> Array:
    """Noise of equal power at all frequencies, `level` dB below the sound's own power."""
    return _with_noise(samples, random.standard_normal(len(samples)), level)


def pink_noise(samples: Array, level: float, random: np.random.Generator, rate: int) -> Array:
    """Noise of equal power in each octave, `level` dB below the sound's own power."""
    spectrum = np.fft.rfft(random.standard_normal(len(samples)))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))  # power 1/f
    spectrum[:1] = 0
    return _with_noise(samples, np.fft.irfft(spectrum, len(samples)), level)


def gain(samples: Array, level: float, random: np.random.Generator, rate: int) -> Array:
    """`level` dB quieter, and rounded to 16 bits again."""
    return samples * 10 ** (-level / 20)


def clipping(samples: Array, level: float, random: np.random.Generator, rate: int) -> Array:
    """Cut off above a share `level` of the largest sample, as by a microphone that is too loud."""
    peak = level * np.abs(samples).max()
    return np.clip(samples, -peak, peak)


def time_shift(samples: Array, level: float, random: np.random.Generator, rate: int) -> Array:
    """Later or earlier by a share `level` of its length; silence comes in, and what goes out is lost."""
    by = round(level * len(samples))
    kept = len(samples) - by
    return np.pad(samples[:kept], (by, 0)) if either_way(random) > 0 else np.pad(samples[by:], (0, by))


def speed(samples: Array, level: float, random: np.random.Generator, rate: int) -> Array:
    """Played `level` times as fast or as slow: length and pitch change together, as of a tape."""
    return _played(samples, level ** either_way(random))


def pitch(samples: Array, level: float, random: np.random.Generator, rate: int) -> Array:
    """`level` semitones higher or lower at the same length: stretched by a phase vocoder, then played faster."""
    factor = 2 ** (either_way(random) * level / 12)
    return _of_length(_played(_stretched(samples, factor, rate), factor), len(samples))


def band_limit(samples: Array, level: float, random: np.random.Generator, rate: int) -> Array:
    """Without what lies above a share `level` of half the sample rate (Butterworth, sixth order)."""
    from scipy import signal

    filtered: Array = signal.sosfilt(signal.butter(6, level, output="sos"), samples)
    return filtered


def reverberation(samples: Array, level: float, random: np.random.Generator, rate: int) -> Array:
    """In a room whose echo falls by 60 dB in `level` seconds, as loud as before.

    The impulse response is the direct sound and white noise of the same energy that decays exponentially (the model of
    Polack 1988, "La transmission de l'énergie sonore dans les salles").
    """
    from scipy import signal

    time = np.arange(1, max(2, round(level * rate))) / rate
    tail = random.standard_normal(len(time)) * 10 ** (-3 * time / level)
    response = np.concatenate([[1.0], tail / np.sqrt((tail**2).sum())])
    wet = signal.fftconvolve(samples, response)[: len(samples)]
    return wet * math.sqrt(_power(samples) / max(_power(wet), 1e-12))  # type: ignore[no-any-return]


def changes(rate: int) -> dict[str, Change]:
    """The changes of sounds at `rate` Hz, int16 `(samples,)` to int16."""
    return {
        apply.__name__: Change(_on_samples(functools.partial(apply, rate=rate)), _LEVELS[apply]) for apply in _LEVELS
    }


_LEVELS: dict[Callable[..., Array], tuple[float, float, float, float, float]] = {
    white_noise: (20, 15, 10, 5, 0),
    pink_noise: (20, 15, 10, 5, 0),
    gain: (6, 12, 18, 24, 30),
    clipping: (0.5, 0.3, 0.2, 0.1, 0.05),
    time_shift: (0.05, 0.1, 0.15, 0.2, 0.3),
    speed: (1.1, 1.2, 1.3, 1.45, 1.6),
    pitch: (1, 2, 3, 5, 7),
    band_limit: (0.8, 0.6, 0.4, 0.25, 0.15),
    reverberation: (0.2, 0.4, 0.6, 0.9, 1.3),
}
NAMES = tuple(apply.__name__ for apply in _LEVELS)


def _on_samples(apply: Callable[[Array, float, np.random.Generator], Array]) -> Callable[..., Array]:
    """int16 to int16, for what takes and gives floats in [-1, 1]."""

    def changed(samples: Array, level: float, random: np.random.Generator) -> Array:
        values = apply(samples / 32768.0, level, random)
        whole: Array = np.clip(np.rint(values * 32768), -32768, 32767).astype(np.int16)
        return whole

    return changed


def _power(samples: Array) -> float:
    return float((samples**2).mean())


def _with_noise(samples: Array, noise: Array, decibels: float) -> Array:
    wanted = _power(samples) / 10 ** (decibels / 10)
    return samples + noise * math.sqrt(wanted / max(_power(noise), 1e-12))


def _played(samples: Array, factor: float) -> Array:
    """`factor` times as fast."""
    import soxr

    played: Array = soxr.resample(samples, factor, 1.0)
    return played if len(played) else samples[:1]


def _of_length(samples: Array, length: int) -> Array:
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def _stretched(samples: Array, factor: float, rate: int) -> Array:
    """`factor` times as long at the same pitch, by a phase vocoder (Flanagan & Golden 1966; Dolson 1986).

    Frames of the spectrum are read at other moments than they are laid down; each frequency's phase goes on from frame
    to frame as fast as it did in the sound.
    """
    from scipy import signal

    size = max(16, round(_WINDOW * rate) // 4 * 4)
    hop = size // 4
    transform = signal.ShortTimeFFT(np.hanning(size + 1)[:-1], hop, rate)
    spectra = transform.stft(np.pad(samples, (0, size)))  # (frequencies, frames)
    moments = np.arange(0, spectra.shape[1] - 1, 1 / factor)
    before = moments.astype(int)
    share = moments - before
    magnitudes = (1 - share) * np.abs(spectra[:, before]) + share * np.abs(spectra[:, before + 1])
    advances = np.angle(spectra[:, before + 1]) - np.angle(spectra[:, before])
    phases = np.angle(spectra[:, :1]) + np.cumsum(np.pad(advances, ((0, 0), (1, 0)))[:, :-1], axis=1)
    stretched: Array = transform.istft(magnitudes * np.exp(1j * phases))
    return stretched
