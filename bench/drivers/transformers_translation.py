"""The same with transformers: `transformers_translation.py make FOLDER`, then `... FOLDER BATCH BEAM THREADS`. Prints JSON."""

import io
import json
import sys
import time
from pathlib import Path

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel
from translation_sources import SECONDS, SPECIAL, VOCABULARY, WRITTEN, peak_mb, sources


def make(out: Path) -> None:
    """Write a Marian model of random weights, of the size of OPUS-MT's."""
    out.mkdir(parents=True)
    pieces = ["</s>", "<unk>", *(f"w{row}" for row in range(VOCABULARY)), "<pad>"]
    (out / "vocab.json").write_text(json.dumps({piece: row for row, piece in enumerate(pieces)}), encoding="utf-8")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c"]), model_writer=model, vocab_size=8, hard_vocab_limit=False, minloglevel=2
    )
    for name in ("source.spm", "target.spm"):
        (out / name).write_bytes(model.getvalue())
    torch.manual_seed(0)
    last = len(pieces) - 1
    config = MarianConfig(
        vocab_size=len(pieces), d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, max_position_embeddings=512,
        pad_token_id=last, decoder_start_token_id=last, eos_token_id=0, forced_eos_token_id=None, scale_embedding=True,
        activation_function="swish",
    )  # fmt: skip
    MarianMTModel(config).save_pretrained(out)
    print("{}")


@torch.inference_mode()
def main(folder: str, batch: int, beam: int, threads: int) -> None:
    """Print the rate and the peak of memory."""
    torch.set_num_threads(threads)
    network = MarianMTModel.from_pretrained(folder).eval()
    rows = [[0 if piece == "</s>" else SPECIAL + int(piece[1:]) for piece in row] for row in sources(batch)]
    given = torch.tensor(rows)
    count, started, worked = -1, time.perf_counter(), 0.0
    while count < 0 or time.perf_counter() - started < SECONDS:
        found = network.generate(
            given, attention_mask=torch.ones_like(given), num_beams=beam, do_sample=False, min_new_tokens=WRITTEN,
            max_new_tokens=WRITTEN,
        )  # fmt: skip
        assert found.shape == (batch, WRITTEN + 1)
        if count < 0:  # the first warms up
            started, worked = time.perf_counter(), time.process_time()
        count += 1
    done = count * batch * WRITTEN
    rates = {
        "pieces_s": done / (time.perf_counter() - started),
        "pieces_cpu_s": done / (time.process_time() - worked),
    }
    print(json.dumps(rates | {"peak_mb": peak_mb()}))


if sys.argv[1] == "make":
    make(Path(sys.argv[2]))
else:
    main(sys.argv[1], *map(int, sys.argv[2:]))
