"""The demo: GranAlign on the demo video with two queries, by the command that a user would type."""

import json
import subprocess
import sys
import time
from pathlib import Path

from vmr.backends.packages import demo_video

QUERIES = ("a taxi drives through busy traffic", "a bicycle stands beside the road")
OUT = Path("out/demo")


def words(text: str) -> tuple[str, ...]:
    """A text's words, to tell a rewrite from the query with other letter case or full stop."""
    return tuple(text.lower().rstrip(".").split())


def main() -> None:
    """Runs `vmr retrieve`, then checks that every part of the system took part."""
    command = [sys.executable, "-m", "vmr", "retrieve", str(demo_video()), "--every", "0.5"]
    for query in QUERIES:
        command += ["-q", query]
    command += ["--out", str(OUT), "--overwrite"]
    print("$ vmr", *(f'"{part}"' if " " in part else part for part in command[3:]), flush=True)
    begin = time.time()
    subprocess.run(command, check=True)
    document = json.loads((OUT / "results.json").read_text(encoding="utf-8"))
    for result in document["results"]:
        explanation = result["explanation"]
        query = result["query"]
        forms = [*explanation["simplified"], *explanation["detailed"]]
        rewrites = {words(form): form for form in forms if words(form) != words(query)}
        aware = explanation["query_aware_captions"]
        if not result["moments"]:
            sys.exit(f"demo: no moment was found for {query!r}")
        if not rewrites:
            sys.exit(f"demo: no rewrite of {query!r} was accepted")
        if not aware:
            sys.exit(f"demo: no query-aware caption was made for {query!r}")
        best = result["moments"][0]
        print(f"\n{query}: {best['start']:.1f} s to {best['end']:.1f} s")
        print(f"  rewritten as: {'; '.join(rewrites.values())}")
        print(f"  what it saw:  {aware[0]['caption']} (at {aware[0]['time']:.1f} s)")
    print("\nPictures:", *(p for p in sorted(OUT.glob("*.png")) if p.stat().st_mtime >= begin))
    print(f"A page that plays the moments: open {OUT / 'index.html'} in a browser")


if __name__ == "__main__":
    main()
