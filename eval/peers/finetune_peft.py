"""Tuning steps of the workloads of `fornax bench train --mode MODE`, in PyTorch and PEFT: the other side of it.

The model is that of train_torch.py with random weights, frozen parameters in f32, AdamW with PyTorch's defaults and a
learning rate of 3e-4 in its fused form, one random batch taken again and again, every token trained. `full` trains
every parameter; `lora` an adapter of PEFT on the seven projections of each block; `qlora` the same over projections of
4 bits; `dpo` the adapter with the sigmoid loss, half of the rows chosen and half rejected, the reference the same model
with the adapter off in a second pass (tokens are counted once). Projections of 4 bits are bitsandbytes' nf4 where it
can be imported, else symmetric int4 in blocks of 32, dequantized in the forward and again in the backward pass; where
PEFT cannot be imported its layer is written out. `adapter` and `packed` in the output say which it was. With --head
chunked the logits are made and made again 1024 tokens at a time, as TRL does by default, instead of all at once. Prints
one JSON object a line, with the field names of `fornax bench train --json`. Memory is that of the process so far:
measure one mode a call.

    python finetune_peft.py --workload nano --mode lora --seconds 8 --threads 2
    python finetune_peft.py --workload m134 --mode qlora --device cuda --dtype bf16 --batch 16 --context 1024
"""
import contextlib
import importlib.metadata
import json
import resource

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from train_torch import DTYPES, WORKLOADS, Block, Model, arguments, rotation, timed

PROJECTIONS = ("query", "key", "value", "output", "gate", "up", "down")
# vocab, width, layers, heads, kv_heads, ffn, batch, context; SmolLM2-135M's shape, whose head is the embedding.
SHAPES = {**WORKLOADS, "m134": (49152, 576, 30, 9, 3, 1536, 4, 256)}
TIED = {"m134"}
MODES = ["full", "lora", "qlora", "dpo"]
CHUNK = 1024
INT4_BLOCK, NF4_BLOCK = 32, 64


def importable(name):
    """The version of a package, or None where it cannot be imported."""
    try:
        __import__(name)
        return importlib.metadata.version(name)
    except Exception:  # a package that is there without its libraries fails in ways of its own
        return None


class Tuned(Model):
    """The model up to the negative log-likelihood of each target, [rows, tokens].

    `change` is applied to each block as soon as it is made, so that the dense blocks of a packed model never are in
    memory together.
    """

    def __init__(self, vocab, width, layers, heads, kv_heads, ffn, tied, change):
        super().__init__(vocab, width, 0, heads, kv_heads, ffn)
        self.params = sum(p.numel() for p in self.parameters()) - (vocab * width if tied else 0)
        for _ in range(layers):
            block = Block(width, heads, kv_heads, ffn)
            self.params += sum(p.numel() for p in block.parameters())
            self.blocks.append(change(block))
        if tied:
            self.head.weight = self.embedding.weight
            nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, ids, targets, cos, sin, chunked):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, cos, sin)
        x = self.norm(x)

        def nll(hidden, wanted):
            return F.cross_entropy(self.head(hidden).float(), wanted, reduction="none")

        hidden, wanted = x.flatten(0, 1), targets.flatten()
        if not chunked:
            return nll(hidden, wanted).view(ids.shape)
        parts = [checkpoint(nll, h, w, use_reentrant=False)
                 for h, w in zip(hidden.split(CHUNK), wanted.split(CHUNK))]
        return torch.cat(parts).view(ids.shape)


class Dequantized(torch.autograd.Function):
    """x [.., in] by a packed matrix; only the packed matrix is kept for the backward pass, which unpacks it again."""

    @staticmethod
    def forward(ctx, x, layer):
        ctx.layer = layer
        return F.linear(x, layer.dense(x.dtype))

    @staticmethod
    def backward(ctx, gradient):
        return gradient @ ctx.layer.dense(gradient.dtype), None


class Int4(nn.Module):
    """Symmetric codes of -7 to 7, two in a byte, with an f32 scale for each block of 32 along a row."""

    def __init__(self, dense):
        super().__init__()
        self.in_features, self.out_features = dense.in_features, dense.out_features
        weight = dense.weight.data
        short = -self.in_features % INT4_BLOCK
        blocks = F.pad(weight, (0, short)).view(self.out_features, -1, INT4_BLOCK)
        scale = blocks.abs().amax(-1, keepdim=True) / 7
        codes = (blocks / scale.clamp(min=1e-30)).round().add(8).to(torch.uint8).view(self.out_features, -1)
        self.register_buffer("codes", codes[:, 0::2] | (codes[:, 1::2] << 4))
        self.register_buffer("scale", scale)

    def dense(self, dtype):
        codes = torch.stack((self.codes & 15, self.codes >> 4), -1).view(self.out_features, -1, INT4_BLOCK)
        weight = (codes.to(dtype) - 8) * self.scale.to(dtype)
        return weight.view(self.out_features, -1)[:, : self.in_features]

    def forward(self, x):
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return Dequantized.apply(x, self)


def nf4(dense, dtype):
    """A layer of bitsandbytes with the same weights."""
    import bitsandbytes

    layer = bitsandbytes.nn.Linear4bit(dense.in_features, dense.out_features, bias=False, compute_dtype=dtype,
                                       compress_statistics=False, quant_type="nf4")
    layer.weight = bitsandbytes.nn.Params4bit(dense.weight.data, requires_grad=False, compress_statistics=False,
                                              quant_type="nf4", blocksize=NF4_BLOCK)
    return layer


class Adapter(nn.Module):
    """PEFT's LoRA layer without PEFT: the base, and alpha / rank times the two thin matrices."""

    on = True

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.a = nn.Linear(base.in_features, rank, bias=False)
        self.b = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        y = self.base(x)
        return y + self.b(self.a(x)) * self.scale if Adapter.on else y


@contextlib.contextmanager
def adapters_off():
    Adapter.on = False
    try:
        yield
    finally:
        Adapter.on = True


def replace(block, change):
    """Every projection of a block by what `change` makes of it."""
    for name in PROJECTIONS:
        setattr(block, name, change(getattr(block, name)))
    return block


def packing(a):
    """What makes a block's projections 4 bits wide, and what to call it."""
    found = importable("bitsandbytes") if a.packed != "plain" else None
    if a.packed == "bitsandbytes" and not found:
        raise SystemExit("error: bitsandbytes cannot be imported")
    if found:
        name = f"bitsandbytes {found} nf4, blocks of {NF4_BLOCK}"
        return lambda block: replace(block, lambda dense: nf4(dense, DTYPES[a.dtype]).to(a.device)), name
    return lambda block: replace(block, Int4), f"plain torch int4, blocks of {INT4_BLOCK}"


def adapt(model, packed, a):
    """The model with adapters on every projection, a context that switches them off, and what to call them."""
    model.requires_grad_(False)
    # PEFT knows bitsandbytes' layers, but not those written here.
    foreign = packed is not None and not packed.startswith("bitsandbytes")
    found = importable("peft") if a.adapter != "plain" and not foreign else None
    if a.adapter == "peft" and not found:
        raise SystemExit("error: PEFT cannot be imported, or does not know the packed layers")
    if found:
        import peft

        config = peft.LoraConfig(r=a.rank, lora_alpha=a.alpha, target_modules=list(PROJECTIONS))
        model = peft.get_peft_model(model, config)
        return model, model.disable_adapter, f"peft {found}"
    for block in model.blocks:
        replace(block, lambda base: Adapter(base, a.rank, a.alpha).to(a.device))
    return model, adapters_off, "plain torch"


def measure(name, a):
    vocab, width, layers, heads, kv_heads, ffn, batch, context = SHAPES[name]
    batch, context = a.batch or batch, a.context or context
    if a.mode == "dpo" and batch % 2:
        raise SystemExit(f"error: {batch} rows make no pairs")
    # Libraries weigh hundreds of MiB before there is a model.
    importable("peft"), importable("bitsandbytes")
    empty = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    kind = a.device.split(":")[0]
    torch.manual_seed(0)
    adapter = packed = off = None
    change = lambda block: block if a.mode == "full" else block.to(DTYPES[a.frozen_dtype])
    if a.mode == "qlora":
        change, packed = packing(a)
    model = Tuned(vocab, width, layers, heads, kv_heads, ffn, name in TIED, change)
    params = model.params
    if a.mode != "full":
        model.embedding.to(DTYPES[a.frozen_dtype]), model.head.to(DTYPES[a.frozen_dtype])
    model.to(a.device)
    if a.mode != "full":
        model, off, adapter = adapt(model, packed, a)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-4, fused=True)
    cos, sin = rotation(width // heads, context, a.device)
    inputs, targets = (torch.randint(0, vocab, (batch, context), device=a.device) for _ in range(2))

    def nll():
        with torch.autocast(kind, DTYPES[a.dtype], enabled=a.dtype != "f32"):
            return model(inputs, targets, cos, sin, a.head == "chunked")

    def dpo():
        with torch.no_grad(), off():
            reference = -nll().sum(1)
        chosen, rejected = (-nll().sum(1) - reference).chunk(2)
        return -F.logsigmoid(a.beta * (chosen - rejected)).mean()

    def step():
        loss = dpo() if a.mode == "dpo" else nll().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if kind == "cuda":
            torch.cuda.synchronize()
        return loss

    return {
        "peer": f"torch {torch.__version__}",
        "workload": name,
        "mode": a.mode,
        "adapter": adapter,
        "packed": packed,
        "head": a.head,
        "rank": None if a.mode == "full" else a.rank,
        "params": params,
        "trainable_params": sum(p.numel() for p in trained),
        "batch": batch,
        "context": context,
        "empty_rss_mb": empty,
        **timed(step, batch * context, a),
    }


def main():
    parser = arguments(SHAPES, MODES)
    parser.description = __doc__.split("\n\n")[0]
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=float, default=32)
    parser.add_argument("--beta", type=float, default=0.1, help="of the DPO loss")
    parser.add_argument("--head", choices=["full", "chunked"], default="full", help="logits at once or in pieces")
    parser.add_argument("--adapter", choices=["peft", "plain"], help="PEFT where it can be imported, without it")
    parser.add_argument("--packed", choices=["bitsandbytes", "plain"], help="bitsandbytes where it can be imported")
    parser.add_argument("--frozen-dtype", choices=DTYPES, default="f32", help="of parameters that are not trained")
    a = parser.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    print(json.dumps(measure(a.workload, a)), flush=True)


if __name__ == "__main__":
    main()
