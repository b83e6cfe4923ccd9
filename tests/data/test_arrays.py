"""Arrays from files of unknown origin: an array or one clear error, whatever the bytes."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmr.data import arrays
from vmr.data.arrays import has_array, open_array
from vmr.errors import InputError

DTYPES = ["<f4", ">f4", "<f2", "<f8", "<i4", "|u1", "|b1"]


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return open, (str(self.mark), "w")


def table(rows: int = 7, columns: int = 5) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


def npy_bytes(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz_bytes(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def header(shape: str, descr: str = "<f4") -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("rows", [None, 0, 3, 99])
@pytest.mark.parametrize("kind", ["npy", "npz", "deflated", "hdf5"])
def test_every_format_gives_the_numbers(
    tmp_path: Path, dtype: str, order: Any, rows: int | None, kind: str
) -> None:
    array = np.asarray(table() * 10, order=order).astype(dtype, order=order)
    path = tmp_path / kind  # the name says nothing
    if kind == "hdf5":
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=array, compression="gzip")
    elif kind == "npy":
        path.write_bytes(npy_bytes(array))
    else:
        save = np.savez if kind == "npz" else np.savez_compressed
        with path.open("wb") as out:
            save(out, features=array, other=np.zeros(3))
    stored = open_array(path, "features")
    assert stored.shape == array.shape
    assert stored.dtype == array.dtype
    read = stored.read(rows)
    np.testing.assert_array_equal(read, array[:rows])
    assert read.dtype == array.dtype


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (3, 0), (2, 3, 4)])
def test_shapes_other_than_a_table(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype=np.float32)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", features=array)
    np.savez_compressed(tmp_path / "c.npz", features=array)
    for name in ("a.npy", "b.npz", "c.npz"):
        read = open_array(tmp_path / name, "features").read(None)
        np.testing.assert_array_equal(read, array)


def test_npy_and_stored_npz_are_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", table())
    np.savez(tmp_path / "b.npz", features=table())
    for name in ("a.npy", "b.npz"):
        read = open_array(tmp_path / name, "features").read()
        assert not read.flags.owndata
        assert not read.flags.writeable


def test_without_a_key_the_only_array_is_meant(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", anything=table())
    np.savez(tmp_path / "two.npz", a=table(), b=table())
    with h5py.File(tmp_path / "one.hdf5", "w") as file:
        file["v"] = table()
    for name in ("one.npz", "one.hdf5"):
        np.testing.assert_array_equal(open_array(tmp_path / name).read(), table())
    with pytest.raises(InputError, match=r"two\.npz: expected one array, got 'a', 'b'"):
        open_array(tmp_path / "two.npz")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"
    objects = np.array([Trap(mark)], dtype=object)
    raw = npy_bytes(objects, allow_pickle=True)
    (tmp_path / "a.npy").write_bytes(raw)
    (tmp_path / "b.npz").write_bytes(npz_bytes({"features.npy": raw}))
    (tmp_path / "c.npz").write_bytes(npz_bytes({"features.npy": raw}, zipfile.ZIP_STORED))
    structured = np.zeros(2, dtype=[("x", "f4"), ("y", object)])
    np.save(tmp_path / "d.npy", structured, allow_pickle=True)
    for name in ("a.npy", "b.npz", "c.npz", "d.npy"):
        with pytest.raises(InputError, match=r"expected numbers, got Python objects \(a pickle\)"):
            open_array(tmp_path / name, "features").read()
    (tmp_path / "e.npy").write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(InputError, match="looks like a Python pickle, which vmr does not load"):
        open_array(tmp_path / "e.npy")
    (tmp_path / "f.npz").write_bytes(npz_bytes({"features.npy": pickle.dumps(Trap(mark))}))
    with pytest.raises(InputError, match="is damaged"):
        open_array(tmp_path / "f.npz", "features")
    assert not mark.exists()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "LARGEST_ARRAY", 2**20)
    shape = (2**18 + 1, 1)
    np.savez_compressed(tmp_path / "big.npz", features=np.zeros(shape, np.float32))
    assert (tmp_path / "big.npz").stat().st_size < 4096
    with h5py.File(tmp_path / "big.hdf5", "w") as file:
        file.create_dataset("features", shape, "f4", compression="gzip")
        file.create_dataset("chunk", (1,), "f4", chunks=shape[:1], maxshape=(None,))
    unpacked = []
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *args, **_: unpacked.append(args))
    for name, key in (("big.npz", "features"), ("big.hdf5", "features"), ("big.hdf5", "chunk")):
        with pytest.raises(
            InputError, match=f"{key}.*at most 1 MiB in one compressed array, got 1"
        ):
            open_array(tmp_path / name, key)
    assert unpacked == []


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    raw = npy_bytes(table())
    # More and less than the array's header says.
    for content in (raw + bytes(2**20), raw[:-4]):
        path.write_bytes(npz_bytes({"features.npy": content}))
        with pytest.raises(InputError, match="its header says 140 bytes of numbers, the zip"):
            open_array(path, "features")
    # A directory that says less than what unpacks: no more than it says is read.
    packed = npz_bytes({"features.npy": raw + bytes(2**20)})
    said = struct.pack("<I", len(raw) + 2**20)
    path.write_bytes(packed.replace(said, struct.pack("<I", len(raw))))
    with pytest.raises(InputError, match=r"a\.npz"):
        open_array(path, "features").read()
    # Declared as gigabytes, inside a few bytes.
    path.write_bytes(packed.replace(said, struct.pack("<I", 2**32 - 2)))
    with pytest.raises(InputError, match="at most 1024 MiB"):
        open_array(path, "features")
    path.write_bytes(header("(4611686018427387904, 4611686018427387904)") + bytes(64))
    with pytest.raises(InputError, match="is cut off: its header says"):
        open_array(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_without_a_bound_is_refused(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(npz_bytes({"features.npy": npy_bytes(table())}, method))
    with pytest.raises(InputError, match="expected a stored or deflated zip member"):
        open_array(path, "features")


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    raw = npy_bytes(table())
    stored = npz_bytes({"features.npy": raw}, zipfile.ZIP_STORED)
    path.write_bytes(stored.replace(raw[-8:], b"\0" * 8, 1))
    with pytest.raises(InputError, match="its checksum is not the one that the zip says"):
        open_array(path, "features").read()
    deflated = bytearray(npz_bytes({"features.npy": raw}))
    deflated[60] ^= 255
    path.write_bytes(deflated)
    with pytest.raises(InputError, match=r"a\.npz, key 'features': "):
        open_array(path, "features").read()


@pytest.mark.parametrize("kind", ["npy", "npz", "deflated", "hdf5"])
def test_files_that_are_cut_off(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "hdf5":
        with h5py.File(path, "w") as file:
            file["features"] = table()
    elif kind == "npy":
        path.write_bytes(npy_bytes(table()))
    else:
        method = zipfile.ZIP_STORED if kind == "npz" else zipfile.ZIP_DEFLATED
        path.write_bytes(npz_bytes({"features.npy": npy_bytes(table())}, method))
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 1 if kind != "hdf5" else 61):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=str(path)):
            open_array(path, "features").read()


def test_what_is_no_array_of_numbers(tmp_path: Path) -> None:
    cases = {
        "text.npy": (np.array(["a", "b"]), "expected numbers, got the type <U1"),
        "complex.npy": (np.zeros(2, complex), "expected numbers, got the type complex128"),
        "date.npy": (np.zeros(2, "M8[s]"), "expected numbers, got the type datetime64"),
        "fields.npy": (np.zeros(2, [("x", "f4")]), "expected numbers, got the type"),
    }
    for name, (array, message) in cases.items():
        np.save(tmp_path / name, array)
        with pytest.raises(InputError, match=message):
            open_array(tmp_path / name)
    (tmp_path / "minus.npy").write_bytes(header("(-1, 4)") + bytes(64))
    with pytest.raises(InputError, match=r"expected sizes from 0, got the shape \[-1, 4\]"):
        open_array(tmp_path / "minus.npy")


def test_messages_name_the_file_and_what_came(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.npy: there is no such file"):
        open_array(tmp_path / "none.npy")
    with pytest.raises(InputError, match="is a folder; expected an npy, npz or HDF5 file"):
        open_array(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="got an empty file"):
        open_array(tmp_path / "empty")
    (tmp_path / "text").write_text("features")
    with pytest.raises(InputError, match="got a file that begins with b'features'"):
        open_array(tmp_path / "text")
    np.savez(tmp_path / "a.npz", **{f"k{number}": table() for number in range(7)})
    with pytest.raises(InputError, match=r"expected the key 'features', got 'k0', .* and 2 more"):
        open_array(tmp_path / "a.npz", "features")


def test_hdf5_does_not_lead_elsewhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret.hdf5"
    with h5py.File(secret, "w") as file:
        file["features"] = table()
    (tmp_path / "raw.bin").write_bytes(bytes(64))
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["away"] = h5py.ExternalLink(str(secret), "features")
        file["soft"] = h5py.SoftLink("/group")
        file.create_group("group")
        file.create_dataset("text", data=["a", "b"])
        layout = h5py.VirtualLayout((7, 5), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "features", (7, 5))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (4,), "f4", external=[(str(tmp_path / "raw.bin"), 0, 64)])
        file["group/other"] = h5py.ExternalLink(str(secret), "/")
        file["group/inner/d"] = table()
        file["way"] = h5py.SoftLink("/group/inner")
    for key, message in {
        "away": "got a link, which vmr does not follow",
        "soft": "got a link, which vmr does not follow",
        "group/other/features": "got a link, which vmr does not follow",
        "/way/d": "got a link, which vmr does not follow",
        "group/inner/d/none": "expected the key",
        "group": "expected a data set, got a group",
        "text": "expected numbers, got Python objects",
        "virtual": "keeps its numbers in other files",
        "raw": "keeps its numbers in other files",
        "none": r"expected the key 'none', got 7 keys: 'away'",
    }.items():
        with pytest.raises(InputError, match=message):
            open_array(path, key)
    np.testing.assert_array_equal(open_array(path, "/group//inner/d").read(), table())
    assert has_array(path, "group/inner/d")
    assert not has_array(path, "group/inner/e")
    with pytest.raises(InputError, match="got a link, which vmr does not follow"):
        has_array(path, "group/other/features")


def test_hdf5_without_h5py_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["features"] = table()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"pip install 'vmr\[hdf5\]'"):
        open_array(tmp_path / "a.hdf5", "features")


def test_hdf5_files_are_kept_open_and_changed_ones_opened_again(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.hdf5" for number in range(12)]
    for number, path in enumerate(paths):
        with h5py.File(path, "w") as file:
            file["v"] = np.full((2, 2), number, np.float32)
    for number, path in enumerate(paths * 2):
        assert open_array(path, "v").read()[0, 0] == number % len(paths)
    assert len(arrays._open_files) <= arrays._HANDLES
    assert has_array(paths[0], "v")
    assert not has_array(paths[0], "w")
    assert not has_array(tmp_path / "none.hdf5", "v")
    with h5py.File(tmp_path / "new", "w") as file:
        file["v"] = np.full((2, 2), 99, np.float32)
    time.sleep(0.01)
    os.replace(tmp_path / "new", paths[0])
    assert open_array(paths[0], "v").read()[0, 0] == 99


# ---- fuzz ---------------------------------------------------------------------------------------------


def answer(path: Path, raw: bytes) -> None:
    """An array or an InputError, and nothing else."""
    path.write_bytes(raw)
    for key in ("features", None):
        try:
            stored = open_array(path, key)
            for rows in (None, 2):
                read = stored.read(rows)
                assert read.shape[1:] == stored.shape[1:]
                read.sum()
        except InputError as error:
            said = str(error)
        else:
            continue
        assert str(path) in said


FUZZ = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
HDF = b"\x89HDF\r\n\x1a\n"
VALID = {
    "npy": npy_bytes(table()),
    "npy 2": npy_bytes(table()).replace(b"\x01\x00\x76\x00", b"\x02\x00\x76\x00\x00\x00", 1),
    "stored": npz_bytes({"features.npy": npy_bytes(table())}, zipfile.ZIP_STORED),
    "deflated": npz_bytes({"features.npy": npy_bytes(table())}),
}


@FUZZ
@given(
    begin=st.sampled_from([b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x20\x00", b"PK\x03\x04", HDF]),
    raw=st.binary(max_size=400),
)
@pytest.mark.filterwarnings("ignore")
def test_random_bytes(tmp_path: Path, begin: bytes, raw: bytes) -> None:
    answer(tmp_path / "a", begin + raw)


@FUZZ
@given(
    kind=st.sampled_from(sorted(VALID)),
    changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 60),
)
@pytest.mark.filterwarnings("ignore")
def test_mutated_files(tmp_path: Path, kind: str, changes: list[tuple[int, int]], cut: int) -> None:
    raw = bytearray(VALID[kind])
    for place, value in changes:
        raw[place % len(raw)] = value
    answer(tmp_path / "a", bytes(raw[: len(raw) - cut]))


@FUZZ
@given(
    text=st.text("{}()[]',: 0123456789fiuOTrueFalse<>|descrshapeortan_", max_size=120),
    stored=st.booleans(),
)
@pytest.mark.filterwarnings("ignore")
def test_random_headers(tmp_path: Path, text: str, stored: bool) -> None:
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(40)
    answer(tmp_path / "a", raw)
    method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    answer(tmp_path / "a", npz_bytes({"features.npy": raw}, method))


@settings(FUZZ, max_examples=100)
@given(changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4))
def test_mutated_hdf5(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    path = tmp_path / "whole.hdf5"
    if not path.exists():
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=table(), compression="gzip")
    raw = bytearray(path.read_bytes())
    for place, value in changes:
        raw[place % len(raw)] = value
    answer(tmp_path / "a", bytes(raw))
