"""How each kind of raw folder is read: one module per layout, chosen by `dataset.adapter`."""

from pathlib import Path

from agm.config.schema import Dataset
from agm.errors import AgmError
from agm.ingest.adapters import dial, manifest
from agm.ingest.clip import Adapter, Clip

ADAPTERS: dict[str, Adapter] = {"dial": dial.ADAPTER, "manifest": manifest.ADAPTER}


def read(dataset: Dataset) -> list[Clip]:
    """The clips that the data set's annotations name, in their order.

    Raises:
        AgmError: when the root folder does not exist, or for what is wrong with the annotations, row by row.
    """
    adapter = ADAPTERS[dataset.adapter]
    if not Path(dataset.root).is_dir():
        fix = f"run `{adapter.made_by}`" if adapter.made_by else "agm compose … dataset.root=/its/folder"
        raise AgmError("The folder of the raw data (dataset.root) does not exist", where=dataset.root, fix=fix)
    return adapter.clips(dataset)
