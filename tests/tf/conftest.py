"""Networks with weights that are all different, in torch and in TensorFlow."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")


def lively(network, seed: int = 0):
    """Give a torch network statistics, scales and biases such as training leaves, so that nothing is 0 or 1 by chance."""
    numbers = torch.Generator().manual_seed(seed)

    def between(value, low, high):
        return torch.rand(value.shape, generator=numbers) * (high - low) + low

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.copy_(between(module.weight, 0.7, 1.3))
                module.bias.copy_(between(module.bias, -0.3, 0.3))
                module.running_mean.copy_(between(module.running_mean, -0.1, 0.1))
                module.running_var.copy_(between(module.running_var, 0.5, 1.5))
            elif isinstance(module, torch.nn.Conv2d) and module.bias is not None:
                module.bias.copy_(between(module.bias, -2, 2))
    return network.eval()


def arrays(network) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in network.state_dict().items()}


def torch_outputs(network, images: np.ndarray) -> dict[str, np.ndarray]:
    with torch.no_grad():
        values = network.decode(network(torch.from_numpy(images)))
    values = (values,) if isinstance(values, torch.Tensor) else values
    return {name: value.numpy() for name, value in zip(network.outputs, values, strict=True)}


def largest(a, b) -> dict[str, float]:
    """The largest difference of each output."""
    assert sorted(a) == sorted(b)
    return {name: float(np.abs(np.asarray(a[name]) - np.asarray(b[name])).max()) for name in a}


@pytest.fixture(scope="session")
def twins():
    """What the tests of twins share."""
    return SimpleNamespace(lively=lively, arrays=arrays, torch_outputs=torch_outputs, largest=largest)


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """A YOLO data set of eight images to train on and four to measure on: a red square, and a green one in every other."""
    from openlepton.images import write_image

    root, numbers = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    (root / "classes.txt").write_text("red\ngreen\n", encoding="utf-8")
    for split, count in (("train", 8), ("val", 4)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            image, rows = np.full((64, 64, 3), 115, np.uint8), []
            for kind in range(1 + index % 2):
                x, y = (int(value) for value in numbers.integers(0, 40, 2))
                image[y : y + 24, x : x + 24] = ((220, 30, 30), (30, 200, 60))[kind]
                rows.append(f"{kind} {(x + 12) / 64} {(y + 12) / 64} 0.375 0.375\n")
            write_image(root / "images" / split / f"{index}.png", image)
            (root / "labels" / split / f"{index}.txt").write_text("".join(rows), encoding="utf-8")
    return root
