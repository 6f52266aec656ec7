#!/usr/bin/env bash
# Builds the program for a machine with an NVIDIA GPU and packs it: eval/peers/pack.sh ARCHIVE
# Needs no CUDA toolkit. The binary is stripped and compressed with xz; Python's lzma unpacks it where xz is absent.
# FEATURES chooses the cargo features; empty packs the program for the processor alone.
set -euo pipefail
archive=${1:?usage: eval/peers/pack.sh ARCHIVE.xz}
case "$archive" in /*) ;; *) archive=$PWD/$archive ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
features=${FEATURES-cuda,kernel-cache}
target=${CARGO_TARGET_DIR:-target}

cargo build --release --features "$features"
packed=$(mktemp -d)
trap 'rm -rf "$packed"' EXIT
cp "$target/release/fornax" "$packed/fornax"
strip "$packed/fornax"
xz -9 --threads=0 "$packed/fornax"
mv "$packed/fornax.xz" "$archive"
ls -l "$archive"
