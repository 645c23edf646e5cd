"""A kernel that was forked from a warm process behaves as one that was started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.warm_kernels import WARM, WarmKernels

pytestmark = pytest.mark.skipif(not WARM, reason="forks, which is safe on Linux only")
SECONDS = 300


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    folder = tmp_path_factory.mktemp("k")
    kernels = WarmKernels(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        patch.setenv("A_WORD", "its own")
        manager = KernelManager(kernel_name="warm", transport="ipc", ip=str(folder / "port"))
        manager.start_kernel(cwd=str(folder))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(SECONDS)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    kernels.close()


def value(client: BlockingKernelClient, expression: str) -> str:
    message = client.execute("", user_expressions={"value": expression}, reply=True, timeout=SECONDS)
    return str(message["content"]["user_expressions"]["value"]["data"]["text/plain"])


def test_it_is_warm_and_in_its_own_place(started: tuple[KernelManager, BlockingKernelClient]) -> None:
    _, client = started
    folder = Path(os.environ.get("JUPYTER_PATH", ""))
    assert value(client, "'torch' in __import__('sys').modules") == "True"
    assert value(client, "__import__('os').environ['A_WORD']") == "'its own'"
    assert value(client, "__import__('os').listdir()").count("kernels") == 1, folder


def test_it_can_be_interrupted_and_goes_on(started: tuple[KernelManager, BlockingKernelClient]) -> None:
    manager, client = started
    # without what else is asked being dropped after an error
    sent = client.execute("print('begun')\nwhile True:\n    pass", stop_on_error=False)
    while (message := client.get_iopub_msg(SECONDS))["msg_type"] != "stream":
        pass
    assert "begun" in message["content"]["text"]
    manager.interrupt_kernel()
    reply = client.get_shell_msg(SECONDS)
    while reply["parent_header"]["msg_id"] != sent:
        reply = client.get_shell_msg(SECONDS)
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert value(client, "1 + 1") == "2"


def test_what_jupyter_kills_is_gone(started: tuple[KernelManager, BlockingKernelClient]) -> None:
    manager, client = started
    forked = psutil.Process(int(value(client, "__import__('os').getpid()")))
    manager.shutdown_kernel(now=True)
    forked.wait(SECONDS)
