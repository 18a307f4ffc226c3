"""Signals and what they make a run do."""

import os
import signal
import time

import pytest

from vaezoo.runs.signals import (
    PARENT,
    Stopped,
    defer_stop,
    handling_signals,
    requeue_slurm_job,
    stop_request,
    stopping_at_once,
    stopping_with_parent,
    watch_parent,
)


def send_and_wait(signum):
    """Send a signal to this process, and do something slow."""
    os.kill(os.getpid(), signum)
    time.sleep(60)


def test_a_signal_stops_a_task_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stop, handling_signals():
        send_and_wait(signal.SIGTERM)
    assert str(stop.value) == "stopped by SIGTERM"
    assert stop_request.signum == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_training_remembers_the_first_signal_and_handlers_are_restored(capfd):
    before = signal.getsignal(signal.SIGTERM)
    with handling_signals():
        defer_stop()
        assert stop_request.signum == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop_request.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    assert capfd.readouterr().err == "SIGTERM: will save and stop after this step; send again to quit immediately\n"


def test_a_second_signal_exits_at_once(monkeypatch):
    """A signal within a second is the same one, which a scheduler sends to the job and to its step."""
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    with handling_signals():
        defer_stop()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert left == []
        stop_request.since = time.monotonic() - 2
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop_request.signum == signal.SIGINT
    assert left == [143]


def test_work_that_needs_no_saving_is_stopped_at_once_in_a_training():
    with handling_signals():
        defer_stop()
        with pytest.raises(Stopped), stopping_at_once():
            send_and_wait(signal.SIGTERM)
        assert stop_request.signum == signal.SIGTERM  # the training sees it and saves
        assert stop_request.deferred
        with pytest.raises(Stopped), stopping_at_once():
            pytest.fail("work starts although the run is to stop")


def test_without_handlers_no_stop_is_deferred():
    """A trainer that was not started by the command line keeps its own handlers."""
    before = signal.getsignal(signal.SIGTERM)
    defer_stop()
    assert (stop_request.deferred, signal.getsignal(signal.SIGTERM)) == (False, before)


def test_slurm_requeue(tmp_path, monkeypatch):
    """Only SIGUSR1 in a SLURM job requeues the job."""
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho $@ > {tmp_path}/said\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert requeue_slurm_job(Stopped(signal.SIGUSR1)) is None
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert requeue_slurm_job(Stopped(signal.SIGTERM)) is None
    assert requeue_slurm_job(Stopped(signal.SIGUSR1)) == "SLURM job 17 is requeued"
    assert (tmp_path / "said").read_text() == "requeue 17\n"
    (tmp_path / "scontrol").write_text("#!/bin/sh\nexit 3\n")
    assert "could not be requeued" in requeue_slurm_job(Stopped(signal.SIGUSR1))


def test_a_process_without_its_parent_stops(monkeypatch):
    """SIGTERM once; a process that trains with others gets it twice, because it may wait for them."""
    parents, sent = iter([7, 7, 1] * 2), []
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(os, "kill", lambda pid, signum: sent.append((pid, signum)))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for rank, times in (("0", 1), ("1", 2)):
        sent.clear()
        monkeypatch.setenv("LOCAL_RANK", rank)
        watch_parent(7)
        assert sent == [(os.getpid(), signal.SIGTERM)] * times


def test_started_processes_know_their_parent(monkeypatch):
    """The variable is set only while a command runs."""
    monkeypatch.delenv(PARENT, raising=False)
    with stopping_with_parent():
        assert os.environ[PARENT] == str(os.getpid())
    assert PARENT not in os.environ
