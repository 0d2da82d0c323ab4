import keras
import numpy as np
import pytest
import tensorflow as tf
import training

from nas_seg import eval as evaluation
from nas_seg.metrics import ConfusionMatrix
from nas_seg.utils.errors import InputError


def pictures(sizes, seed=0):
    """One batch of one image a size, with names."""
    rng = np.random.default_rng(seed)
    for index, (height, width) in enumerate(sizes):
        label = rng.integers(0, training.NUM_CLASSES, (1, height, width))
        label[rng.random(label.shape) < 0.2] = training.IGNORE
        yield {
            "image": rng.uniform(0, 255, (1, height, width, 3)).astype(np.float32),
            "label": label.astype(np.int32),
            "image_name": np.array([f"street/{index}".encode()]),
        }


def evaluate(model, batches, **arguments):
    return evaluation.evaluate(model, batches, training.NUM_CLASSES, training.IGNORE, **arguments)


def test_scores_are_those_of_the_argmax_counted_by_hand():
    model, batches = training.tiny_model(), list(pictures([(16, 20), (9, 31), (16, 20)]))
    confusion = ConfusionMatrix(training.NUM_CLASSES, training.IGNORE)
    for batch in batches:
        confusion.update(batch["label"], np.argmax(model(batch["image"], training=False), axis=-1))
    result, expected = evaluate(model, batches), confusion.result()
    assert result.pop("num_images") == 3
    images = result.pop("images")
    assert [image["name"] for image in images] == ["street/0", "street/1", "street/2"]
    for image, batch in zip(images, batches, strict=True):
        alone = ConfusionMatrix(training.NUM_CLASSES, training.IGNORE)
        alone.update(batch["label"], np.argmax(model(batch["image"], training=False), axis=-1))
        assert image["miou"] == alone.result()["miou"]
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(result[name], value)


def test_a_model_that_knows_the_truth_scores_one():
    images = keras.Input((None, None, 3))
    truth = keras.Model(
        images, keras.layers.Lambda(lambda x: keras.ops.one_hot(keras.ops.cast(x[..., 0], "int32"), 4))(images)
    )
    label = np.random.default_rng(0).integers(0, 4, (2, 8, 8))
    batch = {"image": np.repeat(label[..., None], 3, -1).astype(np.float32), "label": label}
    result = evaluate(truth, [batch])
    assert result["miou"] == result["pixel_accuracy"] == 1.0 and result["num_images"] == 2


def test_pictures_of_many_sizes_are_traced_once():
    predict = evaluation.predictor(training.tiny_model())
    evaluate(None, pictures([(8, 8), (9, 12), (31, 17)]), predict=predict)
    assert predict.experimental_get_tracing_count() == 1


def test_a_predictor_sees_weights_that_change_after_it_was_made():
    model, (batch,) = training.tiny_model(), pictures([(16, 16)])
    predict = evaluation.predictor(model)
    before = predict(batch["image"]).numpy()
    logits = model.get_layer("logits")
    logits.set_weights([logits.get_weights()[0], np.array([100, 0, 0, 0], np.float32)])
    assert before.any() and not predict(batch["image"]).numpy().any()


def test_a_tf_dataset_is_evaluated_and_progress_told():
    counts = []
    result = evaluate(training.tiny_model(), training.batches().take(2), advance=counts.append)
    assert counts == [4, 4] and result["num_images"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: batch.pop("label"), "street/0: expected a label beside the image"),
        (lambda batch: batch["label"].fill(7), r"street/0: labels: expected 0..3 or ignore_label 255, received 7"),
        (lambda batch: batch.update(label=batch["label"][:, :5]), r"street/0: predictions: expected the labels' shape"),
    ],
)
def test_a_picture_that_does_not_fit_is_named(change, message):
    (batch,) = pictures([(8, 8)])
    change(batch)
    with pytest.raises(InputError, match=message):
        evaluate(training.tiny_model(), [batch])


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match="at least one image"):
        evaluate(training.tiny_model(), tf.data.Dataset.range(0))
