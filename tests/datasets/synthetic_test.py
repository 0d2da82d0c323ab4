import numpy as np
import pytest

from nas_seg.datasets import pictures, synthetic


def scenes(count: int, height: int = 96, width: int = 128) -> list:
    return [synthetic.draw_scene(np.random.default_rng([3, i]), height, width) for i in range(count)]


@pytest.fixture(scope="module")
def many():
    return scenes(60)


def test_equal_states_draw_equal_scenes_and_others_do_not():
    (image, label), (again, same) = (synthetic.draw_scene(np.random.default_rng(1), 64, 80) for _ in range(2))
    other, _ = synthetic.draw_scene(np.random.default_rng(2), 64, 80)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, same)
    assert (image != other).mean() > 0.9


@pytest.mark.parametrize("size", [(17, 23), (128, 160), (65, 129)])
def test_any_size_is_drawn(size):
    image, label = synthetic.draw_scene(np.random.default_rng(0), *size)
    assert (image.shape, image.dtype, label.shape, label.dtype) == ((*size, 3), np.uint8, size, np.uint8)


def test_every_class_occurs_often_and_void_is_a_thin_rim(many):
    labels = np.stack([label for _, label in many])
    assert set(np.unique(labels)) == {*range(len(synthetic.CLASSES)), synthetic.VOID}
    for index, (name, _) in enumerate(synthetic.CLASSES):
        share, pictures_with = (labels == index).mean(), (labels == index).any((1, 2)).mean()
        assert share > 0.005, name
        assert pictures_with > 0.7, name
    assert 0.002 < (labels == synthetic.VOID).mean() < 0.05


def test_sky_is_above_and_road_below(many):
    rows = np.arange(96)[:, None] * np.ones((1, 128))
    for _, label in many:
        assert rows[label == synthetic.SKY].mean() < rows[label == synthetic.ROAD].mean()


def test_colour_alone_does_not_tell_the_ground_or_the_walls_apart(many):
    """The best guess from a pixel's colour, learned within one scene, is hardly better than the commoner class."""
    for one, two in ((synthetic.ROAD, synthetic.PAVEMENT), (synthetic.BUILDING, synthetic.FENCE)):
        gains = []
        for image, label in many:
            gray = image.mean(-1)
            first, second = gray[label == one], gray[label == two]
            if min(len(first), len(second)) < 200:
                continue
            edges = np.quantile(np.concatenate([first, second]), np.linspace(0, 1, 9)[1:-1])
            shares = [np.bincount(np.searchsorted(edges, x), minlength=8) / len(x) for x in (first, second)]
            # Balanced accuracy of the best threshold rule: 0.5 is chance, 1 is certainty.
            gains.append(np.maximum(*shares).sum() / 2)
        assert len(gains) > 10
        assert np.mean(gains) < 0.75


def test_things_are_drawn_at_several_scales(many):
    heights = []
    for _, label in many:
        rows = np.nonzero((label == synthetic.VEHICLE).any(1))[0]
        heights.append(len(rows))
    assert np.quantile(heights, 0.9) > 2.5 * np.quantile(heights, 0.1)


def test_a_source_draws_each_picture_from_seed_split_and_index():
    size = (32, 48)
    source = synthetic.make_source((3, 2, 1), size, seed=5)
    assert {name: len(pairs) for name, pairs in source.splits.items()} == {"train": 3, "val": 2, "test": 1}
    assert source.splits["train"][1] == synthetic.make_source((2, 2), size, seed=5).splits["train"][1]
    assert source.splits["train"][1].label != source.splits["val"][1].label
    assert source.splits["train"][1].label != synthetic.make_source((2, 2), size, seed=6).splits["train"][1].label
    assert pictures.decode_label(source.splits["val"][0].label, "x").array.shape == size
    assert len(list(source.splits["val"])) == 2
