# The scores of a run, set against the concepts of its fusion and seed; and the scores of each concept.


rule evaluate:
    input:
        key="<keys>/evaluate/{fusion}/{method}/{seed}.json",
        index="<data>/shards.json",
        run="<runs>/{fusion}/{method}/seed-{seed}/run.json",
        concepts=expand(
            "<evaluations>/{{fusion}}/concepts/seed-{{seed}}/{modality}/evaluation.json",
            modality=PARAMS.study.modalities,
        ),
        shards=ancient("<data>/shards"),
        weights=ancient("<runs>/{fusion}/{method}/seed-{seed}/model.safetensors"),
        predictions=ancient(
            expand(
                "<evaluations>/{{fusion}}/concepts/seed-{{seed}}/{modality}/predictions.parquet",
                modality=PARAMS.study.modalities,
            )
        ),
    output:
        index="<evaluations>/{fusion}/{method}/seed-{seed}/evaluation.json",
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
        index="<data>/shards.json",
        run="<runs>/{fusion}/concepts/seed-{seed}/{modality}/run.json",
        shards=ancient("<data>/shards"),
        weights=ancient("<runs>/{fusion}/concepts/seed-{seed}/{modality}/model.safetensors"),
    output:
        index="<evaluations>/{fusion}/concepts/seed-{seed}/{modality}/evaluation.json",
        predictions="<evaluations>/{fusion}/concepts/seed-{seed}/{modality}/predictions.parquet",
    log:
        "logs/evaluate_concept/{fusion}/{modality}/{seed}.log",
    message:
        "agm evaluate-concept {wildcards.fusion} {wildcards.modality} {wildcards.seed}"
    shell:
        "agm evaluate-concept {wildcards.fusion} {wildcards.modality} {wildcards.seed} 2> {log}"
