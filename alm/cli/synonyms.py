"""What people type for a command that has another name here, or that does not exist."""

from __future__ import annotations

from typing import NoReturn

_TRAIN = "train a model: `alm pretrain`; a tokenizer: `alm tokenizer train`"
_CLEAN = "clean text: `alm corpus prepare my-texts/`"
_START = "make a model in one command: `alm quickstart`"
_WRITE = 'continue a text: `alm sample "Once upon a time"`; line by line: `alm sample -i`'
_SCORE = "see the score of a run on held-out text: `alm runs`; its curves: `alm report`"
_LIST = "list runs: `alm runs`; what a file or folder is: `alm info PATH`"
_SHOW = "follow a run: `alm watch`; write a page about it: `alm report`"
_SETUP = "check this machine: `alm doctor`; what a run needs: `alm plan`"
_TUNE = "teach a model to answer: `alm finetune --data chats.jsonl`; train it on text: `alm pretrain --init runs/NAME`"
_SERVE = "let another program serve it: `alm export --to gguf`, which llama.cpp and Ollama load"
_SMALL = "make a model small and fast: `alm quantize --to int8`"
_TOKENS = "show the tokens of a text: `alm tokenizer encode`; tokenize a corpus: `alm pack`"
_SHARE = "upload a model to the Hugging Face Hub: `alm push --repo NAME`"

# Words by the advice that they get. Hyphens and underscores do not count.
_NAMES = {
    _TRAIN: "train training fit learn resume continue run pretraining",
    _CLEAN: "prepare clean dataset datasets preprocess text texts ingest filter dedup crawl scrape add read",
    "read a data set of the Hugging Face Hub: name it in a corpus file for `alm corpus prepare --src FILE`": "download "
    "pull fetch get",
    "talk with a model: `alm chat`": "talk ask converse conversation message bot",
    _START: "init new start demo tutorial example examples create make build begin setup go hello all auto",
    _WRITE: "generate gen infer inference complete completion predict write prompt text2text repl interactive test try "
    "use",
    _TUNE: "finetuning tune sft lora qlora peft instruct adapt",
    _SMALL: "quantise quant quantization quantisation compress shrink int8 int4",
    _SCORE: "score loss perplexity ppl validate val bench benchmark",
    _LIST: "ls list show status models checkpoints dir inspect describe",
    _SHOW: "plot monitor dashboard tensorboard logs log curves progress top",
    _SETUP: "check env environment gpu cuda memory estimate cost",
    _TOKENS: "tokenize tokenise encode decode tok vocab vocabulary bpe",
    _SHARE: "upload publish share release",
    "write a model as files of another tool: `alm export`; read one: `alm import PATH`": "convert save gguf onnx "
    "safetensors huggingface hf load",
    "show or copy settings: `alm config show`, `alm config copy train`": "set settings configure "
    "preset presets options",
    "show the version: `alm --version`": "version",
    "list the commands: `alm --help`; the options of one: `alm pretrain --help`": "help man usage docs commands",
}
_MISSING = {
    _TUNE: "dpo rlhf ppo grpo align distil distill merge",
    _WRITE: "arena",
    _SERVE: "serve server api deploy web ui app",
    _SMALL: "prune",
    _SCORE: "eval evaluate evaluation",
}


def lead(word: str, *, exists: bool) -> None:
    """Raise `ConfigError` that leads from `word`, which is not a command, to one; return if it leads nowhere.

    `exists` says that `word` is the path of a file or folder.
    """
    from alm.errors import quoted

    plain = word.casefold().replace("-", "").replace("_", "")
    for names in (_NAMES, _MISSING):
        for advice, words in names.items():
            if plain in words.split():
                end = "" if names is _NAMES else " yet"
                _refuse(f"there is no command `alm {quoted(word)}`{end}", f"to {advice}")
    if exists:
        _refuse(
            f"{quoted(word)} is a path, not a command",
            f"to make a model of it: `alm quickstart {quoted(word)}`; to see what it is: `alm info {quoted(word)}`",
        )


# Options of other tools, and what does the same here: a flag of the command, or a key for `--set`.
_OPTIONS = {
    "training.max_steps=": "--steps --max-steps --iters --max-iters --num-steps --iterations",
    "--budget": "--epochs --num-epochs --time --minutes --hours --duration",
    "optim.lr=": "--lr --learning-rate --rate",
    "training.micro_batch_size=": "--batch-size --batch --bs --micro-batch-size",
    "model.n_layers=": "--layers --n-layers --num-layers --depth",
    "model.d_model=": "--hidden-size --d-model --width --dim",
    "model.dropout=": "--dropout",
    "optim.weight_decay=": "--weight-decay --wd",
    "--seq-len": "--block-size --context --context-length --max-length --sequence-length --max-seq-len",
    "--vocab-size": "--vocab --n-vocab",
    "--max-new-tokens": "--max-tokens --length --tokens --num-tokens --n-predict",
    "--once": "--prompt --message --question --text",
    "--system": "--system-prompt --instructions --persona",
    "--format": "--template --chat-template",
    "--max-tokens": "--max-new-tokens --length --tokens --num-tokens --n-predict --max-length",
    "--temperature": "--temp",
    "--num-samples": "--n --count --samples",
    "--checkpoint": "--model --ckpt --run --model-path --load",
    "--out": "--output --output-dir --out-dir --outdir --dest --save",
    "--input": "--in --data --text --texts --files --corpus",
    "--in": "--input --data --text --texts --files --corpus",
    "--data": "--dataset --corpus --input --in --text",
    "--device": "--gpu --cuda --cpu",
    "--nproc": "--gpus --num-gpus --devices",
    "--force": "--overwrite --yes",
    "--prompt": "--text --input --start",
}


def lead_option(name: str, command: str, flags: set[str], given: list[str]) -> None:
    """Raise `ConfigError` that leads from an option that `command` does not have to one of its `flags`."""
    from alm.errors import shell

    plain = name.casefold().replace("_", "-")
    for target, names in _OPTIONS.items():
        is_there = target in flags or (target.endswith("=") and command.split()[-1] in ("pretrain", "plan"))
        if is_there and plain in names.split():
            word = next((word for word in given if word.partition("=")[0] == name), "")
            after = given[given.index(word) + 1 :] if word else []
            value = word.partition("=")[2] or (after[0] if after and not after[0].startswith("-") else "N")
            instead = ("--set", target + value) if target.endswith("=") else (target,)
            _refuse(f"`{command}` has no option `{name}`", f"use `{shell(*instead)}`")


def lead_into(group: str, command: str, given: list[str]) -> NoReturn:
    """Raise `ConfigError` for a group whose only command is left out."""
    from alm.errors import shell

    _refuse(f"`{group}` needs a command: there is `{command}`", f"run `{shell(*group.split(), command, *given)}`")


def _refuse(message: str, hint: str) -> NoReturn:
    from alm.errors import ConfigError

    raise ConfigError(message, hint=hint)
