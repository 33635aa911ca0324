"""Every file under conf/ composes against the schema, and what cannot be meant is refused.

The trusted settings of both use cases are pinned here: a change of one is a decision.
"""

import re
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from sar_experiments import cli, run_folder
from sar_experiments.config import from_plain, hash_excludes, processes, to_plain
from sar_experiments.detectron2_keys import detectron2_defaults
from sar_experiments.errors import ConfigError

CONF_DIR = Path(cli.conf_dir())
GROUPS = (
    "task",
    "usecase",
    "model",
    "solver",
    "augment",
    "radiometry",
    "hardware",
    "experiment",
    "sweep",
    "search",
)
OPTIONS = sorted(
    f"{path.parent.relative_to(CONF_DIR)}={path.stem}"
    for path in CONF_DIR.rglob("*.yaml")
    if path.parent.name in GROUPS
)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_leaves_nothing_missing(compose_config, option):
    assert not OmegaConf.missing_keys(compose_config(option))


def test_every_group_has_options():
    assert {option.split("=")[0] for option in OPTIONS} >= set(GROUPS) - {"experiment"}


def test_every_task_stands_where_tasks_are_listed():
    tasks = {path.stem for path in (CONF_DIR / "task").glob("*.yaml")}
    (comment,) = re.findall(r"- task: train +# (.*)", (CONF_DIR / "config.yaml").read_text())
    assert set(comment.split(" | ")) == tasks
    (row,) = re.findall(r"\| `task` \|.*", (CONF_DIR / "README.md").read_text())
    assert set(re.findall(r"`(\w+)`", row)) == {"task", *tasks}


@pytest.mark.parametrize("path", sorted(CONF_DIR.rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_file_says_first_what_it_is(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    if lines[0].startswith("# @"):  # Hydra wants its package directive first
        assert lines[1].startswith("#")


@pytest.mark.parametrize(
    ("usecase", "max_iter", "steps", "base_lr"),
    [("infra", 30000, [18000, 25000], 2e-4), ("ships", 15000, [8000, 12000], 1e-4)],
)
def test_the_trusted_solver_settings_are_the_defaults(
    compose_config, usecase, max_iter, steps, base_lr
):
    config = compose_config(f"usecase={usecase}")
    assert (config.solver.max_iter, config.solver.steps, config.solver.base_lr) == (
        max_iter,
        steps,
        base_lr,
    )
    assert config.model.roi_batch_size_per_image == 256
    detectron2 = OmegaConf.to_container(config.d2, resolve=True)
    clip = {"ENABLED": True, "CLIP_TYPE": "value", "CLIP_VALUE": 1.0}
    assert detectron2["SOLVER"]["CLIP_GRADIENTS"] == clip
    assert detectron2["SOLVER"]["BASE_LR"] == base_lr
    assert detectron2["MODEL"]["ROI_HEADS"]["BATCH_SIZE_PER_IMAGE"] == 256


def test_infra_trains_at_the_trusted_sizes_with_class_aware_augmentation(compose_config):
    augment = compose_config("usecase=infra").augment
    assert augment.min_size_train == [640, 800, 1024, 1280]
    assert augment.mapper.name == "class_aware"
    assert augment.repeat_threshold > 0


def test_ships_get_the_trusted_augmentations(compose_config):
    augment = compose_config("usecase=ships").augment
    targets = {each["_target_"].rpartition(".")[2] for each in augment.transforms.values()}
    assert targets >= {"RandomBrightnessContrast", "HorizontalFlip", "VerticalFlip"}
    assert any("otat" in target for target in targets)
    assert augment.min_size_train


def test_the_command_line_replaces_what_the_use_case_picks(compose_config):
    config = compose_config("usecase=ships", "augment=none", "solver=infra", "model=tiny")
    picked = (config.augment.name, config.solver.name, config.model.name)
    assert picked == ("none", "infra", "tiny")


def test_a_users_own_use_case_is_one_file(compose_config, tmp_path):
    (tmp_path / "usecase").mkdir()
    (tmp_path / "usecase" / "aircraft.yaml").write_text(
        "defaults: [infra, _self_]\nname: aircraft\nclasses: [A220, A330]\n"
    )
    config = compose_config("usecase=aircraft", f"hydra.searchpath=[file://{tmp_path}]")
    assert config.usecase.classes == ["A220", "A330"]
    assert config.solver.name == "infra"


def test_a_users_own_radiometry_is_one_file(compose_config, tmp_path):
    (tmp_path / "radiometry").mkdir()
    (tmp_path / "radiometry" / "alos.yaml").write_text(
        "# ALOS.\ndefaults: [uint16_amplitude, _self_]\nname: alos\nhigh: [9000.0]\nmean: null\n"
    )
    config = compose_config("radiometry=alos", f"hydra.searchpath=[file://{tmp_path}]")
    assert (config.radiometry.high, config.radiometry.mean) == ([9000.0], None)
    assert config.d2.MODEL.PIXEL_MEAN is None


def test_statistics_can_be_left_to_be_measured(typed_config):
    config = typed_config("radiometry.mean=null", "radiometry.std=null")
    assert config.d2["MODEL"]["PIXEL_STD"] is None


def test_one_argument_of_a_transform_is_one_key(compose_config):
    transforms = compose_config(
        "usecase=ships",
        "augment.transforms.rotation.limit=3",
        "+augment.transforms.rotation.interpolation=0",
        "augment.transforms.vertical_flip=null",
    ).augment.transforms
    assert (transforms.rotation.limit, transforms.rotation.interpolation) == (3, 0)
    assert transforms.vertical_flip is None


def test_background_is_kept_and_no_filter_is_on_by_default(compose_config):
    config = compose_config("usecase=ships")
    assert config.usecase.max_empty_share == 1.0
    assert config.radiometry.lee_filter_px == 0


def test_random_weights_unfreeze_everything_and_drop_frozen_norms(compose_config):
    scratch = compose_config("model=faster_rcnn_r50_fpn", "model.weights=none").d2.MODEL
    assert scratch.BACKBONE.FREEZE_AT == 0
    assert scratch.RESNETS.NORM == scratch.FPN.NORM == "GN"


def test_the_shipped_default_keys_are_those_of_the_installed_detectron2():
    yaml = pytest.importorskip("yaml")
    from detectron2.config import get_cfg

    assert detectron2_defaults() == yaml.safe_load(get_cfg().dump())


def test_a_key_added_with_a_plus_is_refused(typed_config):
    with pytest.raises(ConfigError, match=r"solver\.foo|'foo'"):
        typed_config("+solver.foo=1")


def test_a_value_left_open_is_named(typed_config):
    with pytest.raises(ConfigError, match=r"solver\.base_lr must be set"):
        typed_config("solver.base_lr=???")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("solver.base_lr=-1", r"solver\.base_lr=-1\.0 must be above 0"),
        ("solver.base_lr=nan", r"solver\.base_lr=nan must be above 0"),
        ("solver.base_lr=inf", r"solver\.base_lr=inf must be a finite number"),
        ("solver.max_iter=0", r"solver\.max_iter=0 must be 1 or more"),
        ("solver.steps=[5,3]", r"solver\.steps=\[5, 3\] must rise"),
        ("evaluation.metric=map", r"evaluation\.metric=map must be one of AP, AP50"),
        ("usecase.classes=[a,a]", r"usecase\.classes=.* each once"),
        ("model.anchor_sizes=[8,16]", r"model\.anchor_sizes=.* list of numbers"),
        ("radiometry.mean=[1,2]", r"radiometry\.mean=.* radiometry\.channels=1"),
        ("radiometry.mean=null", "either both measured"),
        ("usecase.polarisations=[vv,vh]", r"each of radiometry\.channels=1"),
        ("usecase.scene_pattern='('", "is no regular expression"),
        (
            "+d2.MODEL.ANCHOR_GENERATOR.SIZE=[[1]]",
            r"did you mean d2\.MODEL\.ANCHOR_GENERATOR\.SIZES",
        ),
        ("d2.SOLVER.MAX_ITER=many", r"d2\.SOLVER\.MAX_ITER='many' must be of type int"),
        ("+d2.DATALOADER.NUM_WORKERS=4", r"no effect here; set hardware\.num_workers"),
        ("augment=class_aware usecase.classes=[ship]", "only the class 'ship'"),
        (
            "predict.overlap_px=500 predict.tile_px=800",
            r"overlap_px=500 must be at most half of predict\.tile_px=800",
        ),
        ("predict.outputs=[geojson,kml]", r"predict\.outputs=\['kml'\] must be of geojson, gpkg"),
        ("predict.bands=[0]", r"predict\.bands=\[0\] must name bands from 1"),
        ("source=[]", r"source=\[\] must be a path, a pattern, or a list"),
        ("model=cfar", "nothing to learn: use task=evaluate or task=predict"),
        ("model=cfar task=export", "no network to export"),
        ("runtime=onnx", r"runtime=onnx is for task=predict; task=train runs by PyTorch"),
        ("task=export", r"task=export needs weights=RUN_FOLDER"),
        ("model=cfar task=evaluate weights=somewhere", "is a CFAR and has none"),
        ("model=cfar model.cfar.pfa=0.5", r"must lie in \(0, 0\.1\], pfa not above"),
        ("model=cfar model.cfar.distribution=k", "needs model.cfar.looks"),
        (
            "model=cfar model.cfar.scale=amplitude",
            "scale=amplitude does not suit .*takes intensity or db",
        ),
        ("model=cfar model.cfar.distribution=k model.cfar.looks=4", "k, which takes intensity"),
        ("model=cfar model.cfar.guard_m=900", "below background_m=800"),
        ("model=cfar model.cfar.min_size_m=900", "not above max_size_m=600"),
        ("model=cfar model.cfar.looks=-1", r"model\.cfar\.looks=-1\.0 must be above 0"),
        ("model=cfar model.cfar.passes=0", r"model\.cfar\.passes=0 must be 1 or more"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(typed_config, override, message):
    with pytest.raises(ConfigError, match=message):
        typed_config(*override.split(" "))


@pytest.mark.parametrize(
    ("task", "same"),
    [
        ([], True),
        (["task=evaluate", "model=cfar"], True),
        (["task=predict", "model=cfar", "source=."], False),
        (["task=evaluate", "model=cfar", "source=.", "labels=."], False),
    ],
)
def test_keys_of_prediction_make_another_run_of_tasks_on_scenes_alone(typed_config, task, same):
    usecase = "usecase=demo"  # its data is made when it is needed
    configs = [typed_config(usecase, *task, *more) for more in ([], ["predict.min_score=0.9"])]
    hashes = {
        run_folder.config_hash(to_plain(each), exclude=hash_excludes(each)) for each in configs
    }
    assert (len(hashes) == 1) is same


def test_a_config_of_an_older_version_takes_what_it_lacks_from_the_present_one(typed_config):
    present = typed_config("predict.tile_px=512", "model=faster_rcnn_r50_fpn")
    older = to_plain(typed_config("usecase=demo", "seed=7"))
    del older["predict"], older["augment"]["min_visible_share"]
    with pytest.raises(ConfigError, match="does not fit this version's schema"):
        from_plain(older)
    config = from_plain(older, defaults=present)
    assert (config.seed, config.model.name) == (7, "tiny")
    assert config.predict.tile_px == 512
    assert config.augment.min_visible_share == present.augment.min_visible_share
    assert config.d2 == older["d2"]


def test_simulator_settings_of_an_older_version_do_not_hide_its_weights(compose_config):
    older = to_plain(cli.typed(compose_config("usecase=demo", "hardware=cpu")))
    del older["usecase"]["simulator"]["seed"]  # as if this version had added it
    ships = cli.typed(compose_config("usecase=ships", "hardware=cpu", "task=monitor"))
    assert from_plain(older, defaults=ships).usecase.simulator is None


def test_paths_mean_the_same_from_any_folder(typed_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = typed_config("usecase=demo")
    folder = tmp_path / "multirun" / ".simulated" / "demo"
    assert config.usecase.simulator.folder == str(folder)
    assert config.usecase.train.images == str(folder / "train" / "images")
    assert config.weights is None


def test_all_mistakes_are_named_at_once(typed_config):
    with pytest.raises(ConfigError) as refusal:
        typed_config("solver.base_lr=-1", "seed=-1")
    assert len(str(refusal.value).splitlines()) == 2


def test_a_misspelt_option_lists_the_choices(compose_config):
    with pytest.raises(Exception, match="amplitude_8bit"):
        compose_config("radiometry=amplitude_8")


def test_a_misspelt_key_is_refused(compose_config):
    with pytest.raises(ConfigCompositionException, match="learning_rate"):
        compose_config("solver.learning_rate=0.1")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["hardware=cpu"], 1),
        (["hardware=cpu", "hardware.cpu_processes=2"], 2),
        (["hardware=cpu", "hardware.num_gpus=4"], 1),
        (["hardware=gpus", "hardware.num_gpus=4"], 4),
        (["hardware=gpu"], 1),
        (["hardware=gpus", "hardware.num_gpus=4", "task=check"], 1),
    ],
)
def test_a_process_for_each_gpu_of_a_task_that_shares(typed_config, overrides, expected):
    assert processes(typed_config(*overrides)) == expected


def test_several_gpus_are_all_that_the_host_shows(compose_config, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("SAR_GPUS", "a,b,c")
    assert compose_config("hardware=gpus").hardware.num_gpus == 3


def test_images_that_gpus_cannot_share_evenly_are_refused(typed_config):
    with pytest.raises(ConfigError, match=r"hardware\.num_gpus=3, such as 6"):
        typed_config("hardware=gpus", "hardware.num_gpus=3", "solver.ims_per_batch=4")


def test_the_learning_rate_is_scaled_on_request_alone(compose_config):
    plain = compose_config("solver.base_lr=0.01", "solver.ims_per_batch=16")
    scaled = compose_config(
        "solver.base_lr=0.01", "solver.ims_per_batch=16", "solver.reference_ims_per_batch=4"
    )
    assert plain.d2.SOLVER.BASE_LR == 0.01
    assert pytest.approx(0.04) == scaled.d2.SOLVER.BASE_LR


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_transforms_are_named_on_the_command_line_with_or_without_a_plus(compose_config, prefix):
    override = f"{prefix}augment.transforms.blur={{_target_: albumentations.Blur, p: 0.1}}"
    config = compose_config("usecase=demo", cli.with_open_key(override))
    assert config.augment.transforms.blur.p == 0.1
    assert "horizontal_flip" in config.augment.transforms


@pytest.mark.parametrize(
    ("task", "device"), [("train", "cuda"), ("check", "cpu"), ("convert", "cpu"), ("browse", "cpu")]
)
def test_a_task_that_computes_nothing_on_a_gpu_waits_for_none(
    typed_config, monkeypatch, task, device
):
    monkeypatch.setenv("SAR_GPUS", "0")
    assert typed_config("usecase=demo", f"task={task}").hardware.device.name == device
