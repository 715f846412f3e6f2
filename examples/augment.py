import numpy as np

import openlepton
from openlepton.data.augment import PRESETS
from openlepton.data.datasets import open_dataset
from openlepton.data.loader import training_batches
from openlepton.data.reader import Reader

split = open_dataset("my-data")["train"]
reader = Reader(split, 320, cache_bytes=512 * 2**20)

for batch in training_batches(reader, 0, batch_size=16, config=PRESETS["low"], workers=2):
    print(batch.images.shape, "with", len(batch.boxes), "boxes")
print(reader.cache)

image = np.ascontiguousarray(batch.images[0].transpose(1, 2, 0))  # (320, 320, 3)
here = batch.rows == 0
labels = openlepton.Detections(
    batch.boxes[here], np.ones(here.sum()), batch.class_ids[here], split.classes, image.shape[:2]
)
openlepton.write_image("augmented.jpg", openlepton.draw(image, labels))
