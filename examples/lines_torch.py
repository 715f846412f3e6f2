import torch

from openlepton.nets import NETS
from openlepton.nets.losses import LossConfig

images = torch.rand(2, 3, 320, 320)
targets = torch.tensor([[0, 0, 100, 100, 60, 80], [1, 1, 200, 150, 90, 40.0]])  # image, class, centre, size in pixels

network = NETS["yolov5n"].build(classes=2)
criterion = network.criterion(LossConfig(), 320)
optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

loss, parts = criterion(network(images), targets)
loss.backward()
optimizer.step()

with torch.no_grad():
    boxes, scores = network.eval().decode(network(images))
print(dict(zip(criterion.parts, parts.tolist(), strict=True)), tuple(boxes.shape), tuple(scores.shape))
