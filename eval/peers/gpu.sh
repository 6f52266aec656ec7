#!/usr/bin/env bash
# Measures a packed Fornax on a machine with a GPU, and its peers beside it. docs/guide/gpu.md tells how to read the
# results.
#
#   eval/peers/gpu.sh PHASE... --fornax ARCHIVE --out DIR [--budget SECONDS] [--caches DIR] [--fixtures DIR]
#
# PHASE is ops, parity, train, decode, peer, post or engine, or all of them as `all`, in the order given. The machine needs an NVIDIA
# driver, CUDA 13 with NVRTC and headers (CUDA_PATH, /usr/local/cuda, or what came with torch), and Python, for `peer`
# with torch and transformers, for `post` with torch (and peft and bitsandbytes where they are); no Rust, no network. ARCHIVE is what eval/peers/pack.sh wrote. A phase writes
# DIR/PHASE.json after each of its measurements and has at most 8 minutes; what does not fit into them or into the budget
# is skipped and named. A failed measurement is recorded and the next one begins. Tuning results and compiled kernels are
# left in DIR/caches-*.tar.xz; give DIR as --caches next time. Exit code: 0, 1 where a measurement failed, 2 for wrong
# arguments.
#
# For a trial on another machine, variables change what is measured: DEVICE (cuda), WORKLOAD (gpt2), PRECISION (bf16),
# BATCH and CONTEXT (the workload's), SECONDS_EACH (20), PROMPT_TOKENS (256), NEW_TOKENS (128), PYTHON (python3),
# TORCH_MODES (eager compile); for `post` POST_WORKLOAD (m134), POST_BATCH (16) and POST_CONTEXT (1024).
set -uo pipefail

wrong() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

absolute() { case "$1" in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
phases=() budget=1800 out='' caches='' archive='' fixtures=$here/../../tests/fixtures/parity
while (($# > 0)); do
    case "$1" in
    --budget | --out | --caches | --fornax | --fixtures)
        (($# > 1)) || wrong "$1 needs a value"
        case "$1" in
        --budget) budget=$2 ;;
        --out) out=$(absolute "$2") ;;
        --caches) caches=$(absolute "$2") ;;
        --fornax) archive=$(absolute "$2") ;;
        --fixtures) fixtures=$(absolute "$2") ;;
        esac
        shift 2
        ;;
    all) phases+=(ops parity train decode peer post engine) && shift ;;
    ops | parity | train | decode | peer | post | engine) phases+=("$1") && shift ;;
    *) wrong "\`$1\` is not a phase or a flag; phases are ops, parity, train, decode, peer, post, engine, all" ;;
    esac
done
((${#phases[@]} > 0)) || wrong 'no phase was given'
[[ -n $out ]] || wrong '--out is missing'
[[ -n $archive ]] || wrong '--fornax is missing'
[[ -f $archive ]] || wrong "\`$archive\` does not exist"
[[ $budget =~ ^[0-9]+$ ]] || wrong "--budget is \`$budget\`, expected whole seconds"
[[ -z $caches || -d $caches ]] || wrong "\`$caches\` is not a folder"

device=${DEVICE:-cuda} workload=${WORKLOAD:-gpt2} precision=${PRECISION:-bf16} each=${SECONDS_EACH:-20}
prompt=${PROMPT_TOKENS:-256} new=${NEW_TOKENS:-128} python=${PYTHON:-python3} modes=${TORCH_MODES:-eager compile}
batch=(${BATCH:+--batch "$BATCH"} ${CONTEXT:+--context "$CONTEXT"})
tuned=(--workload "${POST_WORKLOAD:-m134}" --batch "${POST_BATCH:-16}" --context "${POST_CONTEXT:-1024}")
# Of the 8 minutes, some seconds are for packing the caches.
phase_seconds=460

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
files() { "$python" "$here/gpu_files.py" "$@"; }

mkdir -p "$out" "$work/caches/fornax" "$work/caches/python" "$work/caches/fornax/cuda" || exit 1
[[ -z $caches ]] || files restore "$caches" "$work/caches" || exit 1
# Where tuning results and kernels go: CubeCL's by the file cubecl.toml of the folder it is started in, the rest by
# variables.
cat >"$work/cubecl.toml" <<TOML
[compilation]
cache = true

[environment]
path = { directory = "$work/caches/fornax" }
TOML
export CUDA_CACHE_PATH=$work/caches/fornax/cuda
export TORCHINDUCTOR_CACHE_DIR=$work/caches/python/inductor TRITON_CACHE_DIR=$work/caches/python/triton
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cuda=${CUDA_PATH:-}
[[ -n $cuda || -d /usr/local/cuda ]] || cuda=$(files cuda)
[[ -z $cuda ]] || export CUDA_PATH=$cuda
for libraries in "${CUDA_PATH:-/usr/local/cuda}/lib64" "${CUDA_PATH:-/usr/local/cuda}/lib"; do
    [[ ! -d $libraries ]] || export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
done

fornax=$work/fornax
files unpack "$archive" "$fornax" || exit 1
cd "$work" || exit 1
"$fornax" doctor --json >"$out/doctor.json" || exit 1

failed=0
left() { printf '%s' $((budget - SECONDS)); }

# record NAME STATUS SECONDS EXIT NOTE: one measurement into PHASE.json.
record() { files record "$out" "$phase" "$work/$1.jsonl" "$@" || failed=1; }

# measure NAME NEEDED COMMAND...: runs it when NEEDED seconds are left, for at most four times as long, and no longer
# than the phase and the budget last.
measure() {
    local name=$1 needed=$2 rest limit start code
    shift 2
    rest=$((phase_seconds - (SECONDS - phase_start)))
    limit=$(($(left) < rest ? $(left) : rest))
    limit=$((limit < 4 * needed ? limit : 4 * needed))
    if ((limit < needed)); then
        printf '%s %s: skipped, %s s are left and %s are needed\n' "$phase" "$name" "$limit" "$needed" >&2
        record "$name" skipped 0 -1 "$limit s were left, $needed are needed"
        return
    fi
    printf '%s %s: at most %s s\n' "$phase" "$name" "$limit" >&2
    start=$SECONDS
    timeout --kill-after=5 "$limit" "$@" >"$work/$name.jsonl" 2>"$work/$name.log"
    code=$?
    case $code in
    0) record "$name" done $((SECONDS - start)) 0 '' ;;
    124 | 137)
        failed=1
        record "$name" timeout $((SECONDS - start)) $code "stopped after $limit s: $(tail -n 2 "$work/$name.log")"
        ;;
    *)
        failed=1
        tail -n 3 "$work/$name.log" >&2
        record "$name" failed $((SECONDS - start)) $code "$(tail -n 8 "$work/$name.log")"
        ;;
    esac
}

ours() { measure "$1" "$2" "$fornax" bench "${@:3}" --device "$device" --json; }

ops() {
    ours "$precision" 60 ops --workload "$workload" "${batch[@]}" --precision "$precision"
    ours f32 60 ops --workload "$workload" "${batch[@]}" --precision f32
    ours small-f32 30 ops --workload nano,small --precision f32
}

parity() {
    ours f32 30 parity --fixtures "$fixtures" --precision f32
    ours "$precision-rounded" 30 parity --fixtures "$fixtures" --precision "$precision"
}

train() {
    local model=("${batch[@]}" --seconds "$each" --warmup 5)
    ours "$workload-$precision" 60 train --workload "$workload" --precision "$precision" "${model[@]}"
    ours "$workload-f32" 60 train --workload "$workload" --precision f32 "${model[@]}"
    ours "story-$precision" 45 train --workload story --precision "$precision" --seconds "$each" --warmup 5
}

decode() {
    local tokens=(--prompt-tokens "$prompt" --new-tokens "$new")
    ours "$workload-$precision" 45 generate --workload "$workload" --precision "$precision" "${tokens[@]}"
    ours "$workload-f32" 45 generate --workload "$workload" --precision f32 "${tokens[@]}"
}

peer() {
    local mode model=("${batch[@]}" --seconds "$each" --warmup 5 --device "$device" --dtype "$precision")
    for mode in $modes; do
        measure "train-$mode" 60 "$python" "$here/train_torch.py" --workload "$workload" --mode "$mode" "${model[@]}"
    done
    measure generate 60 "$python" "$here/generate_transformers.py" --workload "$workload" --device "$device" \
        --dtype "$precision" --prompt-tokens "$prompt" --new-tokens "$new"
}

# Steps of tuning held to those recorded beside the models of --fixtures, then speed and memory beside PEFT.
post() {
    local mode recorded
    recorded=$(dirname "$fixtures")
    ours f32 30 parity --post --fixtures "$recorded" --precision f32
    ours "$precision-rounded" 30 parity --post --fixtures "$recorded" --precision "$precision"
    for mode in full lora qlora dpo; do
        measure "finetune-$mode" $((30 + 2 * each)) "$python" "$here/finetune.py" --fornax "$fornax" "${tuned[@]}" \
            --mode "$mode" --device "$device" --dtype "$precision" --rounds 1 --seconds "$each" --warmup 5 --json
    done
}

# Every cache and every draft held to the forward without a cache, then decoding by the number of sequences at once, with
# transformers beside it.
engine() {
    local dtype tokens=(--prompt-tokens "$prompt" --new-tokens "$new" --runs 3)
    for dtype in f32 "$precision"; do
        ours "equal-$dtype" 30 parity --engine --fixtures "$fixtures" --precision "$dtype"
    done
    for dtype in "$precision" f32; do
        ours "$workload-$dtype" 60 generate --workload "$workload" --precision "$dtype" "${tokens[@]}" \
            --batch "${BATCHES:-1,4,16,64}" --kv contiguous,paged --kv-dtype "$dtype,int8"
    done
    measure transformers 60 "$python" "$here/generate_transformers.py" --workload "$workload" --device "$device" \
        --dtype "$precision" --prompt-tokens "$prompt" --new-tokens "$new" --batch "${BATCHES:-1,4,16,64}"
    ours mixed 60 engine --workload "$workload" --precision "$precision"
}

for phase in "${phases[@]}"; do
    phase_start=$SECONDS
    rm -f "$out/$phase.json"
    "$phase"
    files save "$work/caches" "$out" || failed=1
    printf '%s: %s s, %s s of the budget are left\n' "$phase" $((SECONDS - phase_start)) "$(left)" >&2
done
exit "$failed"
