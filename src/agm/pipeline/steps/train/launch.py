"""Train one run with several processes: started by torchrun, and well ended whatever becomes of them.

    agm train …, which is torchrun ──┬─ python -m agm.pipeline.steps.train.member train …   rank 0: it writes the
                                     checkpoints └─ python -m agm.pipeline.steps.train.member train …   rank 1

In a SLURM job of several nodes the same happens on each of them, by `srun python -m agm.pipeline.steps.train.launch
…`. All that the command needs of the others is their last checkpoint: it goes on from there, and finds nothing left to
train.
"""

import os
import socket
import subprocess
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from agm.pipeline.errors import AgmError, Stopped
from agm.pipeline.runtime import lease
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps.train.watch import SIGNALS, named

AGAIN = "started again, it goes on from its last checkpoint"


def train_together(command: list[str], processes: int) -> str:
    """Train the run of `command` (`["train", fusion, method, seed]`) to its end.

    Returns:
        The first of the devices that it was trained on.

    Raises:
        Stopped: when a signal came.
        AgmError: when a process died; lost is what came after the last checkpoint, and nothing else.
    """
    nodes = _nodes()
    if processes % nodes:
        raise AgmError(
            f"{processes} processes cannot be divided among the {nodes} nodes of the SLURM job",
            where="trainer.processes",
            fix="set it to a multiple of the number of nodes",
        )
    devices = lease.take(processes // nodes).devices
    os.environ |= {"AGM_DEVICES": ",".join(devices), "AGM_LEASED": "1"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # else torchrun warns that it sets it
    if nodes > 1:
        _on_nodes(command, processes // nodes, nodes)
    else:
        torchrun(["--standalone", f"--nproc-per-node={processes}"], command)
    return devices[0]


def torchrun(options: list[str], command: list[str]) -> None:
    """Run the members on this machine under torchrun's supervision, with errors for a person."""
    handled = f"--signals-to-handle={','.join(map(named, SIGNALS))}"
    try:
        run(parse_args([*options, handled, "-m", "agm.pipeline.steps.train.member", *command]))
    except SignalException as error:
        raise _stopped(error.sigval) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        by = f"signal {failure.signal_name()}" if failure.exitcode < 0 else f"status {failure.exitcode}"
        raise _ended(failure.exitcode, f"{rank} of the run (pid {failure.pid}) ended with {by}", command) from None


def _stopped(number: int) -> Stopped:
    return Stopped(f"stopped by {named(number)}: {AGAIN}", number)


def _ended(status: int, process: str, command: list[str]) -> Exception:
    """What to raise for a run that ended with that status: it was stopped, or lost the `process` that is described."""
    if status - 128 in SIGNALS:
        return _stopped(status - 128)
    return AgmError(
        f"Process {process}, and the others cannot go on without it",
        where=f"agm {' '.join(command)}",
        fix=f"see what it said above; {AGAIN}",
    )


def _nodes() -> int:
    """How many nodes the SLURM job has that this process is in; 1 outside one.

    SLURM is asked, because Snakemake's plugin takes SLURM_JOB_NUM_NODES and the like out of the environment.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return 1
    question = ["squeue", "--noheader", "--job", os.environ["SLURM_JOB_ID"], "--format", "%D"]
    return int(subprocess.run(question, check=True, capture_output=True, text=True).stdout)


def _on_nodes(command: list[str], processes: int, nodes: int) -> None:
    """Run `torchrun` once on each node of the SLURM job that this process is the first of."""
    # Jobs may share a node: a port of their own, from what SLURM counts.
    number = os.environ["SLURM_JOB_ID"]
    place = f"{socket.gethostname()}:{20000 + int(number) % 10000}"
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={place}", f"--rdzv-id={number}"]
    options = [f"--nnodes={nodes}", f"--nproc-per-node={processes}", *meeting]
    srun = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit"]
    srun.append("--cpu-bind=none")  # else all processes of a node may share one CPU
    status = subprocess.run(
        [*srun, sys.executable, "-m", "agm.pipeline.steps.train.launch", *options, "--", *command]
    ).returncode
    if status:
        raise _ended(status, f"of one of the nodes ended (srun: status {status})", command)


if __name__ == "__main__":
    split = sys.argv.index("--")
    try:
        torchrun(sys.argv[1:split], sys.argv[split + 1 :])
    except AgmError as error:
        say(f"error: {error}")
        sys.exit(1)
    except Stopped as error:
        sys.exit(128 + error.signal)
