"""Build the pure-Python Detectron2 wheel: no compiler, no CUDA toolkit, any PyTorch.

Detectron2 is not on the package index under its own name. One wheel there carries the Python
files of upstream commit a59f0563 (2024-04-17) together with a binary for Python 3.10 and
PyTorch 2.3 only. This script fetches exactly that file (its sha256 is checked), leaves the binary
out, and packs the rest as ``detectron2-0.6+a59f056-py3-none-any.whl``. Standard library only.

    python docker/environment/detectron2_wheel.py OUTPUT_FOLDER
"""

import base64
import csv
import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SOURCE = "sal-detectron2==0.7.2"
SOURCE_SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
NAME, VERSION = "detectron2", "0.6+a59f056"
DIST_INFO = f"{NAME}-{VERSION}.dist-info"
WHEEL_NAME = f"{NAME}-{VERSION}-py3-none-any.whl"

# What the source wheel asks for beyond need: the binary's numpy 1 and a code formatter.
DROPPED_REQUIREMENTS = ("numpy", "black")
# Bounds of upstream's setup.py that the source wheel lost. The code imports both.
ADDED_REQUIREMENTS = ("fvcore>=0.1.5,<0.1.6", "iopath>=0.1.7,<0.1.10")
WHEEL_FILE = (
    b"Wheel-Version: 1.0\nGenerator: sar_experiments\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
)
ZIP_TIME = (2024, 4, 17, 0, 0, 0)  # fixed, so that the same source gives the same bytes


def main(output_dir: Path) -> Path:
    """Build the wheel into ``output_dir`` and return its path; an existing one is kept."""
    target = output_dir / WHEEL_NAME
    if target.is_file():
        return target
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source = download(Path(folder))
        unfinished = output_dir / f".{WHEEL_NAME}.part"
        repack(source, unfinished)
        unfinished.replace(target)
    return target


def download(folder: Path) -> Path:
    """Fetch the source wheel through pip's own configuration (mirrors, proxies, certificates)."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", "3.10", "--implementation", "cp"]
    command += ["--platform", "any", "--dest", str(folder), SOURCE]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"{SOURCE} cannot be fetched from the package index (see pip's message above)")
    (wheel,) = folder.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SOURCE_SHA256:
        sys.exit(f"{wheel.name} has sha256 {found}, expected {SOURCE_SHA256}; it is not used")
    return wheel


def repack(source: Path, target: Path) -> None:
    """Copy what is pure Python, rewrite the metadata, record every file's hash."""
    record: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in sorted(old.namelist()):
            if not is_kept(name):
                continue
            renamed = re.sub(r"^[^/]+\.dist-info/", f"{DIST_INFO}/", name)
            content = rewritten(renamed, old.read(name))
            write(new, renamed, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.append((renamed, f"sha256={digest.decode()}", str(len(content))))
        record.append((f"{DIST_INFO}/RECORD", "", ""))
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(record)
        write(new, f"{DIST_INFO}/RECORD", table.getvalue().encode())


def is_kept(name: str) -> bool:
    """Tell whether a file of the source wheel belongs into the pure one."""
    is_binary = re.fullmatch(r"detectron2/_C.*\.so", name) is not None
    in_other_package = not name.startswith("detectron2/") and ".dist-info/" not in name
    return not (is_binary or in_other_package or name.endswith(("/", "/RECORD")))


def rewritten(name: str, content: bytes) -> bytes:
    """Return the content that a file has in the pure wheel."""
    if name == f"{DIST_INFO}/METADATA":
        return metadata(content.decode()).encode()
    if name == f"{DIST_INFO}/WHEEL":
        return WHEEL_FILE
    if name == f"{DIST_INFO}/top_level.txt":
        return b"detectron2\n"
    return content


def metadata(text: str) -> str:
    """Rename the distribution and mend its requirements."""
    header, separator, body = text.partition("\n\n")
    dropped = re.compile(rf"Requires-Dist: ({'|'.join(DROPPED_REQUIREMENTS)})\b")
    lines = [line for line in header.splitlines() if not dropped.match(line)]
    lines = [re.sub(r"^Name: .*", f"Name: {NAME}", line) for line in lines]
    lines = [re.sub(r"^Version: .*", f"Version: {VERSION}", line) for line in lines]
    present = "\n".join(lines)
    for requirement in ADDED_REQUIREMENTS:
        name = requirement.split(">")[0]
        if f"Requires-Dist: {name}" not in present:
            lines.append(f"Requires-Dist: {requirement}")
    return "\n".join(lines) + (separator or "\n") + body


def write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add one file with a fixed time and mode."""
    entry = zipfile.ZipInfo(name, ZIP_TIME)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)


if __name__ == "__main__":
    try:
        _, folder = sys.argv
    except ValueError:
        sys.exit(f"usage: python {sys.argv[0]} OUTPUT_FOLDER")
    sys.stdout.write(f"{main(Path(folder))}\n")
