"""Sounds that are made to harm whoever opens them. Each is a few bytes of code here, none is stored."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile

RATE = 8000


def tone(seed: int = 0, seconds: float = 0.2) -> np.ndarray[Any, Any]:
    """int16 samples: a sine whose frequency the seed chooses, so that no two are alike."""
    steps = np.arange(round(RATE * seconds)) / RATE
    return np.rint(8000 * np.sin(2 * np.pi * (200 + 7 * seed) * steps)).astype(np.int16)


def encoded(samples: np.ndarray[Any, Any], form: str, rate: int = RATE, **options: Any) -> bytes:
    """The sound as a file of `form`."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, **options)
    return buffer.getvalue()


def wav(data: bytes, *, claimed: int | None = None, rate: int = RATE, channels: int = 1, bits: int = 8) -> bytes:
    """A WAV file; `claimed` is the length of the samples that the header states, in bytes."""
    size, frame = len(data) if claimed is None else claimed, channels * bits // 8
    form = struct.pack("<IHHIIHH", 16, 1, channels, rate, (rate * frame) & 0xFFFFFFFF, frame, bits)
    start = b"RIFF" + struct.pack("<I", (36 + size) & 0xFFFFFFFF) + b"WAVEfmt " + form
    return start + b"data" + struct.pack("<I", size) + data


def flac_that_claims(samples: int) -> bytes:
    """A good FLAC whose header states another number of samples (36 bits)."""
    data = bytearray(encoded(tone(), "FLAC"))
    field = int.from_bytes(data[18:26], "big")
    data[18:26] = (field >> 36 << 36 | samples).to_bytes(8, "big")
    return bytes(data)


def silence(seconds: int, rate: int, channels: int = 1) -> bytes:
    """Silence as FLAC: a few kilobytes, whatever it decodes to."""
    return encoded(np.zeros((rate * seconds, channels), np.int16), "FLAC", rate)


def hostile() -> Mapping[str, tuple[bytes, str]]:
    """Name → (content, what the reason for leaving it out says; "" where the sound is good and is to be read)."""
    hours = 3 * 3600
    ogg = encoded(tone(seconds=3), "OGG")
    return {
        "three-hours.wav": (wav(bytes(hours * RATE)), "10,800 seconds long, at most 600"),
        "claims-three-hours.wav": (wav(bytes(RATE), claimed=hours * RATE), "cut short: 8,000 bytes of samples"),
        "claims-4-gb.wav": (wav(bytes(RATE), claimed=0xFFFFFFFF), ""),  # what a writer to a pipe leaves
        "claims-three-hours.flac": (flac_that_claims(hours * RATE), "10,800 seconds long"),
        "claims-500-seconds.flac": (flac_that_claims(500 * RATE), "cut short|failed"),
        "claims-nothing.flac": (flac_that_claims(0), "does not say how long"),
        "rate-1.wav": (wav(bytes(range(256)) * 3, rate=1), "768 seconds long"),
        "rate-0.wav": (wav(bytes(100), rate=0), "incomplete"),
        "rate-2147483647.wav": (wav(bytes(5000), rate=2**31 - 1), "shorter than one sample"),
        "no-samples.wav": (wav(b""), "no samples"),
        "channels-0.wav": (wav(bytes(100), channels=0), "."),
        "channels-1024.wav": (wav(bytes(1024 * 4000), channels=1024), ""),
        "high-rate-8-channels.flac": (silence(110, 655_350, channels=8), "samples, at most 64,000,000"),
        "cut.wav": (encoded(tone(), "WAV")[:-100], "cut short"),
        "cut.flac": (encoded(tone(), "FLAC")[:-100], "lost sync"),
        "cut.ogg": (ogg[: len(ogg) // 2], "cut short"),
        "zeros-at-the-end.ogg": (ogg[: len(ogg) // 2] + bytes(len(ogg) // 2), "cut short"),
        "not-numbers.wav": (encoded(np.array([0.0, np.nan, np.inf]), "WAV", subtype="FLOAT"), "not finite"),
        "matlab-named.wav": (encoded(tone(), "MAT5"), "not a sound in a known format"),
        "an-mp3-named.wav": (encoded(tone(), "MP3"), "not a sound in a known format"),
        "script.ogg": (b"#!/bin/sh\nid\n", "not a sound in a known format"),
        "empty.wav": (b"", "empty"),
    }
