"""Sounds: files or samples to int16 of one channel and one rate."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from toolkit.data.budget import Budget
from toolkit.data.image import Unreadable

if TYPE_CHECKING:
    import numpy as np
    import soundfile

SUFFIXES = (".wav", ".flac", ".ogg")
MAX_SECONDS = 600
"""By the header, before anything is decoded."""
MAX_SAMPLES = 64_000_000
"""Per channel, by the header: at a rate as high as a header can claim, ten minutes would fill the memory."""

_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "FLAC", "OGG"})
_STARTS = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"ID3")  # the last stands before some FLAC
_DECODED = Budget(MAX_SAMPLES)  # samples at the same time, in all threads: as many take about a gigabyte
_BLOCK = 1 << 20  # samples of all channels that are decoded at once
_ENDLESS = 2**62  # what libsndfile says where a FLAC file does not tell its length
_UNKNOWN = 0x7FFF0000  # what writes to a pipe does not know the length, and claims one near 2 or 4 GB


def read_rate(data: bytes) -> int:
    """Samples per second, from the header."""
    with _open(data) as sound:
        return int(sound.samplerate)


def decode(data: bytes | np.ndarray[Any, Any], rate: int, array_rate: int | None = None) -> np.ndarray[Any, Any]:
    """int16 `(samples,)` at `rate` Hz: channels are averaged, another rate is resampled (soxr, high quality).

    Args:
        data: a WAV, FLAC or OGG file, or int16 samples `(n,)` at `array_rate` Hz.

    Raises:
        Unreadable, or what soundfile raises: the sound cannot be decoded, is empty or too long.
    """
    if isinstance(data, bytes):
        _check_end(data)
        with _open(data) as sound, _DECODED.take(_samples(sound, rate)):
            return _at_rate(_read(sound), int(sound.samplerate), rate)
    found = array_rate or rate
    if found == rate and len(data):
        return data
    return _at_rate(data.astype("float32") / 32768, found, rate)


def _at_rate(samples: np.ndarray[Any, Any], found: int, rate: int) -> np.ndarray[Any, Any]:
    """int16 at `rate`, of float32 in [-1, 1] at `found`."""
    import numpy as np

    if not len(samples):
        raise Unreadable("no samples in it")
    if not np.isfinite(samples).all():
        raise Unreadable("samples that are not finite numbers")
    if found != rate:
        import soxr

        samples = soxr.resample(samples, found, rate)
        if not len(samples):
            raise Unreadable(f"shorter than one sample at {rate} Hz")
    rounded: np.ndarray[Any, Any] = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    return rounded


def _open(data: bytes) -> soundfile.SoundFile:
    """The sound, its header read. libsndfile knows two dozen more formats, which nobody has to try out here."""
    import soundfile

    if data.startswith(_STARTS):
        sound = soundfile.SoundFile(io.BytesIO(data))
        if sound.format in _FORMATS:
            return sound
        sound.close()
    raise Unreadable("not a sound in a known format (WAV, FLAC, OGG)")


def _samples(sound: soundfile.SoundFile, rate: int) -> int:
    """How many it has, before or after resampling, by its header, held against the limits."""
    if sound.frames >= _ENDLESS:
        raise Unreadable("its header does not say how long it is")
    seconds = sound.frames / sound.samplerate
    if seconds > MAX_SECONDS:
        raise Unreadable(f"{seconds:,.0f} seconds long, at most {MAX_SECONDS} are read")
    samples = max(int(sound.frames), int(seconds * rate))
    if samples > MAX_SAMPLES:
        raise Unreadable(f"{samples:,} samples, at most {MAX_SAMPLES:,} are read")
    return samples


def _check_end(data: bytes) -> None:
    """Refuse a WAV or OGG file that was cut short, which libsndfile takes for a shorter sound."""
    if data.startswith(b"RIFF"):
        position = 12
        while position + 8 <= len(data):
            name, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
            position += 8
            if name == b"data":
                if len(data) - position < size < _UNKNOWN:
                    raise Unreadable(f"cut short: {len(data) - position:,} bytes of samples where {size:,} should be")
                return
            position += size + size % 2
    elif data.startswith(b"OggS"):
        page = data[data.rfind(b"OggS") :]  # 27 bytes, the last counts segments; their sizes; what they hold
        whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
        if not (whole and page[5] & 4):  # the flag of the last page
            raise Unreadable("cut short: an OGG file without its last page")


def _read(sound: soundfile.SoundFile) -> np.ndarray[Any, Any]:
    """float32 `(samples,)` in [-1, 1]; by blocks, since a file may have a thousand channels."""
    import numpy as np

    expected = sound.frames
    samples = np.empty(expected, np.float32)
    done = 0
    while done < expected:
        block = sound.read(max(_BLOCK // sound.channels, 1), dtype="float32", always_2d=True)  # (samples, channels)
        if not len(block):
            raise Unreadable(f"cut short: {done:,} samples where {expected:,} should be")
        block = block[: expected - done]
        samples[done : done + len(block)] = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        done += len(block)
    return samples
