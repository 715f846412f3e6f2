"""How good a model is: each number tested equal to the field's reference."""

from openlepton.metrics.calibration import Reliability, detection_calibration_error, reliability
from openlepton.metrics.classification import ClassificationReport, TagReport, classification_report, tag_report
from openlepton.metrics.curves import ScoreCurves, confusion_matrix, precision_at_recall, score_curves
from openlepton.metrics.detection import ClassReport, DetectionReport, evaluate_detections
from openlepton.metrics.masks import MaskReport, evaluate_masks
from openlepton.metrics.matching import Matches, match_detections
from openlepton.metrics.segmentation import SegmentationReport, pixel_confusion, segmentation_report
from openlepton.metrics.timing import Timing
from openlepton.metrics.truth import GroundTruth
from openlepton.metrics.voc import voc_ap

__all__ = [
    "ClassReport",
    "ClassificationReport",
    "DetectionReport",
    "GroundTruth",
    "MaskReport",
    "Matches",
    "Reliability",
    "ScoreCurves",
    "SegmentationReport",
    "TagReport",
    "Timing",
    "classification_report",
    "confusion_matrix",
    "detection_calibration_error",
    "evaluate_detections",
    "evaluate_masks",
    "match_detections",
    "pixel_confusion",
    "precision_at_recall",
    "reliability",
    "score_curves",
    "segmentation_report",
    "tag_report",
    "voc_ap",
]
