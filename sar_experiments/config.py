"""The schema of conf/: one dataclass per group, one documented field per key.

Values live in conf/*.yaml, meaning lives here, defaults nowhere else. ``None`` always means
"not set", never "zero".
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sar_experiments.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Schedule(Enum):
    """How the learning rate falls after the warm-up."""

    multistep = "multistep"
    cosine = "cosine"


class Optimizer(Enum):
    """What turns gradients into updates."""

    sgd = "sgd"
    adamw = "adamw"


class ClipKind(Enum):
    """What is clipped: each gradient value, the norm of each tensor, or the norm of all."""

    value = "value"
    norm = "norm"
    full_norm = "full_norm"


class Device(Enum):
    """Where a run computes; ``auto`` takes one GPU where the host has any, else the CPU."""

    auto = "auto"
    cuda = "cuda"
    cpu = "cpu"


class Runtime(Enum):
    """What computes a prediction: PyTorch, or ONNX Runtime on the CPU with an exported network."""

    torch = "torch"
    onnx = "onnx"


class Precision(Enum):
    """Numbers of the forward pass on CUDA; ``auto`` is bf16 where the GPU has it, else fp32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class StoredAs(Enum):
    """What the numbers of an image file mean."""

    amplitude = "amplitude"
    intensity = "intensity"
    db = "db"


class Encoding(Enum):
    """How radar brightness becomes network input in [0, 1]."""

    linear = "linear"
    db = "db"
    db_sigmoid = "db_sigmoid"


class MergeRule(Enum):
    """How detections of overlapping tiles become one per object.

    ``interior`` keeps a detection where its centre lies in the part of the tile that is nearer to
    this tile than to any other; ``nms`` lets the best of overlapping detections of a class win;
    ``interior_nms`` does the first, then the second between different tiles.
    """

    interior = "interior"
    nms = "nms"
    interior_nms = "interior_nms"


class ClutterKind(Enum):
    """What a CFAR takes the pixels around an object for."""

    gaussian = "gaussian"
    gamma = "gamma"
    k = "k"


class ChannelRule(Enum):
    """How a CFAR joins channels: any of them is enough, or their intensities are added."""

    any = "any"
    sum = "sum"


class Format(Enum):
    """How annotations are written; ``auto`` tells it from the files."""

    auto = "auto"
    coco = "coco"
    voc = "voc"
    yolo = "yolo"
    dota = "dota"


class Difficult(Enum):
    """What becomes of objects that Pascal VOC or DOTA files flag as difficult.

    ``learn``: learnt from but not counted in evaluation, as VOC and DOTA themselves do;
    ``count``: objects like any other; ``ignore``: neither learnt nor counted.
    """

    learn = "learn"
    count = "count"
    ignore = "ignore"


class MapperKind(Enum):
    """Which augmentations an image gets: the same for all, or those of its rarest class."""

    plain = "plain"
    class_aware = "class_aware"


@dataclass
class TaskConfig:
    """What the command does."""

    name: str = MISSING
    """One of the files in conf/task/."""

    module: str | None = None
    """Python module with a function ``run``, for a task of your own; left out in ours."""

    options: dict[str, Any] = field(default_factory=dict)
    """Whatever a task of your own needs."""


@dataclass
class SplitConfig:
    """One part of a dataset: a folder of images and what annotates them."""

    images: str | None = MISSING
    """Folder that the file names of the annotations are relative to; may be left out where a YOLO
    data.yaml names it."""

    annotations: str | None = MISSING
    """COCO JSON file, folder of Pascal VOC, YOLO or DOTA label files, YOLO data.yaml, or a list
    in VOC's ImageSets folder."""


@dataclass
class SimulatorConfig:
    """Synthetic radar images, made when they are not there yet."""

    folder: str = MISSING
    """Where the dataset is written and looked for."""

    seed: int = MISSING
    """Another seed, other images; image k depends on the seed and k alone."""

    image_size_px: int = MISSING
    """Height and width of an image."""

    pixel_m: float = MISSING
    """Ground distance between pixels, in metres."""

    looks: float = MISSING
    """Number of looks L of the multiplicative speckle; its variance is 1/L."""

    classes: list[str] = MISSING
    """Which of the simulator's object classes appear."""

    train_images: int = MISSING
    """Images of the training part."""

    val_images: int = MISSING
    """Images of the validation part."""

    test_images: int = MISSING
    """Images of the test part."""

    scene_size_px: int = MISSING
    """Height and width of the geo-referenced scene."""

    empty_share: float = MISSING
    """Share of images without any object, in [0, 1]."""

    dtype: str = MISSING
    """``uint8``, amplitude, where strong targets saturate; ``uint16``, where hardly any do; or
    ``float32``, decibels."""

    max_objects: int = MISSING
    """Most objects in an image; the number is uniform from 1 up to it."""

    class_weights: list[float] = MISSING
    """How often each of ``classes`` is drawn relative to the others, 0 or more; empty draws ships
    more often than the rest. Unequal weights make an unbalanced dataset."""

    shortest_px: float = MISSING
    """Length in pixels below which no object is drawn, whatever its length in metres. Pixels of
    30 m show most ships at 3 to 10 px."""

    ambiguity_m: float = MISSING
    """Distance in azimuth from a point to its two ghosts, in metres."""

    ambiguity_db: float = MISSING
    """Power of a ghost relative to its point, in decibels; -60 makes none."""


@dataclass
class UsecaseConfig:
    """The data: where it is, what is annotated in it, how it is split."""

    name: str = MISSING
    """Part of run folder names."""

    classes: list[str] | None = MISSING
    """Class names in the order of the network's outputs; None reads them from the annotations."""

    train: SplitConfig = field(default_factory=SplitConfig)
    """What is learnt from."""

    val: SplitConfig = field(default_factory=SplitConfig)
    """What checkpoints are chosen by; without annotations, a share of train's scenes."""

    test: SplitConfig = field(default_factory=SplitConfig)
    """What is measured once, at the end; may be left out."""

    format: Format = MISSING
    """How all parts are annotated; auto tells it from the files."""

    difficult: Difficult = MISSING
    """What becomes of objects flagged as difficult."""

    val_share: float = MISSING
    """Share of images, in whole scenes, that validates where val has no annotations; in (0, 1)."""

    split_seed: int = MISSING
    """Seed of that split; fixed, so that runs of several seeds see the same images."""

    scene_pattern: str = MISSING
    """Regular expression on an image's file name without suffix; its group ``scene`` names the
    scene. An image's own key ``scene`` in the annotations wins; without a match every image is
    a scene of its own."""

    polarisations: list[str] = MISSING
    """Where each polarisation has a file of its own: what tells their names apart, such as
    ``[vv, vh]``, the annotated one first, one per channel. Empty: all channels in one file. File
    names with a list in braces (``s1_{vv,vh}.tif``) need no such key."""

    max_empty_share: float = MISSING
    """Largest share of training images without objects, in [0, 1]; more are left out, seeded."""

    ignore_bad_samples: bool = MISSING
    """Leave broken images and boxes out, counted in the log, instead of stopping."""

    simulator: SimulatorConfig | None = MISSING
    """Set where the data is simulated."""


@dataclass
class CfarConfig:
    """The classic detector: pixels that stand out of the clutter in a ring around them."""

    distribution: ClutterKind = MISSING
    """Model of the clutter."""

    scale: StoredAs = MISSING
    """What the model is laid on: gamma takes intensity or db, k intensity alone."""

    looks: float | None = MISSING
    """Equivalent number of looks of a pixel as stored, above 0; what the target window averages is
    counted on top. k needs it, gamma estimates it where None."""

    pfa: float = MISSING
    """False alarms per pixel of clutter, in (0, 0.1]."""

    extent_pfa: float = MISSING
    """Pixels connected with a detected one belong to it down to this rate; pfa or more, at
    most 0.1."""

    target_m: float = MISSING
    """Side of the window that is averaged before the decision; below two pixels it is one."""

    guard_m: float = MISSING
    """Side of the window around a pixel that may hold its object: no background."""

    background_m: float = MISSING
    """Outer side of the ring that shows the clutter; above guard_m."""

    min_background_share: float = MISSING
    """Share of the ring that must hold data, in (0, 1], for a pixel to be decided on."""

    passes: int = MISSING
    """How often the background is measured, each time without what was found before."""

    min_contrast_db: float = MISSING
    """Smallest rise of a pixel above its background, in decibels; 0 asks for none."""

    max_drop_db: float = MISSING
    """Pixels of an object further below its brightest are sidelobes and belong to no outline."""

    merge_gap_m: float = MISSING
    """Pixels of one object may have gaps of this width."""

    min_size_m: float = MISSING
    """Smallest length of an object."""

    max_size_m: float = MISSING
    """Largest length of an object."""

    channels: ChannelRule = MISSING
    """How polarisations are joined; with any, each gets its share of pfa."""

    pixel_m: float | None = MISSING
    """Ground distance between pixels where neither the scene tells, nor the simulator for images
    of its own."""

    class_name: str | None = MISSING
    """Class of what is found; None takes the first of usecase.classes."""


@dataclass
class ModelConfig:
    """The detector."""

    name: str = MISSING
    """Name of this file."""

    base: str | None = MISSING
    """Detectron2 zoo config that the ``d2`` tree is laid over, such as
    ``COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml``; None starts from Detectron2's defaults."""

    weights: str = MISSING
    """Where training starts: ``zoo`` (COCO-pretrained), ``none`` (random) or a path: a
    checkpoint whose backbone fits, or a run folder."""

    anchor_sizes: list[Any] = MISSING
    """Sides of the square anchors in pixels, a list of numbers per feature level."""

    anchor_ratios: list[float] = MISSING
    """Height over width of the anchors."""

    roi_batch_size_per_image: int = MISSING
    """Proposals sampled per training image for the box head."""

    input_std: float = MISSING
    """Standard deviation that the weights expect of their input: about 57.4 for the zoo's
    MSRA-style backbones (trained on 0..255 without scaling), 1 for any other. Weights of this
    package bring their own."""

    cfar: CfarConfig | None = None
    """Set for the classic detector, which has no weights; None, in every file but cfar.yaml and
    so not repeated there, is a network."""


@dataclass
class ClipConfig:
    """Gradient clipping."""

    enabled: bool = MISSING
    """Off only to find out what happens."""

    kind: ClipKind = MISSING
    """What is clipped."""

    value: float = MISSING
    """The bound; above 0."""


@dataclass
class SolverConfig:
    """How the weights are learnt."""

    name: str = MISSING
    """Name of this file."""

    optimizer: Optimizer = MISSING
    """SGD with momentum, or AdamW."""

    max_iter: int = MISSING
    """Number of optimiser steps."""

    accumulate_steps: int = MISSING
    """Parts that the images of a step are computed in, one after the other, where they do not fit
    into the GPU's memory at once. The gradient is that of the whole batch, but not where batch
    norm (BN) takes its statistics from each part; GN and FrozenBN do not."""

    ims_per_batch: int = MISSING
    """Images per step, over all GPUs."""

    base_lr: float = MISSING
    """Learning rate after the warm-up."""

    reference_ims_per_batch: int | None = MISSING
    """Images per step that base_lr was found for: the rate becomes base_lr x ims_per_batch / this
    (linear scaling, Goyal et al. 2017). None never changes the rate, whatever the batch."""

    schedule: Schedule = MISSING
    """How it falls."""

    steps: list[int] = MISSING
    """Steps at which a multistep schedule multiplies the rate by gamma."""

    gamma: float = MISSING
    """Factor at each of the steps."""

    warmup_iters: int = MISSING
    """Steps of linear warm-up."""

    warmup_factor: float = MISSING
    """Share of base_lr that the warm-up starts at, in [0, 1]."""

    momentum: float = MISSING
    """Of SGD, in [0, 1)."""

    weight_decay: float = MISSING
    """L2 penalty; not on norm layers."""

    clip_gradients: ClipConfig = field(default_factory=ClipConfig)
    """Clipping of gradients."""

    max_loss: float = MISSING
    """Total loss above which training counts as diverged; clipping keeps an exploded loss
    finite, so NaN alone would be noticed too late."""

    log_period: int = MISSING
    """Steps between lines of metrics.jsonl."""

    checkpoint_period: int = MISSING
    """Steps between checkpoints that a run can resume from; the newest is kept."""

    eval_period: int = MISSING
    """Steps between evaluations on the validation part; 0 evaluates at the end alone."""

    patience: int = MISSING
    """Evaluations without a better metric after which training stops; 0 never stops early."""


@dataclass
class AugmentConfig:
    """What training images go through; sizes count for evaluation too."""

    name: str = MISSING
    """Name of this file."""

    mapper: MapperKind = MISSING
    """One pipeline for all images, or one per class."""

    min_size_train: list[int] = MISSING
    """Shortest edge in pixels, one drawn per image; empty keeps the size of the file."""

    max_size_train: int = MISSING
    """Longest edge in pixels after resizing."""

    min_size_test: int = MISSING
    """Shortest edge in evaluation and prediction; 0 keeps the size of the file."""

    max_size_test: int = MISSING
    """Longest edge in evaluation and prediction."""

    transforms: dict[str, Any] = field(default_factory=dict)
    """Named transforms in order, each with a ``_target_`` and its arguments. They see float32
    images of shape (H, W, C) in [0, 1]."""

    policies: dict[str, Any] = field(default_factory=dict)
    """Class name -> named transforms that replace or join ``transforms`` for images whose rarest
    class it is; only with the class_aware mapper."""

    repeat_threshold: float = MISSING
    """Classes in a smaller share of images than this are seen more often (Detectron2's repeat
    factors); 0 switches it off."""

    min_visible_share: float = MISSING
    """A box that a transform cuts to less than this share of its area is dropped."""


@dataclass
class RadiometryConfig:
    """How stored pixels become network input; shared by training and prediction."""

    name: str = MISSING
    """Name of this file."""

    channels: int = MISSING
    """Channels the network sees. Colour files of equal channels count as one."""

    stored_as: StoredAs = MISSING
    """What the numbers of the files mean."""

    encoding: Encoding = MISSING
    """How they are encoded before clipping to [low, high] and scaling to [0, 1]."""

    low: list[float] | None = MISSING
    """Per channel, in the unit of the encoding, what becomes 0; None: a percentile per image."""

    high: list[float] | None = MISSING
    """Per channel, what becomes 1; None: a percentile per image."""

    percentiles: list[float] = MISSING
    """Lower and upper percentile, in [0, 100], where low and high are None."""

    nodata: float | None = MISSING
    """Stored number that marks no data, besides the file's own tag, its alpha or mask, NaN and
    infinity; tested before a band's scale and offset. A pixel has no data where any band has none:
    all its channels are then 0 for the network, and no clutter for a CFAR."""

    lee_filter_px: int = MISSING
    """Window of the Lee speckle filter, odd; 0 switches it off."""

    mean: list[float] | None = MISSING
    """Per channel, of encoded pixels in [0, 1]; None: of the training images, as the data check
    of the run measures it. The run's config.yaml and checkpoints hold the numbers."""

    std: list[float] | None = MISSING
    """Likewise."""


@dataclass
class HardwareConfig:
    """Where a run computes. Nothing here changes what is learnt, save rounding."""

    device: Device = MISSING
    """GPU or CPU."""

    num_gpus: int = MISSING
    """GPUs of one run: a process for each, which share every step; ignored on the CPU."""

    cpu_processes: int = MISSING
    """Processes that share every step of a run on the CPU, as GPUs would; to try that out
    without any. Ignored on CUDA."""

    jobs_per_gpu: int = MISSING
    """Runs of a sweep that share a GPU."""

    jobs: int = MISSING
    """Runs of a sweep at once on a machine without a GPU."""

    precision: Precision = MISSING
    """Numbers of the forward pass on CUDA. The CPU takes fp32, save for a prediction that is asked
    for bf16."""

    num_workers: int | None = MISSING
    """Loader processes of each GPU's process; None takes what the cores allow, 0 loads in that
    process itself."""

    deterministic: bool = MISSING
    """Refuse operations that differ between two runs; slower on CUDA."""

    grace_s: float = MISSING
    """Seconds that an interrupted run has to write its checkpoint."""


@dataclass
class EvaluationConfig:
    """How detections are measured."""

    metric: str = MISSING
    """What the best checkpoint is chosen by; larger is better."""

    max_detections: int = MISSING
    """Detections kept per image, best first."""

    min_score: float = MISSING
    """Detections below this score are dropped; near 0 for a full precision-recall curve."""

    match_iou: float = MISSING
    """Intersection over union from which a detection is a hit, for precision, recall and F1."""

    batch_size: int = MISSING
    """Images at once in evaluation."""

    pictures: int = MISSING
    """Validation images that TensorBoard shows with truth and detections; always the same ones."""

    loss_images: int = MISSING
    """Validation images that the validation loss is computed on; 0 computes none."""


@dataclass
class MonitorConfig:
    """How task=monitor shows the runs below ``source``."""

    once: bool = MISSING
    """One table as plain text, all runs, then end; always so where the output is no terminal."""

    refresh_s: float = MISSING
    """Seconds between two looks."""

    stalled_s: float = MISSING
    """Seconds without a word after which a run is marked as stalled."""


class Prune(Enum):
    """When a run of a sweep is given up: never, or below the median of the others."""

    never = "never"
    median = "median"


@dataclass
class SweepConfig:
    """What happens between the runs of a sweep. Changes no run that comes to its end."""

    name: str | None = MISSING
    """Folder of the sweep below multirun/, in place of a dated one."""

    retries: int = MISSING
    """Times that a failed job is tried again, from its last checkpoint."""

    retry_on: list[str] = MISSING
    """Causes worth another try: ``killed`` by a signal such as the out-of-memory killer's,
    ``oom`` (too little GPU memory), ``exception``, ``exit`` (an exit code without a word)."""

    accumulate_on_oom: bool = MISSING
    """Try again with each batch in twice as many parts where the GPU's memory was too small."""

    rerun_diverged: bool = MISSING
    """Repeat diverged jobs when the same command comes again: they would diverge again, unless
    the code or the data changed."""

    trials: int = MISSING
    """Completed trials of a search, those of earlier calls in the same folder included."""

    prune: Prune = MISSING
    """Stop a run whose best metric so far lies below the median of what the sweep's other runs
    had reached by the same step."""

    prune_min_runs: int = MISSING
    """Other runs that must have come as far before one is given up."""

    prune_min_step: int = MISSING
    """Steps that every run gets."""


@dataclass
class PredictConfig:
    """How scenes are cut into tiles, and what becomes of the detections."""

    tile_px: int | None = MISSING
    """Side of a square tile, in pixels of the scene. None: that of the images the network learnt
    from where the checkpoint tells, else 800. A network keeps so many proposals of an image,
    whatever its size: much larger tiles lose objects where land or harbours take them all."""

    overlap_px: int | None = MISSING
    """Pixels shared by neighbouring tiles; at least the longest object. None: a quarter of a
    tile."""

    scale: float | None = MISSING
    """Factor by which tiles are enlarged for the network. None: as validation images were, which
    is 1 where augment.min_size_test=0. Set it where a scene's pixels are larger or smaller than
    those that were learnt from: 3 shows 30 m pixels at the size of 10 m ones."""

    batch_size: int = MISSING
    """Tiles at once."""

    readers: int = MISSING
    """Threads that read ahead of the detector."""

    min_score: Any = MISSING
    """Detections below this score are dropped: one number, or a mapping such as
    {ship: 0.6, platform: 0.3}, whose other classes keep the run's own. None: for each class the
    score of its best F1 on validation, which the checkpoint holds; 0.5 for a class whose best F1
    was below 0.1 or that validation held none of, and where the checkpoint holds nothing."""

    merge: MergeRule = MISSING
    """How detections of overlapping tiles become one per object."""

    merge_overlap: float = MISSING
    """Intersection over the smaller box, in (0, 1], from which two are the same object."""

    merge_nested: float | None = MISSING
    """Share of the smaller of two boxes of one class, in [0.5, 1], that lies in the larger one from
    which they are one object: the higher score stays. Networks draw a part of a long ship beside
    the whole. None keeps both, as task=evaluate does with images."""

    merge_classes: bool = MISSING
    """One object has one class: where two classes are found on one place, from an intersection
    over union of 0.3 on, the higher score stays. False keeps both, as networks find them."""

    bands: list[int] | None = MISSING
    """Bands of the file in the order of the network's channels, from 1; None takes all."""

    polarisations: list[str] | None = MISSING
    """Files of a scene in the order of the network's channels, such as [vv, vh]; None takes as
    many as the network has channels, of vv, vh, hh, hv."""

    resolution_m: float | None = MISSING
    """Side of the sensor's resolution cell on the ground, in metres, by which objects look wider
    than they are; often larger than a pixel. None: what the scene's tag ``resolution_m`` or the
    name of its Sentinel-1 product tells; where neither does, ``width_m`` is not corrected."""

    land: str | None = MISSING
    """Vector file of land areas: detections on it are filtered, tiles on it not looked at."""

    land_buffer_m: float = MISSING
    """Metres by which land grows into the sea; below 0 it shrinks."""

    avoid: list[str] = MISSING
    """Vector files of further places, such as wind farms, whose detections are filtered."""

    avoid_buffer_m: float = MISSING
    """Metres by which these grow; points and lines become areas that way."""

    outputs: list[str] = MISSING
    """Which files are written, of PREDICT_OUTPUTS."""

    overview_px: int = MISSING
    """Longest side of the overview picture."""

    crop_px: int = MISSING
    """Side of the picture that is written of each detection; 0 writes none."""


@dataclass
class ServeConfig:
    """The HTTP service of task=serve."""

    host: str = MISSING
    """Address to listen on; 127.0.0.1 lets this machine alone call, 0.0.0.0 every one."""

    port: int = MISSING
    """TCP port; 0 takes a free one, which the console tells."""

    root: str | None = MISSING
    """Folder whose files may be asked for by path; null allows none."""

    max_megabytes: float = MISSING
    """Largest upload."""

    max_megapixels: float = MISSING
    """Largest image, height times width times bands in millions, by its header: a small file can
    unpack to hours of work."""

    max_waiting: int = MISSING
    """Requests that may wait while one is computed; more are answered with 503."""

    hosts: list[str] = MISSING
    """Further names by which browsers may call the service, besides ``host`` and localhost."""


class MeasuredPart(Enum):
    """Which numbers of a run a report compares: of the validation part, or of the test part."""

    val = "val"
    test = "test"


@dataclass
class ReportConfig:
    """What task=report makes of the runs of ``source``."""

    runs: int = MISSING
    """Settings whose best run gets curves and details; the table holds every run."""

    pictures: int = MISSING
    """Most pictures of each kind (misses, false alarms, hits); 0 draws none and reads no image."""

    part: MeasuredPart = MISSING
    """What the runs are compared on. The best checkpoint of each was chosen on ``val``."""

    pixel_m: float | None = MISSING
    """Ground distance between pixels, in metres, for sizes and false alarms per km²; None takes
    what geo-referenced images, the simulator or the config of a CFAR run tells."""

    sizes_px: list[float] = MISSING
    """Rising borders between the size bins, as root of the box area in pixels."""


@dataclass
class Config:
    """Everything that a run is made from."""

    task: TaskConfig = field(default_factory=TaskConfig)
    usecase: UsecaseConfig = field(default_factory=UsecaseConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    radiometry: RadiometryConfig = field(default_factory=RadiometryConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    d2: dict[str, Any] = field(default_factory=dict)
    """Detectron2's own keys."""

    seed: int = MISSING
    """Seed of weights, order of images and augmentations; 0 or more."""

    weights: str | None = MISSING
    """Run folder or checkpoint that evaluate, predict, serve and export use; with runtime=onnx a
    folder that holds an ONNX file, or the file."""

    source: Any = MISSING
    """What predict reads: a file, a folder, a pattern such as ``scenes/*.tif``, or a list of them.
    For monitor the folder whose runs are shown; for report a run, a folder of runs such as a sweep,
    a pattern, or a list of them. What serve reads comes with each request. With evaluate, scenes
    whose objects ``labels`` holds."""

    labels: Any = MISSING
    """Objects of the scenes that evaluate measures: GeoJSON or another vector file, or COCO in
    pixels of the scenes; one file or a list."""

    runtime: Runtime = MISSING
    """What computes task=predict and task=serve; onnx takes what task=export wrote."""

    output: str | None = MISSING
    """Run folder, or sweep folder, in place of one named by date."""

    force: bool = MISSING
    """Evaluate or predict with another radiometry than the checkpoint was trained with."""

    resume: bool = MISSING
    """Go on from the last checkpoint where the run folder holds an unfinished run."""


SHARED_TASKS = ("train", "evaluate")
"""Tasks that several GPUs share; the others need one at most."""

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "precision", "recall", "f1")
"""What ``evaluation.metric`` may name."""

PREDICT_OUTPUTS = ("geojson", "gpkg", "csv", "coco", "overview", "qgis")
"""What ``predict.outputs`` may name."""

CPU_TASKS = ("check", "convert", "browse", "export", "simulate", "monitor", "report")
"""Tasks that compute nothing on a GPU: they do not wait for one that a training holds."""


def measures_scenes(config: Config) -> bool:
    """Tell whether whole scenes are predicted and compared with their labels."""
    return config.task.name == "evaluate" and config.source is not None


def computes_on_cpu(task: str, runtime: Runtime, *, is_cfar: bool) -> bool:
    """Tell whether a task has no use for a GPU, and need not wait for one."""
    by_onnx = runtime is Runtime.onnx and task in ("predict", "serve", "evaluate")
    return task in CPU_TASKS or is_cfar or by_onnx


# Parts of the config that do not change the result, left out of its hash.
HASH_EXCLUDES = ("hardware", "output", "resume", "force", "sweep", "monitor", "serve", "report")

RETRY_CAUSES = ("killed", "oom", "exception", "exit")
"""What ``sweep.retry_on`` may hold."""


def hash_excludes(config: Config) -> tuple[str, ...]:
    """Return the parts that do not change the result of a task."""
    if config.task.name == "predict" or measures_scenes(config):
        return (*HASH_EXCLUDES, "predict.batch_size", "predict.readers")
    return (*HASH_EXCLUDES, "predict", "runtime")


def read_config(path: Path, *, defaults: Config | None = None) -> Config:
    """Read the resolved config.yaml of a run folder; see from_plain for ``defaults``.

    Raises:
        ConfigError: The file is missing or does not fit the schema.
    """
    try:
        plain = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError as error:
        msg = f"{path} is missing; a run folder holds one"
        raise ConfigError(msg) from error
    except (OSError, ValueError, YAMLError) as error:
        msg = f"{path} cannot be read: {error}"
        raise ConfigError(msg) from error
    if not isinstance(plain, dict):
        msg = f"{path} holds no mapping of keys to values"
        raise ConfigError(msg)
    return from_plain(plain, origin=str(path), defaults=defaults)


def from_plain(
    plain: Mapping[Any, Any],
    *,
    origin: str = "the checkpoint's config",
    defaults: Config | None = None,
) -> Config:
    """Turn plain values, as YAML holds them, into a Config.

    Args:
        plain: Nested mappings.
        origin: Named in errors.
        defaults: Values of keys that an older version did not write; None refuses such.

    Raises:
        ConfigError: They do not fit the schema; ``origin`` is named.
    """
    try:
        if defaults is not None:
            plain = _filled(plain, defaults)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain))
    except OmegaConfBaseException as error:
        msg = f"{origin} does not fit this version's schema: {error}"
        raise ConfigError(msg) from error
    assert isinstance(config, Config)
    return config


def _filled(plain: Mapping[Any, Any], defaults: Any) -> dict[Any, Any]:  # noqa: ANN401 - a group
    """Return plain values with the keys of the schema that they lack; free-form ones stay.

    An optional group that lacks keys, and that the defaults do not have, becomes None.
    """
    filled = dict(plain)
    hints = get_type_hints(type(defaults))
    for each in fields(defaults):
        value, there = getattr(defaults, each.name), plain.get(each.name)
        if each.name not in plain:
            filled[each.name] = value
        elif is_dataclass(value) and isinstance(there, Mapping):
            filled[each.name] = _filled(there, value)
        elif value is None and isinstance(there, Mapping) and _lacks_keys(there, hints[each.name]):
            filled[each.name] = None
    return filled


def _lacks_keys(plain: Mapping[Any, Any], hint: Any) -> bool:  # noqa: ANN401 - a type
    """Tell whether plain values of an optional group leave out a key of its schema."""
    schemas = [kind for kind in get_args(hint) if is_dataclass(kind)]
    return any(each.name not in plain for kind in schemas for each in fields(kind))


def to_plain(config: Config) -> dict[str, Any]:
    """Return the config as plain values, enums by name: what YAML, JSON and checkpoints hold."""
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def to_yaml(config: Config) -> str:
    """Return the config as the text of config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.create(to_plain(config)))


def processes(config: Config) -> int:
    """Return how many processes share the work of a run, 1 or more."""
    if config.task.name not in SHARED_TASKS or measures_scenes(config):
        return 1
    hardware = config.hardware
    wanted = hardware.num_gpus if hardware.device is Device.cuda else hardware.cpu_processes
    return max(1, wanted)


def config_keys(schema: type = Config, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key that the schema knows."""
    hints = get_type_hints(schema)
    for each in fields(schema):
        key = f"{prefix}{each.name}"
        yield key
        for kind in (hints[each.name], *get_args(hints[each.name])):
            if is_dataclass(kind) and isinstance(kind, type):
                yield from config_keys(kind, f"{key}.")


def closest_key(key: str) -> str | None:
    """Return the known key most like a misspelt one, if any is close."""
    group, _, name = key.rpartition(".")
    known = list(config_keys())
    namesakes = [each for each in known if each.rpartition(".")[2] == name]
    for close in difflib.get_close_matches(key, namesakes, 1, cutoff=0):  # in another group
        return close
    siblings = [each.rpartition(".")[2] for each in known if each.rpartition(".")[0] == group]
    for close in difflib.get_close_matches(name, siblings, 1):
        return f"{group}.{close}" if group else close
    return next(iter(difflib.get_close_matches(key, known, 1, cutoff=0.8)), None)  # both misspelt
