"""A real JupyterLab in headless Chromium, for tests: open a notebook, run its cells, look at the page."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.warm_kernels import WarmKernels

SECONDS = 300  # for anything: a busy machine starts a kernel and imports torch in half a minute

# Experiments of a few pictures. What they come to is for nbval's tests to see.
FEW = {"epochs": 2, "ramp_epochs": 1, "batch_size": 16, "train_size": 32, "test_size": 20, "scan_size": 10}


@contextlib.contextmanager
def served(folder: Path, scratch: Path) -> Iterator[str]:
    """JupyterLab's address, with `folder` served and nobody's settings; it ends with all that it started."""
    token = secrets.token_hex(16)
    home = scratch / "home"
    (home / "ipython").mkdir(parents=True)
    runtime = scratch / "runtime"
    kernels = WarmKernels(scratch / "kernels", "python3", FEW)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "LABKIT"))}
    environment = {
        **kept, "HOME": str(home), "IPYTHONDIR": str(home / "ipython"), "JUPYTER_NO_CONFIG": "1",
        "JUPYTER_RUNTIME_DIR": str(runtime), "LABKIT_PROFILE": "quick",
        "JUPYTER_PATH": str(scratch / "kernels"),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
        # the server takes a port that is free; its kernels take none, so that no two can take the same one
        "--ServerApp.port=0", "--KernelManager.transport=ipc", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}", "--ServerApp.open_browser=False",
        # asks the network whether there is news
        "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with (scratch / "jupyterlab.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            port = _port(process, runtime, scratch / "jupyterlab.log")
            yield f"http://127.0.0.1:{port}/lab/tree/{{name}}?token={token}&reset"
        finally:
            process.terminate()  # it shuts its kernels down
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            kernels.close()


def _port(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> int:
    """The port of the server, as soon as it answers there."""
    end = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            for path in runtime.glob("jpserver-*.json"):
                about = json.loads(path.read_text())
                with urllib.request.urlopen(f"{about['url']}api?token={about['token']}", timeout=5):
                    return int(about["port"])
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start: {log.read_text()[-2000:]}")


def chromium() -> str | None:
    """The browser's path, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass(frozen=True)
class Lab:
    """An open notebook in JupyterLab."""

    page: Page
    address: str

    def open(self, name: str) -> None:
        """Open a notebook of the served folder and wait for its kernel."""
        if self.page.url == "about:blank":
            self.page.goto(self.address.format(name=name))
        else:
            self.page.evaluate(
                "async path => { await window.jupyterapp.commands.execute('docmanager:open', { path }) }",
                name,
            )
        self.wait_for(f"{NOTEBOOK} !== null && {NOTEBOOK}.context.path === id", name)
        self.wait_for(f"{NOTEBOOK}.content.model !== null")
        self.page.evaluate(f"async () => {{ await {NOTEBOOK}.context.ready }}")
        self.wait_for(f"{KERNEL}?.status === 'idle'")

    def wait_for(self, condition: str, id: str = "") -> None:
        """Wait until JavaScript's `condition` holds, which may speak of the cell or notebook `id`."""
        self.page.wait_for_function(f"id => {condition}", arg=id, polling=50)  # and not at every frame

    def save(self) -> None:
        """As Ctrl+S does."""
        self.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save') }")

    def close(self) -> None:
        """Save nothing, and end the kernel: a machine has memory for a few with torch in them."""
        self.page.evaluate(
            f"async () => {{ const one = {NOTEBOOK}; await one.sessionContext.shutdown(); one.dispose() }}"
        )

    def cells(self) -> list[dict[str, Any]]:
        """Each cell's id, type and tags."""
        found: list[dict[str, Any]] = self.page.evaluate(
            f"() => {NOTEBOOK}.content.widgets.map(one => ({{id: one.model.id, type: one.model.type,"
            " tags: one.model.getMetadata('tags') ?? []}))"
        )
        return found

    def run(self, cell: str) -> str:
        """Run a cell, wait for its end, and give the text that stands below it on the page."""
        self._select(cell)
        self.page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-cell') }")
        self.wait_for(f"{CELL}.model.executionCount !== null && {KERNEL}?.status === 'idle'", cell)
        text: str = self.page.evaluate(
            f"id => {CELL}.node.querySelector('.jp-Cell-outputWrapper').innerText", cell
        )
        return text

    def type_into(self, cell: str, source: str) -> None:
        """Replace a cell's text, by the keyboard."""
        self._select(cell)
        self.page.evaluate(f"id => {CELL}.editor.focus()", cell)
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)

    def html(self, cell: str) -> str:
        """The outputs of a cell as they stand in the page."""
        found: str = self.page.evaluate(f"id => {CELL}.outputArea.node.innerHTML", cell)
        return found

    def _select(self, cell: str) -> None:
        self.page.evaluate(
            f"""async id => {{
                const content = {NOTEBOOK}.content;
                content.activeCellIndex = content.widgets.findIndex(one => one.model.id === id);
                await content.scrollToItem(content.activeCellIndex);
            }}""",
            cell,
        )


NOTEBOOK = "(window.jupyterapp?.shell.currentWidget ?? null)"
KERNEL = f"{NOTEBOOK}.sessionContext.session?.kernel"
CELL = f"{NOTEBOOK}.content.widgets.find(one => one.model.id === id)"
