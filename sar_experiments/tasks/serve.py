"""task=serve: an HTTP service that finds objects in what is uploaded."""

from __future__ import annotations

import base64
import importlib
import logging
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from sar_experiments import run_folder
from sar_experiments.config import read_config
from sar_experiments.data.object_lengths import say_too_long
from sar_experiments.errors import ConfigError, HardwareError, SarError, SceneError
from sar_experiments.exit_codes import DONE
from sar_experiments.predict.outputs import as_geojson
from sar_experiments.predict.pictures import gray_overview
from sar_experiments.predict.runner import SceneFailure, predict, why_unseen, with_tile_sizes
from sar_experiments.predict.scene import Scene
from sar_experiments.predict.sources import SceneFiles
from sar_experiments.tasks.detectors import Choice, choose_detector

if TYPE_CHECKING:
    from sar_experiments.config import Config, ServeConfig
    from sar_experiments.tasks.interruption import Interruption

logger = logging.getLogger(__name__)

MOST_BLOCK_BYTES = 256_000_000
"""A piece of a file is decoded whole, once per reading thread."""

_EVERYWHERE = ("0.0.0.0", "::")


def run(config: Config, folder: Path, interruption: Interruption) -> int:
    """Answer requests until a signal comes; the requests under way are finished first."""
    uvicorn, app_module = _libraries()
    listener = _listener(config.serve)
    choice = choose_detector(config, folder)
    config = read_config(folder / run_folder.CONFIG)  # with the model that the weights are of
    # Refuses an overlap that does not fit.
    say_too_long(choice.lengths_px, with_tile_sizes(config.predict, choice.native_px))
    app = app_module.create_app(Finder(config, choice), _service(app_module, config, choice))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,  # into train.log, with everything else
            server_header=False,
            timeout_graceful_shutdown=max(1, int(config.hardware.grace_s) - 1),
        )
    )
    interruption.can_wait = True  # uvicorn sees the signal and ends
    host, port = listener.getsockname()[:2]
    listener.listen()  # who reads the address may call at once, and waits for uvicorn's start
    where = f"[{host}]" if ":" in host else host
    logger.info("serving on http://%s:%d, documentation under /docs; Ctrl-C ends it", where, port)
    if host in _EVERYWHERE:
        logger.warning("everyone who reaches this machine may use it: there is no password")
    with listener:
        server.run(sockets=[listener])
    run_folder.update_result(folder, status="completed")
    logger.info("the service has ended")
    return DONE


@dataclass(frozen=True)
class Finder:
    """Finds the objects of one file, as GeoJSON.

    Attributes:
        config: Its tiles, masks and limits.
        choice: The detector.
    """

    config: Config
    choice: Choice

    def __call__(self, file: Path, *, name: str, overview: bool) -> dict[str, Any]:
        """Return a FeatureCollection; its foreign members tell image, classes and tiles.

        Raises:
            SceneError: The file cannot be used; the sentence names it as the client does.
        """
        try:
            return self._found(file, name, overview)
        except SarError as error:
            raise SceneError(str(error).replace(str(file), name)) from error

    def _found(self, file: Path, name: str, overview: bool) -> dict[str, Any]:
        source = SceneFiles(Path(name).stem, (file,), ())
        settings = self.config.predict
        picture = self._checked(source, overview)
        scenes = predict(
            [source],
            self.choice.detector_for,
            settings,
            min_score=self.choice.min_scores,
            nodata=self.choice.nodata,
            native_px=self.choice.native_px,
        )
        result = next(iter(scenes))
        if isinstance(result, SceneFailure):
            raise SceneError(result.why)
        collection = as_geojson([result], unlocated=True)
        for feature in collection["features"]:
            feature["properties"]["file"] = name  # not where it lay on the server
        header = result.header
        collection |= {
            "image": {"width": header.width, "height": header.height, "crs": header.crs},
            "classes": list(result.classes),
            "filtered": len(result.filtered),
        }
        unseen = why_unseen(result, nodata=self.choice.nodata)
        if unseen is not None:
            collection["warning"] = unseen.replace(str(file), name)
        if picture is not None:
            collection["overview"] = picture
        return collection

    def _checked(self, source: SceneFiles, overview: bool) -> str | None:
        """Return the overview where it is wanted; refuse what would take hours."""
        scene = Scene(source, bands=self.config.predict.bands, nodata=self.choice.nodata)
        try:
            header, most = scene.header, self.config.serve.max_megapixels
            if header.height * header.width * len(header.bands) > most * 1e6:
                msg = (
                    f"{source.files[0]} has {header.width} x {header.height} pixels in"
                    f" {len(header.bands)} bands, more than serve.max_megapixels={most:g} million"
                )
                raise SceneError(msg)
            if scene.block_bytes > MOST_BLOCK_BYTES:
                msg = (
                    f"{source.files[0]} is stored in pieces of {scene.block_bytes / 1e6:.0f} MB,"
                    f" {MOST_BLOCK_BYTES / 1e6:.0f} MB are accepted; store it tiled"
                    " (gdal_translate -co TILED=YES)"
                )
                raise SceneError(msg)
            if not overview:
                return None
            gray = gray_overview(scene, longest_px=self.config.predict.overview_px)
            _, png = cv2.imencode(".png", gray)
            return base64.b64encode(png.tobytes()).decode("ascii")
        finally:
            scene.close()


def _libraries() -> tuple[Any, Any]:
    """Import what only this task needs."""
    try:
        return (
            importlib.import_module("uvicorn"),
            importlib.import_module("sar_experiments.serve.app"),
        )
    except ImportError as error:
        msg = f"task=serve needs {error.name}: pip install 'sar-experiments[serve]'"
        raise HardwareError(msg) from error


def _listener(serve: ServeConfig) -> socket.socket:
    """Return a bound socket, before the model is loaded.

    Raises:
        ConfigError: The address is not this machine's, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            serve.host, serve.port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        msg = (
            f"serve.host={serve.host} serve.port={serve.port} cannot be listened on:"
            f" {error.strerror}; another port is serve.port=N, 0 takes a free one"
        )
        raise ConfigError(msg) from error
    return listener


def _service(app_module: Any, config: Config, choice: Choice) -> Any:  # noqa: ANN401
    serve = config.serve
    names = ("localhost", "127.0.0.1", "[::1]", socket.gethostname())
    hosts = ("*",) if serve.host in _EVERYWHERE and not serve.hosts else (*names, serve.host)
    return app_module.Service(
        model=config.model.name,
        weights=str(config.weights),
        device=config.hardware.device.name,
        classes=choice.classes,
        min_scores=choice.min_scores,
        root=None if serve.root is None else Path(serve.root),
        max_megabytes=serve.max_megabytes,
        max_waiting=serve.max_waiting,
        hosts=(*hosts, *serve.hosts),
    )
