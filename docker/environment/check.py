"""Tell whether the environment can train: torch, torchvision and Detectron2 load together."""

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version

PARTNERS = ("torch", "torchvision", "detectron2")


def main() -> int:
    """Import what a run imports; print one line, or one paragraph and exit code 1."""
    try:
        for name in ("torch", "torchvision.ops", "detectron2.modeling"):
            importlib.import_module(name)
        check_operators()
    except (ImportError, RuntimeError, AttributeError) as error:
        sys.stderr.write(
            f"setup: {versions()} do not load together: {error}\n"
            "setup: torchvision must be the partner of torch (2.14 and 0.29, 2.11 and 0.26, ...);"
            " reinstall both as docker/environment/requirements.txt pins them\n"
        )
        return 1
    sys.stdout.write(f"setup: {versions()} load together\n")
    return 0


def check_operators() -> None:
    """Run the two compiled operators that every detector needs."""
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    torchvision.ops.nms(boxes, torch.ones(1), 0.5)
    torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), [boxes], output_size=2)


def versions() -> str:
    """Return the partners' versions in one phrase."""
    found = []
    for name in PARTNERS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (missing)")
    return ", ".join(found)


if __name__ == "__main__":
    sys.exit(main())
