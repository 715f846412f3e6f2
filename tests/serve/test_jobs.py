"""Jobs: folders and videos, on a real server."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from serve_running import JPEG, running, until

from openlepton.errors import DataNotFound, OpenLeptonError, RequestInvalid
from openlepton.serve.jobs import below


def begin(server, source, **more):
    return server.client.post("/v1/jobs", json={"model": "yolov5n-bccd", "source": source, **more})


def finished(server, answer, states=("done",)):
    assert answer.status_code == 202, answer.text
    path = answer.headers["location"]
    until(lambda: server.client.get(path).json()["state"] != "running", 120)
    job = server.client.get(path).json()
    assert job["state"] in states, job
    return job, [json.loads(line) for line in server.client.get(job["result"]).text.splitlines()]


def test_a_folder_gives_a_row_for_each_image_equal_to_what_the_image_gives_alone(server, job_folder):
    job, rows = finished(server, begin(server, "pictures", options={"min_score": 0.1}))
    names = sorted(path.name for path in (job_folder / "pictures").iterdir())
    assert [row["source"] for row in rows] == [f"pictures/{name}" for name in names]
    assert (job["done"], job["failed"], job["total"]) == (4, 1, 4)
    assert job["expires_s"] > 3000
    for row in rows:
        data = (job_folder / row.pop("source")).read_bytes()
        alone = server.client.post("/v1/detect?min_score=0.1", content=data, headers=JPEG).json()
        alone.pop("timing_ms", None)
        if "error" in row:
            assert row["error"]["code"] == alone["code"] == "image-unreadable"
            assert row["error"]["detail"].startswith("pictures/broken.jpg: ")
        else:
            assert row == alone


def test_a_single_image_is_a_job_too_and_a_bad_request_is_none(server, job_folder):
    name = next(path.name for path in (job_folder / "pictures").iterdir() if path.name != "broken.jpg")
    _, rows = finished(server, begin(server, f"pictures/{name}"))
    assert [row["source"] for row in rows] == [f"pictures/{name}"]
    for body, status, code in (
        ({"model": "nothing", "source": "pictures"}, 404, "model-not-found"),
        ({"model": "yolov5n-bccd", "source": "nothing"}, 404, "data-not-found"),
        ({"model": "yolov5n-bccd", "source": ".."}, 422, "request-invalid"),
        ({"model": "yolov5n-bccd", "source": "pictures", "options": {"colour": 1}}, 422, "request-invalid"),
        ({"model": "yolov5n-bccd", "source": "pictures", "every": 0}, 422, "request-invalid"),
        ({"model": "yolov5n-bccd"}, 422, "request-invalid"),
    ):
        answer = server.client.post("/v1/jobs", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (
        server.client.post("/v1/jobs", content=b"x" * 70_000, headers={"Content-Type": "application/json"}).status_code
        == 413
    )
    assert server.client.post("/v1/jobs", content=b"{}").status_code == 415
    assert server.client.get(f"/v1/jobs/{'0' * 32}").json()["code"] == "job-not-found"


def test_an_option_that_the_model_refuses_is_told_in_each_row(server):
    job, rows = finished(server, begin(server, "pictures", options={"top": 3}))
    assert job["failed"] == 4
    assert {row["error"]["code"] for row in rows} == {"usage", "image-unreadable"} - {"image-unreadable"}


def test_a_job_can_be_cancelled_and_its_result_is_not_there_before_the_end(server, job_folder, photo):
    many = job_folder / "many"
    many.mkdir()
    for number in range(200):
        (many / f"{number:03}.jpg").write_bytes(photo)
    answer = begin(server, "many")
    path = answer.headers["location"]
    assert server.client.get(f"{path}/result").json()["code"] == "job-unfinished"
    until(lambda: server.client.get(path).json()["done"] > 2)
    assert server.client.post("/v1/detect", content=photo, headers=JPEG).status_code == 200  # requests go first
    job = server.client.delete(path).json()
    assert job["state"] == "cancelled"
    assert 2 < job["done"] < 200
    assert len(server.client.get(f"{path}/result").text.splitlines()) == job["done"]
    assert path.rsplit("/", 1)[1] in {one["id"] for one in server.client.get("/v1/jobs").json()["jobs"]}


def test_a_video_gives_a_row_for_each_frame(server, job_folder):
    pytest.importorskip("av")
    from openlepton.video.writer import VideoWriter

    rng = np.random.default_rng(0)
    with VideoWriter(job_folder / "clip.mp4", fps=10) as writer:
        for _ in range(21):
            writer.write(np.repeat(np.repeat(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), 16, 0), 16, 1))
    job, rows = finished(server, begin(server, "clip.mp4", every=2))
    assert [row["frame"] for row in rows] == list(range(0, 21, 2))
    assert [row["time_s"] for row in rows] == pytest.approx([number / 10 for number in range(0, 21, 2)], abs=0.01)
    assert {row["source"] for row in rows} == {"clip.mp4"}
    assert rows[0]["image"] == {"width": 128, "height": 96}
    (job_folder / "broken.mp4").write_bytes((job_folder / "clip.mp4").read_bytes()[:400])
    job, rows = finished(server, begin(server, "broken.mp4"), states=("failed",))
    assert job["error"]["status"] in (422, 500)
    assert str(job_folder) not in json.dumps(job)


@pytest.mark.slow
def test_a_job_is_forgotten_when_its_time_is_over(tmp_path, photo):
    (tmp_path / "a.jpg").write_bytes(photo)
    code = (
        "import sys\nfrom pathlib import Path\nfrom openlepton.serve.hosting import serve_models\n"
        "from openlepton.serve import Settings\n"
        "if __name__ == '__main__':\n"
        "    settings = Settings(port=0, workers=1, jobs=Path(sys.argv[1]), job_ttl_s=3.0)\n"
        "    serve_models(['yolov5n-bccd'], settings, lambda text: print(f'openlepton serve: {text}', flush=True))\n"
    )
    (tmp_path / "forgetful.py").write_text(code)
    with running(tmp_path, command=(str(tmp_path / "forgetful.py"),), env={"TMPDIR": str(tmp_path)}) as server:
        path = begin(server, "a.jpg").headers["location"]
        until(lambda: len(list(tmp_path.glob("openlepton-*/*"))) == 1)
        until(lambda: server.client.get(path).status_code == 404)
        assert not list(tmp_path.glob("openlepton-*/*"))
        server.stop()
        assert not list(tmp_path.glob("openlepton-*"))


@pytest.mark.parametrize(
    "source",
    ["..", "../secret.jpg", "a/../../secret.jpg", "/etc/passwd", "//etc/passwd", "a\\..\\b", "C:/x", "C:x", "\0", "a\nb", "a/..", "file:///etc/passwd"],
)  # fmt: skip
def test_a_source_that_leads_out_by_its_spelling_is_refused(tmp_path, source):
    (tmp_path / "jobs" / "a").mkdir(parents=True)
    (tmp_path / "secret.jpg").touch()
    with pytest.raises((RequestInvalid, DataNotFound)) as caught:
        below(tmp_path / "jobs", source)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_a_link_that_leads_out_is_no_such_file(tmp_path):
    root = tmp_path / "jobs"
    root.mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.jpg").touch()
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "out.jpg").symlink_to(tmp_path / "secret" / "a.jpg")
    (root / "loop").symlink_to(root / "loop")
    (root / "notes.txt").touch()
    for source in ("out", "out/a.jpg", "out.jpg", "loop", "missing"):
        with pytest.raises(DataNotFound, match=f"^{source}: no such file or folder$"):
            below(root, source)
    with pytest.raises(RequestInvalid, match="expected a folder, an image or a video"):
        below(root, "notes.txt")
    (root / "in.jpg").touch()
    (root / "inner.jpg").symlink_to(root / "in.jpg")
    assert below(root, "inner.jpg") == root.resolve() / "in.jpg"


def test_a_file_that_became_a_link_after_it_was_listed_is_not_read(tmp_path):
    from openlepton.serve.models import _read_below
    from openlepton.serve.settings import Limits

    (tmp_path / "jobs").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "jobs" / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(OpenLeptonError, match="^a.jpg: no such file$"):
        _read_below(tmp_path / "jobs", tmp_path / "jobs" / "a.jpg", "a.jpg", Limits())
    with pytest.raises(OpenLeptonError, match="^a.jpg: no such file$"):
        _read_below(None, Path(tmp_path / "secret.jpg"), "a.jpg", Limits())
