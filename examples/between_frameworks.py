import numpy as np
import torch

from openlepton.nets import NETS
from openlepton.tf import build, get_weights, network, save_savedmodel, set_weights

first = NETS["yolov5n"].build(classes=2).eval()
tensors = {name: value.numpy() for name, value in first.state_dict().items()}

second = network("yolov5n", classes=2)
set_weights(second.raw, tensors)  # torch to Keras, by name
back = get_weights(second.raw)  # and Keras to torch, bit for bit
print(all(np.array_equal(tensors[name], value) for name, value in back.items()))

images = np.random.default_rng(0).random((1, 3, 320, 320), dtype=np.float32)
with torch.no_grad():
    boxes, scores = first.decode(first(torch.from_numpy(images)))
print(float(np.abs(second.model(images)["boxes"] - boxes.numpy()).max()), "px at most")

model = build("yolov5n", classes=2, weights=tensors, fused=True)
print(save_savedmodel(model, "yolov5n-tensorflow"))
