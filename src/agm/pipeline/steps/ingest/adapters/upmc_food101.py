"""UPMC Food-101: photographs of dishes from web pages, with the words of the pages or their titles.

An image and its text have one name, `<class>_<number>`. The names come from the titles (two tables), from the folder of
texts, or from the lists that MMBT's script writes; `dataset.annotations` names one of these.
"""

import json
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, refuse
from agm.pipeline.steps.ingest.folders import files_in, folders_in
from agm.pipeline.steps.ingest.table import FIX, cells, lines

FILE = r"(?P<name>(?P<label>\w+)_\d[\d-]*)\.\w+"
IMAGE = re.compile(rf"images/(?:train|test)/(?P<folder>\w+)/{FILE}")
HALVES = ("train", "test")
Sources = dict[str, Source]  # by column
Entry = tuple[int, str, str, Sources]  # row, name, label, sources

CARD = Card(
    title="UPMC Food-101: 101 dishes",
    citation="X. Wang et al.: Recipe recognition with large multimodal food dataset. ICME Workshops 2015",
    licence="none stated; the images and texts belong to the web pages that they are from",
    source="https://visiir.isir.upmc.fr/explore; with titles: https://www.kaggle.com/datasets/gianmarco96/upmcfood101",
    layout="images/{train,test}/<class>/<class>_<n>.jpg\n"
    "texts/{train,test}_titles.csv, or texts_txt/<class>/<class>_<n>.txt",
    columns={"image": "the photograph (kind image)", "text": "the page's title or text (kind text)"},
    annotations={
        "train_titles": "texts/train_titles.csv: image, title, class; no header",
        "test_titles": "texts/test_titles.csv",
        "texts": "the folder texts_txt, in the place of the two tables",
        "mmbt_train": "train.jsonl of MMBT's script; for the scheme `mmbt` only",
        "mmbt_dev": "dev.jsonl of MMBT's script; for the scheme `mmbt` only",
        "mmbt_test": "test.jsonl of MMBT's script; for the scheme `mmbt` only",
    },
    schemes={
        "official": Scheme("The folders train and test; validation is held out from training, a share of each class."),
        "mmbt": Scheme("The lists that MMBT's script draws: 5,000 training clips, a share of each class, are dev."),
    },
    labels={"dish": "the 101 dishes"},
    group=None,
    classes=101,
)


def clips(dataset: Dataset) -> list[Clip]:
    """Read the titles, the names of the texts, or MMBT's lists.

    Raises:
        AgmError: with the row numbers of all errors in them.
    """
    if CARD.scheme(dataset) == "mmbt":
        return _listed(dataset, {"mmbt_train": "train", "mmbt_dev": "val", "mmbt_test": "test"}, _of_mmbt)
    if "texts" in dataset.annotations:
        return list(_of_texts(dataset))
    return _listed(dataset, {"train_titles": "train", "test_titles": "test"}, _of_titles)


def _listed(dataset: Dataset, splits: dict[str, str], read: Callable[[str, str], Iterator[Entry | str]]) -> list[Clip]:
    """The clips of several lists (key of the annotations → split), no image in two of them.

    Args:
        read: yields for each line of a list its entry, or the error in it.
    """
    clips: dict[str, Clip] = {}
    for key, split in splits.items():
        path = CARD.annotation(dataset, key)
        problems = []
        for entry in read(path, split):
            if isinstance(entry, str):
                problems.append(entry)
                continue
            row, name, label, sources = entry
            if name in clips:
                first = clips[name]
                problems.append(f"row {row}: {name} is in row {first.row} of the {first.split} list already")
            else:
                clips[name] = Clip(name, split, label, None, _modalities(dataset, sources), row)
        refuse(problems, path, FIX)
    return list(clips.values())


def _modalities(dataset: Dataset, sources: Sources) -> Sources:
    """The sources by modality instead of by column."""
    return {name: sources[modality.column] for name, modality in dataset.modalities.items()}


def _of_titles(path: str, split: str) -> Iterator[Entry | str]:
    """Read a table of titles."""
    for row, values in cells(path):
        file, label = values[0].strip(), values[-1].strip()
        match = re.fullmatch(FILE, file)
        if len(values) < 3 or match is None:
            yield f"row {row}: not `<class>_<number>.jpg,<title>,<class>`: {','.join(values)[:60]!r}"
        elif match["label"] != label:
            yield f"row {row}: the image {file} cannot be of the class {label!r}"
        else:
            title = ",".join(values[1:-1])  # several cells where the commas of a title are not quoted
            image = Source(f"images/{split}/{label}/{file}")
            yield row, match["name"], label, {"image": image, "text": Source(text=title)}


def _of_mmbt(path: str, split: str) -> Iterator[Entry | str]:
    """Read a list of MMBT's script."""
    for row, line in lines(path):
        try:
            label, text, image = _fields(json.loads(line))
        except (ValueError, LookupError, TypeError, RecursionError):
            yield f"row {row}: not a JSON object with the texts label, text and img: {line[:60]!r}"
            continue
        match = IMAGE.fullmatch(image)
        if match is None:
            yield f"row {row}: not `images/<train or test>/<class>/<class>_<number>.jpg`: {image[:80]!r}"
        elif {match["folder"], match["label"]} != {label}:
            yield f"row {row}: the image {image} cannot be of the class {label!r}"
        else:
            yield row, match["name"], label, {"image": Source(image), "text": Source(text=text)}


def _fields(entry: dict[str, str]) -> list[str]:
    # Encoding raises for halves of characters, which JSON can spell and tables cannot hold.
    return [str.encode(entry[key]).decode() for key in ("label", "text", "img")]


def _of_texts(dataset: Dataset) -> Iterator[Clip]:
    """Yield a clip for every text; it is in the split of its image."""
    folder = CARD.annotation(dataset, "texts")
    below = _below(dataset.root, folder)
    for label in folders_in(folder, ""):
        images = _images(dataset.root, label)
        texts = [name for name in files_in(folder, label) if name.endswith(".txt") and not name.startswith(".")]
        for row, text in enumerate(texts, start=1):
            name = PurePath(text).stem
            file_in = images.get(name, {})
            half = "test" if "test" in file_in else "train"
            image = file_in.get(half, f"{name}.jpg")
            sources = {
                "image": Source(f"images/{half}/{label}/{image}"),
                "text": Source(posixpath.join(below, label, text)),
            }
            reason = "images of that name are in train and in test" if len(file_in) > 1 else None
            yield Clip(name, half, label, None, _modalities(dataset, sources), row, left_out=reason)


def _images(root: str, label: str) -> dict[str, dict[str, str]]:
    """Name of each image of one class → half in which it is → its file."""
    images: dict[str, dict[str, str]] = {}
    for half in HALVES:
        for file in files_in(root, f"images/{half}/{label}"):
            images.setdefault(PurePath(file).stem, {})[half] = file
    return images


def _below(root: str, folder: str) -> str:
    """The path of the folder of texts relative to the root."""
    try:
        return Path(folder).resolve().relative_to(Path(root).resolve()).as_posix()
    except ValueError:
        raise AgmError(
            "The folder of texts does not lie below dataset.root", where=folder, fix="move it beside images"
        ) from None


ADAPTER = Adapter(clips, CARD, unique=3)
