"""SECURITY.md against the suite."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = [
    (path, test)
    for path, tests in re.findall(r"`(tests/[\w/]+\.py)`: ((?:`test_\w+`(?:, )?)+)", TEXT)
    for test in re.findall(r"test_\w+", tests)
]


@pytest.mark.parametrize(("path", "test"), NAMED)
def test_a_test_that_security_names_exists(path, test):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_a_test_and_every_test_stands_in_the_table():
    promises = TEXT.split("| promise | tests |")[1].split("\n\n")[0].splitlines()[2:]
    assert all("`test_" in promise for promise in promises)
    assert len(NAMED) == len(re.findall(r"`test_\w+`", "".join(promises)))
    assert len(NAMED) > 40


def test_the_floors_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    floors = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|", TEXT, re.MULTILINE)
    assert {"torch", "starlette", "python-multipart"} <= {package for package, _ in floors}
    for package, floor in floors:
        assert f"{package}>={floor}" in wanted
