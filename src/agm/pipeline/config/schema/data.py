"""The data set, its features and its shards."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agm.pipeline.config.schema.base import Block, Fraction, Name, PathText, Positive, PositiveFloat, Seed

Adapter = Literal[
    "dial",
    "manifest",
    "av_mnist",
    "ave",
    "cmu_mosei",
    "crema_d",
    "iemocap",
    "kinetics_sounds",
    "meld",
    "multibench",
    "mustard",
    "ucf101",
    "upmc_food101",
    "ur_funny",
    "vggsound",
]


class Modality(Block):
    kind: Literal["video", "flow", "audio", "image", "array", "text", "sequence"]
    """What the files hold: decides how they are probed and extracted. `flow` is the motion in a video. A `sequence` is
    an array, [steps, …], in NumPy's .npy format: features that another program made; an `array` likewise, of one shape,
    for encoders of images."""
    column: str
    """What of the annotations the modality is: for `manifest` the column that names its file, or holds its text; for a
    published data set one of those that `agm datasets NAME` lists. Audio may name a video: its sound is read."""


class Split(Block):
    scheme: str | None = None
    """Which of a published data set's splits (`agm datasets NAME` lists them); null for the careful one."""
    val: Fraction = 0.15
    """Share of the training clips held out for validation, where the annotations give no validation split."""
    test: Fraction = 0.15
    """Share of the clips held out for the test, where the annotations give no test split."""
    seed: Seed = 0
    """Seed of the split and of the order of the manifest, which every later step keeps."""


class Limits(Block):
    """What reading one clip may take. A clip beyond a limit is quarantined with the reason; null is no limit.

    They hold for headers, which are looked at first, and for what the files really hold."""

    pixels: Positive | None = 100_000_000
    """Width × height of an image or of a frame of a video; also as scaled to `features.<modality>.size`, which makes a
    picture of 2 × 10,000 a large one."""
    seconds: PositiveFloat | None = 600.0
    """How long a clip lasts, in sound or video; of a clip that is a piece of a long file, the piece. A video has 1,000
    frames a second at most."""
    numbers: Positive | None = 50_000_000
    """Numbers in the clip's array (.npy, or its part of a file of many clips), and in what must be read to reach it,
    such as a compressed chunk of an HDF5 file."""
    text_bytes: Positive | None = 16_777_216
    """Bytes of a text, in a file or in a cell."""
    memory_bytes: Positive | None = 2_147_483_648
    """Memory to be taken while a clip is read, beyond what its process has: for what no header tells. Not for
    pickles, which are read once for all their clips."""


Flaw = Literal["silent", "antiphase", "blank", "still", "constant"]


class Dataset(Block):
    name: Name
    """Names the folders: data/<name>, runs/<name>, evaluations/<name>."""
    adapter: Adapter
    """How the raw folder is read: see `agm datasets` and src/agm/pipeline/steps/ingest/adapters."""
    root: PathText
    """Folder of the raw media. It may lie anywhere and is only ever read."""
    annotations: dict[Name, PathText] = Field(min_length=1)
    """The annotation files, or folders of them: for `manifest` one, `clips`, the CSV with one row per clip."""
    generated: list[Literal["dial"]] = Field(default=[])
    """Demo sets that `agm generate` makes; empty for real data."""
    modalities: dict[Name, Modality] = Field(min_length=1)
    group: str | None = None
    """For `manifest`, the column whose values must not be in two splits (speaker, actor, session, …)."""
    label: str | None = None
    """Which label, where a published data set has several (`agm datasets NAME` lists them); null for the usual one."""
    classes: list[str] | None = None
    """The labels to use of a published data set; clips with another one are not read. Null for its usual ones."""
    split: Split = Split()
    texts: Literal["cells", "files"] | None = None
    """For `manifest`, whether the columns of kind `text` hold the texts themselves or name files; null recognises it,
    for each column: files where one of its first cells names a file below `root`, or every cell ends like a file's
    name."""
    links: list[PathText] = Field(default=[])
    """Folders outside `root` to which links below it may lead. `root` itself may be a link to anywhere."""
    limits: Limits = Limits()
    """What reading one clip may take."""
    quarantine: list[Flaw] = Field(default=["silent"])
    """Flaws that put a clip into quarantine, where one of its files shows them. `silent`: sound in which no channel
    varies. `antiphase`: sound whose channels cancel out. `blank`: an image or a video of one colour. `still`: a video
    of one picture, a sequence of equal steps. `constant`: an array of one number. Other clips are kept; `agm ingest`
    counts both."""


class DialNoise(Block):
    video: Annotated[float, Field(ge=0)] = 0.75
    """Standard deviation of the noise around the digit, in units of the digit's contrast."""
    audio: Annotated[float, Field(ge=0)] = 0.2
    """Standard deviation of the noise around the key tone, in units of the tone's amplitude."""
    text: Fraction = 0.3
    """Probability that the transcript names another digit in the place of the right one."""


class Dial(Block):
    """The demo data set: handwritten digits, key tones and transcripts, each as hard as its noise makes it."""

    clips: Positive = 2000
    seed: Seed = 0
    noise: DialNoise = DialNoise()


Background = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]
WHITE = [255, 255, 255]


class FrozenVision(Block):
    """A pretrained network of torchvision without its classifier, which is not trained on."""

    model: str
    """torchvision's name of a network for images (resnet50, vit_b_16, …: a vector for each picture) or for videos
    (r3d_18, swin3d_t, …: one for the clip)."""
    weights: str
    """Local file of its weights, .safetensors or .pth."""
    entry: str = "DEFAULT"
    """Which of torchvision's published weights of that network they are (IMAGENET1K_V1, …): with them goes how pictures
    are scaled, cropped and normalised."""


class FrozenSound(Block):
    """A pretrained network of torchaudio, which is not trained on: a vector for each 20 ms of sound."""

    model: str
    """Name of one of torchaudio's pipelines: WAV2VEC2_BASE, HUBERT_LARGE, WAVLM_BASE_PLUS, …"""
    weights: str
    """Local file of its weights, .safetensors or .pth."""


class FrozenText(Block):
    """A pretrained network of Hugging Face, which is not trained on: a vector for each token."""

    model: str
    """Local folder with config.json, tokenizer.json and the weights in safetensors."""


class FeaturesBlock(Block):
    kind: str

    @property
    def produces(self) -> str:
        """The kind of the tensors, which decides the encoders that can read them."""
        return self.kind


class VideoFeatures(FeaturesBlock):
    kind: Literal["video"]
    """Taken from dataset.modalities; not written in the file."""
    frames: Positive = 8
    """Frames kept of every clip."""
    fps: PositiveFloat | None = None
    """Frames per second to sample; null spaces the frames evenly over the clip's time."""
    size: Positive = 224
    """The short side is scaled to this, then the centre is cropped to a square."""
    channels: Literal[1, 3] = 3
    background: Background = WHITE
    """[red, green, blue] on which pictures with transparency are composited."""
    frozen: FrozenVision | None = None
    """Vectors of a pretrained network in the place of the pictures; `size` and `channels` are then its own."""

    @property
    def produces(self) -> str:
        return "sequence" if self.frozen else "video"


class FlowFeatures(FeaturesBlock):
    """Optical flow: how far every point moves from one frame to the next, in pixels of the scaled picture."""

    kind: Literal["flow"]
    """Taken from dataset.modalities; not written in the file."""
    frames: Positive = 8
    """Positions in every clip at which the flow is taken."""
    fps: PositiveFloat | None = None
    """Positions per second; null spaces them evenly over the clip's time."""
    stack: Positive = 1
    """Successive flow fields at each position. Each has two channels, to the right and downwards."""
    size: Annotated[int, Field(ge=12)] = 224
    """The short side is scaled to this and the centre cropped to a square, before the flow is computed."""
    background: Background = WHITE
    """[red, green, blue] on which pictures with transparency are composited."""
    bound: PositiveFloat = 20.0
    """Flow is cut off at ± this many pixels, and stored in 255 steps between."""
    method: Literal["dis", "raft_small", "raft_large"] = "dis"
    """dis: dense inverse search (OpenCV). raft_…: a pretrained network of torchvision; `size` is then 128 or more and
    a multiple of 8."""
    weights: str | None = None
    """Local file of RAFT's weights, .safetensors or .pth."""

    @model_validator(mode="after")
    def _raft_has_weights_and_room(self) -> Self:
        raft = self.method != "dis"
        if raft != (self.weights is not None):
            raise ValueError(f"expected weights for raft, and for raft only, found {self.weights} for {self.method}")
        if raft and (self.size < 128 or self.size % 8):
            raise ValueError(f"expected a size of at least 128 that 8 divides, for raft, found {self.size}")
        return self

    @property
    def produces(self) -> str:
        return "video"


class ImageFeatures(FeaturesBlock):
    kind: Literal["image"]
    """Taken from dataset.modalities; not written in the file."""
    size: Positive = 224
    """The short side is scaled to this, then the centre is cropped to a square."""
    channels: Literal[1, 3] = 3
    background: Background = WHITE
    """[red, green, blue] on which pictures with transparency are composited."""
    white: PositiveFloat | None = None
    """The value that is white, of gray pictures with more than 8 bits. Null: the largest that the file's integers can
    be, and 1 for floats. Values beyond it are refused, and so are pictures that it would make black."""
    frozen: FrozenVision | None = None
    """The vector of a pretrained network in the place of the picture; `size` and `channels` are then its own."""

    @property
    def produces(self) -> str:
        return "sequence" if self.frozen else "image"


class ArrayFeatures(FeaturesBlock):
    """An array of one shape that another program made, for encoders of images."""

    kind: Literal["array"]
    """Taken from dataset.modalities; not written in the file."""
    shape: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    """[channels, height, width]; stored in this order, whatever the array's own shape is."""
    scale: PositiveFloat = 1.0
    """The stored values are divided by it: 255 for those of 8-bit pictures."""

    @property
    def produces(self) -> str:
        return "image"


class AudioFeatures(FeaturesBlock):
    kind: Literal["audio"]
    """Taken from dataset.modalities; not written in the file."""
    sample_rate: Positive = 16000
    """Samples per second after resampling."""
    seconds: PositiveFloat = 3.0
    """Length that every clip is brought to."""
    fit: Literal["pad", "tile"] = "pad"
    """How a shorter clip is brought to that length; a longer one is cut at its end."""
    representation: Literal["spectrogram", "mel"] = "spectrogram"
    n_fft: Positive = 512
    hop_length: Positive = 353
    power: Literal[1, 2] = 1
    """1: magnitude, 2: power."""
    n_mels: Positive = 80
    """Mel bands, for `mel` only."""
    log_floor: PositiveFloat = 1e-7
    """Added before the logarithm."""
    as_sequence: bool = False
    """[time, bins] for encoders of sequences, in the place of a picture [1, bins, time]; what is beyond the end of the
    sound is then padding."""
    frozen: FrozenSound | None = None
    """Vectors of a pretrained network in the place of the spectrogram; of the above it reads `seconds` and `fit`, and
    has a sample rate of its own."""

    @property
    def produces(self) -> str:
        return "sequence" if self.frozen or self.as_sequence else "audio"


class TextFeatures(FeaturesBlock):
    kind: Literal["text"]
    """Taken from dataset.modalities; not written in the file."""
    max_tokens: Positive = 32
    """Tokens kept of every text; shorter ones are padded with 0. In scripts without spaces (Chinese, Japanese, Thai) a
    character is a word, so a sentence takes more of them; an emoji is one."""
    max_vocabulary: Positive = 10000
    """Size limit of the vocabulary, which is built on the training split only."""
    min_count: Positive = 1
    """Words seen less often in training are unknown words."""
    lowercase: bool = True
    tokenizer: str | None = None
    """Local folder of a Hugging Face tokenizer, whose tokens take the place of words and vocabulary."""
    frozen: FrozenText | None = None
    """Vectors of a pretrained network in the place of words, one for each token of its own tokenizer."""
    glove: str | None = None
    """Local file of word vectors in GloVe's text format: a vector for each word that is in it."""

    @model_validator(mode="after")
    def _one_source_of_tokens(self) -> Self:
        chosen = [name for name in ("tokenizer", "frozen", "glove") if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise ValueError(f"expected one of tokenizer, frozen and glove at most, found {' and '.join(chosen)}")
        return self

    @property
    def produces(self) -> str:
        return "sequence" if self.frozen or self.glove else "text"


class SequenceFeatures(FeaturesBlock):
    kind: Literal["sequence"]
    """Taken from dataset.modalities; not written in the file."""
    steps: Positive = 60
    """Steps kept of every clip: longer ones are cut at the end, shorter ones filled up with zeros."""
    shape: list[Positive] = Field(default=[300], min_length=1)
    """Shape of one step in the file; channels last."""
    padding: Literal["end", "front"] = "end"
    """`front`: the arrays were padded with zeros before their first step; those are left out."""


Features = Annotated[
    VideoFeatures | FlowFeatures | AudioFeatures | ImageFeatures | ArrayFeatures | TextFeatures | SequenceFeatures,
    Field(discriminator="kind"),
]


class Shards(Block):
    max_rows_per_file: Positive = 1024
    """Most clips in one shard file."""
    row_group_size: Positive = 64
    """Clips in one Parquet row group: what training reads at a time."""
