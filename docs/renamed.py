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
and Parquet files keep their names.
"""


def page() -> str:
    """The text of the page."""
    return BEFORE + renamed.page() + AFTER


if __name__ == "__main__":
    write_bytes(PAGE, page().encode())
