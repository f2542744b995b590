"""A download with its progress on stderr."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from moestro.model import HubRef, Url
from moestro.model.download import fetch


def fetch_with_progress(reference: HubRef | Url, name: str) -> Path:
    """Brings the whole model here, shows how far it is, and returns its (first) file.

    Raises:
        ModelError, DownloadError: it is not there, or it did not arrive.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)

        def show(done_bytes: int, total_bytes: int | None) -> None:
            bar.update(task, completed=done_bytes, total=total_bytes)

        return fetch(reference, show)
