import torch

from openlepton.nets.yolov1 import class_error

truth = torch.eye(10)[[3, 0, 7, 7, 9]]  # y: five objects, each of one of ten classes
holds = torch.ones(5)  # every one of the five cells holds an object
sayings = {
    "a tenth for each class": torch.full((5, 10), 0.1),
    "0.8 for the right class": 0.8 * truth + 0.2 / 9 * (1 - truth),
    "0.8 for another class": 0.8 * truth.roll(1, 1) + 0.2 / 9 * (1 - truth.roll(1, 1)),
}
for name, p in sayings.items():
    one = class_error(p[:1], truth[:1], holds[:1])
    print(f"{name}: L_i = {one:.3f}, L = {class_error(p, truth, holds):.3f}")
