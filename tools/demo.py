"""The demo: GranAlign on the demo video with two queries, by the command that a user would type."""

import json
import subprocess
import sys
from pathlib import Path

from vmr.backends.packages import demo_video

QUERIES = ("a person rides a bicycle down the street", "cars are parked along the road")
OUT = Path("out/demo")


def main() -> None:
    """Runs `vmr retrieve`, then checks that every part of the system took part."""
    command = [sys.executable, "-m", "vmr", "retrieve", str(demo_video()), "--every", "0.5"]
    for query in QUERIES:
        command += ["-q", query]
    command += ["--out", str(OUT), "--overwrite"]
    print("$ vmr", *(f'"{part}"' if " " in part else part for part in command[3:]), flush=True)
    subprocess.run(command, check=True)
    document = json.loads((OUT / "results.json").read_text(encoding="utf-8"))
    for result in document["results"]:
        explanation = result["explanation"]
        query = result["query"]
        rewrites = {*explanation["simplified"], *explanation["detailed"]} - {query}
        aware = explanation["query_aware_captions"]
        if not result["moments"]:
            sys.exit(f"demo: no moment was found for {query!r}")
        if not rewrites:
            sys.exit(f"demo: no rewrite of {query!r} was accepted")
        if not aware:
            sys.exit(f"demo: no query-aware caption was made for {query!r}")
        best = result["moments"][0]
        print(f"\n{query}: {best['start']:.1f} s to {best['end']:.1f} s")
        print(f"  rewritten as: {'; '.join(sorted(rewrites))}")
        print(f"  what it saw:  {aware[0]['caption']} (at {aware[0]['time']:.1f} s)")
    print("\nPictures:", *(str(path) for path in sorted(OUT.glob("*.png"))))


if __name__ == "__main__":
    main()
