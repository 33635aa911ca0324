"""Everything this package raises on purpose.

* SarError                something a user can mend; printed as one paragraph, exit code 2
  x ConfigError           a conf/ file or an override cannot mean what it says
  x DatasetError          annotations or images on disk break their contract
  x SceneError            a geo-referenced raster cannot be used
  x CheckpointError       weights are missing, unreadable or do not fit the model
  x HardwareError         the host lacks the GPU, the library or the memory that was asked for
* DivergedError           a loss or a gradient stopped being finite; exit code 1
"""


class SarError(Exception):
    """Base of what a user can mend: names the key or file, the value and what is accepted."""


class ConfigError(SarError):
    """A file under conf/ or an override cannot mean what it says."""


class DatasetError(SarError):
    """Annotations or images on disk break their contract."""


class SceneError(SarError):
    """A geo-referenced raster cannot be used."""


class CheckpointError(SarError):
    """Weights are missing, unreadable or do not fit the model they are loaded into."""


class HardwareError(SarError):
    """The host lacks the GPU, the library or the memory that was asked for."""


class DivergedError(Exception):
    """A loss or a gradient stopped being finite; the run ended before the weights were spoilt.

    Attributes:
        step: Steps that were completed before.
        losses: Name of each part of the loss -> its value, NaN and infinity included.
        files: Image files of the batch.
    """

    def __init__(
        self, sentence: str, *, step: int, losses: dict[str, float], files: list[str]
    ) -> None:
        super().__init__(sentence)
        self.step = step
        self.losses = losses
        self.files = files
