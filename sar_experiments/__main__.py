"""``python -m sar_experiments``: the same door as the console script ``sar-experiments``."""

from sar_experiments.cli import main

if __name__ == "__main__":
    main()
