"""One process of a run that several train together: `python -m agm.pipeline.steps.train.member train FUSION METHOD
SEED`, started by `agm.pipeline.steps.train.launch` with what torchrun puts into the environment."""

import ctypes
import os
import signal
import sys
from pathlib import Path

import torch.distributed as dist

from agm.pipeline import config
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError, Stopped
from agm.pipeline.io.files import read_json
from agm.pipeline.runtime.device import prepare_device
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps.train.step import train_as_member
from agm.pipeline.steps.train.watch import Signals

PR_SET_PDEATHSIG = 1


def main(step: str, *cell: str) -> int:
    """Train to the end, together with the others.

    Returns:
        The exit status: 0; 1 for an error that the message explains; 128 and the signal's number when stopped by one.
    """
    # Who is killed cannot stop its children: without this they would go on training, and writing checkpoints.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    devices = os.environ["AGM_DEVICES"].split(",")
    os.environ["AGM_DEVICE"] = devices[int(os.environ["LOCAL_RANK"]) % len(devices)]
    try:
        path = Path(os.environ["AGM_PARAMS"])
        params = config.check(read_json(path), path)
        device = prepare_device(params.trainer.threads)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        job = Graph(params).job(step, *cell)
        with Signals().listening() as signals:
            train_as_member(params, job, device, signals)
        dist.destroy_process_group()
    except AgmError as error:
        say(f"error: {error}")
        return 1
    except Stopped as stopped:
        if os.environ["RANK"] == "0":
            say(str(stopped))
        return 128 + stopped.signal
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
