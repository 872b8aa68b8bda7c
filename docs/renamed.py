"""Write docs/renamed.md, the page of keys that have other names now: `python docs/renamed.py`."""

from pathlib import Path

from agm.pipeline.config import renamed
from agm.pipeline.io.files import write_bytes

PAGE = Path(__file__).with_suffix(".md")
BEFORE = """\
# Keys that have other names now

Keys of `params.yaml` and of the files in `params/` that had another name. An old key is refused with its new name, and
never ignored:

```
error: Keys of the configuration have other names now:
  trainer.clip is now trainer.grad_clip
  where: params.yaml
  fix:   `agm compose --migrate params.yaml` rewrites an old file
```

This rewrites an old `params.yaml`, or YAML files of your own in `params/`, in place:

```sh
agm compose --migrate params.yaml params/dataset/mine.yaml params/study/mine.yaml
```

Values, comments and layout stay as they are. References (`${trainer.clip}`) and packages (`# @package …`) are rewritten
too. A second time, nothing is changed. What cannot be decided by the file alone is left as it is, and named.

`agm compose trainer.clip=2` and `dvc exp run -S +trainer.clip=2` end in the same message. `dvc exp run -S
trainer.clip=2` is refused by DVC itself, because the key is not in `params.yaml`.

"""
AFTER = """
The values mean what they meant, except that `num_parts` is a number: `num_parts: 4` was `parts: [0, 1, 2, 3]`. Results
that were made with an old `params.yaml` are made again once, because their records name the old keys. Columns of CSV
and Parquet files keep their names. `data/<dataset>/rejected.parquet` is `quarantine-ingest.parquet` now, and the key
`rejected` of indexes and of `reports/report.json` is `quarantined`.

## Names in Python

The library is `agm`; the runner moved below `agm.pipeline`.

| before | now |
|---|---|
| `agm.cli`, `agm.errors`, `agm.config`, `agm.compose`, `agm.overrides` | `agm.pipeline.cli`, `.errors`, `.config`, `.config.compose`, `.config.overrides` |
| `agm.graph`, `.provenance`, `.store`, `.code`, `.fingerprints`, `.unfinished`, `.clean`, `.engines` | the same below `agm.pipeline.dag` |
| `agm.generate`, `.ingest`, `.extract`, `.shard`, `.inspect`, `.train`, `.evaluate`, `.report` | the same below `agm.pipeline.steps` |
| `agm.files`, `.tables`, `.tensors`, `.media`, `.pixels`, `.packed`, `.hdf5`, `.unpickle`, `.encoding`, `.source`, `.limits` | the same below `agm.pipeline.io` |
| `agm.variables`, `.terminal`, `.progress`, `.device`, `.lease`, `.lock`, `.parallel` | the same below `agm.pipeline.runtime` |
| `agm.datasets` | `agm.pipeline.steps.ingest.datasets` |
| `agm.ranks` | `agm.distributed`: `share_statistics` is `convert_batch_norm`, `agreed` is `any_process`, `together` is `initialized` |
| `agm.models.exchange` | `agm.models.mmtm` |
| `MultimodalModel(encoders, fusion, features)` | `agm.Multimodal(encoders, fusion)`; `prepare` is `agm.pipeline.networks.Preparation` |
| `build_joint`, `build_concept`, `build_method`, `build_encoder`, `build_fusion`, `seed_for` | `agm.pipeline.networks` |
| `mono_modal_responses`, `mono_modal_logits`, `coalition_logits` | `agm.modality_responses`, `agm.unimodal_logits`, `agm.coalition_outputs` |
| `methods.find("agm")(Agm.Config(name="agm", alpha=2.0), model)` | `agm.methods.AGM(model, alpha=2.0)` |
| `Agm`, `AmCo`, `Arl`, `Ogm`, `OgmGe`, … | as the papers write them: `AGM`, `AMCo`, `ARL`, `OGM`, `OGMGE`, … |
| `method.loss(model, inputs, labels)`, `method.backward(model, loss)` | `method.loss(inputs, targets)`, `method.backward(loss)`; or `method.step(inputs, targets, optimizer)` |
| `method.start_epoch(epoch, model, data)` | `method.start_epoch(epoch, train=loader, val=loader, epochs=count)` |
| `method.augment(batch)`, `method.counters` | a part of `loss` and `losses`; a part of `state_dict` |
| `Method.taught`, `Past` | `Method.prerequisites`: arguments of the constructor |
| `competition_strength((z, y), (z, y), alpha=…, confidence=…)` | `competition_strength(z_fit, y_fit, z_test, y_test)` |
"""


def page() -> str:
    """The text of the page."""
    return BEFORE + renamed.page() + AFTER


if __name__ == "__main__":
    write_bytes(PAGE, page().encode())
