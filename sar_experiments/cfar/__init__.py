"""The classic detector: constant false-alarm rate (CFAR) on sliding windows, no weights."""
