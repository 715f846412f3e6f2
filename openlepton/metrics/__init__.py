"""How good a model is: each number tested equal to the field's reference."""

from openlepton.metrics.calibration import Reliability, detection_calibration_error, reliability
from openlepton.metrics.curves import ScoreCurves, confusion_matrix, precision_at_recall, score_curves
from openlepton.metrics.detection import ClassReport, DetectionReport, evaluate_detections
from openlepton.metrics.matching import Matches, match_detections
from openlepton.metrics.timing import Timing
from openlepton.metrics.truth import GroundTruth
from openlepton.metrics.voc import voc_ap

__all__ = [
    "ClassReport",
    "DetectionReport",
    "GroundTruth",
    "Matches",
    "Reliability",
    "ScoreCurves",
    "Timing",
    "confusion_matrix",
    "detection_calibration_error",
    "evaluate_detections",
    "match_detections",
    "precision_at_recall",
    "reliability",
    "score_curves",
    "voc_ap",
]
