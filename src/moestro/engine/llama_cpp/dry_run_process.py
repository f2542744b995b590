"""The process behind a dry run. It needs a moment to load the engine's library, so whoever will ask
starts it first of all; importing this costs next to nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

from moestro.engine.child import child_command, child_environment
from moestro.errors import EngineStartFailed


class DryRunProcess:
    """A running `dry_run_child`, its log, and a folder that lives as long as it does.

    Raises:
        EngineStartFailed: there is no room for its files, or no process to be had.
    """

    def __init__(self) -> None:
        self._things = contextlib.ExitStack()
        try:
            self._start()
        except OSError as error:
            self._things.close()
            raise EngineStartFailed(
                f"The engine could not be asked how much memory it needs: {error.strerror}.",
                hint="It needs a few MB in the folder for temporary files, and a process.",
            ) from error

    def _start(self) -> None:
        self.folder = Path(
            self._things.enter_context(tempfile.TemporaryDirectory(prefix="moestro-"))
        )
        self.log = self._things.enter_context((self.folder / "log").open("w+b"))
        self.process = subprocess.Popen(
            child_command("llama_cpp.dry_run_child"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=child_environment(os.environ),
        )

    def close(self) -> None:
        """May be called again."""
        self.process.kill()  # it holds nothing that would have to be saved
        self.process.communicate()
        self._things.close()
