"""Predictions against ground truth, by the published protocols."""
