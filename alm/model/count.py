"""Counts a model's parameters, and the arithmetic and memory of a token, from its configuration alone."""

from __future__ import annotations

from dataclasses import dataclass

from alm.model.config import ModelConfig, padded

FLOPS_PER_MULTIPLY_ADD = 2
# The backward pass makes two matrix products for each one of the forward pass.
TRAINING_PASSES = 3
# Of a process on a CPU: gaps that freed blocks leave, as a factor, and loaded code (docs/benchmarks.md).
CPU_GAPS, CPU_CODE_BYTES = 1.2, 100 * 2**20
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
# Gradients of one layer before its saved tensors are freed, as a multiple of its inner width: of the gate, of the
# other input of the product, and of the product.
LAYER_GRADIENTS = 3

# Rows whose logits exist at a time: at least this many, and more while they have at most `CHUNK_ELEMENTS` logits. Small
# chunks stay in a CPU's cache; a GPU needs large products.
CHUNK_ROWS_CPU, CHUNK_ROWS_GPU = 256, 4096
CHUNK_ELEMENTS = 2**20


def chunk_rows(rows: int, width: int, *, on_gpu: bool) -> int:
    """Return how many of `rows`, with `width` logits each, the loss processes at a time."""
    return min(rows, max(CHUNK_ROWS_GPU if on_gpu else CHUNK_ROWS_CPU, CHUNK_ELEMENTS // width))


@dataclass(frozen=True)
class Memory:
    """Bytes of training at its peak, by part."""

    weights: int
    optimizer: int
    gradients: int  # those that exist at the peak
    activations: int
    temporary: int  # logits of a chunk of rows, or the gradients within a layer

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.weights + self.optimizer + self.gradients + self.activations + self.temporary

    @property
    def of_process(self) -> int:
        """Growth of a process that trains on a CPU: freed blocks leave gaps, and code is loaded.

        Measured over shapes from 1 to 60 million parameters (docs/benchmarks.md).
        """
        return round(CPU_GAPS * self.total) + CPU_CODE_BYTES


@dataclass(frozen=True)
class Count:
    """Parameters by part, and the cost of one token."""

    embedding: int
    attention: int
    feedforward: int
    norms: int
    head: int  # 0 when tied
    extras: int  # biases, and scales of x0_skip, value_residual and smear
    matmul: int  # entries of the matrices that multiply a token, including the head, tied or not
    _config: ModelConfig

    @property
    def total(self) -> int:
        """Number of parameters. A tied head counts once."""
        return self.embedding + self.attention + self.feedforward + self.norms + self.head + self.extras

    def moments(self, *, matrix: int, other: int) -> int:
        """Return the numbers that an optimizer keeps: `matrix` per entry of a block's matrix, else `other`."""
        matrices = self.attention + self.feedforward
        return matrix * matrices + other * (self.total - matrices)

    def forward_flops_per_token(self, tokens: int) -> float:
        """Return the mean FLOPs of a token in a causal sequence: 2 (matmul + 2 width x tokens seen, in each layer).

        Kaplan et al. 2020 (arXiv:2001.08361, table 1, 2N + 2 n_layer n_ctx d_attn), with their context replaced by the
        tokens that a causal token sees: (tokens + 1) / 2 on average, fewer in a window, once for the scores and once
        for the mixing. Norms, softmax and activations are left out.
        """
        config = self._config
        attended = sum(config.attention.attended(tokens, layer) for layer in range(config.n_layers))
        return FLOPS_PER_MULTIPLY_ADD * (self.matmul + 2 * config.n_heads * config.head_width * attended)

    def training_flops_per_token(self, tokens: int) -> float:
        """Return the FLOPs of forward and backward: three times the forward pass (Kaplan et al. 2020, section 2.1)."""
        return TRAINING_PASSES * self.forward_flops_per_token(tokens)

    def activation_bytes(self, sequences: int, tokens: int, *, precision: str = "fp32") -> int:
        """Return the bytes that a forward pass of `sequences` x `tokens` saves for the backward pass.

        Each layer saves the residual stream before both norms, always in fp32, the outputs of the norms, and the
        tensors of the attention and the feed-forward layer. This is without compilation, which saves less.
        """
        config = self._config
        narrow = BYTES[precision]
        attention = config.attention.saved_bytes(config, narrow=narrow)
        feedforward = config.feedforward.saved_bytes(config, narrow=narrow)
        D = config.d_model
        layer = 4 * (2 * D + 2) + narrow * 2 * D + attention + feedforward
        extras = 4 * (D * config.n_layers if config.x0_skip else 0) + 4 * (D if config.smear else 0)
        mixed = (config.n_layers - 1) * config.n_kv_heads * config.head_width if config.value_residual else 0
        masks = D * (2 * config.n_layers + 1) if config.dropout else 0
        ids, last = 8, 4 * (D + 1)
        each = config.n_layers * layer + extras + narrow * mixed + masks + last + ids
        return round(sequences * tokens * each)

    def memory(
        self,
        sequences: int,
        tokens: int,
        *,
        precision: str = "fp32",
        moments: tuple[int, int] = (2, 2),
        accumulates: bool = False,
        on_gpu: bool = False,
        shards: int = 1,
        tree_sums: int | None = None,
    ) -> Memory:
        """Estimate the peak memory of training with micro-batches of `sequences` x `tokens`.

        `moments` are the numbers that the optimizer keeps, as in the method of that name. With `accumulates`, a step
        has several micro-batches, and with `shards` ranks each has a part of everything (FSDP). `tree_sums` sums of
        gradients exist when the last micro-batch arrives, if gradients are summed in a tree.
        """
        config, rows, narrow = self._config, sequences * tokens, BYTES[precision]
        D, width = config.d_model, padded(config.known_vocab_size)
        table = 4 * width * D  # of the embeddings, or of the head
        # All parameters in fp32, as many bytes as their gradients, with the rows that pad the tables.
        padding = (1 if config.tie_embeddings else 2) * (width - config.known_vocab_size) * D
        everything = 4 * (self.total + padding)
        part = everything // shards
        inside = 4 * (self.attention + self.feedforward + self.norms)
        # FSDP gathers the parameters outside the blocks for the whole step, and two blocks: this one and the next.
        gathered = everything - inside + 2 * (inside // config.n_layers) if shards > 1 else 0
        # Gradients of the micro-batches before: one sum, or those of the tree.
        earlier = part if accumulates else everything * (tree_sums or 0)
        activations = self.activation_bytes(sequences, tokens, precision=precision)
        # The logits of a chunk in fp32; in another precision also the product, and the gradient for the next one.
        logits = chunk_rows(rows, width, on_gpu=on_gpu) * width * (4 if narrow == 4 else 4 + 2 * narrow)
        # Hidden states, their gradient, and rows scaled for the product with the logits' gradient.
        loss = logits + 3 * 4 * rows * D
        layer = LAYER_GRADIENTS * narrow * rows * config.ffn_hidden_size

        # The peak is at one of three moments, each with its gradients, activations and temporary tensors.
        # The last backward pass starts: of this micro-batch, only the head has a gradient.
        start = (table + earlier, activations, max(loss, layer))
        # It ends, at the first layer: all gradients exist. Tied embeddings add theirs to that of the head; when the
        # step accumulates, the table's new gradient is added to its sum. Parameters are still gathered.
        added = table * (config.tie_embeddings + accumulates) + (0 if accumulates else earlier)
        end = (part + added + gathered, activations // config.n_layers, layer)
        # The tree adds: the last micro-batch's gradient, a flat copy of it, the sums so far, and the sum being made.
        adding = (0 if tree_sums is None else everything * (3 + tree_sums), 0, 0)
        gradients, saved, temporary = max(start, end, adding, key=sum)

        copies = narrow * everything // 4 if narrow < 4 else 0  # of the weights, made by autocast
        matrix, other = moments
        kept = 4 * self.moments(matrix=matrix, other=other) + other * (everything - 4 * self.total)
        return Memory(
            weights=part + gathered + copies,
            optimizer=kept // shards,
            gradients=gradients,
            activations=saved,
            temporary=temporary,
        )


def count(config: ModelConfig) -> Count:
    """Count the parameters of a model of this shape. Raises `ConfigError` while its vocabulary is `auto`."""
    table = config.known_vocab_size * config.d_model
    attention = config.n_layers * config.attention.matmul_parameters(config)
    multiplied = config.n_layers * config.feedforward.matmul_parameters(config)
    # With routing, a layer has more parameters than multiply one token.
    feedforward = config.n_layers * config.feedforward.parameters(config)
    # The product has the padded rows too, if the number of tokens is not a multiple of 64.
    head = padded(config.known_vocab_size) * config.d_model
    head_norms = 2 * config.head_width if config.qk_norm else 0
    return Count(
        embedding=table,
        attention=attention,
        feedforward=feedforward,
        norms=config.n_layers * (2 * config.d_model + head_norms) + config.d_model,
        head=0 if config.tie_embeddings else table,
        extras=_extras(config),
        matmul=attention + multiplied + head,
        _config=config,
    )


def _extras(config: ModelConfig) -> int:
    biases = config.n_layers * config.attention.bias_parameters(config)
    residual_scales = 2 * config.n_layers if config.x0_skip else 0
    value_scales = config.n_layers - 1 if config.value_residual else 0
    return biases + residual_scales + value_scales + (config.d_model if config.smear else 0)
