import gzip
import json

import numpy as np
import pytest

from openlepton.errors import DataInvalid, DataNotFound
from openlepton.text.labelled import read_labelled


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_one_file_is_split_the_same_way_each_time(tmp_path):
    file = write(tmp_path / "all.jsonl", [{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(40)])
    first, second = read_labelled(file), read_labelled(file)
    assert first["train"].names == ("a", "b")
    assert len(first["dev"]) == 4
    assert first["dev"].texts == second["dev"].texts
    assert not set(first["dev"].texts) & set(first["train"].texts)
    for part in first.values():
        assert all(
            "ab"[int(text[1:]) % 2] == part.names[label] for text, label in zip(part.texts, part.truth, strict=True)
        )


def test_a_folder_has_splits_in_any_form_and_may_name_its_classes(tmp_path):
    (tmp_path / "meta.json").write_text('{"labels": ["bad", "good"]}')
    (tmp_path / "train.csv").write_text("review,label\nfine,1\nawful,0\n")
    with gzip.open(tmp_path / "val.jsonl.gz", "wt") as file:
        file.write('{"review": "nice", "label": "good"}\n')
    found = read_labelled(tmp_path, column="review")
    assert found["train"].names == ("bad", "good")
    assert found["train"].truth.tolist() == [1, 0]
    assert found["dev"].truth.tolist() == [1]
    assert "test" not in found


def test_several_labels_become_flags(tmp_path):
    file = write(
        tmp_path / "tags.jsonl",
        [{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}, {"text": "c", "label": "y; z"}] * 5,
    )
    found = read_labelled(file, multi_label=True)["train"]
    wanted = {"a": [1, 1, 0], "b": [0, 0, 0], "c": [0, 1, 1]}
    assert found.names == ("x", "y", "z")
    assert found.truth.dtype == np.bool_
    for text, flags in zip(found.texts, found.truth, strict=True):
        assert flags.astype(int).tolist() == wanted[text]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a"}], "line 1: label: expected the name of a class, got None"),
        ([{"text": "a", "label": "x"}, {"label": "y"}], "line 2: text: expected text"),
        ([{"text": "a", "label": "x"}] * 20, "expected at least 2 classes, found x"),
    ],
)
def test_what_cannot_be_learned_from_is_named(tmp_path, rows, message):
    with pytest.raises(DataInvalid, match=message):
        read_labelled(write(tmp_path / "bad.jsonl", rows))


def test_a_class_that_train_does_not_know_is_named(tmp_path):
    write(tmp_path / "train.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    write(tmp_path / "dev.jsonl", [{"text": "c", "label": "w"}])
    with pytest.raises(DataInvalid, match=r"dev\.jsonl: line 1: 'w' is no class of the train split: x, y"):
        read_labelled(tmp_path)


def test_missing_data_is_named(tmp_path):
    with pytest.raises(DataNotFound, match="no such file or folder"):
        read_labelled(tmp_path / "nowhere")
    with pytest.raises(DataNotFound, match=r"expected a train file: train\.jsonl"):
        read_labelled(tmp_path)
