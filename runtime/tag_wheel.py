"""Gives a wheel the platform tag that its library deserves, by what the library asks of the system (PEP 600).

python tag_wheel.py WHEEL  (needs readelf, of binutils, and the package `wheel`); prints the wheel's new path.

A manylinux tag is a promise: nothing is linked but the C library, in a version that the tag names. A library that needs
more keeps linux_ARCHITECTURE, which pip installs on request only.
"""

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LIBRARY = "gossamer_runtime/libgossamer_ops.so"
# What every Linux with the GNU C library has; of the compiler's libgcc_s only symbols of GCC 4 and older are asked for.
EVERYWHERE = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
ARCHITECTURES = {"Advanced Micro Devices X86-64": "x86_64", "AArch64": "aarch64"}
# Older than any Python 3.11, and the first with this architecture.
OLDEST = (2, 17)


def readelf(library: Path, *options: str) -> str:
    command = ["readelf", "--wide", *options, str(library)]
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def platform_tag(library: Path) -> str:
    """The tag, for example manylinux_2_32_x86_64."""
    header = readelf(library, "--file-header")
    machine = re.search(r"Machine:\s+(.+)", header)
    if machine is None or machine[1] not in ARCHITECTURES:
        raise SystemExit(f"{library}: of an unknown machine; known: {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[machine[1]]
    needed = set(re.findall(r"\(NEEDED\)\s+Shared library: \[(.+?)\]", readelf(library, "--dynamic")))
    if needed - EVERYWHERE:
        print(f"not manylinux: linked to {', '.join(sorted(needed - EVERYWHERE))}", file=sys.stderr)
        return f"linux_{architecture}"
    information = readelf(library, "--version-info")
    if re.search(r"Name: GCC_([5-9]|\d\d)", information):
        print("not manylinux: needs a newer libgcc_s than every system has", file=sys.stderr)
        return f"linux_{architecture}"
    versions = re.findall(r"Name: GLIBC_(\d+)\.(\d+)", information)
    newest = max([(int(major), int(minor)) for major, minor in versions] + [OLDEST])
    return f"manylinux_{newest[0]}_{newest[1]}_{architecture}"


def main() -> None:
    wheel = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        tag = platform_tag(Path(archive.extract(LIBRARY, folder)))
    # `wheel tags` rewrites the tag inside the wheel too, and prints the new name.
    retag = [sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag, str(wheel)]
    name = subprocess.run(retag, check=True, capture_output=True, text=True).stdout.strip()
    print(wheel.with_name(name))


if __name__ == "__main__":
    main()
