"""Fornax and PyTorch with PEFT taking turns at the same tuning, and the ratio of their speed and memory.

Each round runs `fornax bench train --mode MODE` and finetune_peft.py for one turn, in processes of their own (peak
memory belongs to a process), as train.py does. Both must have the same model, the same number of trained parameters and the
same batch.

    python eval/peers/finetune.py --fornax target/release/fornax --threads 2 --workload m134
    python eval/peers/finetune.py --workload m134 --mode lora,dpo --device cuda --dtype bf16 --rounds 1 --json
"""
import json
import pathlib
import sys

from train import arguments, compare

HERE = pathlib.Path(__file__).resolve().parent
EQUAL = ("params", "trainable_params", "batch", "context")


def sides(workload, mode, a):
    """The two commands; flags that both know have one name."""
    common = ["--workload", workload, "--mode", mode, "--device", a.device, "--seconds", str(a.seconds)]
    common += ["--warmup", str(a.warmup), "--threads", str(a.threads), "--rank", str(a.rank)]
    for flag, value in (("--batch", a.batch), ("--context", a.context)):
        common += [flag, str(value)] if value else []
    fornax = [a.fornax, "bench", "train", *common, "--precision", a.dtype, "--json"]
    torch = [sys.executable, str(HERE / "finetune_peft.py"), *common, "--dtype", a.dtype, "--head", a.head]
    return fornax, [*torch, "--alpha", str(2 * a.rank)]


def least(rounds, side, field):
    return min((r[side][field] for r in rounds if r[side].get(field) is not None), default=None)


def memory(rounds, compared):
    """Memory in MiB and its ratio: Fornax's most by PyTorch's least of the rounds, which is the worse for Fornax.

    Of a processor's memory the part that Python holds before it has a model is reported apart and counted apart:
    `memory_ratio` is of whole processes, `memory_ratio_without_libraries` takes that part away from PyTorch alone.
    """
    pool = compared["fornax_device_pool_mb"]
    if pool is not None:
        theirs = least(rounds, 1, "device_pool_mb")
        return {"peer_device_pool_mb": theirs, "memory_ratio": pool / theirs if theirs else None}
    ours, theirs = compared["fornax_peak_rss_mb"], least(rounds, 1, "peak_rss_mb")
    empty = least(rounds, 1, "empty_rss_mb")
    return {
        "peer_peak_rss_mb": theirs,
        "peer_empty_rss_mb": empty,
        "memory_ratio": ours / theirs,
        "memory_ratio_without_libraries": ours / (theirs - empty),
    }


def measured(workload, mode, a):
    rounds, compared = compare(workload, mode, sides(workload, mode, a), a, EQUAL)
    ours, theirs, _ = rounds[0]
    kept = {field: theirs[field] for field in ("adapter", "packed", "head", "rank", "params", "trainable_params")}
    return {**compared, **kept, "fornax_packed": ours.get("packed"), "batch": ours["batch"], "context": ours["context"],
            **memory(rounds, compared)}


def main():
    parser = arguments()
    parser.description = __doc__.split("\n\n")[0]
    parser.add_argument("--workload", default="nano,small,story", help="names, with commas; m134 is the largest")
    parser.add_argument("--mode", default="full,lora,qlora,dpo", help="names, with commas")
    parser.add_argument("--rank", type=int, default=16, help="of the adapters; alpha is twice as much")
    parser.add_argument("--head", choices=["full", "chunked"], default="full", help="PyTorch's logits, see there")
    a = parser.parse_args()
    if a.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not a.json:
        print(f"{'workload':9} {'mode':6} {'fornax':>9} {'torch':>9} {'ratio':>6} {'from':>6} {'to':>6} "
              f"{'fornax MiB':>10} {'torch MiB':>10} {'empty':>6} {'memory':>6}", flush=True)
    for workload in a.workload.split(","):
        for mode in a.mode.split(","):
            r = measured(workload, mode, a)
            if a.json:
                print(json.dumps(r), flush=True)
                continue
            gpu = r["fornax_device_pool_mb"] is not None
            field = "device_pool_mb" if gpu else "peak_rss_mb"
            print(f"{workload:9} {mode:6} {r['fornax_tokens_per_second']:9.0f} {r['peer_tokens_per_second']:9.0f} "
                  f"{r['ratio']:6.3f} {r['ratio_lowest']:6.3f} {r['ratio_highest']:6.3f} "
                  f"{r['fornax_' + field] or 0:10} {r['peer_' + field] or 0:10} "
                  f"{r.get('peer_empty_rss_mb') or 0:6} {r['memory_ratio'] or 0:6.3f}", flush=True)


if __name__ == "__main__":
    main()
