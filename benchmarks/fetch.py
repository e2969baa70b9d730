"""Overhead of `openus-data fetch` against curl on loopback, and its peak memory.

    python benchmarks/fetch.py [--megabytes 1000] [--files 2000] [--repeat 3]

All sides fetch from the same server, which runs in a process of its own. "fetch" is the whole program from the start
of Python to the ledger, with checksums and fsync, but without the copy into files/, which curl does not make either;
"files/" has that copy too. curl neither checks nor syncs what it writes: "curl+" adds sha256sum and sync, which is
what a careful person would run. "requests" is a plain loop over one requests.Session that neither checks nor syncs: the
floor of the library that fetch uses, for a program of one thread. "CPU ratio" compares processor time with curl's,
which a busy machine distorts less; "busy" is the share of the cores' time that other programs took, so a row with much
of it says little.

The last row is a tenth of the files from a server that waits 20 ms before it answers, as one elsewhere would.

What was fetched of many files stays until the end: for minutes after thousands of files were deleted, ext4 takes ten to
forty times as long to make one, on either side, and the ratio would say more of the disk than of the programs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERVER = """
import http.server, os, sys, time
os.chdir(sys.argv[1])
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    def log_message(self, *a): pass
    def copyfile(self, source, out):
        time.sleep(float(sys.argv[3]))
        out.flush()
        size = os.fstat(source.fileno()).st_size
        at = 0
        while at < size:
            at += os.sendfile(self.connection.fileno(), source.fileno(), at, size - at)
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
Server(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""
FETCH = """
import sys
from pathlib import Path
from openus_data.card import load_card
from openus_data.fetch import fetch
import openus_data.fetch.datasets as datasets
if sys.argv[3] == "no-tree":
    datasets.build_tree = lambda *a, **k: True
report = fetch([load_card(Path(sys.argv[1]))], Path(sys.argv[2]), quiet=True)
peak = next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]
print(peak)
sys.exit(report.exit_code)
"""
PLAIN = """
import sys, requests
session = requests.Session()
for line in sys.stdin:
    with session.get(f"{sys.argv[1]}/{line.strip()}", stream=True) as answer:
        answer.raise_for_status()
        with open(f"{sys.argv[2]}/{line.strip()}", "wb") as handle:
            for piece in answer.iter_content(1 << 20):
                handle.write(piece)
"""
CARD = """
id = "bench"
title = "Bench"
homepage = "https://example.org"
role = "pretrain"
access = "open"
host = "loopback"
organ = "breast"
anatomy = ["breast"]
[citation]
text = "none"
[license]
spdx = "CC0-1.0"
class = "attribution"
redistributable = true
[[images]]
match = ["**/*"]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_files(folder: Path, count: int, size: int) -> dict[str, str]:
    """Files of random bytes; returns their SHA-256 by name."""
    sums = {}
    for index in range(count):
        name, digest = f"{index:05d}.bin", hashlib.sha256()
        with (folder / name).open("wb") as handle:
            for at in range(0, size, 1 << 20):
                block = os.urandom(min(1 << 20, size - at))
                digest.update(block)
                handle.write(block)
        sums[name] = digest.hexdigest()
    return sums


def write_card(folder: Path, base: str, sums: dict[str, str]) -> Path:
    entries = "".join(
        f'[[downloads]]\nsource = "http"\nlocator = "{base}/{n}"\nfilename = "{n}"\nchecksum = "sha256:{s}"\n'
        for n, s in sums.items()
    )
    (folder / "bench.toml").write_text(CARD + entries)
    return folder / "bench.toml"


def child_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def curl(base: str, names: list[str], out: Path) -> float:
    """Seconds of one curl process for all files, over one connection."""
    out.mkdir()
    config = out.with_suffix(".curl")
    config.write_text("".join(f'url = "{base}/{n}"\noutput = "{out}/{n}"\n' for n in names))
    began = time.perf_counter()
    subprocess.run(["curl", "-sS", "--fail", "-K", str(config)], check=True)
    return time.perf_counter() - began


def plain_requests(base: str, names: list[str], out: Path) -> float:
    """Seconds of a plain loop over one requests.Session."""
    out.mkdir()
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", PLAIN, base, str(out)], check=True, input="\n".join(names), text=True)
    return time.perf_counter() - began


def check_and_sync(out: Path) -> float:
    """Seconds that sha256sum and sync take over what curl wrote."""
    began = time.perf_counter()
    files = sorted(map(str, out.iterdir()))
    subprocess.run(["sha256sum", *files], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["sync", *files], check=True)
    return time.perf_counter() - began


def machine_cpu_s() -> float:
    """Processor time that anything on this machine has used since it started; Linux."""
    fields = [int(f) for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / os.sysconf("SC_CLK_TCK")


def process_cpu_s(pid: int) -> float:
    """Processor time that a running process has used; Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fetch(card: Path, out: Path, tree: str) -> tuple[float, int]:
    """Seconds and peak memory in kB."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", FETCH, str(card), str(out), tree], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - began, int(done.stdout.split()[0])


def compare(work: Path, title: str, count: int, size: int, repeat: int, delay_s: float = 0) -> None:
    served = work / "served"
    served.mkdir(parents=True)
    sums = make_files(served, count, size)
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(served), str(port), str(delay_s)])
    try:
        card = write_card(work, base, sums)
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.05)
        rows = []
        for number in range(repeat):
            out, root, with_tree, plain = (work / f"{kind}{number}" for kind in ("curl", "root", "tree", "plain"))
            began, all_before, server_before = time.perf_counter(), machine_cpu_s(), process_cpu_s(server.pid)
            cpu = [child_cpu_s()]
            curl_s = curl(base, list(sums), out)
            cpu.append(child_cpu_s())
            fetch_s, peak_kb = fetch(card, root, "no-tree")
            cpu.append(child_cpu_s())
            ours = cpu[2] - cpu[0] + process_cpu_s(server.pid) - server_before
            busy = max(0.0, machine_cpu_s() - all_before - ours) / (time.perf_counter() - began) / (os.cpu_count() or 1)
            careful_s = curl_s + check_and_sync(out)
            if count == 1:
                shutil.rmtree(root)
            tree_s = fetch(card, with_tree, "tree")[0]
            plain_s = plain_requests(base, list(sums), plain)
            cpu_ratio = (cpu[2] - cpu[1]) / (cpu[1] - cpu[0])
            ratios = (fetch_s / curl_s, fetch_s / careful_s, fetch_s / plain_s)
            rows.append((curl_s, careful_s, plain_s, fetch_s, *ratios, tree_s, cpu_ratio, peak_kb, busy))
            if count == 1:
                for folder in (out, with_tree, plain):
                    shutil.rmtree(folder)
    finally:
        server.kill()
        server.wait()
    shutil.rmtree(served)
    *seconds, peak_kb, busy = [statistics.median(column) for column in zip(*rows, strict=True)]
    figures = "".join(f"{value:>11.2f}" for value in seconds)
    print(f"{title:<16}{figures}{peak_kb / 1000:>9.0f}{busy:>7.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    heads = ("curl s", "curl+ s", "requests s", "fetch s", "/ curl", "/ curl+", "/ requests", "files/ s", "CPU ratio")
    print(f"{'':<16}{''.join(f'{h:>11}' for h in heads)}{'peak MB':>9}{'busy':>7}")
    with tempfile.TemporaryDirectory() as work:
        if options.megabytes:
            size, title = options.megabytes * 1_000_000, f"1 x {options.megabytes} MB"
            compare(Path(work, "large"), title, 1, size, options.repeat)
        if options.files:
            compare(Path(work, "small"), f"{options.files} x 50 kB", options.files, 50_000, options.repeat)
            few = -(-options.files // 10)
            compare(Path(work, "away"), f"{few}, 20 ms away", few, 50_000, options.repeat, delay_s=0.02)


if __name__ == "__main__":
    main()
