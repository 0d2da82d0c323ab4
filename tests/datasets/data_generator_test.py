import itertools

import numpy as np
import pytest
import tensorflow as tf
from small_data import build, pairs

from nas_seg import common
from nas_seg.datasets import preprocess_utils as ops
from nas_seg.datasets.data_generator import eval_dataset, train_dataset, view_dataset
from nas_seg.datasets.input_preprocess import Augmentation
from nas_seg.utils.errors import InputError
from nas_seg.utils.size_range import SizeRange

SIZES = [(20, 30), (33, 41), (25, 25), (40, 20), (64, 48), (21, 33), (30, 30)]
TRAIN = {"crop_size": (17, 25), "batch_size": 3, "seed": 11}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(
        tmp_path_factory.mktemp("data") / "small",
        num_shards=3,
        train=pairs(SIZES),
        val=pairs([(20, 30)] * 5, seed=1),
        test=pairs([(20, 30)] * 2, labels=False, seed=2),
    )


@pytest.fixture(scope="module")
def uninterrupted(folder):
    return take(train_dataset(folder, "train", **TRAIN), 12)


def take(dataset, count: int) -> list[dict]:
    return list(dataset.take(count).as_numpy_iterator())


def assert_equal(one: list[dict], two: list[dict]) -> None:
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a[common.IMAGE], b[common.IMAGE])
        np.testing.assert_array_equal(a[common.LABEL], b[common.LABEL])


def test_training_batches_have_static_shapes(folder):
    dataset = train_dataset(folder, "train", **TRAIN)
    assert dataset.element_spec == {
        "image": tf.TensorSpec((3, 17, 25, 3), tf.float32),
        "label": tf.TensorSpec((3, 17, 25), tf.int32),
    }


@pytest.mark.parametrize("start", [1, 7, 9])
def test_a_resumed_stream_is_the_uninterrupted_one(folder, uninterrupted, start):
    # Seven pictures in batches of three: batches straddle epochs; step 7 begins an epoch.
    resumed = take(train_dataset(folder, "train", start_step=start, **TRAIN), 12 - start)
    assert_equal(uninterrupted[start:], resumed)


def test_the_stream_depends_on_its_seed_and_not_on_the_global_one(folder, uninterrupted):
    first = uninterrupted[:3]
    tf.random.set_seed(2)
    assert_equal(first, take(train_dataset(folder, "train", **TRAIN), 3))
    other = take(train_dataset(folder, "train", **TRAIN | {"seed": 12}), 3)
    assert any((a["image"] != b["image"]).any() for a, b in zip(first, other, strict=True))


def test_a_part_of_a_split_is_all_that_is_drawn_from_it(folder):
    plain = {"crop_size": (20, 30), "batch_size": 1, "seed": 0, "min_scale_factor": 1, "max_scale_factor": 1}
    known = [batch["image"][0].tobytes() for batch in take(eval_dataset(folder, "val"), 5)]
    dataset = train_dataset(folder, "val", **plain, flip=False, indices=(1, 2, 4))
    seen = [known.index(batch["image"][0].tobytes()) for batch in take(dataset, 12)]
    epochs = np.reshape(seen, (4, 3)).tolist()
    assert all(sorted(epoch) == [1, 2, 4] for epoch in epochs) and len(set(map(tuple, epochs))) > 1
    resumed = train_dataset(folder, "val", **plain, flip=False, indices=(1, 2, 4), start_step=5)
    assert [known.index(batch["image"][0].tobytes()) for batch in take(resumed, 7)] == seen[5:]


@pytest.mark.parametrize("indices", [(), (0, 5), (-1, 2), (1, 1)])
def test_places_that_are_none_of_the_split_are_refused(folder, indices):
    with pytest.raises(InputError, match="indices: expected some of 0 to 4, each once"):
        train_dataset(folder, "val", crop_size=(9, 9), batch_size=1, seed=0, indices=indices)


def test_each_epoch_shows_every_picture_once_in_another_order(folder):
    dataset = train_dataset(
        folder, "val", crop_size=(20, 30), batch_size=1, seed=0, min_scale_factor=1, max_scale_factor=1, flip=False
    )
    known = [batch["image"][0].tobytes() for batch in take(eval_dataset(folder, "val"), 5)]
    seen = [known.index(batch["image"][0].tobytes()) for batch in take(dataset, 30)]
    epochs = [tuple(epoch) for epoch in np.reshape(seen, (6, 5)).tolist()]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len(set(epochs)) > 3


@pytest.mark.parametrize("resized", [{"size_range": SizeRange(40)}, {"base_size": (40, 60)}])
def test_pictures_are_resized_before_they_are_scaled(folder, resized):
    stream = train_dataset(
        folder,
        "val",
        crop_size=(40, 60),
        batch_size=1,
        seed=0,
        min_scale_factor=1,
        max_scale_factor=1,
        flip=False,
        **resized,
    )
    expected = take(eval_dataset(folder, "val", size=(40, 60)), 5)
    for batch in take(stream, 5):
        nearest = min(expected, key=lambda known: np.abs(known["image"] - batch["image"]).max())
        # float32 weights of up to 255.
        np.testing.assert_allclose(batch["image"], nearest["image"], atol=1e-3)
        np.testing.assert_array_equal(batch["label"], nearest["label"])


def test_a_picture_is_augmented_anew_in_each_epoch(folder):
    whole = take(train_dataset(folder, "train", crop_size=(17, 25), batch_size=7, seed=0), 2)
    crops = {crop.tobytes() for batch in whole for crop in batch["image"]}
    assert len(crops) == 14


def test_batches_can_be_larger_than_the_split(folder):
    assert take(train_dataset(folder, "train", **TRAIN | {"batch_size": 20}), 1)[0]["image"].shape[0] == 20


def test_the_stream_can_be_distributed(folder, uninterrupted):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    batch = next(iter(strategy.experimental_distribute_dataset(train_dataset(folder, "train", **TRAIN))))
    np.testing.assert_array_equal(batch["image"], uninterrupted[0]["image"])


def test_evaluation_gives_whole_pictures_in_order_with_their_names(folder):
    batches = take(eval_dataset(folder, "train"), 99)
    assert [batch["image"].shape for batch in batches] == [(1, *size, 3) for size in SIZES]
    assert [batch["image_name"].tolist() for batch in batches] == [[f"p{i:03d}".encode()] for i in range(7)]
    for batch in batches:
        assert (batch["image"].dtype, batch["label"].dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(batch["image"][..., 0], batch["label"] * 50)


def test_evaluation_resizes_with_aligned_corners_so_that_pictures_batch(folder):
    whole = take(eval_dataset(folder, "train"), 99)
    small = take(eval_dataset(folder, "train", batch_size=4, size=(11, 13)), 99)
    assert [batch["image"].shape for batch in small] == [(4, 11, 13, 3), (3, 11, 13, 3)]
    images, labels = (np.concatenate([batch[key] for batch in small]) for key in ("image", "label"))
    for i, batch in enumerate(whole):
        np.testing.assert_array_equal(images[i], ops.resize_image(batch["image"][0], (11, 13)))
        np.testing.assert_array_equal(labels[i], ops.resize_label(batch["label"][0], (11, 13)))


def test_pictures_of_one_size_batch_as_they_are_with_static_shapes(folder):
    dataset = eval_dataset(folder, "val", batch_size=2)
    assert dataset.element_spec["image"].shape[1:] == (20, 30, 3)
    assert [batch["image"].shape[0] for batch in take(dataset, 9)] == [2, 2, 1]


def test_pictures_of_several_sizes_do_not_batch(folder):
    with pytest.raises(InputError, match="batch_size: expected 1 for split 'train', whose pictures have several sizes"):
        eval_dataset(folder, "train", batch_size=2)


def test_a_split_without_labels_is_ignored_everywhere_and_cannot_train(folder):
    for batch in take(eval_dataset(folder, "test"), 9):
        assert set(batch["label"].ravel()) == {255}
    with pytest.raises(InputError, match="split 'test' of .*: expected labels to train on, it has none"):
        train_dataset(folder, "test", **TRAIN)


def test_view_zero_is_the_whole_picture_and_fewer_views_begin_more(folder):
    one = take(view_dataset(folder, "train", size=(19, 23)), 99)
    assert_equal(one, [{k: v[0] for k, v in b.items()} for b in take(eval_dataset(folder, "train", size=(19, 23)), 99)])
    three = take(view_dataset(folder, "train", size=(19, 23), views=3), 99)
    assert len(three) == 21
    assert_equal(three[:7], one)
    assert_equal(three[:14], take(view_dataset(folder, "train", size=(19, 23), views=2), 99))


def test_further_views_are_seeded_and_differ(folder):
    views = [take(view_dataset(folder, "train", size=(19, 23), views=2, seed=seed), 99) for seed in (0, 0, 1)]
    assert_equal(views[0], views[1])
    assert_equal(views[0][:7], views[2][:7])
    assert sum((a["image"] != b["image"]).any() for a, b in zip(views[0][7:], views[2][7:], strict=True)) > 4
    equal = [i for i in range(7) if (views[0][i]["image"] == views[0][7 + i]["image"]).all()]
    # A view of scale 1 that is not flipped is view 0 again: one in twelve.
    assert len(equal) <= 2
    different = [view for i, view in enumerate(views[0]) if i - 7 not in equal]
    for a, b in itertools.combinations(different, 2):
        assert (a["image"] != b["image"]).any()


def test_views_at_scale_one_are_all_view_zero(folder):
    still = Augmentation(min_scale_factor=1, max_scale_factor=1, flip=False)
    views = take(view_dataset(folder, "train", size=(19, 23), views=2, augmentation=still), 99)
    for whole, again in zip(views[:7], views[7:], strict=True):
        # The same sampling by another route: float32 rounding of 0..255.
        np.testing.assert_allclose(whole["image"], again["image"], rtol=0, atol=1e-3)
        np.testing.assert_array_equal(whole["label"], again["label"])


def test_views_have_static_shapes_and_batch(folder):
    dataset = view_dataset(folder, "val", size=(19, 23), views=2)
    assert dataset.element_spec["image"].shape == (19, 23, 3)
    assert [batch["image"].shape[0] for batch in take(dataset.batch(4), 9)] == [4, 4, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda f: train_dataset(f, "train", **TRAIN | {"batch_size": 0}),
            "batch_size: expected 1 or more, received 0",
        ),
        (lambda f: train_dataset(f, "train", **TRAIN | {"crop_size": (0, 5)}), "crop_height: expected 1 or more"),
        (lambda f: view_dataset(f, "train", size=(9, 9), views=0), "views: expected 1 or more, received 0"),
        (lambda f: eval_dataset(f, "vall"), "unknown split 'vall'.*Did you mean 'val'"),
    ],
)
def test_bad_arguments_are_named(folder, make, message):
    with pytest.raises(InputError, match=message):
        make(folder)
