"""Write the Marian model of random weights that the tests convert, and what transformers makes of some sentences with it.

    python tools/marian_fixture.py tests/fixtures/translators/marian

Needs transformers, torch and sentencepiece, none of which the project asks for at run time; the folder is part of the repository.
"""

import io
import json
import sys
from pathlib import Path

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

ENGLISH = [
    f"{a} {v} {o}."
    for a in ("I", "You", "They")
    for v in ("see", "like", "have")
    for o in ("a cat", "the dog", "big houses")
]
CHINESE = [
    f"{a}{v}{o}。" for a in ("我", "你", "他们") for v in ("看见", "喜欢", "有") for o in ("一只猫", "那只狗", "大房子")
]
SENTENCES = ["I see a cat.", "They like big houses.", "You have the dog.", "dogs", "I have a very big house, you see."]
LONGEST = 40


def spm(texts: list[str]) -> bytes:
    """Return a SentencePiece model of `texts`."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        normalization_rule_name="identity",
    )
    return model.getvalue()


def main(out: Path) -> None:
    """Write the folder."""
    out.mkdir(parents=True, exist_ok=True)
    for name, texts in (("source.spm", ENGLISH), ("target.spm", CHINESE)):
        (out / name).write_bytes(spm(texts))
    pieces = ["</s>", "<unk>"]
    for name in ("source.spm", "target.spm"):
        tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(out / name))
        pieces += [piece for piece in map(tokenizer.id_to_piece, range(3, len(tokenizer))) if piece not in pieces]
    pieces.append("<pad>")
    (out / "vocab.json").write_text(
        json.dumps({piece: row for row, piece in enumerate(pieces)}, ensure_ascii=False), encoding="utf-8"
    )
    torch.manual_seed(7)
    config = MarianConfig(
        vocab_size=len(pieces), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, init_std=0.5,
        pad_token_id=len(pieces) - 1, decoder_start_token_id=len(pieces) - 1, eos_token_id=0, forced_eos_token_id=None,
        scale_embedding=True, activation_function="swish",
    )  # fmt: skip
    model = MarianMTModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("fc2.weight", "out_proj.weight")):
                weight.mul_(4.0)  # or what is written last is written for ever
        model.final_logits_bias.normal_(std=0.5)
        model.final_logits_bias[0, 0] = 2.0  # so that some sentences end
    model.save_pretrained(out)
    tokenizer = MarianTokenizer(
        source_spm=str(out / "source.spm"), target_spm=str(out / "target.spm"), vocab=str(out / "vocab.json"),
        source_lang="eng", target_lang="zho",
    )  # fmt: skip
    found = {}
    for sentence in SENTENCES:
        batch = tokenizer([sentence], return_tensors="pt")
        rows = model.generate(
            **batch, num_beams=1, do_sample=False, max_new_tokens=LONGEST, bad_words_ids=[[config.pad_token_id]]
        )
        written = [row for row in rows[0].tolist() if row != config.pad_token_id]
        found[sentence] = {
            "source": [pieces[row] for row in batch["input_ids"][0].tolist()],
            "greedy": [pieces[row] for row in written],
        }
    (out / "tokenizer_config.json").write_text(json.dumps({"source_lang": "eng", "target_lang": "zho"}) + "\n")
    (out / "greedy.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
