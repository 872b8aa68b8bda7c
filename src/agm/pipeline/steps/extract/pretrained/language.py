"""Turn text into a vector for each token, [words, size], the states after the last layer of a Hugging Face network.

Special tokens have vectors too. Every text is read at its own length.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from agm.extras import require
from agm.pipeline.config.schema import TextFeatures
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.steps.extract import tokens


class Language(nn.Module):
    """A network of tokens, [B, n] → [B, n, size]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(input_ids=x, attention_mask=torch.ones_like(x)).last_hidden_state


def network(folder: str, key: str) -> Language:
    """The network with its weights; of an encoder and decoder, only the encoder.

    Raises:
        AgmError: when the folder does not hold it and its tokenizer.
        MissingExtra: when the library is not installed.
    """
    tokens.check(folder, f"{key}.model")
    os.environ["HF_HUB_OFFLINE"] = "1"  # the library reads it when it is imported
    require("transformers", "text")
    from safetensors import SafetensorError
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its warnings are errors below
    try:
        # Weights in safetensors, and no code from the folder: nothing in it is run.
        model, loading_info = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise AgmError(
            f"The pretrained network cannot be read: {error}",
            where=Path(folder),
            fix="the folder must hold config.json and model.safetensors, as `save_pretrained(folder)` writes them",
        ) from None
    # Missing weights would be random, with only a warning. The pooling of tokens is not used, and may be random.
    missing = sorted(name for name in loading_info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise AgmError(f"The pretrained network lacks weights: {', '.join(missing[:5])}, …", where=Path(folder))
    return Language(model.get_encoder() if model.config.is_encoder_decoder else model)


def load(source: Source, settings: TextFeatures) -> np.ndarray:
    """The ids of the text's first tokens, int64 [n].

    Raises:
        Unusable: when the file is not UTF-8 or holds no token.
    """
    return tokens.numbers(source, settings.frozen.model, settings.max_tokens)


def longest(settings: TextFeatures) -> np.ndarray:
    """The largest number of tokens that `load` returns, each with the highest id."""
    return np.full(settings.max_tokens, tokens.highest(settings.frozen.model), np.int64)
