"""What `auto` means is what the device computes in, and a network computes in what was chosen."""

import pytest
import torch

from openlepton.errors import UsageError
from openlepton.train.precision import autocast, choose_precision


@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_what_was_asked_for_is_taken(wanted):
    assert choose_precision(wanted) == wanted


@pytest.mark.parametrize(
    ("instructions", "chosen"),
    [
        ((), "float32"),
        (("avx512_bf16",), "bfloat16"),
        (("amx_tile",), "bfloat16"),
        (("avx512_bf16", "amx_tile"), "bfloat16"),
    ],
)
def test_auto_is_what_the_processor_has_instructions_for(monkeypatch, instructions, chosen):
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in instructions)
    assert choose_precision("auto") == chosen
    assert choose_precision("auto", "cuda") == "float16"


@pytest.mark.parametrize(("wanted", "words"), [("float16", "needs CUDA"), ("int8", "expected auto, float32")])
def test_what_a_processor_lacks_is_refused(wanted, words):
    with pytest.raises(UsageError, match=words):
        choose_precision(wanted)


def test_a_network_computes_in_it():
    layer, x = torch.nn.Linear(3, 2), torch.ones(1, 3)
    with autocast("bfloat16"):
        assert layer(x).dtype == torch.bfloat16
    with autocast("float32"):
        assert layer(x).dtype == torch.float32
