"""The container and the deployment against the server they are for; neither Docker nor Kubernetes is needed."""

import re
import shlex
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def container():
    deployment, service = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8"))
    spec = deployment["spec"]["template"]["spec"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert service["spec"]["ports"][0]["targetPort"] == spec["containers"][0]["ports"][0]["name"]
    return spec["containers"][0] | {"pod": spec}


def test_the_probes_ask_addresses_that_answer(container, server):
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == container["ports"][0]["name"]
        assert server.client.get(asked["path"], headers={"Host": "10.0.0.7:8000"}).status_code == 200
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert re.search(r"http://127\.0\.0\.1:(\d+)/readyz", DOCKERFILE)[1] == str(container["ports"][0]["containerPort"])


def test_the_arguments_are_those_of_the_command(container):
    from typer.testing import CliRunner

    from openlepton.cli import app

    help_ = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.MULTILINE)[1]
    words = [*yaml.safe_load(entry), *container["args"]]
    assert words[:2] == ["openlepton", "serve"]
    for word in words:
        assert not word.startswith("--") or word in help_
    grace = int(words[words.index("--grace") + 1])
    assert (
        container["pod"]["terminationGracePeriodSeconds"]
        >= grace + container["lifecycle"]["preStop"]["sleep"]["seconds"]
    )


def test_neither_runs_as_root_nor_needs_to_write(container):
    pod, own = container["pod"]["securityContext"], container["securityContext"]
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert [int(user[1]), int(user[2])] == [pod["runAsUser"], pod["runAsGroup"]]
    assert pod["runAsNonRoot"] is own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")} == {"/tmp"}


def test_the_image_gets_the_package_and_nothing_else():
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    names = {name for line in copied for name in shlex.split(line)}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {name for name in ignored if name.startswith("!")} == {f"!{name}" for name in names}
    assert all((ROOT / name).exists() for name in names)
    assert len(re.findall(r"^FROM python:3\.13-slim", DOCKERFILE, re.MULTILINE)) == 2
