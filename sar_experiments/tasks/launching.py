"""A run on several GPUs: a process for each, by Detectron2's launch; the first to fail says why.

All ranks belong to the process group of the run, so that what kills the run reaches them all.
"""

from __future__ import annotations

import importlib
import json
import logging
import multiprocessing
import os
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch.distributed as dist
from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from sar_experiments import run_folder, supervisor
from sar_experiments.config import read_config
from sar_experiments.exit_codes import FAILED, INTERRUPTED
from sar_experiments.tasks.ending import Ending, attempt
from sar_experiments.tasks.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

PATIENCE = timedelta(hours=2)
"""How long a rank waits for another one that lives; dead ones are noticed in seconds."""
LAST_WORDS_S = 3.0
"""How long a rank lives on without another, to say what happened to it."""
POLL_S = 0.5


def launch_ranks(folder: Path, count: int, interruption: Interruption) -> Ending:
    """Run the task in ``count`` processes and return how it ended.

    They meet through a file in a folder of their own: no port, which another run on this machine
    could take between its choice and its use.

    Args:
        folder: Run folder with its config.yaml.
        count: Processes, 2 or more.
        interruption: Of this process; signals are passed on to the ranks.
    """
    # Gloo asks for this host's address otherwise, which not every container can tell.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    interruption.pass_on = _terminate_ranks
    interruption.can_wait = True
    with tempfile.TemporaryDirectory(prefix="sar-ranks-") as meeting:
        try:
            launch(
                run_rank,
                count,
                dist_url=f"file://{meeting}/store",
                args=(str(folder), meeting, os.getpid()),
                timeout=PATIENCE,
            )
        except (ProcessExitedException, ProcessRaisedException) as error:
            return _why(error, folder, Path(meeting), count, interruption)
    return _recorded(folder)


def run_rank(folder: str, meeting: str, launcher: int) -> None:
    """Be one of the ranks; called by ``launch`` in a fresh process of its group."""
    main = importlib.import_module("sar_experiments.tasks.__main__")
    interruption = Interruption()
    interruption.install()
    config = read_config(Path(folder) / run_folder.CONFIG)
    supervisor.die_with_parent(config.hardware.grace_s, parent=launcher)
    main.log_to(Path(folder), comm.get_rank())
    is_over = _end_without_the_others()
    ending = attempt(lambda: Ending(main.run_task(config, Path(folder), interruption)))
    if ending.changes:
        _end(ending, Path(meeting))
    comm.synchronize()
    is_over.set()
    dist.destroy_process_group()


def _end(ending: Ending, meeting: Path) -> NoReturn:
    """Leave word of a failure, then end before anything can wait for the other ranks."""
    content = {"when": time.monotonic_ns(), "rank": comm.get_rank(), **asdict(ending)}
    run_folder.write_json(meeting / f"ending-{comm.get_rank()}.json", content)
    logging.shutdown()
    os._exit(ending.code)


def _end_without_the_others() -> threading.Event:
    """Watch the other ranks from a thread: without them, this one would wait for hours.

    Returns:
        An event that ends the watch.
    """
    own = os.getpid()
    peers = comm.all_gather((own, run_folder.process_start(own)))
    is_over = threading.Event()
    others = [peer for peer in peers if peer[0] != own]
    threading.Thread(target=watch_peers, args=(others, is_over), daemon=True).start()
    return is_over


def watch_peers(peers: Sequence[tuple[int, int]], is_over: threading.Event) -> None:
    """End this process a few seconds after one of the others did, unless it is over by then.

    Args:
        peers: Process id and start of each.
        is_over: Set when the others may end.
    """
    while not is_over.wait(POLL_S):
        if all(run_folder.process_start(pid) == start for pid, start in peers):
            continue
        if not is_over.wait(LAST_WORDS_S):
            os._exit(FAILED)


def _terminate_ranks() -> None:
    for rank in multiprocessing.active_children():
        with suppress(ProcessLookupError):
            rank.terminate()


def _why(
    error: ProcessExitedException | ProcessRaisedException,
    folder: Path,
    meeting: Path,
    count: int,
    interruption: Interruption,
) -> Ending:
    """Tell what ended the run: a signal that killed a rank, or the first that left word."""
    recorded = run_folder.read_result(folder)
    if recorded is not None and recorded.status != "running":
        return _recorded(folder)
    who = f"process {error.error_index} of {count}"
    code = getattr(error, "exit_code", FAILED)
    if code < 0 and interruption.requested:
        why = "stopped before it could save"
        return Ending(INTERRUPTED, {"status": "interrupted", "why": why})
    if code < 0:
        return Ending(FAILED, supervisor.killed_by(-code, who))
    words = [json.loads(path.read_text()) for path in meeting.glob("ending-*.json")]
    if words:
        first = min(words, key=lambda each: int(each["when"]))
        return Ending(first["code"], first["changes"])
    logger.debug("%s", error)
    why = f"{who}: {str(error).strip().splitlines()[-1]}"
    return Ending(FAILED, {"status": "failed", "cause": "exception", "why": why})


def _recorded(folder: Path) -> Ending:
    """Return what the first rank has recorded already."""
    result = run_folder.read_result(folder)
    assert result is not None
    return Ending(supervisor.exit_code(result))
