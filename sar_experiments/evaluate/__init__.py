"""Evaluation: detections against the truth, as numbers."""
