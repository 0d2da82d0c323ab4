import types

import numpy as np
import pytest

from nas_seg.utils.errors import InputError
from nas_seg.utils.state_file import load_state, save_state


class Variable(types.SimpleNamespace):
    """As much of keras.Variable as a state needs."""

    def __init__(self, value, path="cell/kernel"):
        super().__init__(value=np.asarray(value), path=path)

    @property
    def shape(self):
        return self.value.shape

    def numpy(self):
        return self.value

    def assign(self, value):
        self.value = value


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "ckpt" / "state.npz"
    variables = [Variable(np.arange(6, dtype=np.float32).reshape(2, 3)), Variable(np.int64(7)), Variable([])]
    save_state(path, variables, {"step": 12, "losses": [0.1, 0.2]})
    return path


def fresh(shape=(2, 3)):
    return [Variable(np.zeros(shape, np.float32)), Variable(np.int64(0)), Variable([])]


def test_values_and_numbers_come_back_exactly(saved):
    variables = fresh()
    numbers = load_state(saved, variables)
    np.testing.assert_array_equal(variables[0].value, [[0, 1, 2], [3, 4, 5]])
    assert variables[0].value.dtype == np.float32 and variables[1].value == 7
    assert int(numbers["step"]) == 12 and numbers["losses"].tolist() == [0.1, 0.2]


def test_a_failed_save_leaves_the_state_before(saved):
    class Broken(Variable):
        def numpy(self):
            raise OSError("disk full")

    before = saved.read_bytes()
    with pytest.raises(OSError, match="disk full"):
        save_state(saved, [Broken(1.0)], {})
    assert saved.read_bytes() == before
    # What a kill in the middle of a save leaves is no state, and is written over.
    (saved.parent / ".state.npz.part").write_bytes(b"half")
    load_state(saved, fresh())
    save_state(saved, fresh(), {"step": 13})
    assert int(load_state(saved, fresh())["step"]) == 13
    assert [path.name for path in saved.parent.iterdir()] == ["state.npz"]


def test_a_state_of_another_network_is_refused_and_nothing_is_assigned(saved):
    variables = fresh((3, 3))
    with pytest.raises(InputError, match=r"cell/kernel: expected shape \(3, 3\), received \(2, 3\)"):
        load_state(saved, variables)
    with pytest.raises(InputError, match="expected 1 variables, received 3"):
        load_state(saved, variables[:1])
    assert not variables[0].value.any() and variables[1].value == 0


def of_another_compression(data: bytes) -> bytes:
    """The first file of a zip archive is said, in its directory, to be compressed in a way that nobody knows."""
    at = data.index(b"PK\x01\x02") + 10
    return data[:at] + b"\x01" + data[at + 1 :]


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"text", of_another_compression]
)
def test_a_damaged_state_is_named(saved, damage):
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(InputError, match=r"state.npz: the checkpoint cannot be read"):
        load_state(saved, fresh())


def test_another_version_is_refused(tmp_path):
    np.savez(tmp_path / "state.npz", format_version=2)
    with pytest.raises(InputError, match="expected format_version 1, received 2"):
        load_state(tmp_path / "state.npz", [])
