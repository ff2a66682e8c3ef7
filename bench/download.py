"""Downloads: killed midway and run again, with flipped bits, and beside curl, all from a local server.

    python bench/download.py [--only kills|flips|speed] [--folder DIR] [--kills 50] [--flips 20] [--repeats 3]

The server (`fileserver.py`), each of our downloads and each curl is a process of its own. Time is taken around
`download(...)`, without imports; curl tells its own. Ours sums the file and puts it on the disk for certain, curl
does neither. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from reeltune.library.journal import bytes_recorded

MB = 1_000_000
CHILD = """
import json, sys, time
import httpx, filelock, psutil
from pathlib import Path
from reeltune.errors import ReeltuneError
from reeltune.fetch.download import download
url, target, sha256 = sys.argv[1:4]
caught, start = "", time.perf_counter()
try:
    download(url, Path(target), sha256=sha256 or None)
except ReeltuneError as error:
    caught = type(error).__name__
seconds = time.perf_counter() - start
peak = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "peak": peak, "caught": caught}))
"""


@dataclass(frozen=True)
class Served:
    """A file of the server, and what it must come to."""

    url: str
    size: int
    sha256: str


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The server of `folder`, as the start of its addresses."""
    words = [sys.executable, str(Path(__file__).with_name("fileserver.py")), str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


def sent(base: str) -> int:
    """Bytes of files that the server wrote since it was last asked."""
    with urlopen(f"{base}/-/sent") as answer:
        return int(answer.read())


def make(folder: Path, base: str, size: int) -> Served:
    """Content that is random, but the same each time."""
    path, rng, digest = folder / f"{size // MB}MB.bin", random.Random(size), hashlib.sha256()
    with path.open("wb") as file:
        for begin in range(0, size, 1 << 24):
            part = rng.randbytes(min(1 << 24, size - begin))
            digest.update(part)
            file.write(part)
    return Served(f"{base}/{path.name}", size, digest.hexdigest())


def start(url: str, target: Path, sha256: str = "") -> subprocess.Popen[str]:
    """One download, a process of its own."""
    words = [sys.executable, "-c", CHILD, url, str(target), sha256]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, float | str]:
    """What a download tells at its end; nothing where it was killed."""
    out, _ = process.communicate()
    return json.loads(out) if process.returncode == 0 else {}


def right(target: Path, served: Served) -> bool:
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == served.sha256


def kills(folder: Path, base: str, count: int, size: int, rate: int) -> None:
    """Each killed once, when a random share of it has come, and run again."""
    served, rng = make(folder, base, size), random.Random(1)
    correct, named_early, twice = 0, 0, list[float]()
    sent(base)
    for number in range(count):
        target = folder / f"kill{number}" / "file.bin"
        share, url = rng.uniform(0.01, 0.99), f"{served.url}?total={rate}"
        process = start(url, target)
        journal = target.with_name("file.bin.journal.partial")
        while process.poll() is None and (not journal.exists() or bytes_recorded(journal) < share * size):
            time.sleep(0.001)
        process.kill()
        killed = not finish(process)
        named_early += target.exists()
        process = start(url, target)
        while process.poll() is None:
            if target.exists():
                named_early += target.stat().st_size != size or not right(target, served)
                break
            time.sleep(0.005)
        finish(process)
        correct += killed and target.exists() and right(target, served)
        twice.append(sent(base) / size - 1)
        shutil.rmtree(target.parent)
    print(f"\n| {count} downloads of {size / MB:.0f} MB, kill -9 midway, run again | |\n|---|---|")
    print(f"| right to the bit | {correct} of {count} |")
    print(f"| bytes sent twice, mean | {100 * statistics.mean(twice):.2f} % |")
    print(f"| bytes sent twice, most | {100 * max(twice):.2f} % |")
    print(f"| anything half or wrong under the final name | {named_early} |", flush=True)


def flips(folder: Path, base: str, count: int, size: int) -> None:
    """One bit is turned on the way."""
    served, rng = make(folder, base, size), random.Random(2)
    caught, left = 0, 0
    for number in range(count):
        target = folder / f"flip{number}" / "file.bin"
        answer = finish(start(f"{served.url}?flip={rng.randrange(8 * size)}", target, served.sha256))
        caught += answer["caught"] == "BadDownload"
        left += any(not path.name.endswith(".lock.partial") for path in target.parent.iterdir())
        shutil.rmtree(target.parent)
    print(f"\n| {count} downloads of {size / MB:.0f} MB, one bit flipped, the sum known | |\n|---|---|")
    print(f"| caught | {caught} of {count} |\n| left anything behind | {left} of {count} |", flush=True)


def curl(url: str, target: Path) -> float:
    """Seconds that curl tells."""
    words = ["curl", "-sS", "-o", str(target), "-w", "%{time_total}", url]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def speed(folder: Path, base: str, repeats: int, sizes: dict[str, int]) -> None:
    """Beside curl, alternating."""
    cases = {
        "server limited to 125 MB/s": ("?total=125", sizes["capped"]),
        "no limit": ("", sizes["open"]),
        "each connection limited to 20 MB/s": ("?each=20", sizes["each"]),
    }
    print("\n| | file, MB | curl, MB/s | reeltune, MB/s | share of curl | peak RSS, MB |\n|---|---|---|---|---|---|")
    for name, (query, size) in cases.items():
        served = make(folder, base, size)
        theirs, ours, peaks = list[float](), list[float](), list[float]()
        for _ in range(repeats):
            target = folder / "speed" / "file.bin"
            target.parent.mkdir()
            theirs.append(curl(served.url + query, target.with_name("curl.bin")))
            target.with_name("curl.bin").unlink()
            answer = finish(start(served.url + query, target, served.sha256))
            assert not answer["caught"], answer
            ours.append(float(answer["seconds"]))
            peaks.append(float(answer["peak"]))
            shutil.rmtree(target.parent)
        quick, slow = size / MB / statistics.median(theirs), size / MB / statistics.median(ours)
        cells = (f"{size / MB:.0f}", f"{quick:.0f}", f"{slow:.0f}", f"{slow / quick:.2f}", f"{max(peaks) / MB:.0f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["kills", "flips", "speed"])
    parser.add_argument("--folder", type=Path, help="where the files lie meanwhile (a temporary folder)")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kill-size", type=int, default=256 * MB)
    parser.add_argument("--kill-rate", type=int, default=300, help="MB/s")
    parser.add_argument("--flips", type=int, default=20)
    parser.add_argument("--flip-size", type=int, default=64 * MB)
    parser.add_argument("--repeats", type=int, default=3)
    for name, size in (("capped", 512), ("open", 1024), ("each", 256)):
        parser.add_argument(f"--{name}-size", type=int, default=size * MB)
    wish = parser.parse_args()
    sizes = {name: getattr(wish, f"{name}_size") for name in ("capped", "open", "each")}
    with tempfile.TemporaryDirectory(dir=wish.folder) as name, serving(Path(name)) as base:
        folder = Path(name)
        parts: dict[str, Callable[[], None]] = {
            "kills": lambda: kills(folder, base, wish.kills, wish.kill_size, wish.kill_rate),
            "flips": lambda: flips(folder, base, wish.flips, wish.flip_size),
            "speed": lambda: speed(folder, base, wish.repeats, sizes),
        }
        for part in [wish.only] if wish.only else parts:
            parts[part]()


if __name__ == "__main__":
    main()
