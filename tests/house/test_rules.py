"""The rules of the house, checked on the source itself and on a fresh interpreter."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import openlepton

ROOT = Path(openlepton.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

FRESH = """
import json, os, sys
seen = []
def hook(event, args):
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")):
        seen.append(event)
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append(f"open {args[0]} {args[1]}")
    if event in ("os.mkdir", "os.rename", "os.remove", "subprocess.Popen", "os.system"):
        seen.append(event)
sys.dont_write_bytecode = True
before = dict(os.environ)
sys.addaudithook(hook)
import openlepton
BODY
changed = {key for key in {**before, **os.environ} if before.get(key) != os.environ.get(key)}
print(json.dumps({"seen": seen, "env": sorted(changed), "modules": sorted(sys.modules)}))
"""

HEAVY = {"torch", "tensorflow", "onnx", "onnxscript", "safetensors", "pandas", "matplotlib", "sklearn", "scipy"}


def fresh(body: str) -> dict:
    code = FRESH.replace("BODY", body)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_importing_the_package_has_no_side_effects_and_loads_nothing_heavy():
    report = fresh("")
    assert report["seen"] == []
    assert report["env"] == []
    assert not HEAVY & {name.split(".")[0] for name in report["modules"]}
    assert not {"numpy", "cv2", "onnxruntime", "pydantic"} & set(report["modules"])


def test_running_a_model_loads_no_framework_opens_no_socket_and_writes_no_file():
    report = fresh(
        "import numpy\n"
        "import openlepton.cli\n"
        "openlepton.load('efficientnet-lite0')(numpy.zeros((64, 64, 3), numpy.uint8))\n"
        "openlepton.draw, openlepton.read_image"
    )
    assert report["seen"] == []
    assert set(report["env"]) <= {"LD_LIBRARY_PATH"}  # OpenCV's own loader on Linux
    assert not HEAVY & {name.split(".")[0] for name in report["modules"]}


def test_the_public_names_are_sorted_and_there():
    assert openlepton.__all__ == sorted(openlepton.__all__)
    assert dir(openlepton) == openlepton.__all__
    for name in openlepton.__all__:
        assert getattr(openlepton, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = openlepton.nothing


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_can_run_code_it_reads(path):
    """No `exec`, `eval`, `compile`, `pickle.load`; `import_module` only with a literal table in `__init__`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in {
                "exec",
                "eval",
                "compile",
                "__import__",
                "os.system",
                "pickle.load",
                "pickle.loads",
                "torch.load",
            }, f"{path.name}:{node.lineno} calls {name}"
            if name.endswith("import_module"):  # from literal tables only
                assert path.name in {"__init__.py", "headers.py"}


def test_the_house_has_two_levels_of_folders():
    deep = [path for path in FILES if len(path.relative_to(ROOT).parts) > 2]
    assert deep == []


def test_no_folder_is_named_after_nothing():
    banned = {"utils", "common", "core", "base", "engine", "configs", "registry", "helpers", "misc"}
    assert not banned & {part for path in FILES for part in path.relative_to(ROOT).with_suffix("").parts}
