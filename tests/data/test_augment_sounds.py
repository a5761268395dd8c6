import numpy as np
import pytest
import tensorflow as tf

from toolkit.data import augment_sounds as module
from toolkit.data.augment_sounds import add_noise, augment_sounds, change_speed, epoch_noise

EDGES = (120, 200)
EVERYTHING = {"speed": 0.2, "noise": 0.3}


@pytest.fixture
def sounds(rng):
    """Six sounds of different lengths, as the pipeline gives them: whole numbers of 16 bits, padded with zeros."""
    lengths = np.array([100, 60, 33, 120, 1, 81], "int32")
    samples = rng.integers(-9000, 9000, (6, 120)).astype("float32") / 32768
    return samples * (np.arange(120) < lengths[:, None]), lengths


def numbers(batch, **columns):
    """Random numbers chosen by hand: 0.5 is the middle of every range."""
    random = np.full((batch, 3), 0.5, np.float32)
    for name, value in columns.items():
        random[:, getattr(module, name)] = value
    return tf.constant(random)


def changed(sounds, seed=1, epoch=2, indices=(4, 90, 17, 3, 55, 8), **options):
    samples, lengths = (tf.constant(part) for part in sounds)
    found = augment_sounds(samples, lengths, seed, epoch, np.array(indices), edges=EDGES, **(options or EVERYTHING))
    return [part.numpy() for part in found]


def test_without_options_nothing_changes(sounds):
    samples, lengths = changed(sounds, speed=0.0, noise=0.0)
    np.testing.assert_array_equal(samples, sounds[0])
    np.testing.assert_array_equal(lengths, sounds[1])


def test_the_middle_of_the_range_is_the_sound_itself(sounds):
    samples, lengths = change_speed(*map(tf.constant, sounds), numbers(6), 0.2, EDGES)
    np.testing.assert_array_equal(samples, sounds[0])
    np.testing.assert_array_equal(lengths, sounds[1])
    quiet = add_noise(*map(tf.constant, sounds), numbers(6, NOISE=0.0), 0.3, epoch_noise(0, 0))
    np.testing.assert_array_equal(quiet, sounds[0])


@pytest.mark.parametrize(("column", "factor"), [(0.0, 0.8), (0.25, 0.9), (1.0, 1.2)])
def test_a_faster_sound_is_read_at_wider_places(sounds, column, factor):
    found, new = change_speed(*map(tf.constant, sounds), numbers(6, SPEED=column), 0.2, EDGES)
    for sound, length, row, count in zip(*sounds, found.numpy(), new.numpy(), strict=True):
        assert count == int(np.floor((length - 1) / factor + 1e-9)) + 1  # the last sample read lies within the sound
        expected = np.interp(np.arange(count) * factor, np.arange(length), sound[:length])
        np.testing.assert_allclose(row[:count], expected, rtol=0, atol=1e-6)
        assert not row[count:].any()
    assert found.shape[1] == min(edge for edge in EDGES if edge >= new.numpy().max())


def test_what_is_compiled_gives_the_same_bits(rng):
    """As the same operations one by one: multiplying and adding are not fused."""
    samples = tf.constant(rng.uniform(-1, 1, (9, 700)), tf.float32)
    place, lengths = tf.range(900), tf.constant(rng.integers(1, 700, 9), tf.int32)
    factor = tf.constant(rng.uniform(0.7, 1.3, 9))
    noise = tf.constant(rng.normal(size=module.NOISE_SAMPLES), tf.float32)
    start = tf.constant(rng.integers(0, module.NOISE_SAMPLES, 9), tf.int32)
    level = tf.constant(rng.uniform(0, 0.3, 9), tf.float32)
    for compiled, arguments in [
        (module._interpolated(), (samples, place, factor, lengths - 1, lengths)),
        (module._energies(), (samples,)),
        (module._with_pieces(), (samples, lengths, noise, start, level)),
    ]:
        np.testing.assert_array_equal(compiled(*arguments), compiled.python_function(*arguments))


def test_a_faster_tone_is_higher():
    time = np.arange(4000) / 8000
    tone = np.sin(2 * np.pi * 500 * time).astype("float32")[None]
    found, _ = change_speed(tf.constant(tone), tf.constant([4000]), numbers(1, SPEED=1.0), 0.2, (4000,))
    spectrum = np.abs(np.fft.rfft(found[0, :3200].numpy()))
    assert abs(spectrum.argmax() * 8000 / 3200 - 600) <= 2.5


def test_no_sound_is_slowed_down_beyond_the_last_edge(sounds):
    found, new = change_speed(*map(tf.constant, sounds), numbers(6, SPEED=0.0), 0.5, (120, 130))
    np.testing.assert_array_equal(new, [130, 119, 65, 130, 1, 130])
    assert found.shape == (6, 130)
    # The longest still begins and ends as the sound does.
    np.testing.assert_allclose(found[:, 0], sounds[0][:, 0], rtol=0, atol=1e-7)
    np.testing.assert_allclose(found[3, -1], sounds[0][3, -1], rtol=0, atol=1e-6)


def test_noise_has_the_promised_loudness_and_no_sound_has_anothers():
    time = np.arange(20_000) / 8000
    samples = np.stack([0.4 * np.sin(2 * np.pi * 500 * time)] * 3 + [np.zeros(20_000)]).astype("float32")
    lengths = np.array([20_000, 20_000, 9_000, 20_000], "int32")
    samples[2, 9_000:] = 0
    random = numbers(4, NOISE=1.0).numpy()
    random[:, module.NOISE_START] = [0.1, 0.6, 0.6, 0.2]
    noisy = add_noise(tf.constant(samples), tf.constant(lengths), tf.constant(random), 0.3, epoch_noise(5, 1))
    added = noisy.numpy() - samples
    for row, length in zip(added[:3], lengths, strict=False):
        # RMS of the tone is 0.4/√2; of so many normal numbers it is known to half a percent.
        np.testing.assert_allclose(np.sqrt(np.mean(row[:length] ** 2)), 0.3 * 0.4 / np.sqrt(2), rtol=0.03)
        assert abs(np.corrcoef(row[: length - 1], row[1:length])[0, 1]) < 0.04  # white
    assert not added[2, 9_000:].any()
    assert not added[3].any()  # silence stays silent
    assert abs(np.corrcoef(added[0], added[1])[0, 1]) < 0.03


def test_a_loud_sound_stays_in_range():
    loud = np.full((1, 200), 0.99, "float32")
    noisy = add_noise(tf.constant(loud), tf.constant([200]), numbers(1, NOISE=1.0), 0.9, epoch_noise(0, 0)).numpy()
    assert noisy.max() == 1.0 and noisy.min() >= -1.0


def test_a_sound_is_changed_the_same_way_in_every_batch(sounds):
    samples, lengths = sounds
    indices = np.array([4, 90, 17, 3, 55, 8])
    whole, new = changed(sounds)
    assert (new[[0, 1, 2, 3, 5]] != lengths[[0, 1, 2, 3, 5]]).all()  # one sample alone cannot get shorter
    for order in ([2], [5, 4, 3, 2, 1, 0], [1, 2]):
        wide = np.pad(samples[order], ((0, 0), (0, 80)))  # padding differs from batch to batch, too
        again, lengths_again = changed((wide, lengths[order]), indices=indices[order])
        np.testing.assert_array_equal(lengths_again, new[order])
        for row, expected, length in zip(again, whole[order], new[order], strict=True):
            np.testing.assert_array_equal(row[:length], expected[:length])
            assert not row[length:].any()
    for seed, epoch in ((1, 3), (2, 2)):
        other, _ = changed(sounds, seed=seed, epoch=epoch)
        assert (other[:, :30] != whole[:, :30]).any(axis=1).all()


def test_switching_noise_on_leaves_the_speed_as_it_was(sounds):
    alone, lengths = changed(sounds, speed=0.2)
    noisy, noisy_lengths = changed(sounds, speed=0.2, noise=0.01)
    np.testing.assert_array_equal(noisy_lengths, lengths)
    np.testing.assert_allclose(noisy, alone, rtol=0, atol=0.02)
    assert (noisy != alone).any()


def test_speeds_are_spread_evenly_over_their_range():
    lengths = np.full(2000, 1001, "int32")
    new = augment_sounds(tf.zeros((2000, 1001)), tf.constant(lengths), 0, 0, np.arange(2000), edges=(3000,), speed=0.2)[
        1
    ].numpy()
    factors = 1000 / (new - 1)
    counts, _ = np.histogram(factors, 4, (0.8, 1.2))
    assert abs(counts - 500).max() < 90  # 4.6 deviations
