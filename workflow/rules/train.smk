# One run of the study: a fusion trained with a method and a seed; and each modality alone, its concept.


def get_past(file):
    """Where a method is taught by finished runs: that file of each, the concepts' and plain joint training's."""
    runs = [
        *expand("<runs>/{{fusion}}/concepts/seed-{{seed}}/{modality}", modality=PARAMS.study.modalities),
        "<runs>/{fusion}/joint/seed-{seed}",
    ]
    return lambda wildcards: (
        [f"{run}/{file}".format(**wildcards) for run in runs] if wildcards.method in PARAMS.study.taught else []
    )


rule train:
    input:
        key="<keys>/train/{fusion}/{method}/{seed}.json",
        index="<data>/shards.json",
        past=get_past("run.json"),
        shards=ancient("<data>/shards"),
        past_weights=ancient(get_past("model.safetensors")),
        past_histories=ancient(get_past("history.parquet")),
    output:
        index="<runs>/{fusion}/{method}/seed-{seed}/run.json",
        weights="<runs>/{fusion}/{method}/seed-{seed}/model.safetensors",
        history="<runs>/{fusion}/{method}/seed-{seed}/history.parquet",
    log:
        "logs/train/{fusion}/{method}/{seed}.log",
    threads: PARAMS.trainer.threads * PARAMS.trainer.processes
    message:
        "agm train {wildcards.fusion} {wildcards.method} {wildcards.seed}"
    shell:
        "agm train {wildcards.fusion} {wildcards.method} {wildcards.seed} 2> {log}"


rule concept:
    input:
        key="<keys>/concept/{fusion}/{modality}/{seed}.json",
        index="<data>/shards.json",
        shards=ancient("<data>/shards"),
    output:
        index="<runs>/{fusion}/concepts/seed-{seed}/{modality}/run.json",
        weights="<runs>/{fusion}/concepts/seed-{seed}/{modality}/model.safetensors",
        history="<runs>/{fusion}/concepts/seed-{seed}/{modality}/history.parquet",
    log:
        "logs/concept/{fusion}/{modality}/{seed}.log",
    threads: PARAMS.trainer.threads * PARAMS.trainer.processes
    message:
        "agm concept {wildcards.fusion} {wildcards.modality} {wildcards.seed}"
    shell:
        "agm concept {wildcards.fusion} {wildcards.modality} {wildcards.seed} 2> {log}"
