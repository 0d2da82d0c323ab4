"""TF1 checkpoints are read by name, written back bit for bit, and refused where they are damaged."""

import numpy as np
import pytest

from nas_seg.core import tf1_checkpoint
from nas_seg.utils.errors import InputError


def _arrays():
    random = np.random.default_rng(0)
    return {
        "net/Conv/weights": random.normal(size=(3, 3, 4, 8)).astype(np.float32),
        "net/Conv/BatchNorm/gamma": random.normal(size=8).astype(np.float32),
        "global_step": np.int64(7),
    }


def test_what_is_written_is_read_bit_for_bit(tmp_path):
    arrays = _arrays()
    tf1_checkpoint.write(tmp_path / "model.ckpt-7", arrays)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.ckpt-7.data-00000-of-00001",
        "model.ckpt-7.index",
    ]
    read = tf1_checkpoint.read(tmp_path / "model.ckpt-7")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype and read[name].tobytes() == array.tobytes()
    assert tf1_checkpoint.read_shapes(tmp_path / "model.ckpt-7")["net/Conv/weights"] == (3, 3, 4, 8)


def test_a_saver_of_tensorflow_1_reads_and_writes_the_same_format(tmp_path):
    import tensorflow as tf

    arrays = _arrays()
    tf1_checkpoint.write(tmp_path / "ours", arrays)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(name, initializer=np.zeros_like(array), use_resource=False)
            for name, array in arrays.items()
        ]
        saver = tf.compat.v1.train.Saver(variables)
        saver.restore(session, str(tmp_path / "ours"))
        for variable, array in zip(variables, arrays.values(), strict=True):
            np.testing.assert_array_equal(session.run(variable), array)
        saver.save(session, str(tmp_path / "theirs"))
    for name, array in tf1_checkpoint.read(tmp_path / "theirs").items():
        np.testing.assert_array_equal(array, arrays[name])
    for part in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"ours{part}").read_bytes() == (tmp_path / f"theirs{part}").read_bytes()


def test_only_the_asked_variables_are_read(tmp_path):
    tf1_checkpoint.write(tmp_path / "model", _arrays())
    assert tf1_checkpoint.read(tmp_path / "model", ["global_step"]) == {"global_step": 7}


@pytest.mark.parametrize("part", [".meta", ".index", ".data-00000-of-00001"])
def test_a_file_in_place_of_the_prefix_is_refused_with_the_prefix(tmp_path, part):
    with pytest.raises(InputError, match=r"expected the prefix of a checkpoint, .*/model$"):
        tf1_checkpoint.read_shapes(tmp_path / f"model{part}")


def test_a_missing_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"model: no TF1 checkpoint, expected the file .*model\.index"):
        tf1_checkpoint.read(tmp_path / "model")


def test_cut_off_values_are_refused_with_the_variable(tmp_path):
    tf1_checkpoint.write(tmp_path / "model", _arrays())
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:64])
    with pytest.raises(InputError, match=r"model: damaged checkpoint, net/Conv/weights cannot be read"):
        tf1_checkpoint.read(tmp_path / "model")


def test_changed_values_are_refused(tmp_path):
    tf1_checkpoint.write(tmp_path / "model", _arrays())
    data = tmp_path / "model.data-00000-of-00001"
    changed = bytearray(data.read_bytes())
    changed[100] ^= 1
    data.write_bytes(changed)
    with pytest.raises(InputError, match="damaged checkpoint"):
        tf1_checkpoint.read(tmp_path / "model")


def test_a_damaged_index_is_refused(tmp_path):
    tf1_checkpoint.write(tmp_path / "model", _arrays())
    index = tmp_path / "model.index"
    index.write_bytes(index.read_bytes()[:20])
    with pytest.raises(InputError, match="model: damaged checkpoint"):
        tf1_checkpoint.read(tmp_path / "model")
