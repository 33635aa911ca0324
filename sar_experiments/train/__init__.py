"""Training: Detectron2's loop with our loaders and hooks."""
