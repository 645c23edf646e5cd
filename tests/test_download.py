"""CIFAR-10's download against real servers on this machine."""

# ruff: noqa: F811 (a test names a fixture that is imported)
from __future__ import annotations

import hashlib
import signal
from pathlib import Path
from typing import Any

import pytest

from labkit import transfer
from labkit.download import FOLDER, fetch_cifar10, find_cifar10, status
from labkit.errors import LabError
from tests.mirrors import (  # noqa: F401 (fixtures)
    Clock,
    StandIn,
    assert_complete,
    cifar,
    clock,
    part,
    run_fetch,
    serve,
    stand_in,
    wait_for,
)


def test_a_download_brings_the_seven_files_with_a_bar(
    cifar: StandIn, serve: Any, tmp_path: Path, capsys: Any
) -> None:
    mirror = serve(cifar.tar)
    folder = fetch_cifar10(mirrors=[mirror.url])
    assert folder == tmp_path / "own" / FOLDER
    assert_complete(folder, cifar)
    assert not part(tmp_path / "own").exists()
    seen = capsys.readouterr()
    assert "cifar-10-python.tar.gz from 127.0.0.1" in seen.out and "100%" in seen.out
    assert seen.err == ""  # red in a notebook


def test_a_second_call_asks_no_server(cifar: StandIn, serve: Any) -> None:
    mirror = serve(cifar.tar)
    fetch_cifar10(mirrors=[mirror.url])
    fetch_cifar10(mirrors=[mirror.url])
    assert mirror.asked == [None]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill -9")
@pytest.mark.slow
def test_after_kill_9_only_the_rest_is_fetched(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    have = 50_000
    mirror = serve(cifar.tar, pauses_after=have)
    process = run_fetch(cifar, tmp_path / "own", mirror.url)
    wait_for(lambda: part(tmp_path / "own").exists() and part(tmp_path / "own").stat().st_size == have)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert part(tmp_path / "own").read_bytes() == cifar.tar[:have]
    assert find_cifar10() is None
    assert any("a half download" in line for line in status())

    mirror.goes_on.set()
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert mirror.asked == [None, f"bytes={have}-"]
    assert mirror.sent[1] == len(cifar.tar) - have


def test_a_cut_connection_is_taken_up_again_at_the_same_mirror(cifar: StandIn, serve: Any) -> None:
    mirror = serve(cifar.tar, cuts_after=len(cifar.tar) // 2 + 1)
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert mirror.asked == [None, f"bytes={len(cifar.tar) // 2 + 1}-"]


def test_a_reset_connection_is_taken_up_again_at_the_same_mirror(
    cifar: StandIn, serve: Any, tmp_path: Path
) -> None:
    mirror = serve(cifar.tar, cuts_after=len(cifar.tar) // 2 + 1, resets=part(tmp_path / "own"))
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert len(mirror.asked) == 2


def test_the_next_mirror_goes_on_where_the_last_one_broke_off(cifar: StandIn, serve: Any) -> None:
    broken, good = serve(cifar.tar, cuts_after=100_000, ranges=False), serve(cifar.tar)
    assert_complete(fetch_cifar10(mirrors=[broken.url, good.url]), cifar)
    assert good.asked == ["bytes=100000-"]


def test_without_ranges_the_download_starts_over(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    mirror = serve(cifar.tar, ranges=False)
    (tmp_path / "own").mkdir()
    part(tmp_path / "own").write_bytes(b"x" * 1000)
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert mirror.asked == ["bytes=1000-"]


def test_a_half_file_is_not_glued_to_another_version(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    """The server's copy changed meanwhile: If-Range makes it send the new one whole, at the first asking."""
    old = serve(b"x" * len(cifar.tar), etag='"old"', cuts_after=50_000)
    with pytest.raises(LabError):
        fetch_cifar10(mirrors=[old.url])
    assert part(tmp_path / "own").stat().st_size > 0
    old.body, old.etag, old.cuts_after, old.asked = cifar.tar, '"new"', None, []
    assert_complete(fetch_cifar10(mirrors=[old.url]), cifar)
    assert len(old.asked) == 1 and old.asked[0] is not None


@pytest.mark.parametrize("whole", [False, True], ids=["half", "whole"])
def test_a_wrong_part_is_thrown_away_and_fetched_again(
    cifar: StandIn, serve: Any, tmp_path: Path, whole: bool
) -> None:
    """A first part of another file, from a server that cannot tell: the md5 does, and it starts over."""
    mirror = serve(cifar.tar, honours_if_range=False)
    (tmp_path / "own").mkdir()
    part(tmp_path / "own").write_bytes(b"x" * (len(cifar.tar) if whole else 1000))
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert mirror.asked == ([None] if whole else ["bytes=1000-", None])


def test_a_complete_part_needs_no_server(cifar: StandIn, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    part(tmp_path / "own").write_bytes(cifar.tar)
    assert_complete(fetch_cifar10(mirrors=["http://127.0.0.1:9/"]), cifar)


def test_a_mirror_with_another_file_is_named_and_left(cifar: StandIn, serve: Any, capsys: Any) -> None:
    page = serve(b"<html>Please log in to this Wi-Fi</html>")
    same_size = serve(b"x" * len(cifar.tar))
    good = serve(cifar.tar)
    assert_complete(fetch_cifar10(mirrors=[page.url, same_size.url, good.url]), cifar)
    said = capsys.readouterr().out
    assert f"offers another file: 40 bytes, should be {len(cifar.tar):,}" in said
    wrong, right = hashlib.md5(same_size.body).hexdigest(), cifar.constants[1].md5
    assert f"gave another file: md5 {wrong}, should be {right}" in said
    assert len(same_size.asked) == 1


def test_a_login_page_does_not_cost_the_half_file(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    part(tmp_path / "own").write_bytes(cifar.tar[:1000])
    page = serve(b"<html>Please log in to this Wi-Fi</html>", ranges=False)
    with pytest.raises(LabError, match="the next try goes on from there"):
        fetch_cifar10(mirrors=[page.url])
    assert part(tmp_path / "own").read_bytes() == cifar.tar[:1000]


def test_a_slow_mirror_is_left_for_the_next(cifar: StandIn, serve: Any, clock: Clock, capsys: Any) -> None:
    slow, fast = serve(cifar.tar), serve(cifar.tar)
    clock.speeds[slow.url] = 5_000  # of which 20 s are waited for
    assert_complete(fetch_cifar10(mirrors=[slow.url, fast.url]), cifar)
    assert slow.asked == [None] and fast.asked == ["bytes=100000-"]  # what the slow one gave is kept
    assert "too slow: 5 kB/s" in capsys.readouterr().out


def test_a_slow_connection_still_gets_there(cifar: StandIn, serve: Any, clock: Clock) -> None:
    """When every mirror is slow it is the connection: the first slow one is asked again and let finish."""
    first, second = serve(cifar.tar), serve(cifar.tar)
    clock.speeds = {first.url: 5_000, second.url: 2_500}
    assert_complete(fetch_cifar10(mirrors=[first.url, second.url]), cifar)
    assert first.asked == [None, "bytes=150000-"] and second.asked == ["bytes=100000-"]


def test_a_silent_mirror_is_left(
    cifar: StandIn, serve: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    silent, good = serve(cifar.tar, pauses_after=10_000), serve(cifar.tar)
    real = transfer.urlopen

    def patient_with_the_good_one(request: Any, timeout: float) -> Any:
        return real(request, timeout=60 if request.full_url == good.url else timeout)

    monkeypatch.setattr(transfer, "urlopen", patient_with_the_good_one)
    monkeypatch.setattr(transfer, "TIMEOUT", 0.1)
    assert_complete(fetch_cifar10(mirrors=[silent.url, good.url]), cifar)
    assert sum(silent.sent) < len(cifar.tar) / 2 < sum(good.sent)
    assert "no answer for" in capsys.readouterr().out


def test_labkit_mirror_comes_first_and_may_be_a_file(
    cifar: StandIn, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usb stick").mkdir()
    copy = tmp_path / "usb stick" / "copy.tar.gz"
    copy.write_bytes(cifar.tar)
    monkeypatch.setenv("LABKIT_MIRROR", copy.as_uri())
    mirror = serve(cifar.tar)
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert mirror.asked == []


def test_no_network_is_one_sentence_with_three_ways_out(cifar: StandIn, serve: Any) -> None:
    gone = serve(cifar.tar, status=404)
    mirrors = [
        "http://127.0.0.1:9/x",
        gone.url,
        "https://no-such-host.invalid/x",
        "ftp://example.org/x",
        "file:///no/such/file",
    ]
    with pytest.raises(LabError) as caught:
        fetch_cifar10(mirrors=mirrors)
    text = str(caught.value)
    assert text.startswith("CIFAR-10 is not on this machine and no mirror gave it:")
    for wanted in ("cannot be reached (", "answered 404", "is no http", "LABKIT_MIRROR", "LABKIT_DATA"):
        assert wanted in text
    for url in mirrors:
        assert f"\n  {url}: " in text
    assert "LABKIT_PROFILE=quick" in text and "urlopen" not in text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_no_mirror_at_all_is_no_network(cifar: StandIn) -> None:
    with pytest.raises(LabError, match="no mirror gave it"):
        fetch_cifar10(mirrors=[])


@pytest.mark.slow
def test_two_processes_at_once_download_once(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    mirror = serve(cifar.tar, pauses_after=10_000)
    first = run_fetch(cifar, tmp_path / "own", mirror.url)
    wait_for(lambda: mirror.asked)
    second = run_fetch(cifar, tmp_path / "own", mirror.url)
    assert second.stdout is not None
    assert "another process is filling" in second.stdout.readline()
    mirror.goes_on.set()
    outputs = [process.communicate(timeout=300) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert mirror.asked == [None]
    assert_complete(tmp_path / "own" / FOLDER, cifar)
