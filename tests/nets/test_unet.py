"""The U-Net over EfficientNet-Lite: shapes, ImageNet's weights, and its loss."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from openlepton.arrays import UNKNOWN  # noqa: E402
from openlepton.errors import UsageError  # noqa: E402
from openlepton.nets import efficientnet, unet  # noqa: E402
from openlepton.nets.losses import LossConfig  # noqa: E402
from openlepton.nets.semantic_loss import SemanticLoss  # noqa: E402


@pytest.mark.parametrize("encoder", ["lite0", "lite1", "lite2"])
def test_the_map_has_half_the_height_and_width_of_any_image_that_32_divides(encoder):
    with torch.device("meta"):
        network = unet.build(encoder, 5).eval()
        for hw in ((32, 32), (64, 96), (352, 32)):
            assert network(torch.rand(2, 3, *hw)).shape == (2, 5, hw[0] // 2, hw[1] // 2)


def test_the_encoder_has_the_names_and_shapes_of_the_classifier_and_sees_the_same():
    torch.manual_seed(0)
    classifier = efficientnet.build("lite0", 10).eval()
    network = unet.build("lite0", 3).eval()
    shared = {name: value for name, value in classifier.state_dict().items() if name in network.state_dict()}
    shared = {name: value for name, value in shared.items() if not name.startswith("classifier.")}
    taken = network.load_state_dict(shared, strict=False)
    assert all(name.startswith(("steps.", "classifier.")) for name in taken.missing_keys)
    images = torch.rand(1, 3, 64, 64)
    seen = {}
    network.blocks[-1].register_forward_hook(lambda _, __, out: seen.update(ours=out))
    classifier.blocks[len(network.blocks) - 1].register_forward_hook(lambda _, __, out: seen.update(theirs=out))
    with torch.no_grad():
        network(images)
        classifier(images)
    torch.testing.assert_close(seen["ours"], seen["theirs"])


def test_a_network_that_makes_no_sense_is_refused():
    with pytest.raises(UsageError, match="classes: expected at least 2, got 1"):
        unet.build("lite0", 1)
    with pytest.raises(UsageError, match="widths: expected four, got 2"):
        unet.build("lite0", 2, widths=(8, 8))
    with pytest.raises(UsageError, match="size: expected one of lite0, lite1, lite2"):
        unet.build("lite9", 2)


def by_hand(logits, targets):
    """Cross-entropy and Dice of maps that have one size already, in NumPy."""
    scores = np.exp(logits - logits.max(1, keepdims=True))
    scores /= scores.sum(1, keepdims=True)
    known = targets != UNKNOWN
    rows = np.nonzero(known)
    cross_entropy = -np.log(scores[rows[0], targets[rows], rows[1], rows[2]]).mean()
    dice = []
    for index in range(logits.shape[1]):
        true, found = (targets == index) & known, scores[:, index] * known
        if true.any():
            dice.append(1 - 2 * (true * found).sum() / (true.sum() + found.sum()))
    return cross_entropy, np.mean(dice)


def test_the_loss_equals_the_one_written_down():
    numbers = np.random.default_rng(0)
    logits = numbers.normal(size=(2, 4, 6, 8))
    targets = numbers.integers(0, 3, (2, 6, 8)).astype(np.uint8)  # class 3 is nowhere
    targets[numbers.random((2, 6, 8)) < 0.3] = UNKNOWN
    total, parts = SemanticLoss(LossConfig(dice=0.5))(torch.from_numpy(logits), torch.from_numpy(targets))
    wanted = by_hand(logits, targets)
    np.testing.assert_allclose(parts.numpy(), wanted, rtol=1e-5)
    assert float(total) == pytest.approx(2 * (wanted[0] + 0.5 * wanted[1]), rel=1e-5)


def test_logits_of_half_the_size_are_interpolated_between_the_centres_of_cells():
    logits = torch.randn(1, 3, 4, 4)
    targets = torch.randint(0, 3, (1, 8, 8), dtype=torch.uint8)
    large = functional.interpolate(logits, (8, 8), mode="bilinear", align_corners=False)
    loss = SemanticLoss(LossConfig())
    torch.testing.assert_close(loss(logits, targets)[1], loss(large, targets)[1])


def test_what_is_not_known_teaches_nothing_and_divides_by_nothing():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    total, parts = SemanticLoss(LossConfig())(logits, torch.full((1, 4, 4), UNKNOWN, dtype=torch.uint8))
    total.backward()
    assert parts.tolist() == [0, 0]
    assert not logits.grad.any()
    targets = torch.randint(0, 3, (1, 4, 4), dtype=torch.uint8)
    targets[:, :2] = UNKNOWN
    logits.grad = None
    SemanticLoss(LossConfig())(logits, targets)[0].backward()
    assert not logits.grad[:, :, :2].any()
    assert logits.grad[:, :, 2:].any()
