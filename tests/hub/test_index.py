import os
import time
from pathlib import Path

import pytest

from openlepton.card import CARD_NAME, FileFacts, ImageInput, ModelCard, format_card
from openlepton.errors import CardInvalid, ModelNotFound
from openlepton.hub import index
from openlepton.hub.index import ZOO, default, find, models

SHIPPED = "efficientnet-lite0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder called like a shipped model, whose card has another version."""
    path = tmp_path / SHIPPED
    path.mkdir()
    card = ModelCard(
        contract=1, name=SHIPPED, version="mine", task="classify", architecture="efficientnet-lite0",
        description="d", licence="MIT", source="s", labels=("a", "b"), input=ImageInput(size=32, resize="stretch"),
        files={"model.onnx": FileFacts(size=1, sha256="0" * 64)},
    )  # fmt: skip
    (path / CARD_NAME).write_text(format_card(card), "utf-8")
    return path


def test_models_are_the_folders_of_the_zoo_in_order() -> None:
    names = [model.card.name for model in models()]
    assert names == sorted(names) == sorted(path.name for path in ZOO.iterdir() if path.is_dir())
    assert SHIPPED in names


def test_a_name_gives_the_shipped_folder() -> None:
    found = find(SHIPPED)
    assert (found.path, found.card.name) == (ZOO / SHIPPED, SHIPPED)


def test_a_shipped_name_wins_over_a_folder_of_that_name_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert find(SHIPPED).path == ZOO / SHIPPED
    assert find(f".{os.sep}{SHIPPED}").card.version == "mine"
    assert find(Path(SHIPPED)).card.version == "mine"


def test_a_path_gives_the_folder_there(folder: Path) -> None:
    assert find(folder).card.version == "mine"
    assert find(str(folder)).path == folder


def test_finding_a_name_reads_one_card_only(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    real = index.open_folder

    def counted(path: Path) -> object:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(index, "open_folder", counted)
    find(SHIPPED)
    assert opened == [ZOO / SHIPPED]


HOSTILE = [
    "",
    f"..%2f{SHIPPED}",
    f"{SHIPPED}%00",
    f"{SHIPPED}\0",
    f"\0{SHIPPED}",
    f"x\\..\\{SHIPPED}",
    f"{SHIPPED}\\",
    "efficientnet\uff0dlite0",  # full-width hyphen
    "efficientnet-lite\u0660",  # Arabic zero
    f"\uff0e\uff0e/{SHIPPED}",  # full-width dots
    f"\u2024\u2024/{SHIPPED}",  # one dot leaders
    f"{SHIPPED}\u200b",  # zero width space
    f" {SHIPPED}",
    f"{SHIPPED} ",
    f"{SHIPPED}\n",
    SHIPPED.upper(),
    SHIPPED.title(),
    "\u212affiicientnet-lite0",  # the Kelvin sign folds to k
    f"{SHIPPED}@deadbeef",
    "a" * 10_000,
    "\ud800",
    "\x1b[2J",
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_what_only_resembles_a_name_is_not_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound) as caught:
        find(name)
    message = str(caught.value)
    assert len(message) < 400
    assert message.isprintable()
    assert SHIPPED in message


@pytest.mark.parametrize("name", ["..", "../zoo", f"x/../{SHIPPED}", f"../zoo/{SHIPPED}"])
def test_a_name_is_never_joined_to_the_zoo(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises((ModelNotFound, CardInvalid)):
        find(name)


def test_a_misspelt_name_gets_the_right_one_suggested() -> None:
    with pytest.raises(ModelNotFound, match=rf"no model or folder 'efficientnet_lit0': did you mean {SHIPPED}\?"):
        find("efficientnet_lit0")


def test_a_file_is_told_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"x")
    with pytest.raises(ModelNotFound, match=r"is a file: a model is a folder with a card.toml; `openlepton convert`"):
        find(tmp_path / "best.pt")


def test_a_folder_without_a_card_says_so(tmp_path: Path) -> None:
    with pytest.raises(CardInvalid, match="a model folder needs a card"):
        find(tmp_path)


def test_a_path_in_chinese_stays_legible() -> None:
    with pytest.raises(ModelNotFound, match="模型/猫"):
        find("模型/猫")


def test_the_default_of_every_task_ships() -> None:
    for task, name in index.DEFAULTS.items():
        assert default(task) == name
        assert find(name).card.task == {"sentiment": "classify-text"}.get(task, task)


def test_a_task_without_a_default_says_how_to_get_a_model() -> None:
    assert "semantic" not in index.DEFAULTS
    with pytest.raises(
        ModelNotFound, match=r"no general model to semantic with: .*openlepton convert WEIGHTS.pt OUT.*--model OUT"
    ):
        default("semantic")


def test_looking_up_a_long_name_takes_no_time() -> None:
    start = time.perf_counter()
    with pytest.raises(ModelNotFound):
        find("efficientnet-" * 100_000)
    assert time.perf_counter() - start < 0.5
