"""Downloads as people unpack them: every file is found where it lies, and what lies there instead is said."""

import shutil
from pathlib import Path

import pytest

from agm.pipeline import cli
from agm.pipeline.config import load
from agm.pipeline.config.compose import compose
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_json
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest import datasets
from agm.pipeline.steps.ingest.adapters import find, read
from agm.pipeline.steps.ingest.clip import Clip
from agm.pipeline.steps.ingest.listing import locate
from agm.pipeline.steps.ingest.locate import elsewhere
from clone import ROOT
from media import tone, write_video
from pipeline import Pipeline

MELD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
KINETICS = "label,youtube_id,time_start,time_end,split,is_cc"
STEPS = ("annotations", "list", "ingest")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A real video with sound in each container."""
    folder = tmp_path_factory.mktemp("clips")
    found = {}
    for suffix in (".mp4", ".mkv", ".webm"):
        codec = {"codec": "libvpx", "sound": None} if suffix == ".webm" else {"sound": tone(440, 0.5, 16000)}
        found[suffix] = write_video(folder / f"clip{suffix}", 4, (32, 24), **codec)
    return found


def copied(clip: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(clip, target)


def meld(root: Path) -> None:
    """Lists of 14 utterances."""
    root.mkdir(parents=True, exist_ok=True)
    for split, episode in (("train", 1), ("dev", 2), ("test", 3)):
        rows = [
            f"{n},Line {n}.,Ross,{('joy', 'anger')[n % 2]},neutral,{n // 2},{n % 2},1,{episode},a,b"
            for n in range(6 if split == "train" else 4)
        ]
        (root / f"{split}_sent_emo.csv").write_text("\n".join([MELD, *rows, ""]))


def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: str, root: Path, *more: str) -> Pipeline:
    return Pipeline(tmp_path / "work", monkeypatch, f"study={study}", f"dataset.root={root}", *more)


MELD_FOLDERS = ("train_splits", "dev_splits_complete", "output_repeated_splits_test")


@pytest.mark.parametrize("prefix", ["{}", "MELD.Raw/x/{}"])
def test_meld_as_its_archives_unpack(tmp_path, monkeypatch, clips, prefix):
    root = tmp_path / "raw"
    meld(root)
    for folder, count in zip(MELD_FOLDERS, (6, 4, 4), strict=True):
        for n in range(count):
            copied(clips[".mp4"], root / prefix.format(folder) / f"dia{n // 2}_utt{n % 2}.mp4")
    copied(clips[".mp4"], root / prefix.format("train_splits") / "._dia0_utt0.mp4")
    done = pipeline(tmp_path, monkeypatch, "meld", root, "dataset.split.scheme=official").run(STEPS)
    assert len(done.manifest) == 14
    found = {row["clip_id"]: row["video"]["path"] for row in done.manifest.iter_rows(named=True)}
    assert found["train_dia0_utt0"] == prefix.format("train_splits/dia0_utt0.mp4")
    assert found["dev_dia0_utt0"] == prefix.format("dev_splits_complete/dia0_utt0.mp4")
    assert found["test_dia0_utt0"] == prefix.format("output_repeated_splits_test/dia0_utt0.mp4")
    note = f"14 files lie elsewhere than officially, the first: {found['dev_dia0_utt0']} in place of dev/"
    assert any(line.startswith(note) for line in done.index["warnings"])


def test_the_official_place_goes_first_and_nothing_is_said(tmp_path, monkeypatch, clips):
    root = tmp_path / "raw"
    meld(root)
    official = ("train/train_splits", "dev/dev_splits_complete", "test/output_repeated_splits_test")
    for folder, count in zip(official, (6, 4, 4), strict=True):
        for n in range(count):
            copied(clips[".mp4"], root / folder / f"dia{n // 2}_utt{n % 2}.mp4")
    copied(clips[".mp4"], root / "copy/train_splits/dia0_utt0.mp4")
    done = pipeline(tmp_path, monkeypatch, "meld", root, "dataset.split.scheme=official").run(STEPS)
    assert {row["path"] for row in done.manifest["audio"]} >= {"train/train_splits/dia0_utt0.mp4"}
    assert not any("elsewhere" in line or "more than once" in line for line in done.index["warnings"])


@pytest.mark.parametrize(
    ("suffix", "name"), [(".mp4", "{}_000007_000017"), (".mkv", "{}_7_17"), (".webm", "{}_000007_000017")]
)
def test_kinetics_in_folders_by_class(tmp_path, monkeypatch, clips, suffix, name):
    root = tmp_path / "k400"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        names = [f"{split:_<10}{n}" for n in range(8)]
        rows = [f"{('singing', 'tap dancing')[n % 2]},{each},7,17,{split},0" for n, each in enumerate(names)]
        (root / f"annotations/{split}.csv").write_text("\n".join([KINETICS, *rows, ""]))
        for n, each in enumerate(names):
            label = ("singing", "tap dancing")[n % 2]
            copied(clips[suffix], root / "videos" / split / label / f"{name.format(each)}{suffix}")
    silent = ("~dataset.modalities.audio", "~features.audio", "~encoders.audio") if suffix == ".webm" else ()
    chosen = ("dataset.classes=[singing,tap_dancing]", "dataset.split.val=0.25", *silent)
    done = pipeline(tmp_path, monkeypatch, "kinetics_sounds", root, *chosen).run(STEPS)
    assert len(done.manifest) == 16
    paths = {row["path"] for row in done.manifest["video"]}
    assert f"videos/train/singing/{name.format('train_____0')}{suffix}" in paths


VGGSOUND = [
    (f"{split:_<9}{n:02d}", 30, split, ("frog croaking", "barking")[n % 2])
    for split in ("train", "test")
    for n in range(8)
]


@pytest.mark.parametrize("place", ["video/{video}_{start:06d}.mkv", "{label}/{video}_{start}_40.mkv"])
def test_vggsound_in_other_containers_and_folders(tmp_path, monkeypatch, clips, place):
    root = tmp_path / "vggsound"
    root.mkdir()
    (root / "vggsound.csv").write_text("".join(f"{v},{s},{label},{split}\n" for v, s, split, label in VGGSOUND))
    for video, start, _, label in VGGSOUND:
        copied(clips[".mkv"], root / place.format(video=video, start=start, label=label))
    done = pipeline(tmp_path, monkeypatch, "vggsound", root, "dataset.split.val=0.3").run(STEPS)
    assert len(done.manifest) == 16
    assert {row["path"] for row in done.manifest["video"]} == {
        place.format(video=video, start=start, label=label) for video, start, _, label in VGGSOUND
    }


# --- every adapter ---

PLACES = [
    ("meld", "dev/dev_splits_complete/dia3_utt1.mp4", "MELD.Raw/dev_splits_complete/dia3_utt1.mp4"),
    ("meld", "dev/dev_splits_complete/dia3_utt1.mp4", "dev_splits_complete/dia3_utt1.avi"),
    ("crema_d", "VideoFlash/1001_IEO_HAP_LO.flv", "CREMA-D/VideoMP4/1001_IEO_HAP_LO.mp4"),
    ("crema_d", "AudioWAV/1001_IEO_HAP_LO.wav", "1001_IEO_HAP_LO.wav"),
    ("kinetics_sounds", "val/aaaaaaaaaaa_000005_000015.mp4", "k400/tap dancing/aaaaaaaaaaa_5_15.webm"),
    ("vggsound", "video/aaaaaaaaaaa_000030.mp4", "vggsound_00/aaaaaaaaaaa_000030.mp4"),
    ("ave", "AVE/aaaaaaaaaaa.mp4", "AVE_Dataset/AVE/aaaaaaaaaaa.mkv"),
    ("ave", "audio_feature.h5", "features/audio_feature.h5"),
    ("ucf101", "UCF-101/Archery/v_Archery_g01_c01.avi", "train/Archery/v_Archery_g01_c01.avi"),
    ("ucf101", "UCF-101/Archery/v_Archery_g01_c01.avi", "clips/v_archery_g01_c01.mp4"),
    ("iemocap", "Session1/dialog/avi/DivX/Ses01F_impro01.avi", "IEMOCAP/Session1/avi/Ses01F_impro01.mp4"),
    ("iemocap", "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav", "wav/Ses01F_impro01_F000.wav"),
    ("cmu_mosei", "Raw/abc/3.mp4", "MOSEI/Raw/abc/3.mp4"),
    ("cmu_mosei", "Raw/Videos/Full/Combined/abc.mp4", "CMU/Raw/Videos/Full/Combined/abc.mkv"),
    ("mustard", "utterances_final/1_60.mp4", "mmsd_raw_data/utterances_final/1_60.mp4"),
    ("mustard", "context_final/1_60_c.mp4", "data/videos/context_final/1_60_c.mp4"),
    ("ur_funny", "urfunny2_videos/17.mp4", "UR-FUNNY/urfunny2_videos/17.mp4"),
    ("upmc_food101", "images/test/sushi/sushi_3.jpg", "UPMC_Food101/images/test/sushi/sushi_3.jpeg"),
    ("av_mnist", "image/test_data.npy", "avmnist/image/test_data.npy"),
]


def moved(root: Path, name: str, official: str) -> str:
    adapter = find(name)
    clip = Clip("a", "train", "0", None, {"one": Source(official)}, 1)
    [found], _ = elsewhere(str(root), [clip], [official], adapter.unique, adapter.stem)
    return found.sources["one"].path


@pytest.mark.parametrize(("name", "official", "place"), PLACES)
def test_every_adapter_finds_its_files_in_the_layouts_in_use(tmp_path, name, official, place):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    assert moved(tmp_path, name, official) == place


@pytest.mark.parametrize(
    ("name", "official", "place"),
    [
        # The same name in the folder of another split.
        ("meld", "dev/dev_splits_complete/dia3_utt1.mp4", "train_splits/dia3_utt1.mp4"),
        ("upmc_food101", "images/test/sushi/sushi_3.jpg", "images/train/sushi/sushi_3.jpg"),
        ("av_mnist", "image/test_data.npy", "audio/test_data.npy"),
        # Segment 1 of the video abc, and the whole video abc_1.
        ("cmu_mosei", "Raw/Videos/Segmented/Combined/abc_1.mp4", "Raw/Videos/Full/Combined/abc_1.mp4"),
        # Another start.
        ("vggsound", "video/aaaaaaaaaaa_000030.mp4", "video/aaaaaaaaaaa_000031.mp4"),
        # Not the same kind of thing, or less of it.
        ("crema_d", "AudioWAV/1001_IEO_HAP_LO.wav", "AudioMP3/1001_IEO_HAP_LO.mp3"),
        ("crema_d", "AudioWAV/1001_IEO_HAP_LO.wav", "VideoFlash/1001_IEO_HAP_LO.flv"),
        ("ave", "AVE/aaaaaaaaaaa.mp4", "AVE/aaaaaaaaaaa.jpg"),
        # What macOS leaves in archives.
        ("ave", "AVE/_aaaaaaaaaa.mp4", "AVE/._aaaaaaaaaa.mp4"),
    ],
)
def test_another_file_is_not_taken_for_it(tmp_path, name, official, place):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    assert moved(tmp_path, name, official) == official


def test_what_is_there_twice_is_said(tmp_path):
    for place in ("b/aaaaaaaaaaa.mp4", "a/aaaaaaaaaaa.mp4", "aaaaaaaaaaa.mkv"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    clip = Clip("a", "train", "0", None, {"one": Source("AVE/aaaaaaaaaaa.mp4")}, 1)
    [found], notes = elsewhere(str(tmp_path), [clip], ["AVE/aaaaaaaaaaa.mp4"], 1, str)
    assert found.sources["one"].path == "a/aaaaaaaaaaa.mp4"
    assert notes[1].endswith("for the first one a/aaaaaaaaaaa.mp4 is read, not aaaaaaaaaaa.mkv, b/aaaaaaaaaaa.mp4")


def test_folders_behind_links_are_looked_through_once(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/aaaaaaaaaaa.mp4").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/disk").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "root")
    assert moved(tmp_path / "root", "ave", "AVE/aaaaaaaaaaa.mp4") == "disk/aaaaaaaaaaa.mp4"


# --- what lies there instead ---


def test_other_names_are_said_by_every_command(tmp_path, monkeypatch, capsys):
    root = tmp_path / "raw"
    meld(root)
    (root / "films/friends").mkdir(parents=True)
    (root / "films/notes.txt").touch()
    work = pipeline(tmp_path, monkeypatch, "meld", root).run(("annotations", "list"))
    said = "dataset.root has no dev; it holds: dev_sent_emo.csv, films/, test_sent_emo.csv, train_sent_emo.csv"
    assert said in capsys.readouterr().err
    assert cli.main(["ingest"]) == 1
    error = capsys.readouterr().err
    assert "No clip of the split 'train' can be used" in error and said in error
    datasets.describe("meld", [f"dataset.root={root}"], ROOT / "params")
    assert said in capsys.readouterr().out
    assert said in "".join(read_json(work.data / "listing.json")["notes"])


def test_other_names_in_the_right_folder(tmp_path):
    meld(tmp_path)
    for split, folder in (("train", "train_splits"), ("dev", "dev_splits_complete"), ("test", MELD_FOLDERS[2])):
        (tmp_path / split / folder).mkdir(parents=True)
        for n in range(12):
            (tmp_path / split / folder / f"{n:02}.mp4").touch()
    compose(["study=meld", f"dataset.root={tmp_path}"], tmp_path / "params.yaml", ROOT / "params")
    dataset = load(tmp_path / "params.yaml").dataset
    _, _, notes = locate(dataset, read(dataset))
    assert "dataset.root/dev/dev_splits_complete holds other names: 00.mp4, 01.mp4, 02.mp4" in notes[0]
    assert notes[0].endswith("07.mp4 and 4 more")


def test_one_missing_clip_among_many_needs_no_explanation(tmp_path, clips):
    meld(tmp_path)
    for folder, count in zip(MELD_FOLDERS, (6, 4, 4), strict=True):
        for n in range(1, count):
            copied(clips[".mp4"], tmp_path / folder / f"dia{n // 2}_utt{n % 2}.mp4")
    compose(["study=meld", f"dataset.root={tmp_path}"], tmp_path / "params.yaml", ROOT / "params")
    dataset = load(tmp_path / "params.yaml").dataset
    _, files, notes = locate(dataset, read(dataset))
    assert sum(seen.size is None for seen in files.values()) == 3
    assert len(notes) == 1 and notes[0].startswith("11 files lie elsewhere")


def test_annotations_that_are_not_there(tmp_path):
    meld(tmp_path)
    (tmp_path / "dev_sent_emo.csv").rename(tmp_path / "dev.csv")
    compose(["study=meld", f"dataset.root={tmp_path}"], tmp_path / "params.yaml", ROOT / "params")
    with pytest.raises(AgmError) as error:
        read(load(tmp_path / "params.yaml").dataset)
    message = str(error.value)
    assert "The annotations (dataset.annotations.dev) are not there" in message
    assert f"{tmp_path} holds: dev.csv, params.yaml, test_sent_emo.csv" in message
