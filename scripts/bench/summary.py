"""
Sums up the rounds of scripts/bench-vs-pytorch: reads the reports MODEL.SIDE.ROUND.json of a folder, SIDE being pytorch
or mngc, prints medians over the rounds and their ratio, and with --json writes them to a file with every report.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description="Sums up the rounds of scripts/bench-vs-pytorch.")
    parser.add_argument("folder", type=Path, help="folder of the reports")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")
    parser.add_argument("--about", default="{}", help="JSON object about the machine, for the summary")
    args = parser.parse_args()

    rounds = {}
    for path in sorted(args.folder.glob("*.*.*.json")):
        model, side, _ = path.name.split(".", 2)
        rounds.setdefault(model, {}).setdefault(side, []).append(json.loads(path.read_text()))

    summary = {"about": json.loads(args.about), "models": {}}
    for model, sides in rounds.items():
        entry = summary["models"][model] = {side: figures(reports) for side, reports in sides.items()}
        entry["ratio"] = entry["mngc"]["tokens_per_second"] / entry["pytorch"]["tokens_per_second"]
        print(f"\n{model}, {entry['pytorch']['tokens']} tokens a step")
        print(f"{'':<8} {'tokens/s':>9} {'min':>8} {'max':>8} {'ms a step':>10} {'peak memory':>12}")
        for side in ("pytorch", "mngc"):
            f = entry[side]
            print(f"{side:<8} {f['tokens_per_second']:>9.1f} {f['min']:>8.1f} {f['max']:>8.1f} {f['ms']:>10.0f} "
                  f"{f['peak_memory_bytes'] / 2**30:>8.2f} GiB")
        print(f"mngc / pytorch: {entry['ratio']:.2f} (medians of {len(sides['pytorch'])} rounds)")
    if args.json:
        args.json.write_text(json.dumps(summary, indent=1) + "\n")

    return check_sizes(summary)


def figures(reports):
    """Median, least and most of a side's rounds; a round's figure is the median of its steps."""
    speeds = [report["tokens_per_second"] for report in reports]
    return {
        "tokens": reports[0]["tokens"],
        "tokens_per_second": statistics.median(speeds),
        "min": min(speeds),
        "max": max(speeds),
        "ms": statistics.median(report["ms"] for report in reports),
        "peak_memory_bytes": max(report["peak_memory_bytes"] for report in reports),
        "rounds": reports,
    }


def check_sizes(summary):
    """Both sides must have trained the same: 1 if tokens or threads differ, else 0."""
    for model, entry in summary["models"].items():
        for key in ("tokens", "threads"):
            found = {report[key] for side in ("pytorch", "mngc") for report in entry[side]["rounds"]}
            if len(found) != 1:
                print(f"{model}: the sides differ in {key}: {sorted(found)}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
