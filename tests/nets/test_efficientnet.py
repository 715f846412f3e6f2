"""EfficientNet-Lite against timm's (Apache-2.0), with the same weights.

`python tests/nets/test_efficientnet.py`, where timm is installed, writes the reference again (last: timm 1.0.31, torch 2.13).
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from openlepton.errors import UsageError
from openlepton.nets import NETS
from openlepton.nets.efficientnet import SIZES, Block, build, same_padding, scaled_width
from openlepton.nets.export import export_onnx

REFERENCE = Path(__file__).with_name("efficientnet_reference.npz")


def filled(network):
    """Return `network` with a reproducible value for every parameter and statistic, in the order it lists them."""
    random = np.random.default_rng(0)
    for name, value in network.state_dict().items():
        if value.ndim == 0:  # num_batches_tracked
            continue
        noise = random.random(tuple(value.shape), np.float32) * 2 - 1
        if value.ndim > 1:
            noise *= (3 / value[0].numel()) ** 0.5
        elif name.endswith(("running_var", "weight")):
            noise = 1 + noise / 2
        else:
            noise /= 2
        value.copy_(torch.from_numpy(noise))
    return network.eval()


def images(height, width):
    return torch.from_numpy(np.random.default_rng(1).random((1, 3, height, width), np.float32))


@pytest.mark.parametrize("size", SIZES)
def test_logits_equal_those_of_timm(size):
    """At the network's own size and at an odd one, where SAME pads other sides."""
    reference = np.load(REFERENCE)
    keys = [key for key in reference if key.startswith(size)]
    assert len(keys) == 2
    network = filled(build(size))
    for key in keys:
        height, width = map(int, key.removeprefix(f"{size}_").split("x"))
        with torch.no_grad():
            logits = network(images(height, width)).numpy()
        assert np.ptp(reference[key]) > 1
        np.testing.assert_allclose(logits, reference[key], rtol=0, atol=2e-5)


@pytest.mark.parametrize(("size", "count"), [("lite0", 4_652_008), ("lite1", 5_416_680), ("lite2", 6_092_072)])
def test_parameters_number_as_published(size, count):
    """4.7, 5.4 and 6.1 million in TensorFlow's table; to the digit, those of timm."""
    assert sum(parameter.numel() for parameter in build(size).parameters()) == count


@pytest.mark.parametrize(("size", "blocks"), [("lite0", 16), ("lite1", 21), ("lite2", 21)])
def test_depth_scales_all_stages_but_the_first_and_the_last(size, blocks):
    assert len(build(size).blocks) == blocks


def test_widths_are_multiples_of_eight_that_lose_at_most_a_tenth():
    assert [scaled_width(channels, 1.1) for channels in (16, 24, 40, 80, 112, 192, 320)] == [
        16,
        24,
        48,
        88,
        120,
        208,
        352,
    ]
    assert scaled_width(8, 1.45) == 16  # 8 would be nearer to 11.6, and less than nine tenths of it


def test_same_padding_is_that_of_tensorflow():
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(225, 3, 2) == (1, 1)
    assert same_padding(224, 5, 2) == (1, 2)
    assert same_padding(15, 5, 2) == (2, 2)
    assert same_padding(7, 5, 1) == (2, 2)
    assert same_padding(7, 1, 1) == (0, 0)
    assert same_padding(8, 1, 2) == (0, 0)


def test_the_network_sees_pixel_127_as_zero():
    """The stem's bias-free convolution of nothing is nothing; anything else would mean another normalisation."""
    network = build("lite0").eval()
    seen = []
    network.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    levels = torch.tensor([0.0, 127.0, 255.0]).view(1, 3, 1, 1).expand(1, 3, 32, 32) / 255
    network(levels)
    expected = torch.tensor([-127 / 128, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-7)


def test_decoded_scores_are_probabilities():
    network = filled(build("lite0", classes=7))
    logits = network(images(64, 64).repeat(3, 1, 1, 1))
    scores = network.decode(logits)
    assert scores.shape == (3, 7)
    torch.testing.assert_close(scores.sum(1), torch.ones(3))
    torch.testing.assert_close(scores, logits.exp() / logits.exp().sum(1, keepdim=True))


def test_the_fused_network_is_equal_and_has_no_batch_norm_left():
    network = filled(build("lite0"))
    fused = network.fused()
    with torch.no_grad():
        torch.testing.assert_close(fused(images(96, 96)), network(images(96, 96)), rtol=0, atol=2e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_training_drops_residual_branches_with_the_probability_of_their_depth():
    torch.manual_seed(0)
    block = Block(8, 8, kernel=3, stride=1, expand=6, survival=0.7).train()
    x = torch.randn(400, 8, 4, 4)
    branch = block(x) - x
    dropped = (branch == 0).flatten(1).all(1)
    assert dropped.float().mean() == pytest.approx(0.3, abs=0.07)
    kept = block.project(block.depthwise(block.expand(x))) / 0.7
    torch.testing.assert_close(branch[~dropped], kept[~dropped], rtol=1e-4, atol=1e-5)
    survivals = [block.survival for block in build("lite0").blocks]
    assert survivals == pytest.approx([1 - 0.2 * index / 16 for index in range(16)])


@pytest.mark.slow
def test_an_engine_makes_padding_and_activations_part_of_the_convolutions(tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    graph = export_onnx(filled(build("lite0")), (64, 64), any_size=False)
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert operators.count("Conv") + operators.count("FusedConv") == 49
    assert not {"Pad", "Clip", "BatchNormalization"} & set(operators)


@pytest.mark.slow
def test_it_learns_to_tell_four_images_apart():
    torch.manual_seed(0)
    network = build("lite0", classes=4, survival=1.0, dropout=0.0).train()
    x, y = torch.rand(4, 3, 32, 32), torch.arange(4)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(network(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(4), abs=0.7)
    assert losses[-1] < 0.3


def test_the_table_builds_each_size_for_any_number_of_classes():
    for size in SIZES:
        network = NETS[f"efficientnet-{size}"].build(classes=3)
        assert network.classifier.out_features == 3
        assert network.config.size == SIZES[size].size


def test_an_unknown_size_names_those_there_are():
    with pytest.raises(UsageError, match=r"size: expected one of lite0, lite1, lite2, got 'lite9'"):
        build("lite9")


if __name__ == "__main__":
    import timm

    reference = {}
    for size, config in SIZES.items():
        network = filled(timm.create_model(f"tf_efficientnet_{size}"))
        for height, width in ((config.size, config.size), (97, 130)):
            with torch.no_grad():
                logits = network((images(height, width) * 255 - 127) / 128)
            reference[f"{size}_{height}x{width}"] = logits.numpy()
    np.savez_compressed(REFERENCE, **reference)
