"""A real SLURM on this machine, for tests: munge, the controller and two nodes, each with pretend CPUs and GPUs; with
accounting also its data base.

As root only, and only where none is configured: SLURM's clients read /etc/slurm, and nowhere else once Snakemake has
cleared the environment of a job.
"""

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

CONFIGURATION = Path("/etc/slurm")
MARK = "# agm's tests wrote this file and remove it.\n"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
ACCOUNTANTS = ("slurmdbd", "mariadbd", "mariadb-install-db")
NODES = {"one": 26818, "two": 26819}  # and the port of each one's daemon

# Times are short, and the nodes larger than any machine that tests run on: what is asked for is what is tested. Without
# control groups, as on the smallest clusters. Jobs of `urgent` put those of other partitions back into
# the queue, where they wait until SLURM's credentials have expired: after 5 seconds.
SLURM = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=26817
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
SchedulerParameters=sched_interval=5,bf_interval=2,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{accounts}{nodes}
PartitionName=cpu Nodes=one Default=YES
PartitionName=gpu Nodes=one,two
PartitionName=urgent Nodes=one,two PriorityTier=9 PreemptMode=OFF
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=16 RealMemory=256000 Gres=gpu:2\n"
ACCOUNTS = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=26815
AccountingStoragePass={folder}/munge.socket
"""
ACCOUNTANT = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort=26815
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=26816
PidFile={folder}/slurmdbd.pid
"""
GPUS = "NodeName={name} Name=gpu File={folder}/gpu[0-1]\n"


def missing(accounts: bool = False) -> str | None:
    """Why no SLURM can be started here, or none with accounting; None when it can."""
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    packages = "slurmctld slurmd slurm-client munge slurmdbd mariadb-server"
    absent = [name for name in (*PROGRAMS, *(ACCOUNTANTS if accounts else ())) if shutil.which(name) is None]
    if absent:
        return f"not installed: {' '.join(absent)} (Debian: {packages})"
    file = CONFIGURATION / "slurm.conf"
    if file.exists() and not file.read_text().startswith(MARK):
        return f"{file} is there: this machine belongs to a cluster"
    return None


def wait_for(what: str, happened: Callable[[], object], seconds: float = 60) -> None:
    """Wait until `happened`.

    Raises:
        AssertionError: when it has not after so many seconds.
    """
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"no {what} within {seconds} s"
        time.sleep(0.2)


def succeeds(*command: str) -> bool:
    """Whether a command ends with 0."""
    return subprocess.run(command, capture_output=True).returncode == 0


class Slurm:
    """The daemons, with their state and logs in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen] = {}

    @classmethod
    @contextmanager
    def running(cls, folder: Path, accounts: bool = False) -> Iterator["Slurm"]:
        """Start everything; stop everything afterwards, jobs first.

        Skips the test where that is not possible.
        """
        if reason := missing(accounts):
            pytest.skip(reason)
        slurm = cls(folder)
        try:
            slurm._configure(accounts)
            slurm._start_munge()
            if accounts:
                slurm._start_accounting()
            slurm.start_controller()
            for name in NODES:
                slurm._start(name, "slurmd", "-D", "-N", name)
            wait_for("idle nodes", lambda: slurm.states() == ["idle"] * len(NODES))
            yield slurm
        finally:
            slurm._stop()

    def run(self, *command: str) -> str:
        """What a SLURM command says."""
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def states(self) -> list[str]:
        """The state of each node."""
        return self.run("sinfo", "--noheader", "--Node", "--partition", "gpu", "--format", "%T").split()

    def jobs(self) -> dict[str, str]:
        """Jobs that wait or run: by id, what Snakemake says of each in its comment."""
        return dict(line.split("|") for line in self.run("squeue", "--noheader", "--format", "%i|%k").splitlines())

    def state(self, job: str) -> str:
        """The state of a job, such as RUNNING."""
        return self.run("squeue", "--noheader", "--states", "all", "--job", job, "--format", "%T").strip()

    def start_controller(self) -> None:
        self._start("slurmctld", "slurmctld", "-D")
        wait_for("answer of slurmctld", lambda: succeeds("scontrol", "ping"))

    def kill_controller(self) -> None:
        """As a machine that loses power: no chance to save its state."""
        daemon = self.daemons.pop("slurmctld")
        daemon.kill()
        daemon.wait()

    def _configure(self, accounts: bool) -> None:
        facts = {"host": socket.gethostname().split(".")[0], "folder": self.folder}
        nodes = "".join(NODE.format(name=name, port=port, **facts) for name, port in NODES.items())
        gpus = "".join(GPUS.format(name=name, **facts) for name in NODES)
        (self.folder / "state").mkdir()
        for name in ("gpu0", "gpu1"):
            os.mknod(self.folder / name, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        CONFIGURATION.mkdir(exist_ok=True)
        (CONFIGURATION / "gres.conf").write_text(MARK + gpus)
        accounting = ACCOUNTS.format(**facts) if accounts else ""
        (CONFIGURATION / "slurm.conf").write_text(MARK + SLURM.format(nodes=nodes, accounts=accounting, **facts))

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        own = [f"--{name}={self.folder}/munge.{name.split('-')[0]}" for name in ("socket", "pid-file", "seed-file")]
        self._start("munge", "munged", "--foreground", "--force", f"--key-file={key}", *own)
        wait_for("socket of munge", (self.folder / "munge.socket").exists)

    def _start_accounting(self) -> None:
        data = [f"--datadir={self.folder}/mariadb", "--user=root"]
        self.run("mariadb-install-db", *data, "--skip-test-db")
        socket, port = self.folder / "mariadb.socket", ["--bind-address=127.0.0.1", "--port=26816"]
        own = [f"--socket={socket}", f"--pid-file={self.folder}/mariadb.pid"]
        # Options of the machine's own data base are none of its business, and anybody here may write.
        self._start("mariadb", "mariadbd", "--no-defaults", *data, *own, *port, "--skip-grant-tables")
        wait_for("socket of MariaDB", socket.exists)
        file = CONFIGURATION / "slurmdbd.conf"
        file.touch(0o600)
        file.write_text(MARK + ACCOUNTANT.format(folder=self.folder))
        self._start("slurmdbd", "slurmdbd", "-D")
        wait_for("answer of slurmdbd", lambda: succeeds("sacctmgr", "--immediate", "add", "cluster", "tests"))

    def _start(self, name: str, *command: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self.daemons[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def _stop(self) -> None:
        with suppress(AssertionError, subprocess.TimeoutExpired):
            jobs = list(self.jobs())
            if jobs:
                self.run("scancel", *jobs)
            wait_for("end of the jobs", lambda: not self.jobs())
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            if daemon.poll() is None:
                daemon.kill()
                daemon.wait()
        for name in ("slurm.conf", "gres.conf", "slurmdbd.conf"):
            (CONFIGURATION / name).unlink(missing_ok=True)
