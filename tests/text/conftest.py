"""Translators for the tests: one trained on sixty sentences about cats and houses, one of random weights."""

from pathlib import Path

import pytest

TRANSLATORS = Path(__file__).parents[1] / "fixtures" / "translators"


@pytest.fixture(scope="session")
def toy():
    """The folder of a translator that knows four pronouns, three verbs and five things: "I see a cat." is 我看见一只猫。"""
    pytest.importorskip("ctranslate2")
    pytest.importorskip("sentencepiece")
    return TRANSLATORS / "toy-en-zh"


@pytest.fixture(scope="session")
def marian():
    """The folder of a Marian model of random weights, as transformers saves one."""
    pytest.importorskip("ctranslate2")
    pytest.importorskip("sentencepiece")
    return TRANSLATORS / "marian"
