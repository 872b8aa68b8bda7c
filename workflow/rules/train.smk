# One run of the study: a fusion trained with a method and a seed; and each modality alone, its concept.


rule train:
    input:
        key="<keys>/train/{fusion}/{method}/{seed}.json",
        index=settled("<data>/shards.json"),
        prerequisites=settled(get_prerequisites("run.json")),
        shards=settled("<data>/shards"),
        prerequisite_weights=settled(get_prerequisites("model.safetensors")),
        prerequisite_histories=settled(get_prerequisites("history.parquet")),
    output:
        index="<runs>/{fusion}/{method}/seed-{seed}/run.json",
        record="records/<runs>/{fusion}/{method}/seed-{seed}/run.json",
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
        index=settled("<data>/shards.json"),
        shards=settled("<data>/shards"),
    output:
        index="<runs>/{fusion}/concepts/{modality}/seed-{seed}/run.json",
        record="records/<runs>/{fusion}/concepts/{modality}/seed-{seed}/run.json",
        weights="<runs>/{fusion}/concepts/{modality}/seed-{seed}/model.safetensors",
        history="<runs>/{fusion}/concepts/{modality}/seed-{seed}/history.parquet",
    log:
        "logs/concept/{fusion}/{modality}/{seed}.log",
    threads: PARAMS.trainer.threads * PARAMS.trainer.processes
    message:
        "agm concept {wildcards.fusion} {wildcards.modality} {wildcards.seed}"
    shell:
        "agm concept {wildcards.fusion} {wildcards.modality} {wildcards.seed} 2> {log}"
