# The scores of a run, set against the concepts of its fusion and seed; and the scores of each concept.


rule evaluate:
    input:
        key="<keys>/evaluate/{fusion}/{method}/{seed}.json",
        index=settled("<data>/shards.json"),
        run=settled("<runs>/{fusion}/{method}/seed-{seed}/run.json"),
        concepts=settled(
            expand(
                "<evaluations>/{{fusion}}/concepts/{modality}/seed-{{seed}}/evaluation.json",
                modality=PARAMS.study.modalities,
            )
        ),
        shards=settled("<data>/shards"),
        weights=settled("<runs>/{fusion}/{method}/seed-{seed}/model.safetensors"),
        predictions=settled(
            expand(
                "<evaluations>/{{fusion}}/concepts/{modality}/seed-{{seed}}/predictions.parquet",
                modality=PARAMS.study.modalities,
            )
        ),
    output:
        index="<evaluations>/{fusion}/{method}/seed-{seed}/evaluation.json",
        record="records/<evaluations>/{fusion}/{method}/seed-{seed}/evaluation.json",
        predictions="<evaluations>/{fusion}/{method}/seed-{seed}/predictions.parquet",
        features="<evaluations>/{fusion}/{method}/seed-{seed}/features.safetensors",
    log:
        "logs/evaluate/{fusion}/{method}/{seed}.log",
    message:
        "agm evaluate {wildcards.fusion} {wildcards.method} {wildcards.seed}"
    shell:
        "agm evaluate {wildcards.fusion} {wildcards.method} {wildcards.seed} 2> {log}"


rule evaluate_concept:
    input:
        key="<keys>/evaluate_concept/{fusion}/{modality}/{seed}.json",
        index=settled("<data>/shards.json"),
        run=settled("<runs>/{fusion}/concepts/{modality}/seed-{seed}/run.json"),
        shards=settled("<data>/shards"),
        weights=settled("<runs>/{fusion}/concepts/{modality}/seed-{seed}/model.safetensors"),
    output:
        index="<evaluations>/{fusion}/concepts/{modality}/seed-{seed}/evaluation.json",
        record="records/<evaluations>/{fusion}/concepts/{modality}/seed-{seed}/evaluation.json",
        predictions="<evaluations>/{fusion}/concepts/{modality}/seed-{seed}/predictions.parquet",
    log:
        "logs/evaluate_concept/{fusion}/{modality}/{seed}.log",
    message:
        "agm evaluate-concept {wildcards.fusion} {wildcards.modality} {wildcards.seed}"
    shell:
        "agm evaluate-concept {wildcards.fusion} {wildcards.modality} {wildcards.seed} 2> {log}"
