import numpy as np
import pytest
import tensorflow as tf

from toolkit.data import augment as module
from toolkit.data.augment import augment, change_colour, erase, matrices, transform

NOTHING = {"flip": None, "shift": 0.0, "zoom": 0.0, "rotation": 0.0, "crop": None}
EVERYTHING = {"flip": "both", "shift": 0.1, "zoom": 0.2, "rotation": 20.0, "colour": 0.3, "erasing": 0.5}


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, 9, 9, 3), np.uint8)


def numbers(batch, **columns):
    """Random numbers chosen by hand: 0.5 is the middle of every range, and no flip."""
    random = np.full((batch, 16), 0.5, np.float32)
    for name, value in columns.items():
        random[:, getattr(module, name)] = value
    return tf.constant(random)


def seen(images, random, **options):
    lead = matrices(random, *images.shape[1:3], **{**NOTHING, **options})
    x = transform(tf.constant(images), lead, options.get("crop") or images.shape[1:3], rounded=False)
    return tf.cast(tf.round(x), tf.uint8).numpy()


@pytest.mark.parametrize(("shape", "size"), [((28, 28, 1), (28, 28)), ((33, 47, 3), (20, 30)), ((1, 5, 3), (4, 4))])
@pytest.mark.parametrize("far", [0.2, 3.0])
def test_pictures_are_those_of_tensorflow_to_the_bit(rng, shape, size, far):
    """Turned, stretched, and moved up to three times their size."""
    images = tf.constant(rng.integers(0, 256, (20, *shape), np.uint8))
    lead = np.zeros((20, 8), np.float32)
    lead[:, [0, 1, 3, 4]] = rng.normal(0, 1, (20, 4))
    lead[:, [2, 5]] = rng.uniform(-far, far, (20, 2)) * [shape[1], shape[0]]
    expected = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=lead,
        output_shape=tf.constant(size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    np.testing.assert_array_equal(transform(images, tf.constant(lead), size, rounded=False), expected)
    whole = tf.cast(tf.clip_by_value(expected, 0.0, 255.0) + 0.5, tf.uint8)
    np.testing.assert_array_equal(transform(images, tf.constant(lead), size, rounded=True), whole)


def test_without_options_nothing_changes(images):
    np.testing.assert_array_equal(augment(tf.constant(images), 0, 0, tf.range(6)), images)
    np.testing.assert_array_equal(seen(images, numbers(6)), images)


def test_flips_are_those_of_numpy(images):
    left = numbers(6, FLIP_X=0.2)
    np.testing.assert_array_equal(seen(images, left, flip="horizontal"), images[:, :, ::-1])
    np.testing.assert_array_equal(seen(images, left, flip="vertical"), images)
    both = numbers(6, FLIP_X=0.2, FLIP_Y=0.2)
    np.testing.assert_array_equal(seen(images, both, flip="both"), images[:, ::-1, ::-1])


def test_a_shift_moves_the_picture_right_and_down_and_mirrors_what_comes_in(images):
    # Column value 1 is the far end of the range: a third of 9 pixels.
    moved = seen(images, numbers(6, SHIFT_X=1.0), shift=1 / 3)
    np.testing.assert_array_equal(moved[:, :, 3:], images[:, :, :-3])
    np.testing.assert_array_equal(moved[:, :, :3], images[:, :, 2::-1])
    np.testing.assert_array_equal(seen(images, numbers(6, SHIFT_Y=1.0), shift=1 / 3)[:, 3:], images[:, :-3])


def test_a_quarter_turn_is_that_of_numpy(images):
    turned = seen(images, numbers(6, ROTATION=1.0), rotation=90.0)
    np.testing.assert_array_equal(turned, np.rot90(images, axes=(1, 2)))


def test_a_zoom_magnifies_about_the_centre():
    image = np.zeros((1, 33, 33, 1), np.uint8)
    image[:, 12:21, 12:21] = 255  # 9 pixels wide
    large = seen(image, numbers(1, ZOOM=1.0), zoom=0.999)[0, :, :, 0] > 127
    assert large.sum(axis=1).max() == large.sum(axis=0).max() == 17  # 9 pixels, their centres 8 apart, now 16
    np.testing.assert_array_equal(large, large[::-1, ::-1])


def test_a_crop_is_a_window_of_the_changed_picture(images):
    first, last = (numbers(6, CROP_Y=share, CROP_X=share) for share in (0.0, 0.999))
    np.testing.assert_array_equal(seen(images, first, crop=(4, 7)), images[:, :4, :7])
    np.testing.assert_array_equal(seen(images, last, crop=(4, 7)), images[:, 5:, 2:])
    np.testing.assert_array_equal(seen(images, numbers(6), crop=(9, 9)), images)
    options = {"flip": "both", "rotation": 90.0, "zoom": 0.3, "shift": 0.2}
    columns = {"FLIP_X": 0.2, "ROTATION": 1.0, "ZOOM": 0.7, "SHIFT_Y": 0.9}
    whole = seen(images, numbers(6, **columns), **options)
    window = seen(images, numbers(6, CROP_Y=0.999, **columns), crop=(5, 3), **options)
    np.testing.assert_array_equal(window, whole[:, 4:, 3:6])


def test_every_place_of_a_crop_comes_up():
    image = np.arange(25, dtype=np.uint8).reshape(1, 5, 5, 1)
    windows = augment(tf.repeat(tf.constant(image), 400, axis=0), 3, 1, np.arange(400), crop=(3, 4)).numpy()
    assert windows.shape == (400, 3, 4, 1)
    places, counts = np.unique(windows[:, 0, 0, 0], return_counts=True)
    assert places.tolist() == [0, 1, 5, 6, 10, 11]
    assert counts.min() > 400 / 6 / 2


def test_a_picture_is_changed_the_same_way_in_every_batch(images):
    indices = np.array([4, 90, 17, 3, 55, 8])
    whole = augment(tf.constant(images), 1, 2, indices, **EVERYTHING).numpy()
    assert (whole != images).any(axis=(1, 2, 3)).all()
    for order in ([2], [5, 4, 3, 2, 1, 0], [1, 3]):
        again = augment(tf.constant(images[order]), 1, 2, indices[order], **EVERYTHING)
        np.testing.assert_array_equal(again, whole[order])
    for seed, epoch in ((1, 3), (2, 2)):
        other = augment(tf.constant(images), seed, epoch, indices, **EVERYTHING).numpy()
        assert (other != whole).any(axis=(1, 2, 3)).all()


def test_switching_one_kind_on_leaves_the_others_as_they_were(images):
    flipped = augment(tf.constant(images), 0, 0, np.arange(6), flip="horizontal").numpy()
    erased = augment(tf.constant(images), 0, 0, np.arange(6), flip="horizontal", erasing=1.0).numpy()
    kept = (erased != 128).all(axis=-1)
    assert 0.6 < kept.mean() < 1
    np.testing.assert_array_equal(erased[kept], flipped[kept])


def test_half_of_the_pictures_are_flipped():
    images = np.zeros((2000, 1, 2, 1), np.uint8)
    images[:, :, 0] = 255
    out = augment(tf.constant(images), 0, 0, np.arange(2000), flip="horizontal").numpy()
    assert abs((out[:, 0, 1, 0] == 255).mean() - 0.5) < 0.05  # 4.5 deviations
    assert set(out.reshape(-1).tolist()) == {0, 255}


def test_colour_follows_its_formula(images):
    x = images.astype(np.float64)
    luma = np.array([0.299, 0.587, 0.114])

    def changed(**columns):
        return change_colour(tf.constant(images, tf.float32), numbers(6, **columns), 0.4).numpy()

    # The tolerance is float32's; the mean grey is taken over rounded values, which a factor of 0.4 shrinks below 0.3.
    np.testing.assert_allclose(changed(), x, atol=1e-3)
    np.testing.assert_allclose(changed(BRIGHTNESS=1.0), x * 1.4, atol=1e-3)
    np.testing.assert_allclose(changed(BRIGHTNESS=0.0), x * 0.6, atol=1e-3)
    mean = (x @ luma).mean(axis=(1, 2))[:, None, None, None]
    np.testing.assert_allclose(changed(CONTRAST=1.0), mean + 1.4 * (x - mean), atol=1e-3)
    grey = (x @ luma)[..., None]
    np.testing.assert_allclose(changed(SATURATION=0.0), grey + 0.6 * (x - grey), atol=1e-3)
    one = change_colour(tf.constant(images[..., :1], tf.float32), numbers(6, SATURATION=0.0, BRIGHTNESS=1.0), 0.4)
    np.testing.assert_allclose(one, x[..., :1] * 1.4, atol=1e-3)


def test_interpolation_makes_no_picture_darker():
    flat = tf.fill([50, 9, 9, 3], tf.constant(201, tf.uint8))
    out = augment(flat, 0, 0, np.arange(50), shift=0.2, zoom=0.2, rotation=30.0).numpy()
    np.testing.assert_array_equal(out, flat)  # cut off instead of rounded, a third of the pixels would be 200


def test_bright_pixels_stay_in_range():
    white = tf.fill([50, 4, 4, 3], tf.constant(250, tf.uint8))
    out = augment(white, 0, 0, np.arange(50), colour=0.3).numpy()
    assert out.max() == 255 and out.min() > 250 * 0.6  # a wrap-around would give small numbers


def test_erased_rectangles_have_the_promised_share_and_size():
    images = np.zeros((3000, 40, 30, 1), np.uint8)
    out = erase(tf.constant(images), module.uniforms(0, 0, np.arange(3000), 14), 0.25).numpy()[..., 0]
    hit = (out == 128).any(axis=(1, 2))
    assert abs(hit.mean() - 0.25) < 0.035  # 4.4 deviations
    mask = out[hit] == 128
    rows, columns = mask.any(axis=2).sum(axis=1), mask.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(mask.sum(axis=(1, 2)), rows * columns)  # one full rectangle each
    area = rows * columns / 1200
    assert 0.01 < area.min() < 0.04 and 0.17 < area.max() < 0.23 and abs(area.mean() - 0.11) < 0.01
