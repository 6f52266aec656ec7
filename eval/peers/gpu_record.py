"""One measurement of gpu.sh into its phase's JSON file, which is replaced whole: OUT PHASE NAME STATUS SECONDS EXIT NOTE."""
import json
import os
import pathlib
import sys
import time


def main():
    out, phase, name, status, seconds, code, note = sys.argv[1:]
    out = pathlib.Path(out)
    path = out / f"{phase}.json"
    whole = json.loads(path.read_text()) if path.exists() else {"phase": phase, "measurements": []}
    raw, results = out / "raw" / f"{phase}-{name}.jsonl", []
    if status != "skipped" and raw.exists():
        for line in raw.read_text().splitlines():
            try:
                results.append(json.loads(line))
            except ValueError:
                note += f" (unreadable line: {line[:80]!r})"
    whole["measurements"].append({
        "name": name,
        "status": status,
        "seconds": int(seconds),
        "exit_code": int(code) if status != "skipped" else None,
        "note": note or None,
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "results": results,
    })
    temporary = path.with_suffix(".json.tmp")
    with open(temporary, "w") as file:
        json.dump(whole, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
