"""The files of gpu.sh, each replaced whole.

    gpu_files.py unpack ARCHIVE PROGRAM        the program from its xz archive
    gpu_files.py restore FOLDER CACHES         CACHES/{fornax,python} from the archives in FOLDER
    gpu_files.py save CACHES FOLDER            and back
    gpu_files.py cuda                          the folder of a CUDA that came with Python, where there is one
    gpu_files.py record OUT PHASE RAW NAME STATUS SECONDS EXIT NOTE
                                               one measurement, with the lines of RAW, into OUT/PHASE.json
"""
import importlib.util
import json
import lzma
import os
import pathlib
import shutil
import sys
import tarfile
import time


def replace(path, write):
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def unpack(archive, program):
    with lzma.open(archive) as packed, open(program, "wb") as file:
        shutil.copyfileobj(packed, file)
    os.chmod(program, 0o755)


def caches_of(folder):
    return {part: pathlib.Path(folder) / f"caches-{part}.tar.xz" for part in ("fornax", "python")}


def restore(folder, caches):
    for part, archive in caches_of(folder).items():
        if archive.exists():
            with tarfile.open(archive) as packed:
                packed.extractall(pathlib.Path(caches) / part, filter="data")


def save(caches, folder):
    for part, archive in caches_of(folder).items():
        source = pathlib.Path(caches) / part

        def write(file):
            with tarfile.open(fileobj=file, mode="w:xz", preset=1) as packed:
                packed.add(source, ".")

        if any(path.is_file() for path in source.rglob("*")):
            replace(archive, write)


def cuda():
    spec = importlib.util.find_spec("nvidia")
    for place in spec.submodule_search_locations if spec else []:
        for folder in sorted(pathlib.Path(place).glob("cu[0-9]*"), reverse=True):
            if (folder / "include" / "cuda_fp16.h").exists():
                print(folder)
                return


def record(out, phase, raw, name, status, seconds, code, note):
    path, results = pathlib.Path(out) / f"{phase}.json", []
    whole = json.loads(path.read_text()) if path.exists() else {"phase": phase, "measurements": []}
    lines = pathlib.Path(raw).read_text().splitlines() if status != "skipped" else []
    for line in lines:
        try:
            results.append(json.loads(line))
        except ValueError:
            note += f" (unreadable line: {line[:80]!r})"
    whole["measurements"].append({
        "name": name,
        "status": status,
        "seconds": int(seconds),
        "exit_code": None if status == "skipped" else int(code),
        "note": note or None,
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "results": results,
    })
    replace(path, lambda file: file.write((json.dumps(whole, indent=1) + "\n").encode()))


if __name__ == "__main__":
    {"unpack": unpack, "restore": restore, "save": save, "cuda": cuda, "record": record}[sys.argv[1]](*sys.argv[2:])
