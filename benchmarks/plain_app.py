"""What a sweep costs in Hydra alone: the function sleeps in the launcher's own process."""

import json
import os
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig


def run(config: DictConfig) -> None:
    """Sleep and note when."""
    began_s = time.time()
    time.sleep(config.seconds)
    span = {"began": began_s, "ended": time.time(), "gpus": str(os.getpid())}
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "spans.jsonl").write_text(json.dumps(span) + "\n")


if __name__ == "__main__":
    hydra.main(version_base="1.3", config_path="plain", config_name="config")(run)()
