"""Labels of pictures of any size and kind: whole or in tiles, arrays or files."""

import keras
import numpy as np
import pytest
import training
from PIL import Image

import nas_seg
from nas_seg import picture_files, prediction, tiles
from nas_seg.core.resize import ResizeLike
from nas_seg.inference import scorer
from nas_seg.inference_config import InferenceConfig
from nas_seg.utils.errors import InputError
from nas_seg.utils.size_range import SizeRange

# Four convolutions of stride 2 see 1 + 2 + 4 + 8 pixels on either side, and the resize reaches to the next feature.
STRIDE, RADIUS = 16, 15 + 16


def strided_model() -> keras.Model:
    """A network of output stride 16 and a small receptive field, whose classes are about evenly frequent."""
    keras.utils.set_random_seed(3)
    images = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1, name="normalize")(images)
    for filters in (8, 8, 8, 5):
        x = keras.layers.Conv2D(filters, 3, 2, "same", activation=None if filters == 5 else "elu")(x)
    return keras.Model(images, ResizeLike()([x, images]))


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def whole(model, image):
    scores = scorer(model)(image[None].astype(np.float32))
    return np.asarray(keras.ops.softmax(scores))[0]


def differing(tiled, expected):
    """Pixels whose label is another one, but for ties: float32 sums of other sizes may differ in the last bit."""
    best = np.sort(expected, axis=-1)
    return (tiled != expected.argmax(-1)) & (best[..., -1] - best[..., -2] > 1e-5)


@pytest.mark.parametrize("size", [(129, 161), (150, 203), (97, 300), (40, 50)])
def test_tiles_give_the_whole_pictures_labels_where_half_the_overlap_is_as_far_as_the_network_sees(size):
    model, image = strided_model(), picture(*size)
    expected = whole(model, image)
    labels, shares = nas_seg.predict(model, image, tile_size=97, tile_overlap=2 * RADIUS, return_probabilities=True)
    assert labels.dtype == np.int32 and labels.shape == size and len(np.unique(labels)) > 2
    assert not differing(labels, expected).any()
    np.testing.assert_allclose(shares, expected, atol=1e-5)


def test_without_overlap_labels_differ_near_tile_borders_and_nowhere_else():
    model, size = strided_model(), (193, 225)
    image = picture(*size)
    wrong = differing(nas_seg.predict(model, image, tile_size=97, tile_overlap=0), whole(model, image))
    cuts = [[span.first for span in tiles.spans(side, 97, 0)][1:] for side in size]
    rows, columns = (
        np.min([abs(np.arange(side) - cut) for cut in own], 0) for side, own in zip(size, cuts, strict=True)
    )
    near = (rows[:, None] <= RADIUS) | (columns[None] <= RADIUS)
    assert wrong.any() and not wrong[~near].any() and (~near).any()


@pytest.mark.parametrize(("tile_size", "overlap"), [(33, 0), (65, 32), (97, 50), (97, 1), (129, 96)])
def test_spans_cover_an_axis_once_from_starts_on_the_grid_and_far_from_tile_borders(tile_size, overlap):
    for length in (1, 32, 33, 34, 97, 98, 500, 513):
        spans = tiles.spans(length, tile_size, overlap)
        assert [i for span in spans for i in range(length)[span.kept]] == list(range(length))
        for span in spans:
            assert span.start % 32 == 0 and span.stop - span.start <= tile_size
            assert span.start == 0 or span.first - span.start >= overlap // 2
            assert span.stop == length or span.stop - span.last >= overlap // 2
        # All but the last are whole tiles, and that one ends with the picture.
        assert spans[-1].stop == length
        assert {span.stop - span.start for span in spans[:-1]} <= {tile_size}


def test_one_picture_gives_labels_and_several_give_them_one_by_one():
    model = training.tiny_model()
    images = [picture(9, 14, seed) for seed in range(3)]
    alone = nas_seg.predict(model, images[0])
    np.testing.assert_array_equal(alone, whole(model, images[0]).argmax(-1))
    taken = []

    def stream():
        for image in images:
            taken.append(image)
            yield image

    results = nas_seg.predict(model, stream())
    np.testing.assert_array_equal(next(results), alone)
    assert len(taken) == 1
    assert len(list(results)) == 2
    np.testing.assert_array_equal(next(nas_seg.predict(model, np.stack(images))), alone)


def test_scales_and_mirrored_looks_are_the_scorers():
    model, config, image = training.tiny_model(), InferenceConfig((0.5, 1.0), add_flipped_images=True), picture(31, 40)
    labels, shares = nas_seg.predict(model, image, config, return_probabilities=True)
    expected = np.asarray(scorer(model, config)(image[None].astype(np.float32)))[0]
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    np.testing.assert_array_equal(labels, shares.argmax(-1))


def test_files_folders_and_frames_are_read_in_the_order_of_their_numbers(tmp_path):
    model = training.tiny_model()
    images = {f"f{number}": picture(8, 8, number) for number in (9, 10, 100)}
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    expected = [nas_seg.predict(model, image) for image in images.values()]
    for place in (tmp_path, str(tmp_path), tmp_path / "*.png", f"{tmp_path}/f%d.png", [*tmp_path.glob("f?.png")]):
        labels = list(nas_seg.predict(model, place))
        np.testing.assert_array_equal(labels, expected[: len(labels)])
        assert len(labels) == (1 if isinstance(place, list) else 3)
    np.testing.assert_array_equal(nas_seg.predict(model, tmp_path / "f9.png"), expected[0])
    assert [path.name for path in picture_files.find_images(tmp_path / "f%02d.png")] == ["f10.png", "f100.png"]


@pytest.mark.parametrize("name", ["clip.gif", "clip.webp", "pages.tif"])
def test_frames_of_one_file_are_predicted_one_by_one_and_named_by_their_number(tmp_path, name):
    model, frames = training.tiny_model(), [np.full((9, 14, 3), 40 * i, np.uint8) for i in range(3)]
    first, *others = map(Image.fromarray, frames)
    first.save(tmp_path / name, save_all=True, append_images=others, **({"lossless": True} if "webp" in name else {}))
    found = picture_files.find_images(tmp_path / name)
    for frame in (*found, *reversed(found)):
        np.testing.assert_array_equal(picture_files.read_image(frame), frames[frame.index])
    labels = list(nas_seg.predict(model, tmp_path / name))
    np.testing.assert_array_equal(labels, [nas_seg.predict(model, frame) for frame in frames])
    stem = name.split(".")[0]
    assert picture_files.output_names(found) == [f"{stem}_0000{i}" for i in range(3)]
    # What is written anew is read anew.
    others[0].save(tmp_path / name, **({"lossless": True} if "webp" in name else {}))
    np.testing.assert_array_equal(nas_seg.predict(model, tmp_path / name), nas_seg.predict(model, frames[1]))


def test_frames_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "text.gif").write_text("words")
    with pytest.raises(InputError, match="text.gif: expected a GIF, WebP or TIFF file, it cannot be decoded"):
        picture_files.find_images(tmp_path / "text.gif")
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(tmp_path / "deep.tif")
    with pytest.raises(InputError, match="deep.tif, frame 0: expected 8 bits a channel, received mode I;16"):
        nas_seg.predict(training.tiny_model(), tmp_path / "deep.tif")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "none: expected a picture, a folder of pictures, or a pattern .* found none"),
        ("empty", "empty: expected .jpg, .jpeg, .png files, found nothing"),
        ("empty/*.png", r"empty/\*.png: expected a picture, .* found none"),
        ("empty/%d.png", "empty/%d.png: expected a picture, .* found none"),
        ("clip.mp4", "clip.mp4: expected pictures, received a video; its frames are: ffmpeg -i clip.mp4"),
        ("torn.png", "torn.png: expected a JPEG or PNG picture, it cannot be decoded"),
        ("text.jpg", "text.jpg: expected a JPEG or PNG picture, received something else"),
    ],
)
def test_a_place_without_a_picture_is_one_line_that_names_it(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "clip.mp4").write_bytes(b"\0")
    (tmp_path / "text.jpg").write_text("words")
    Image.fromarray(picture(40, 40)).save(tmp_path / "torn.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "torn.png").read_bytes()[:900])
    with pytest.raises(InputError, match=message) as error:
        list(nas_seg.predict(training.tiny_model(), tmp_path / name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tile_size": 512}, r"tile_size: expected k \* 32 \+ 1 pixels, received 512; the nearest is 513"),
        ({"tile_size": 1}, "tile_size: .* received 1; the nearest is 33"),
        ({"tile_size": 97, "tile_overlap": 65}, "tile_overlap: expected 0 to 64 pixels with tiles of 97, received 65"),
        ({"tile_size": 97, "tile_overlap": -1}, "tile_overlap: .* received -1"),
        ({"tile_size": 513, "inference": InferenceConfig(crop_size=(9, 9))}, "crop_size: expected none with tiles"),
        (
            {"tile_size": 513, "inference": InferenceConfig(size_range=SizeRange(99))},
            "min_resize_value: expected none with tiles",
        ),
    ],
)
def test_tiles_that_cannot_be_are_refused_before_anything_is_read(arguments, message):
    with pytest.raises(InputError, match=message):
        nas_seg.predict(training.tiny_model(), "nowhere", **arguments)


def test_arrays_that_are_no_pictures_are_refused():
    model = training.tiny_model()
    for array in (np.zeros((4, 4)), np.zeros((4, 4, 4)), np.zeros((0, 4, 3)), np.zeros((4, 4, 3), bool)):
        with pytest.raises(InputError, match=r"image: expected numbers \[H, W, 3\], received"):
            list(nas_seg.predict(model, [array]))
    with pytest.raises(InputError, match=r"images: expected arrays \[H, W, 3\] or paths, received int"):
        nas_seg.predict(model, 3)


def test_names_of_results_are_stems_unless_two_files_share_one(tmp_path):
    def names(*files):
        return picture_files.output_names(tmp_path / file for file in files)

    assert names("a.png", "b.jpg") == ["a", "b"]
    assert names("a.png", "a.jpg") == ["a.png", "a.jpg"]
    with pytest.raises(InputError, match="y/a.png: expected pictures of different names, .*x/a.png has the same"):
        names("x/a.png", "y/a.png")


def test_a_folder_that_is_no_exported_network_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected the folder of a SavedModel, found no saved_model.pb"):
        prediction.saved_model_looker(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"torn")
    with pytest.raises(InputError, match="expected a SavedModel"):
        prediction.saved_model_looker(tmp_path)
