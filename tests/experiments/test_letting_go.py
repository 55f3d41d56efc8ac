"""A run's folder is free and its processes are over, whatever fails on the way."""

import errno
import fcntl
import multiprocessing
import os
import signal

import pytest
import torch

from attnsearch.errors import ConfigError
from attnsearch.experiments import parallel
from attnsearch.experiments.folder import working_on


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC, errno.EINTR])
@pytest.mark.parametrize("call", ["mkdir", "open", "flock", "close"])
def test_a_folder_is_free_after_any_failing_call(tmp_path, monkeypatch, open_below, call, number):
    module = fcntl if call == "flock" else os
    real = getattr(module, call)

    def refuse(*args, **kwargs):
        if call == "close":
            real(*args)  # Linux closes a descriptor whatever it answers
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(module, call, refuse)
        with pytest.raises(OSError, match=os.strerror(number)), working_on(tmp_path / "run"):
            pass
    assert open_below(tmp_path) == []
    again = working_on(tmp_path / "run")
    with again, pytest.raises(ConfigError, match="another process"), working_on(tmp_path / "run"):
        pass


class Process:
    """One that runs until it is asked to stop."""

    def __init__(self, pid):
        self.pid, self.asked, self.joined = pid, False, False

    def is_alive(self):
        return True

    def join(self):
        self.joined = True


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_process_that_cannot_be_asked_to_stop_keeps_none_of_the_others(monkeypatch, failing):
    processes = [Process(pid) for pid in range(3)]
    lines = [multiprocessing.Pipe(duplex=False) for _ in processes]

    def kill(pid, number):
        assert not any(process.joined for process in processes)
        assert number == signal.SIGINT
        if pid == failing:
            raise PermissionError
        processes[pid].asked = True

    monkeypatch.setattr(os, "kill", kill)
    running = {
        line: parallel._Job(None, process, torch.device("cpu"))
        for (line, _), process in zip(lines, processes, strict=True)
    }
    with pytest.raises(PermissionError):
        parallel._stop(running)
    assert [process.asked for process in processes] == [pid != failing for pid in range(3)]
    assert all(process.joined for process in processes)
    assert all(line.closed for line in running)
    for _, end in lines:
        end.close()


def test_a_process_that_cannot_be_started_leaves_no_pipe(tmp_path, monkeypatch, experiment):
    made = []
    context = multiprocessing.get_context("spawn")
    real = context.Pipe

    def pipe(duplex):
        made.extend(real(duplex))
        return made[-2:]

    def refuse(_):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(context, "Pipe", pipe)
    monkeypatch.setattr(context.Process, "start", refuse)
    running = {}
    with pytest.raises(BlockingIOError):
        parallel._start(experiment, tmp_path, torch.device("cpu"), 1, running)
    assert running == {}
    assert [line.closed for line in made] == [True, True]
