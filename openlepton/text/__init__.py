"""Text: classification, sentiment and translation."""
