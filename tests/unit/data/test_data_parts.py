"""The parts of a use case: what the simulator makes none of is no part."""

from sar_experiments import cli
from sar_experiments.data.parts import read_parts, simulate


def test_a_part_of_no_simulated_images_is_no_part(compose_config, tmp_path):
    usecase = cli.typed(
        compose_config(
            "usecase=demo",
            "hardware=cpu",
            f"usecase.simulator.folder={tmp_path}",
            "usecase.simulator.image_size_px=64",
            "usecase.simulator.train_images=6",
            "usecase.simulator.val_images=2",
            "usecase.simulator.test_images=0",
            "usecase.simulator.scene_size_px=0",
        )
    ).usecase
    simulate(usecase.simulator)
    parts = read_parts(usecase)
    assert sorted(parts) == ["train", "val"]
