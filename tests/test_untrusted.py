"""Files that nobody should trust: they lead nowhere, run nothing, and take no more than the limits allow."""

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import bombs
from agm.pipeline import config
from agm.pipeline.config.compose import compose
from agm.pipeline.config.schema import (
    ArrayFeatures,
    AudioFeatures,
    Dataset,
    FlowFeatures,
    ImageFeatures,
    Limits,
    SequenceFeatures,
    TextFeatures,
    VideoFeatures,
)
from agm.pipeline.dag import provenance
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError
from agm.pipeline.io import packed
from agm.pipeline.io.limits import under
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source, outside
from agm.pipeline.steps.extract import array, audio, flow, image, sequence, text, video
from agm.pipeline.steps.ingest.adapters import multibench, read
from agm.pipeline.steps.ingest.listing import look
from agm.pipeline.steps.ingest.probe import Media, probe
from clone import ROOT
from edits import edited
from media import tone, write_image, write_video, write_wav
from pipeline import Pipeline

PIXELS = "dataset.limits.pixels = 100,000,000"
SECONDS = "dataset.limits.seconds = 600"
NUMBERS = "dataset.limits.numbers = 50,000,000"
MEGABYTES = 100
"""What all bombs together may add to the memory of a process."""


def loaded(kind: str, path: Path, **piece: Any) -> np.ndarray:
    """A clip's tensor, as small as it can be."""
    source = Source(str(path), 0 if kind in ("video", "flow", "audio") else None, **piece)
    match kind:
        case "video":
            return video.load(source, VideoFeatures(kind="video", frames=4, size=16))
        case "flow":
            return flow.load(source, FlowFeatures(kind="flow", frames=2, size=16))
        case "audio":
            return audio.load(source, AudioFeatures(kind="audio", sample_rate=8000, seconds=1.0))
        case "image":
            return image.load(source, ImageFeatures(kind="image", size=16))
        case "sequence":
            return sequence.load(source, SequenceFeatures(kind="sequence", steps=4, shape=[3]))
        case "array":
            return array.load(source, ArrayFeatures(kind="array", shape=[1, 4, 3]))
        case _:
            return text.load(source, TextFeatures(kind="text"), {})


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(Unusable) as error:
        call()
    return str(error.value)


# --- bombs ---


def every_bomb(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Kind, file, and what both the probe and the extraction must say of it."""
    for name in ("a.png", "a.bmp", "a.tiff", "a.webp"):
        yield "image", bombs.picture(folder / name), f"has 10,000,000,000 pixels, more than {PIXELS}"
    yield "image", bombs.picture(folder / "a.gif", 65535), f"has 4,294,836,225 pixels, more than {PIXELS}"
    yield "image", bombs.text_chunk(folder / "text.png"), "a compressed text or profile of more than 1 MiB"
    yield "video", bombs.long_video(folder / "a.mp4"), SECONDS
    yield "flow", folder / "a.mp4", SECONDS
    yield "video", bombs.long_video(folder / "a.mkv"), SECONDS
    yield "audio", bombs.long_sound(folder / "a.flac"), SECONDS
    yield "sequence", bombs.npy(folder / "a.npy"), "the array is truncated"
    yield "sequence", bombs.npy(folder / "holes.npy", holes=True), f"has 1,000,000,000,000 numbers, more than {NUMBERS}"
    yield "array", folder / "holes.npy", f"has 1,000,000,000,000 numbers, more than {NUMBERS}"
    for path in playlists(folder):
        yield "video", path, "not a video or sound file"


def playlists(folder: Path) -> Iterator[Path]:
    inside = folder / "inside"
    inside.mkdir()
    write_video(folder / "secret.ts", 10)
    write_video(inside / "a.mp4", 10)
    for name, content in {
        "hls.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n{folder}/secret.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": "ffconcat version 1.0\nfile a.mp4\n",
    }.items():
        (inside / name).write_text(content)
        yield inside / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bombs are that several tests read."""
    return tmp_path_factory.mktemp("bombs")


@pytest.fixture(scope="module")
def made(folder: Path) -> list[tuple[str, Path, str]]:
    """Every bomb, made once."""
    return list(every_bomb(folder))


def test_bombs_are_refused_by_the_probe_and_where_that_was_passed_by(made):
    before = Image.MAX_IMAGE_PIXELS
    for kind, path, said in made:
        assert said in refused(lambda kind=kind, path=path: probe(Source(str(path)), kind)), path.name
        assert said in refused(lambda kind=kind, path=path: loaded(kind, path)), path.name
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_playlist_would_have_led_out(tmp_path):
    """The test above would notice: FFmpeg itself reads them, and the files that they name."""
    import av

    for path in playlists(tmp_path):
        with av.open(str(path)) as found:
            assert len(found.streams) == 1


def test_headers_lie(tmp_path, folder, made):
    short = bombs.short_header(tmp_path / "short.mkv")
    assert probe(Source(str(short)), "video").duration == 2.0
    assert f"the clip lasts 610 s or more, more than {SECONDS}" in refused(lambda: loaded("video", short))
    sound = bombs.short_sound_header(tmp_path / "short.flac", folder / "a.flac")
    assert probe(Source(str(sound)), "audio").duration == 2.0
    assert SECONDS in refused(lambda: loaded("audio", sound))
    long = bombs.long_header(tmp_path / "long.mkv")
    assert f"the clip lasts 3,600 s, more than {SECONDS}" in refused(lambda: probe(Source(str(long)), "video"))
    assert loaded("video", long).shape == (4, 3, 16, 16)


def test_frames_without_end_in_a_moment(tmp_path):
    path = write_video(tmp_path / "a.mp4", 600, (16, 16), 25_000, picture=np.zeros((16, 16), np.uint8))
    assert probe(Source(str(path)), "video").duration < 0.5
    with under(Limits(seconds=0.5)):
        said = refused(lambda: loaded("video", path))
    assert said == "the clip has more than 1,000 frames a second of dataset.limits.seconds = 0.5"


def test_pictures_that_grow_in_mid_stream(tmp_path):
    path = bombs.growing_video(tmp_path / "a.m2v")
    assert loaded("video", path).shape == (4, 3, 16, 16)
    with under(Limits(pixels=100_000)):
        assert probe(Source(str(path)), "video").stream == 0
        said = refused(lambda: loaded("video", path))
    assert said == "the video is 640 × 640: 409,600 pixels, more than dataset.limits.pixels = 100,000"


def test_a_picture_that_is_only_long_is_not_scaled_to_fill_the_memory(tmp_path):
    path = write_video(tmp_path / "a.avi", 2, (8192, 2), 1, codec="ffv1", picture=np.zeros((2, 8192), np.uint8))
    settings = VideoFeatures(kind="video", frames=1, size=224)
    said = refused(lambda: video.load(Source(str(path), 0), settings))
    assert said.startswith("the video is 8,192 × 2, and scaled to 224 has 205,520,896 pixels, more than")


def test_a_piece_of_a_long_file_counts_by_its_length(folder, made):
    for kind, path in (("video", folder / "a.mp4"), ("audio", folder / "a.flac")):
        assert probe(Source(str(path), start=3000.0, end=3010.0), kind) == Media(0, 10.0)
        assert len(loaded(kind, path, start=3000.0, end=3010.0))
        assert SECONDS in refused(lambda kind=kind, path=path: probe(Source(str(path), start=1000.0), kind))
        assert SECONDS in refused(lambda kind=kind, path=path: loaded(kind, path, start=1000.0))


def test_the_tables_of_an_mp4_are_no_reason_to_fill_the_memory(tmp_path):
    path = bombs.endless_table(tmp_path / "a.mp4")
    assert path.stat().st_size < 2000
    with under(Limits(memory_bytes=2**26)):
        refused(lambda: probe(Source(str(path)), "video"))
        refused(lambda: loaded("video", path))


def test_texts(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("word " * 100)
    most = Limits(text_bytes=499)
    for source in (Source(str(path)), Source(text=path.read_text())):
        for call in (lambda s=source: probe(s, "text"), lambda s=source: text.content(s)):
            call()
            with under(most):
                assert refused(call) == "the text has 500 bytes, more than dataset.limits.text_bytes = 499"


def test_null_is_no_limit(tmp_path):
    none = Limits(pixels=None, seconds=None, numbers=None, text_bytes=None, memory_bytes=None)
    film = bombs.long_video(tmp_path / "a.mp4", 700)
    Image.new("1", (10_100, 10_000)).save(tmp_path / "a.png")
    with under(none):
        assert probe(Source(str(film)), "video").duration == 700
        assert loaded("video", film).shape == (4, 3, 16, 16)
        assert loaded("image", tmp_path / "a.png").shape == (3, 16, 16)


# --- files of many clips ---


@pytest.fixture(scope="module")
def hdf5(folder: Path) -> Path:
    (folder / "secret").write_bytes(b"root:x:0:0:root:")
    return bombs.hdf5(folder / "a.h5", folder / "secret")


def test_hdf5_files_lead_nowhere_and_unfold_to_nothing_large(hdf5):
    path, secret = hdf5, hdf5.with_name("secret")
    with h5py.File(path) as file:  # the test would notice: the library itself reads what lies elsewhere
        assert bytes(file["raw"][()]) == secret.read_bytes()
        assert len(file["external"][()]) == len(file["group/through"][()]) == len(file["virtual"][()]) == 4

    def said(member: str) -> str:
        return refused(lambda: packed.opened(Source(str(path), member=member)))

    for member in ("external", "external/0", "soft", "group/through"):
        assert "is a link to another place, and links in HDF5 files are not followed" in said(member)
    for member in ("raw", "raw/0", "virtual"):
        assert "lie in other files, which are not read" in said(member)
    assert said("plugin") == "'plugin' is compressed in a way that needs a plug-in: filter 32001"
    assert said("deflate") == f"'deflate' takes 8,589,934,592 numbers, more than {NUMBERS}"
    assert said("chunk/1") == f"'chunk' takes 134,217,728 numbers, more than {NUMBERS}"
    assert packed.opened(Source(str(path), member="good/1")).shape == (3,)


def test_links_in_a_csd_file(tmp_path):
    with h5py.File(tmp_path / "elsewhere.csd", "w") as file:
        file["f/data/v/features"], file["f/data/v/intervals"] = np.ones((2, 3)), np.ones((2, 2))
    for name, target in (("f", "f"), ("f/data", "f/data"), ("f/data/v", "f/data/v")):
        path = tmp_path / f"{name.replace('/', '-')}.csd"
        with h5py.File(path, "w") as file:
            file[name] = h5py.ExternalLink(str(tmp_path / "elsewhere.csd"), target)
        assert "is a link to another place" in refused(lambda path=path: packed.opened(Source(str(path), member="v")))


def test_pickles_that_unfold(tmp_path):
    path = bombs.laughs(tmp_path / "a.pkl")
    said = refused(lambda: packed.opened(Source(str(path), member="x")))
    assert said == f"an array in the pickle has 100,000,000,000,000,000,000 numbers, more than {NUMBERS}"
    assert packed.opened(Source(str(path), member="small")).shape == (1, 2)
    path = bombs.copies(tmp_path / "b.pkl")
    assert "far more than the file's size" in refused(lambda: packed.opened(Source(str(path), member="0")))


def test_a_list_that_holds_itself(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02}X\x01\x00\x00\x00x]q\x00(h\x00h\x00es.")
    assert "inf numbers" in refused(lambda: packed.opened(Source(str(path), member="x")))


def test_the_labels_of_multibench_unfold_to_nothing(tmp_path):
    row: list[Any] = [1.0]
    for _ in range(20):
        row = [row] * 10
    split = {"labels": row, "text": [[1.0]]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(dict.fromkeys(("train", "valid", "test"), split)))
    data = dataset(tmp_path, adapter="multibench", annotations={"clips": str(tmp_path / "a.pkl")})
    with pytest.raises(AgmError, match=r"an array in the pickle has 100,000,000,000,000,000,000 numbers"):
        multibench.clips(data)


@pytest.fixture(scope="module")
def honest(folder: Path) -> bytes:
    """A small file with a compressed data set, and one that is not."""
    with h5py.File(folder / "honest.h5", "w") as file:
        file.create_dataset("a/x", data=np.arange(40.0).reshape(10, 4), chunks=(5, 4), compression=9)
        file["y"] = np.arange(4)
    return (folder / "honest.h5").read_bytes()


@settings(max_examples=75, deadline=None)
@given(st.data())
def test_an_edited_hdf5_file_is_read_or_refused(folder, honest, data):
    path = folder / f"{time.monotonic_ns()}.h5"
    path.write_bytes(data.draw(edited(honest)))
    for member in ("a/x", "a/x/3", "y"):
        with under(Limits(memory_bytes=2**26)), suppress(Unusable):
            assert packed.opened(Source(str(path), member=member)).dtype.kind in "fiub"
    packed._hdf5.cache_clear()
    path.unlink()


# --- memory and time ---


def battery(picture: str, chunk: str, cases: list[list[str]]) -> None:
    """Meet the memory limit, then every bomb twice, and print what that took.

    It runs in a process of its own, which did not make them: memory that earlier tests gave back to the heap of theirs
    would be taken again. The limit is met in a fork, and so adds nothing to what the bombs take.
    """
    with get_context("fork").Pool(1) as pool:
        overfull = pool.apply(overfull_chunk, (chunk,))
        limited = pool.apply(beyond_the_memory, (Path(picture),))
    start, before = time.monotonic(), peak()
    for kind, path, member in cases:
        if member:
            refused(lambda p=path, m=member: packed.opened(Source(p, member=m)))
        else:
            refused(lambda p=path, k=kind: probe(Source(p), k))
            refused(lambda p=path, k=kind: loaded(k, Path(p)))
    took = {"megabytes": (peak() - before) / 1024, "seconds": time.monotonic() - start}
    print(json.dumps({"limited": limited, "overfull": overfull, **took}))


def overfull_chunk(path: str) -> str:
    """What is said of a chunk that unfolds to more than the limit and than its file tells."""
    with under(Limits(memory_bytes=2**26)):
        return refused(lambda: packed.opened(Source(path, member="x")))


def beyond_the_memory(path: Path) -> tuple[str, tuple[int, ...]]:
    """What is said of a picture of which no size tells that it is too large, and its shape without that limit."""

    def limited() -> None:
        with under(Limits(memory_bytes=2**26)):
            loaded("image", path)

    return refused(limited), loaded("image", path).shape


def peak() -> int:
    """The most memory that this process ever had, in KiB. (What `getrusage` says begins with that of its parent.)"""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


@pytest.fixture(scope="module")
def took(folder: Path, made: list[tuple[str, Path, str]], hdf5: Path) -> dict[str, Any]:
    """What a `battery` prints."""
    cases = [(kind, str(path), "") for kind, path, _ in made]
    members = ("external", "raw", "virtual", "deflate", "chunk/1", "plugin")
    cases += [("sequence", str(hdf5), member) for member in members]
    cases += [("sequence", str(bombs.laughs(folder / "a.pkl")), "x")]
    cases += [("sequence", str(bombs.copies(folder / "b.pkl")), "0")]
    assert len(cases) >= 20
    Image.new("1", (9000, 9000)).save(folder / "wide.png")
    chunk = bombs.overfull_chunk(folder / "overfull.h5")
    code = f"import test_untrusted; test_untrusted.battery({str(folder / 'wide.png')!r}, {str(chunk)!r}, {cases!r})"
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_no_size_tells_ends_at_the_memory_limit(took):
    limit, afterwards = took["limited"]
    assert limit == "to read it takes more than dataset.limits.memory_bytes = 67,108,864 bytes of memory"
    assert afterwards == [3, 16, 16], "afterwards it holds no more"


def test_a_chunk_that_unfolds_to_more_than_it_says(took):
    assert "takes more memory than dataset.limits.memory_bytes = 67,108,864" in took["overfull"]


def test_all_bombs_together_take_little_memory_and_time(took):
    assert 0 < took["megabytes"] < MEGABYTES and took["seconds"] < 60, took


# --- paths ---


def dataset(root: Path, adapter: str = "manifest", **more: Any) -> Dataset:
    about = {
        "name": "own",
        "adapter": adapter,
        "root": str(root),
        "annotations": {"clips": str(root / "clips.csv")},
        "modalities": {"text": {"kind": "text", "column": "text"}},
    }
    return Dataset(**(about | more))


def listed(root: Path, path: str, **more: Any) -> list[str]:
    """The files that a CSV with one path names, as the listing has them."""
    quoted = path.replace('"', '""')
    (root / "clips.csv").write_text(f'clip_id,label,text\na,0,"{quoted}"\n', newline="")
    data = dataset(root, **more)
    return list(look(data, read(data)))


PARTS = [
    *("..", ".", "/", "//", "\\", "..\\", "a", "in", "out", "a.txt"),
    *("\n", "\t", "~", "C:", "\u202e", " ", "A", "%2e%2e"),
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=6), st.sampled_from(["", "/"]))
def test_no_path_of_a_manifest_escapes(tmp_path_factory, parts, between):
    root = tmp_path_factory.getbasetemp() / "escape" / "root"
    if not root.exists():
        (root / "in").mkdir(parents=True)
        for place in (root / "a.txt", root / "in/a.txt", root.parent / "a.txt"):
            place.write_text("word")
        (root / "out").symlink_to(root.parent)
        (root / "a").symlink_to("in")
    try:
        found = listed(root, between.join(parts))
    except AgmError:
        return
    for path in found:
        assert Path(root, path).resolve().is_relative_to(root.resolve()), path
        assert not outside(path)


def test_links_that_lead_out_are_followed_only_where_that_was_allowed(tmp_path):
    root, other = tmp_path / "root", tmp_path / "scratch"
    for folder in (root, other):
        folder.mkdir()
    (other / "a.txt").write_text("word")
    (root / "video").symlink_to(other)
    (tmp_path / "secret.txt").write_text("secret")
    (other / "b.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(AgmError, match=r"the path is a link that leaves the root folder, to none of dataset\.links"):
        listed(root, "video/a.txt")
    assert listed(root, "video/a.txt", links=[str(other)]) == ["video/a.txt"]
    with pytest.raises(AgmError, match="is a link that leaves"):
        listed(root, "video/b.txt", links=[str(other)])
    with pytest.raises(AgmError, match="leaves the root folder"):
        listed(root, "../scratch/a.txt", links=[str(other)])
    linked = tmp_path / "linked"
    linked.symlink_to(other)
    assert listed(linked, "a.txt") == ["a.txt"], "the root itself may be a link"


@pytest.mark.parametrize("path", ["/etc/hostname", "../a", "a/../../b", "a\0b"])
def test_a_table_from_elsewhere_leads_nowhere_either(path):
    with pytest.raises(AgmError, match="leaves the data set's folder"):
        Source(path).below("/data")
    assert Source("..a/b..").below("/data").path == "/data/..a/b.."


# --- nothing runs ---

CALLS = {
    *("eval", "exec", "compile", "os.system", "os.popen"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open"),
    *("joblib.load", "dill.load", "cloudpickle.load", "pl.read_ipc", "pandas.read_pickle", "pd.read_pickle"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
}


def test_no_source_reads_what_can_run():
    files = sorted((ROOT / "src/agm").rglob("*.py"))
    assert len(files) > 100
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                keywords = {each.arg: getattr(each.value, "value", ...) for each in node.keywords}
                check_call(file, ast.unparse(node.func), keywords)
            elif isinstance(node, ast.Import | ast.ImportFrom) and file.name != "unpickle.py":
                module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                names = {f"{module}{alias.name}" for alias in node.names}
                found = {name for name in names if name.split(".")[0] in ("pickle", "marshal", "shelve", "dill")}
                assert found <= {"pickle.UnpicklingError"}, file


def check_call(file: Path, name: str, keywords: dict[str | None, Any]) -> None:
    """Refuse a call, with these keywords, that may run what it reads."""
    assert name not in CALLS, f"{file}: {name}"
    assert name != "torch.load" or keywords.get("weights_only") is True, file
    assert name not in ("np.load", "numpy.load") or keywords.get("allow_pickle") is False, file
    assert keywords.get("shell") is not True and keywords.get("trust_remote_code") is not True, file


# --- the whole way ---


@pytest.fixture(scope="module")
def root(folder: Path, made: list[tuple[str, Path, str]]) -> Path:
    """Twelve good clips of picture and sound, and six that are not."""
    root = folder / "raw"
    root.mkdir()
    rows = []
    for number in range(12):
        write_image(root / f"{number}.png", np.full((16, 16), 20 * number, np.uint8))
        write_wav(root / f"{number}.wav", tone(300 + 50 * number, 1.0, 8000), 8000)
        split = ("train", "train", "val", "test")[number % 4]
        rows.append(f"good{number},{split},{number % 2},{number}.png,{number}.wav")
    for name, file in {"png": "a.png", "gif": "a.gif", "text": "text.png"}.items():
        shutil.copy(folder / file, root / file)
        rows.append(f"{name},train,0,{file},0.wav")
    shutil.copy(folder / "a.flac", root / "hour.flac")
    bombs.short_sound_header(root / "lie.flac", folder / "a.flac")
    write_wav(root / "two.wav", tone(300, 2.0, 8000), 8000)
    rows += ["hour,train,0,0.png,hour.flac", "lie,train,0,0.png,lie.flac", "two,train,0,0.png,two.wav"]
    (root / "manifest.csv").write_text("clip_id,split,label,image,audio\n" + "\n".join(rows) + "\n")
    return root


def chosen(root: Path, *more: str) -> tuple[str, ...]:
    return "study=spoken_digits", "num_parts=1", f"dataset.root={root}", *more


@pytest.fixture(scope="module")
def study(folder: Path, root: Path) -> Iterator[Pipeline]:
    """The study of these clips, in the current folder."""
    with pytest.MonkeyPatch.context() as patch:
        yield Pipeline(folder / "study", patch, *chosen(root)).run()


def test_bombs_cost_their_clips_and_the_others_go_on(study):
    reasons = study.quarantine
    assert reasons.keys() == {"png", "gif", "text", "hour", "lie"}
    assert reasons["png"] == f"the image has 10,000,000,000 pixels, more than {PIXELS}"
    assert reasons["hour"] == f"the clip lasts 3,600 s, more than {SECONDS}"
    assert reasons["lie"] == f"the clip lasts 600.048 s or more, more than {SECONDS}"
    assert len(study.manifest) == 12 + 1, "those that are good, and `two`: of a silent file ingest looks behind the lie"


def test_a_changed_limit_makes_out_of_date_what_it_decides_and_nothing_else(tmp_path, study, root):
    for change, steps in (
        ("dataset.limits.seconds=700.0", {"ingest", "extract"}),
        ("dataset.quarantine=[still]", {"ingest", "extract"}),
        (f"dataset.links=[{tmp_path}]", {"list", "ingest"}),
    ):
        compose([*chosen(root), change], Path("changed.yaml"), ROOT / "params")
        changed = config.load(Path("changed.yaml"))
        jobs = [job for job in Graph(study.params).jobs if job.index.exists()]
        found = {job.step for job in jobs if provenance.outdated(job, changed)}
        assert found == steps, change


def test_the_limits_that_were_set_hold_in_ingest_and_in_extraction(tmp_path, monkeypatch, root):
    limits = ("dataset.limits.seconds=1.5", "dataset.limits.pixels=null", "dataset.limits.memory_bytes=1000000000")
    reasons = Pipeline(tmp_path, monkeypatch, *chosen(root, *limits)).run().quarantine
    assert reasons["two"] == "the clip lasts 2 s, more than dataset.limits.seconds = 1.5"
    assert reasons["lie"] == "the clip lasts 2 s, more than dataset.limits.seconds = 1.5"
    assert "good0" not in reasons and "pixels" not in reasons["png"]
