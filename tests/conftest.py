"""Fixtures that several tests use. No test touches the user's own cache."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

# OpenCV asks once, at its first video; a fixture here may open one before vmr does.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 210)}
SECONDS_A_COLOUR = 4


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VMR_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def models_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for all tests that ask the embedded models the same: they answer once."""
    return tmp_path_factory.mktemp("models-cache")


@pytest.fixture(scope="session")
def colour_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 s at 10 frames a second: 4 s red, 4 s green, 4 s blue."""
    import cv2

    path = tmp_path_factory.mktemp("videos") / "colours.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (64, 48))
    assert writer.isOpened()
    for colour in COLOURS.values():
        frame = np.empty((48, 64, 3), dtype=np.uint8)
        frame[:] = colour[::-1]  # OpenCV writes BGR
        for _ in range(10 * SECONDS_A_COLOUR):
            writer.write(frame)
    writer.release()
    return path


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real annotations, unpacked, where the machine has them: VMR_SHARED names their folder."""
    shared = Path(os.environ.get("VMR_SHARED", Path(__file__).parents[1] / ".." / "shared"))
    archive = shared / "annotations.tar.xz"
    if not archive.is_file():
        pytest.skip("there is no annotations.tar.xz; VMR_SHARED names the folder that holds it")
    folder = tmp_path_factory.mktemp("annotations")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / "data"
