"""What every test gets: no network, whatever it does."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import settings

import openlepton

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # for tests that import onnxruntime by themselves

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers have the cores already; torch must not take each of them again
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Continuous integration asks the same questions each time; a developer's machine asks new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def refuse(self, address):
        if self.family != getattr(socket, "AF_UNIX", None) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to connect to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def photos():
    """The bundled photographs."""
    return sorted((Path(openlepton.__file__).parent / "assets" / "photos").glob("*.jpg"))


@pytest.fixture(scope="session")
def yolov5n_folder(tmp_path_factory):
    """A model folder made of the fixture's checkpoint, as a user would make it."""
    pytest.importorskip("torch")
    from openlepton.hub.convert import convert

    out = tmp_path_factory.mktemp("models") / "yolov5n"
    convert(Path(__file__).parent / "fixtures" / "yolov5" / "yolov5n.pt", out, licence="Apache-2.0")
    return out


def pytest_collection_modifyitems(items):
    """Call slow every test that waits for the one long training of the suite."""
    for item in items:
        if "able" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
