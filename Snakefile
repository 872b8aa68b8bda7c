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
#   <runs>/FUSION/concepts/seed-N/MODALITY/    the same for one modality alone             rules/train.smk
#   <evaluations>/                        scores and predictions, folder by folder         rules/evaluate.smk
#   reports/                              the page, its tables and metrics                 rules/report.smk
#
# Content decides whether a job runs, not the times of files: every rule takes as an input its key, a small file that
# src/agm/engines/keys.py makes new when the job's results are out of date.

import os
import sys
from pathlib import Path

from snakemake.utils import min_version

from agm import config
from agm.engines import exclusive, keys
from agm.errors import AgmError
from agm.graph import Graph

min_version("9.27")

try:
    PARAMS = config.load()
    if workflow.is_main_process:
        from agm import methods  # imports torch, which takes seconds: for the plan, not for every job of it

        methods.check(PARAMS, config.PARAMS_FILE)
except AgmError as error:
    sys.exit(f"error: {error}")

# The `agm` beside this Python, also where nobody has activated the environment: in a job on a cluster.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

# A signal of SLURM reaches every process of a job. A shell dies of it at once, and Snakemake takes the job for ended
# while training still writes its checkpoint; with the command in the shell's place it waits for that.
shell.prefix("exec ")

# Not while Snakemake runs here, which this one will say: the times of results are being looked at.
if workflow.is_main_process and not exclusive.snakemake_runs():
    for line in keys.explain(keys.refresh(Graph(PARAMS), config.read())):
        logger.info(line)


onstart:
    if workflow.is_main_process and not workflow.touch:
        try:
            exclusive.hold(Graph(PARAMS))
        except AgmError as error:
            sys.exit(f"error: {error}")


pathvars:
    data=f"data/{PARAMS.dataset.name}",
    runs=f"runs/{PARAMS.dataset.name}",
    evaluations=f"evaluations/{PARAMS.dataset.name}",
    keys=".cache/keys",


wildcard_constraints:
    set="|".join(PARAMS.dataset.generated),
    annotations="|".join(PARAMS.dataset.annotations),
    modality="|".join(PARAMS.study.modalities),
    part=r"\d+",
    fusion="|".join(PARAMS.study.fusions),
    method="|".join(PARAMS.study.compared),
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


include: "workflow/rules/raw.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
