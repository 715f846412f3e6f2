import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from openlepton import load
from openlepton.card import open_folder
from openlepton.errors import CardInvalid, DataInvalid, ModelCorrupt, ModelNotFound, UsageError
from openlepton.hub.translators import find_pair
from openlepton.results import Translation
from openlepton.text import translate
from openlepton.text.translate import open_translator

CAT = ("I see a cat.", "我看见一只猫。")
HOUSE = ("They like a house.", "他们喜欢一座房子。")
BIRD = ("We have a bird.", "我们有一只鸟。")


@pytest.fixture(scope="module")
def translator(toy):
    return load(toy, threads=1)


@pytest.fixture(scope="module")
def exact(toy):
    return open_translator(open_folder(toy), threads=1, compute="float32")


def test_a_text_is_translated_sentence_by_sentence_and_what_surrounds_them_stays(translator):
    found = translator(f"  {CAT[0]} {HOUSE[0]}\n\n\t- {BIRD[0]}\n")
    assert found.text == f"  {CAT[1]}{HOUSE[1]}\n\n\t- {BIRD[1]}\n" or found.text.count("\n") == 3
    assert (found.source, found.target, found.complete) == ("en", "zh", True)
    assert 0.3 < found.score <= 1
    assert translator(CAT[0]).to_dict()["text"] == CAT[1]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "😀🎉", "…!?", "—\n\t😀 "])
def test_what_has_no_words_comes_back_as_it_is(translator, text):
    assert translator(text) == Translation(text, 1.0, "en", "zh", True)


def test_control_characters_are_left_out_and_other_scripts_go_through(translator):
    assert translator("I see\x00 a\x07 cat.\ud800") == translator(CAT[0])
    mixed = translator("我看见 a cat. Привет! I see a dog.")
    assert mixed.complete
    assert mixed.text.endswith("我看见一只狗。")


def test_a_megabyte_on_one_line_ends(translator):
    started = time.monotonic()
    found = translator("cat " * 262_144)
    assert len(found.text) > 0
    assert time.monotonic() - started < 250


def test_a_word_without_an_end_is_cut_not_endless(translator):
    found = translator("z" * 5000 + ".")
    assert len(found.text) < 40_000


def test_neither_order_nor_size_of_a_batch_changes_a_result(exact):
    texts = [CAT[0], HOUSE[0], "", BIRD[0], f"{CAT[0]} {BIRD[0]} {HOUSE[0]}", "You like a dog.", "😀", "dogs"]
    alone = [exact(text) for text in texts]
    together = exact.batch(texts)
    backwards = exact.batch(texts[::-1])[::-1]
    many = exact.batch(texts * 9)
    for one, two, three, four in zip(alone, together, backwards, many[-len(texts) :], strict=True):
        assert one.text == two.text == three.text == four.text
        assert [two.score, three.score, four.score] == pytest.approx([one.score] * 3, abs=1e-5)


def test_one_call_serves_many_threads(translator):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pair: translator(pair[0]).text, [CAT, HOUSE, BIRD] * 4))
    assert found == [CAT[1], HOUSE[1], BIRD[1]] * 4


def test_a_stream_holds_few_texts_and_errors_stand_in_their_place(translator):
    taken = []

    def texts():
        for number in range(10):
            taken.append(number)
            yield DataInvalid("line 3") if number == 2 else 7 if number == 3 else CAT[0]

    stream = translator.stream(texts(), together=4)
    first = next(stream)
    assert (first.text, len(taken)) == (CAT[1], 4)
    second, third, fourth, *rest = stream
    assert second.text == CAT[1]
    assert (type(third), str(third)) == (DataInvalid, "line 3")
    assert isinstance(fourth, UsageError)
    assert [found.text for found in rest] == [CAT[1]] * 6


def test_beams_are_bounded_and_greedy_is_one(toy):
    assert load(toy, beam=1, threads=1)(HOUSE[0]).text == HOUSE[1]
    with pytest.raises(UsageError, match="beam: expected 1 to 64, got 65"):
        load(toy, beam=65)


def test_options_of_other_tasks_make_no_sense(toy):
    with pytest.raises(UsageError, match="min_score: makes no sense for toy-en-zh, whose task is translate"):
        load(toy, min_score=0.5)
    with pytest.raises(UsageError, match="beam: makes no sense for efficientnet-lite0"):
        load("efficientnet-lite0", beam=2)
    with pytest.raises(UsageError, match="expected a string, got int"):
        load(toy, threads=1).batch(["a", 3])


def test_an_unknown_pair_lists_the_ones_there_are():
    with pytest.raises(ModelNotFound, match=r"translates 'en' to 'xx'; pairs: .*hf:Helsinki-NLP"):
        find_pair("en", "xx")


@pytest.mark.parametrize("temporary", ["there", "missing"])
def test_a_large_model_is_started_from_a_copy_that_does_not_stay(toy, tmp_path, monkeypatch, temporary):
    monkeypatch.setattr(translate, "_IN_MEMORY", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / temporary))
    (tmp_path / "there").mkdir()
    assert open_translator(open_folder(toy), threads=1)(CAT[0]).text == CAT[1]
    assert not any((tmp_path / "there").iterdir())
    folder = tmp_path / "changed"
    shutil.copytree(toy, folder)
    (folder / "model.bin").write_bytes(b"0" * (folder / "model.bin").stat().st_size)
    with pytest.raises(ModelCorrupt, match="model.bin: sha256 differs"):
        load(folder)


@pytest.mark.parametrize("name", ["model.bin", "pieces.model", "shared_vocabulary.json", "config.json"])
def test_a_file_that_differs_from_its_card_is_refused(toy, tmp_path, name):
    folder = tmp_path / "changed"
    shutil.copytree(toy, folder)
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ModelCorrupt, match=name):
        load(folder)


def test_a_card_without_a_tokenizer_is_refused(toy, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(toy, folder)
    card = folder / "card.toml"
    card.write_text(card.read_text(encoding="utf-8").replace("pieces.model", "other.model"), encoding="utf-8")
    (folder / "pieces.model").rename(folder / "other.model")
    with pytest.raises(CardInvalid, match="there is no tokenizer"):
        load(folder)
