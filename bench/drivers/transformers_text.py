"""The same with transformers' `pipeline`: `transformers_text.py FOLDER TEXTS BATCH THREADS`. Prints JSON.

The classifier reads the mean of the tokens where the library's own reads the first; everything else is the library's.
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertModel, BertPreTrainedModel, PreTrainedTokenizerFast, logging, pipeline
from transformers.modeling_outputs import SequenceClassifierOutput
from translation_sources import peak_mb

MAX_TOKENS = 128


class MeanOfTokens(BertPreTrainedModel):
    """An encoder and a classifier."""

    def __init__(self, config) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, **_):
        """Return `(B, C)` logits."""
        x = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
        there = attention_mask[:, :, None].to(x.dtype)
        return SequenceClassifierOutput(logits=self.classifier((x * there).sum(1) / there.sum(1)))


def main(folder: str, file: str, batch: int, threads: int) -> None:
    """Print the rate, the first class's score of each text, and the peak of memory."""
    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    texts = json.loads(Path(file).read_text(encoding="utf-8"))
    network = MeanOfTokens.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=f"{folder}/tokenizer.json", pad_token="[PAD]", model_max_length=MAX_TOKENS
    )
    classify = pipeline("text-classification", model=network, tokenizer=tokenizer)
    options = {"truncation": True, "max_length": MAX_TOKENS}
    classify(texts[:64], batch_size=batch, **options)
    started = time.perf_counter()
    found = classify(texts, batch_size=batch, **options)
    rate = len(texts) / (time.perf_counter() - started)
    first = network.config.id2label[0]
    scores = [one["score"] if one["label"] == first else 1 - one["score"] for one in found]
    print(json.dumps({"texts_s": rate, "peak_mb": peak_mb(), "scores": scores}))


main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
