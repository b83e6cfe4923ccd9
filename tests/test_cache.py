"""The cache: bounded, shared, and never the reason why something is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import vmr
from vmr.cache import Cache, Key, pack_texts, unpack_texts


def key(detail: object = "", video: str = "v", kind: str = "k", model: str = "m") -> Key:
    return Key(video, kind, model, str(detail))


def block(value: int, size: int = 1000) -> dict[str, np.ndarray]:
    return {"x": np.full(size, value, dtype=np.uint8)}


def test_gives_back_what_was_put(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2], "b": np.empty((0, 4))}
    cache.put(key(), arrays)
    found = Cache(tmp_path).get(key())
    assert found is not None
    assert set(found) == {"a", "b"}
    np.testing.assert_array_equal(found["a"], arrays["a"])
    assert found["b"].shape == (0, 4)


def test_every_field_of_the_key_counts(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put(key("d"), block(1))
    for other in (key("e"), key("d", video="w"), key("d", kind="l"), key("d", model="n")):
        assert cache.get(other) is None


def test_texts_survive_packing() -> None:
    texts = ["", "naïve café", "line\nbreak", "\N{GRINNING FACE}"]
    assert unpack_texts(pack_texts(texts)) == texts


def test_is_bounded_and_drops_the_longest_unused(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=10_000)
    for place in range(8):
        cache.put(key(place), block(place))
    assert cache.get(key(0)) is not None  # used again, so that 1 is now the oldest
    for place in range(8, 12):
        cache.put(key(place), block(place))
    held = sum(summary.size for summary in cache.summaries())
    assert held <= 10_000
    assert cache.get(key(0)) is not None
    assert cache.get(key(1)) is None
    assert cache.get(key(11)) is not None


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=500)
    cache.put(key(), block(1))
    assert cache.get(key()) is None


def test_list_and_clear(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.summaries() == []
    assert cache.clear() == 0
    for place in range(3):
        cache.put(key(place, video="one"), block(1))
    cache.put(key(video="two"), block(1))
    assert {(s.video, s.entries) for s in cache.summaries()} == {("one", 3), ("two", 1)}
    assert cache.clear("one") == 3
    assert [s.video for s in cache.summaries()] == ["two"]
    assert cache.clear() == 1
    assert cache.get(key(video="two")) is None


def test_digest_follows_the_content(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    file, copy = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"one")
    copy.write_bytes(b"one")
    first = cache.digest(file)
    assert cache.digest(copy) == first
    assert cache.digest(file) == first
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert cache.digest(file) != first
    with pytest.raises(vmr.VideoError, match="cannot be read"):
        cache.digest(tmp_path / "none")


def test_a_full_disk_is_a_warning(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put(key(1), block(1))
    assert cache._connection is not None
    cache._connection.execute(
        "PRAGMA max_page_count = 12"
    )  # SQLite then says that the disk is full
    with pytest.warns(vmr.VmrWarning, match="full.*Free some room"):
        cache.put(key(2), block(2, size=100_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(key(3), block(3))  # said once
        assert cache.get(key(1)) is not None


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "folder")
    with pytest.warns(vmr.VmrWarning, match="cannot be written"):
        cache.put(key(), block(1))
    assert cache.get(key()) is None


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.path.parent.mkdir(exist_ok=True)
    cache.path.write_bytes(b"this is no database" * 100)
    with pytest.warns(vmr.VmrWarning, match="damaged"):
        assert cache.get(key()) is None
    cache.put(key(), block(7))
    assert cache.get(key()) is not None
    assert len(list(tmp_path.glob("*.broken-*"))) == 1


def _write_many(folder: str, start: int) -> None:
    cache = Cache(folder)
    for place in range(start, start + 50):
        cache.put(key(place), block(place % 256))


def test_two_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_write_many, args=(str(tmp_path), start)) for start in (0, 50)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    cache = Cache(tmp_path)
    for place in range(100):
        found = cache.get(key(place))
        assert found is not None
        assert (found["x"] == place % 256).all()


def test_a_kill_in_mid_write_leaves_whole_entries(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import numpy as np
        from vmr.cache import Cache, Key
        cache = Cache({str(tmp_path)!r})
        for place in range(10**6):
            cache.put(Key("v", "k", "m", str(place)), {{"x": np.full(300_000, place % 251, np.uint8)}})
            print(place, flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if int(line) >= 5:
                break
        time.sleep(0.003)  # somewhere inside a write
        run.send_signal(signal.SIGKILL)
    cache = Cache(tmp_path)
    held = [found for place in range(2000) if (found := cache.get(key(place))) is not None]
    assert len(held) >= 5
    for place, found in enumerate(held):
        assert (found["x"] == place % 251).all()
    cache.put(key("after"), block(1))
    assert cache.get(key("after")) is not None


def test_the_bound_holds_for_two_that_write(tmp_path: Path) -> None:
    caches = [Cache(tmp_path, limit=20_000), Cache(tmp_path, limit=20_000)]
    for place in range(40):
        caches[place % 2].put(key(place), block(1))
    assert sum(summary.size for summary in caches[0].summaries()) <= 20_000


def test_a_reader_is_not_held_up_by_a_writer(tmp_path: Path) -> None:
    reader, writer = Cache(tmp_path), Cache(tmp_path)
    writer.put(key(1), block(1))
    assert writer._connection is not None
    writer._connection.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reader.get(key(1)) is not None
    assert time.monotonic() - begin < 20  # not the time a writer would be waited for
    writer._connection.execute("ROLLBACK")
    reader.put(key(2), block(2))
    assert writer.get(key(2)) is not None


@pytest.mark.parametrize("limit", ["-1", "0", "2GB", ""])
def test_bad_limit(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMR_CACHE_LIMIT", limit)
    with pytest.raises(vmr.InputError, match="VMR_CACHE_LIMIT"):
        Cache()
