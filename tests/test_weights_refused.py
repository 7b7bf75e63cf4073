"""Weights files that are refused: code and forged states in them, damage, other kinds, rights."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle

import numpy as np
import paddle
import pytest

from segkit.engine.weights import load_objects, load_state, load_weights, save_state, weights_file
from segkit.errors import InputError
from tests.weight_cases import Net, every_type


class Evil:
    def __init__(self, call, *arguments):
        self.reduced = (call, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (os.system, r"(posix|nt)\.system"),
        (eval, r"builtins\.eval"),
        (getattr, r"builtins\.getattr"),
        (np.load, r"numpy\.load"),
        (os.path.exists, r"(genericpath|posixpath|ntpath)\.exists"),
    ],
)
def test_code_in_a_file_is_refused_by_name_and_not_run(tmp_path, call, named):
    target = tmp_path / "ran"
    argument = f"touch {target}" if call is os.system else str(target)
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps({"w": np.zeros(2), "x": Evil(call, argument)}))
    with pytest.raises(InputError, match=rf"model\.pdparams: refused, because loading it would run code \(got {named}"):
        load_state(path)
    assert not target.exists()


FORGED_TYPE = ("numpy", "dtype"), ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)
"""type 'O8' with its object flags taken away: numpy would then take the file's bytes as addresses of objects"""


def stated(name: tuple[str, str], arguments: tuple, state: object) -> bytes:
    """Opcodes: the global `name` called with `arguments`, and its state set."""
    called = b"c" + "\n".join(name).encode() + b"\n" + pickle.dumps(arguments, 2)[2:-1] + b"R"
    return called + pickle.dumps(state, 2)[2:-1] + b"b"


@pytest.mark.parametrize(
    "forged",
    [
        stated(*FORGED_TYPE),
        b"cnumpy.core.multiarray\nscalar\n" + stated(*FORGED_TYPE) + b"C\x08AAAAAAAA\x86R",
        b"cnumpy.core.multiarray\nscalar\n" + stated(("numpy", "dtype"), ("f8",), FORGED_TYPE[2]) + b"C\x02AA\x86R",
        stated(("numpy", "dtype"), ("f8", False, True), (3, "<", None, None, None, -1, -1, 63)),
        stated(("numpy", "dtype"), ("U2", False, True), (3, "<", None, None, None, 4096, 4, 8)),
        stated(("numpy", "dtype"), ("O,i4", False, True), None),
        stated(("numpy", "dtype"), ([("a", "O")], False, True), None),
        stated(("_codecs", "encode"), ("a", "latin1"), {"x": 1}),
        stated(("numpy.core.multiarray", "_reconstruct"), (0, (0,), b"b"), (1, (2,), "O8", False, [1, 2])),
        stated(("builtins", "set"), (), {"x": 1}),
    ],
)
def test_forged_states_are_refused_before_numpy_sees_them(tmp_path, forged):
    path = tmp_path / "model.pdparams"
    path.write_bytes(b"\x80\x04}X\x01\x00\x00\x00w" + forged + b"s.")
    with pytest.raises(InputError, match=r"model\.pdparams: refused, because loading it would run code \(got a"):
        load_objects(path)


def test_arrays_that_their_bytes_do_not_fill_are_refused(tmp_path):
    path = tmp_path / "model.pdparams"
    good = pickle.dumps({"w": np.zeros((3, 5), "float32")}, protocol=2)
    for shape in (b"K\x03K\x06", b"J\xfd\xff\xff\xffJ\xfb\xff\xff\xff", b"J\x00\x00\x00\x40K\x05"):
        path.write_bytes(good.replace(b"K\x03K\x05", shape))
        with pytest.raises(InputError, match=r"model\.pdparams: (truncated or not|refused).*shape"):
            load_objects(path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_all_plain_types_are_read_at_every_protocol(tmp_path, protocol):
    big = np.arange(6, dtype=">f4")
    arrays = {**every_type(), "c": np.ones(2, complex), "big": big, "columns": np.asfortranarray(big.reshape(2, 3)),
              "text": np.array(["ab", "ü"]), "bytes": np.array([b"x"]), "one": np.float64(3), "word": np.str_("x")}  # fmt: skip
    plain = {"l": [1, (2.5, None)], "d": collections.OrderedDict(a={True}), "f": frozenset({3}), "j": 1 + 2j}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps({**arrays, **plain}, protocol=protocol))
    found = load_objects(tmp_path / "a.pdparams")
    assert {key: found[key] for key in plain} == plain
    for key, value in arrays.items():
        assert found[key].dtype.newbyteorder("=") == value.dtype.newbyteorder("=")  # numpy may turn the bytes round
        np.testing.assert_array_equal(found[key], value)


def test_other_codecs_are_refused(tmp_path):
    import codecs

    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps({"x": Evil(codecs.encode, "a", "rot13")}, protocol=2))
    with pytest.raises(InputError, match=r"truncated or not a weights file.*codec rot13"):
        load_state(path)


def test_damaged_files(tmp_path):
    paddle.save(Net().state_dict(), str(tmp_path / "good.pdparams"))
    data = (tmp_path / "good.pdparams").read_bytes()
    bad = tmp_path / "bad.pdparams"
    for length in (0, 1, len(data) // 3, len(data) // 2, len(data) - 1):
        bad.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"bad\.pdparams: truncated or not a weights file"):
            load_state(bad)
    rng = np.random.default_rng(0)
    for _ in range(200):  # flipped bytes may pass unseen in an array, but nothing else may come out
        broken = bytearray(data)
        broken[rng.integers(0, len(data))] = rng.integers(0, 256)
        bad.write_bytes(bytes(broken))
        with contextlib.suppress(InputError):
            load_state(bad)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"a": 1}), "holds no arrays"),
        (pickle.dumps([1, 2]), "holds no arrays"),
        (pickle.dumps({"a": np.array(["text"])}), "holds no arrays"),
        (b"PK\x03\x04 and so on", "truncated or not weights of PyTorch"),
        (b"not a pickle", "truncated or not a weights file"),
    ],
)
def test_files_of_another_kind(tmp_path, content, message):
    (tmp_path / "x.pdparams").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.pdparams: {message}"):
        load_state(tmp_path / "x.pdparams")


def test_a_file_a_folder_or_a_name_without_ending(tmp_path):
    save_state(Net().state_dict(), tmp_path / "model.pdparams")
    for given in (tmp_path / "model.pdparams", tmp_path, tmp_path / "model", str(tmp_path)):
        assert weights_file(given) == tmp_path / "model.pdparams"
    with pytest.raises(InputError, match=r"none: no weights there \(looked for .*none or .*none\.pdparams\)"):
        weights_file(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"looked for .*model\.pdparams or .*model\.safetensors"):
        weights_file(tmp_path / "empty")


def test_an_address_is_not_downloaded(tmp_path):
    with pytest.raises(InputError, match=r"weights are not downloaded\. Download the file and give its path"):
        load_weights(Net(), "https://example.com/model.pdparams")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the super-user may read and write anything")
def test_without_the_right_to_read_or_write(tmp_path):
    path = tmp_path / "model.pdparams"
    save_state(Net().state_dict(), path)
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        load_state(path)
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        save_state(Net().state_dict(), tmp_path / "other.pdparams")
    tmp_path.chmod(0o700)
