"""Train, sweep, compare and apply object detectors on radar images."""
