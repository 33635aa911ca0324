"""Prediction on whole scenes: windows in, one box per object out."""
