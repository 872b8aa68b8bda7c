"""Texts through a Hugging Face tokenizer and network, both made here: nothing is downloaded."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, T5Config, T5Model

from agm.pipeline import cli
from agm.pipeline.config.schema import TextFeatures, TransformerEncoder
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_json
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.networks import build_encoder
from agm.pipeline.steps.extract import tokens
from agm.pipeline.steps.extract.recipe import Recipe, recipe
from pipeline import Pipeline

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "yes", "no", "##body", "good"]


def tokenizer(folder: Path) -> str:
    """A WordPiece tokenizer of `WORDS`, as `AutoTokenizer` would read it."""
    found = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    found.normalizer = normalizers.BertNormalizer(lowercase=True)
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    found.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    found.enable_padding(length=50)  # which a downloaded file may have set, and texts must not get
    PreTrainedTokenizerFast(tokenizer_object=found, pad_token="[PAD]").save_pretrained(folder)
    return str(folder)


@pytest.fixture
def bert(tmp_path) -> str:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=8, max_position_embeddings=16, **sizes)).save_pretrained(tmp_path / "bert")
    return tokenizer(tmp_path / "bert")


def settings(max_tokens: int = 6, **chosen: object) -> TextFeatures:
    return TextFeatures(kind="text", max_tokens=max_tokens, **chosen)


def made(chosen: TextFeatures) -> Recipe:
    return recipe(chosen, "features.text", [], [])


# --- tokens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, ids",
    [
        ("Yes nobody", [2, 4, 5, 6, 3]),
        ("good good good good good good", [2, 7, 7, 7, 7, 3]),  # cut, and yet it ends as a text ends
        ("what?", [2, 1, 1, 3]),
    ],
)
def test_ids_are_the_tokenizers_plus_one(tmp_path, text, ids):
    chosen = settings(tokenizer=tokenizer(tmp_path))
    found = made(chosen)
    assert found.feature == Feature("text", "int32", (6,), vocabulary=9)
    padded = [number + 1 for number in ids] + [0] * (6 - len(ids))
    assert found.load(Source(text=text)).tolist() == padded
    assert found.load(Source(text=text)).dtype == np.int32


def test_every_id_has_a_row_in_the_encoder(tmp_path):
    found = made(settings(tokenizer=tokenizer(tmp_path)))
    block = TransformerEncoder(name="transformer", dim=8, num_heads=2, num_layers=1)
    encoder = build_encoder(block, found.feature)
    assert encoder(torch.arange(9)[None, 3:]).isfinite().all()


def test_a_text_without_tokens_costs_its_clip(tmp_path):
    with pytest.raises(Unusable, match="no token"):
        tokens.load(Source(text=" \n"), settings(tokenizer=tokenizer(tmp_path)))


@pytest.mark.parametrize("content, said", [(None, "There is no tokenizer"), ("{}", "The tokenizer cannot be read")])
def test_a_folder_without_a_tokenizer(tmp_path, content, said):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    for chosen in (settings(tokenizer=str(tmp_path)), settings(frozen={"model": str(tmp_path)})):
        with pytest.raises(AgmError, match=said) as error:
            made(chosen)
        assert "tokenizer.json" in str(error.value)


def test_one_source_of_tokens_at_most():
    with pytest.raises(ValidationError, match="found tokenizer and glove"):
        settings(tokenizer="a", glove="b")


# --- vectors of a network -----------------------------------------------------------------------------------------


def test_vectors_are_the_networks_own(bert):
    found = made(settings(frozen={"model": bert}))
    assert found.feature == Feature("sequence", "float32", (6, 8)) and found.pretrained == Path(bert)
    texts = ["yes", "Yes nobody", "good"]
    vectors = found.finish([found.load(Source(text=text)) for text in texts])
    network = BertModel.from_pretrained(bert).eval()
    for text, vector in zip(texts, vectors, strict=True):
        ids = PreTrainedTokenizerFast.from_pretrained(bert)(text, truncation=True, max_length=6)["input_ids"]
        ids = torch.tensor([[number for number in ids if number]])  # less the padding that is set in its file
        with torch.no_grad():
            wanted = network(ids).last_hidden_state[0].numpy()
        np.testing.assert_allclose(vector[: len(wanted)], wanted, atol=1e-6)
        assert not vector[len(wanted) :].any()


def test_of_a_translating_network_the_half_that_reads(tmp_path):
    folder = tokenizer(tmp_path)
    T5Model(T5Config(vocab_size=8, d_model=12, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(folder)
    assert made(settings(frozen={"model": folder})).feature.shape == (6, 12)


def test_too_many_words_for_the_network(bert):
    with pytest.raises(AgmError, match=r"cannot read inputs of shape \[17\]") as error:
        made(settings(max_tokens=17, frozen={"model": bert}))
    assert "features.text.frozen" in str(error.value)


def test_networks_that_are_not_whole_are_refused(bert):
    weights = Path(bert, "model.safetensors")
    state = load_file(weights)
    save_file({name: each for name, each in state.items() if "output" not in name}, weights, {"format": "pt"})
    with pytest.raises(AgmError, match=r"lacks weights: .*attention"):
        made(settings(frozen={"model": bert}))
    weights.write_bytes(b"damaged")
    with pytest.raises(AgmError, match="cannot be read"):
        made(settings(frozen={"model": bert}))
    weights.unlink()
    torch.save(state, Path(bert, "pytorch_model.bin"))  # a pickle is not opened
    with pytest.raises(AgmError, match="cannot be read"):
        made(settings(frozen={"model": bert}))


def test_code_in_the_folder_is_not_run(bert):
    path, trace = Path(bert, "config.json"), Path(bert, "ran")
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    Path(bert, "mine.py").write_text(f"open({str(trace)!r}, 'w')\n")
    with pytest.raises(AgmError, match="cannot be read"):
        made(settings(frozen={"model": bert}))
    assert not trace.exists()


# --- to a trained network -----------------------------------------------------------------------------------------


def raw(folder: Path) -> Path:
    """Sixteen texts of two classes; those of clips 0 and 1 are of no use."""
    folder.mkdir()
    rows = []
    for number in range(16):
        (folder / f"{number}.txt").write_text("yes good" if number % 2 else "nobody")
        split = ("train", "train", "val", "test")[number // 2 % 4]
        rows.append({"clip_id": f"c{number}", "label": number % 2, "split": split, "file": f"{number}.txt"})
    (folder / "0.txt").write_bytes(b"\xff\xfe")
    (folder / "1.txt").write_text("")
    pl.DataFrame(rows).write_csv(folder / "manifest.csv")
    return folder


def study(features: str, encoder: str) -> tuple[str, ...]:
    return (
        "study=spoken_digits",
        "~dataset.modalities",
        "+dataset.modalities={words:{kind:text,column:file}}",
        "~features",
        "+features={words:{" + features + "}}",
        "~encoders",
        "+encoders={words:{" + encoder + "}}",
    )


@pytest.mark.parametrize("kind", ["text", "sequence"])
def test_from_texts_to_a_trained_network(tmp_path, monkeypatch, bert, kind):
    features, encoder = {
        "text": (f"max_tokens:6,tokenizer:{bert}", "name:transformer,dim:8,num_heads:2,num_layers:1"),
        "sequence": (
            f"max_tokens:6,frozen:{{model:{bert}}}",
            "name:sequence_transformer,dim:8,num_heads:2,num_layers:1",
        ),
    }[kind]
    root = raw(tmp_path / "raw")
    pipeline = Pipeline(tmp_path / "study", monkeypatch, *study(features, encoder), f"dataset.root={root}").run()
    assert pipeline.quarantine.keys() == {"c0", "c1"}
    found = read_json(pipeline.data / "shards.json")["features"]["words"]
    assert (found["kind"], found["vocabulary"]) == (kind, 9 if kind == "text" else None)
    assert pipeline.train()


def test_parts_of_different_weights_are_not_joined(tmp_path, monkeypatch, capsys, bert):
    chosen = study(f"max_tokens:6,frozen:{{model:{bert}}}", "name:identity,dim:8")
    root = raw(tmp_path / "raw")
    pipeline = Pipeline(tmp_path / "study", monkeypatch, *chosen, "num_parts=2", f"dataset.root={root}")
    pipeline.run(["annotations", "list", "ingest", "extract"])
    BertModel(BertConfig.from_pretrained(bert)).save_pretrained(bert)
    assert cli.main(["extract", "words", "1", "--force"]) == 0
    assert cli.main(["shard"]) == 1
    assert "Two parts of a modality were extracted differently" in capsys.readouterr().err
