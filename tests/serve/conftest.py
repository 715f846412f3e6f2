"""A server for the tests of servers; the modules beside this file are imported by them and by worker processes."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
sys.path.insert(0, str(Path(__file__).parent))

from serve_running import running


@pytest.fixture(scope="session")
def job_folder(tmp_path_factory, photos):
    """The folder that jobs may read from: three pictures and a file that is none."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "pictures").mkdir()
    for photo in photos[:3]:
        (folder / "pictures" / photo.name).write_bytes(photo.read_bytes())
    (folder / "pictures" / "broken.jpg").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="session")
def server(job_folder):
    """A server with a detector and a classifier, for tests that leave it as it was."""
    with running("yolov5n-bccd", "efficientnet-lite0", "--workers", "1", "--jobs", job_folder) as started:
        yield started


@pytest.fixture
def photo(photos):
    """The bytes of a photograph."""
    return photos[0].read_bytes()
