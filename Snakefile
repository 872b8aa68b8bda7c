# From raw clips to the report of one study, as params.yaml describes it.
#
#   snakemake                    everything that is missing or out of date, on this machine
#   snakemake -n                 the plan
#   snakemake --profile slurm    everything, on a cluster
#
# Which files land where, and the rules that make them (<data> is data/NAME of the data set, and so on):
#
#   data/raw/SET/                         demo clips as raw files                          rules/raw.smk
#   <data>/annotations/, clips.parquet    which clips the annotations name                 rules/raw.smk
#   <data>/listing.*, manifest.*          which files there are, which clips they make     rules/raw.smk
#   <data>/features/MODALITY/part-N.*     tensors                                          rules/features.smk
#   <data>/shards/, shards.json           what training reads                              rules/features.smk
#   <data>/inspection.json, contact_sheet.png  what the data look like, what leaks         rules/features.smk
#   <runs>/FUSION/METHOD/seed-N/          weights and history of a run                     rules/train.smk
#   <runs>/FUSION/concepts/MODALITY/seed-N/    the same for one modality alone             rules/train.smk
#   records/...                           what each of these was made from                 every rule
#   <evaluations>/                        scores and predictions, folder by folder         rules/evaluate.smk
#   reports/                              the page, its tables and metrics                 rules/report.smk
#
# Content decides whether a job runs, not the times of files: every rule takes as an input its key, a small file that
# src/agm/pipeline/dag/engines/keys.py makes new when the job's results are out of date.

import sys
from functools import cache
from pathlib import Path

# Snakemake lets Python look into this folder first: a yaml.py in it would be imported in the place of the library.
sys.path[:] = [each for each in sys.path if Path(each).absolute() != Path(workflow.basedir)]

from snakemake.utils import min_version

# The source beside this file, whatever environment runs it: an environment may belong to another clone or worktree.
if Path("src/agm").is_dir():
    sys.path.insert(0, str(Path("src").absolute()))

from agm.pipeline import config
from agm.pipeline.runtime import variables
from agm.pipeline.dag.engines import exclusive, keys, tools
from agm.pipeline.dag.graph import Graph
from agm.pipeline.steps.ingest import raw
from agm.pipeline.runtime.terminal import harmless

min_version("9.27")

if sys.getfilesystemencoding() != "utf-8":
    sys.exit("error: names of files are UTF-8 here, and the locale has another encoding\n  fix:   export PYTHONUTF8=1")

with tools.errors_explained():
    variables.check()
    PARAMS = config.load()
    if workflow.is_main_process:
        from agm.pipeline.config import methods  # imports torch, which takes seconds: for the plan, not for every job of it

        methods.check(PARAMS, config.PARAMS_FILE)

tools.prepare_jobs()
tools.ignore_times_of_results()

# A signal of SLURM reaches every process of a job. A shell dies of it at once, and Snakemake takes the job for ended
# while training still writes its checkpoint; with the command in the shell's place it waits for that.
shell.prefix("exec ")

# The files that the jobs of the plan make. Not beside a Snakemake that runs jobs here: it goes by the keys.
MADE = set()
if workflow.is_main_process:
    with tools.errors_explained():
        if other := exclusive.snakemake_runs():
            logger.info(f"{other} runs here: what has changed since it started is not looked at")
        else:
            found = list(raw.check(PARAMS))
            plan = keys.refresh(Graph(PARAMS))
            MADE = plan.made
            for line in (*found, *keys.explain(plan.reasons)):
                logger.info(harmless(line))


onstart:
    if workflow.is_main_process and not workflow.touch:
        with tools.errors_explained():
            exclusive.hold(Graph(PARAMS))


# Jobs run in the environment of this Python, which `make install` builds on such a system. Snakemake's linter wants one
# named for each rule; without --sdm it is not used.
container: "docker://python:3.11"


FOLDERS = {name: f"{name}/{PARAMS.dataset.name}" for name in ("data", "runs", "evaluations")}


pathvars:
    **FOLDERS,
    keys=".cache/keys",


wildcard_constraints:
    set="|".join(PARAMS.dataset.generated),
    annotations="|".join(PARAMS.dataset.annotations),
    modality="|".join(PARAMS.study.modalities),
    part=r"\d+",
    fusion="|".join(PARAMS.study.fusions),
    method="|".join(PARAMS.study.methods),
    seed=r"\d+",


localrules:
    all,
    annotations,
    list,
    report,


rule all:
    input:
        "reports/index.html",
    default_target: True


include: "workflow/rules/common.smk"
include: "workflow/rules/raw.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
