"""The losses of classifiers, against torch's own."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from openlepton.nets.classifier_loss import ClassifierLoss, ClassTargets  # noqa: E402
from openlepton.nets.losses import LossConfig  # noqa: E402


def targets_of(dense):
    rows, class_ids = dense.nonzero(as_tuple=True)
    return ClassTargets(rows, class_ids, dense[rows, class_ids])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_right_class_is_cross_entropy_with_smoothed_labels(smoothing):
    logits, ids = torch.randn(6, 5), torch.tensor([0, 4, 2, 2, 1, 3])
    given = ClassTargets(torch.arange(6), ids, torch.ones(6))
    total, parts = ClassifierLoss(LossConfig(smoothing=smoothing), multi_label=False)(logits, given)
    wanted = functional.cross_entropy(logits, ids, label_smoothing=smoothing)
    torch.testing.assert_close(parts, wanted[None])
    torch.testing.assert_close(total, wanted * 6)


def test_blended_images_have_the_loss_of_both_by_their_shares():
    logits = torch.randn(2, 3)
    given = ClassTargets(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 2, 0, 2]), torch.tensor([0.7, 0.7, 0.3, 0.3]))
    total, _ = ClassifierLoss(LossConfig(), multi_label=False)(logits, given)
    each = [0.7 * functional.cross_entropy(logits, torch.tensor([0, 2]), reduction="none")]
    each.append(0.3 * functional.cross_entropy(logits, torch.tensor([2, 0]), reduction="none"))
    torch.testing.assert_close(total, sum(each).sum())


def test_labels_that_do_not_exclude_each_other_are_judged_apart():
    logits = torch.randn(4, 3)
    dense = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0.0]])
    total, _ = ClassifierLoss(LossConfig(), multi_label=True)(logits, targets_of(dense))
    torch.testing.assert_close(total, 4 * functional.binary_cross_entropy_with_logits(logits, dense))
    smooth, _ = ClassifierLoss(LossConfig(smoothing=0.2), multi_label=True)(logits, targets_of(dense))
    torch.testing.assert_close(smooth, 4 * functional.binary_cross_entropy_with_logits(logits, dense * 0.8 + 0.1))


def test_the_same_label_of_both_blended_images_counts_whole():
    logits = torch.randn(1, 2)
    given = ClassTargets(torch.tensor([0, 0]), torch.tensor([1, 1]), torch.tensor([0.6, 0.4]))
    for multi_label in (False, True):
        loss = ClassifierLoss(LossConfig(), multi_label=multi_label)
        whole = ClassTargets(torch.tensor([0]), torch.tensor([1]), torch.ones(1))
        torch.testing.assert_close(loss(logits, given)[0], loss(logits, whole)[0])
