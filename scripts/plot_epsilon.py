"""Draw where the two places of ε part: the size of Adam's step by the size of the gradient.

A gradient that stays g moves its weight by α·|g| / (|g| + ε) in every step, if ε stands where Algorithm 1 has it. With
"epsilon hat" it is ε/√(1−β₂ᵗ) in place of ε: up to 32 times as much in the first steps, and 1 times in the end. The
steps are taken by the optimizers themselves, not by these formulas.

    python scripts/plot_epsilon.py docs/adam_epsilon.png
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

STEPS = (1, 10, 100, 1000)
GRADIENTS = np.logspace(-12, -4, 81)


def steps(optimizer: object, gradients: np.ndarray) -> dict[int, np.ndarray]:
    """What each of `STEPS` is in parts of the rate, for weights with constant `gradients`."""
    import keras

    weights = keras.Variable(np.zeros(len(gradients)), dtype="float64", name="weights")
    found, before = {}, np.zeros(len(gradients))
    for step in range(1, max(STEPS) + 1):
        optimizer.apply([keras.ops.convert_to_tensor(gradients)], [weights])  # type: ignore[attr-defined]
        after = keras.ops.convert_to_numpy(weights)
        if step in STEPS:
            found[step] = before - after
        before = np.array(after)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    picture = parser.parse_args().picture
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    import keras
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from toolkit.optimizers import Adam

    ours = steps(Adam(1.0, epsilon=1e-8), GRADIENTS)
    keras_same = steps(keras.optimizers.Adam(1.0, epsilon=1e-8), GRADIENTS)
    for step in STEPS:
        np.testing.assert_allclose(ours[step], ours[1], rtol=1e-9)  # one curve stands for all
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    axes.plot(GRADIENTS, ours[1], color="#0072b2", linewidth=2.5, label="Algorithm 1, every step")
    for step, style in zip(STEPS, ("-", "--", "-.", ":"), strict=True):
        axes.plot(GRADIENTS, keras_same[step], style, color="#d55e00", label=f"epsilon hat (Keras), step {step:,}")
    axes.axvline(1e-8, color="#666666", linewidth=0.8)
    axes.text(1.2e-8, 1.7e-5, "ε = 1e-8", color="#666666")
    axes.set(xscale="log", yscale="log", ylim=(1e-5, 2), xlabel="gradient |g|", ylabel="step, in parts of the rate α")
    axes.grid(visible=True, color="#eeeeee")
    axes.legend(frameon=False, loc="lower right")
    axes.set_title("A constant gradient, ε = 1e-8, β₂ = 0.999", loc="left", fontsize=11)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
