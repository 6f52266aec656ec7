"""`fornax bench train` beside PyTorch: both on this machine, in this call, taking turns, and their ratio.

Each workload is measured in rounds; in a round each program has one turn, in a process of its own (peak memory belongs
to a process). Turns alternate so that what else the machine does falls on both. The ratio is Fornax's tokens per
second by PyTorch's within a round; the middle round is printed with the lowest and the highest.

    python eval/peers/train.py --fornax target/release/fornax --threads 2
    python eval/peers/train.py --workload gpt2 --device cuda --dtype bf16 --mode eager,compile --rounds 1 --json
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def say(text):
    print(text, file=sys.stderr, flush=True)


def turn(command):
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ran.returncode != 0:
        raise SystemExit(f"error: exit code {ran.returncode} from {' '.join(map(str, command))}")
    return json.loads(ran.stdout.splitlines()[-1])


def sides(workload, mode, a):
    """The two commands; flags that both know have one name."""
    common = ["--workload", workload, "--device", a.device, "--seconds", str(a.seconds), "--warmup", str(a.warmup)]
    common += ["--threads", str(a.threads)]
    for flag, value in (("--batch", a.batch), ("--context", a.context)):
        common += [flag, str(value)] if value else []
    fornax = [a.fornax, "bench", "train", *common, "--precision", a.dtype, "--json"]
    torch = [sys.executable, str(HERE / "train_torch.py"), *common, "--dtype", a.dtype, "--mode", mode]
    return fornax, torch


def compare(workload, mode, commands, a, equal=("params",)):
    """Turns of both commands, Fornax's leading; the fields `equal` must say that both did the same work."""
    fornax, torch = commands
    rounds = []
    for number in range(a.rounds):
        ours, theirs = turn(fornax), turn(torch)
        for field in equal:
            if ours[field] != theirs[field]:
                raise SystemExit(f"error: {workload} {mode}: {field} is {ours[field]} against {theirs[field]}")
        ratio = ours["tokens_per_second"] / theirs["tokens_per_second"]
        say(f"{workload} round {number + 1} of {a.rounds}: {ours['tokens_per_second']:.0f} against "
            f"{theirs['tokens_per_second']:.0f} tokens/s ({mode}), ratio {ratio:.3f}")
        rounds.append((ours, theirs, ratio))
    ratios = sorted(ratio for _, _, ratio in rounds)

    def middle(side, field):
        values = [r[side][field] for r in rounds if r[side].get(field) is not None]
        return statistics.median(values) if values else None

    def most(side, field):
        return max((r[side][field] for r in rounds if r[side].get(field) is not None), default=None)

    return rounds, {
        "workload": workload,
        "device": a.device,
        "dtype": a.dtype,
        "threads": a.threads,
        "rounds": a.rounds,
        "seconds": a.seconds,
        "fornax": rounds[0][0]["peer"],
        "peer": rounds[0][1]["peer"],
        "mode": mode,
        "fornax_tokens_per_second": middle(0, "tokens_per_second"),
        "peer_tokens_per_second": middle(1, "tokens_per_second"),
        "ratio": statistics.median(ratios),
        "ratio_lowest": ratios[0],
        "ratio_highest": ratios[-1],
        "fornax_peak_rss_mb": most(0, "peak_rss_mb"),
        "peer_peak_rss_mb": most(1, "peak_rss_mb"),
        "fornax_device_pool_mb": most(0, "device_pool_mb"),
        "peer_device_pool_mb": most(1, "device_pool_mb"),
        "matmul_share": middle(0, "matmul_share"),
    }


def arguments():
    """The parser of the flags that training and tuning have in common."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fornax", default="target/release/fornax", help="the program")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16", "f16"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each turn")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the clock of each turn")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--context", type=int)
    parser.add_argument("--json", action="store_true", help="one object a line instead of a table")
    return parser


def main():
    parser = arguments()
    parser.description = __doc__.split("\n\n")[0]
    parser.add_argument("--workload", default="nano,small,story", help="names, with commas")
    parser.add_argument("--mode", default="eager", help="eager, compile, or both with a comma")
    a = parser.parse_args()
    if a.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not a.json:
        print(f"{'workload':9} {'mode':8} {'fornax':>10} {'torch':>10} {'ratio':>6} {'from':>6} {'to':>6} "
              f"{'fornax MiB':>10} {'torch MiB':>10}", flush=True)
    for workload in a.workload.split(","):
        for mode in a.mode.split(","):
            _, r = compare(workload, mode, sides(workload, mode, a), a)
            if a.json:
                print(json.dumps(r), flush=True)
            else:
                print(f"{workload:9} {mode:8} {r['fornax_tokens_per_second']:10.0f} {r['peer_tokens_per_second']:10.0f} "
                      f"{r['ratio']:6.3f} {r['ratio_lowest']:6.3f} {r['ratio_highest']:6.3f} "
                      f"{r['fornax_peak_rss_mb'] or 0:10} {r['peer_peak_rss_mb']:10}", flush=True)


if __name__ == "__main__":
    main()
