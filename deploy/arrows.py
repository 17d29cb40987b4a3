#!/usr/bin/env python3
"""Holds the arrows between crates: compares `cargo metadata` with the table in
ARCHITECTURE.md ("Arrows"), and keeps world-touching dependencies where they belong."""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Dependency -> the only crates that may have it.
CONFINED = {
    "redb": {"skiff-store"},
    "sled": {"skiff-store"},
    "openraft": {"skiff-store"},
    "containerd-client": {"skiff-kubelet"},
    "netlink-sys": {"skiff-cni", "skiff-proxy", "skiff-kubelet"},
    "netlink-packet-route": {"skiff-cni", "skiff-proxy", "skiff-kubelet"},
    "cni-plugin": {"skiff-cni"},
}
# Crates that must stay without async runtime.
SYNCHRONOUS = {"skiff-cni", "skiff-proto"}


def allowed():
    """Rows of the table: | `crate` | `crate`, `crate` | ..."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    section = text.split("## Arrows", 1)[1].split("\n## ", 1)[0]
    table = {}
    for row in re.findall(r"^\|\s*`([a-z0-9-]+)`\s*\|([^|]*)\|", section, re.M):
        table[row[0]] = set(re.findall(r"`([a-z0-9-]+)`", row[1]))
    return table


def main():
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1", "--offline"]
    packages = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)["packages"]
    ours = {p["name"] for p in packages}
    table = allowed()
    faults = []
    for package in packages:
        name = package["name"]
        short = name.removeprefix("skiff-")
        if short not in table:
            faults.append(f"{name} is not in the table of arrows in ARCHITECTURE.md")
            continue
        for dependency in package["dependencies"]:
            wanted = dependency["name"]
            # Tests may look at more than the crate may.
            if wanted in ours and dependency["kind"] is None and wanted.removeprefix("skiff-") not in table[short]:
                faults.append(f"{name} -> {wanted} is no allowed arrow")
            if wanted in CONFINED and name not in CONFINED[wanted]:
                faults.append(f"{name} -> {wanted}: only {', '.join(sorted(CONFINED[wanted]))} may touch that")
            if wanted == "tokio" and dependency["kind"] is None and name in SYNCHRONOUS:
                faults.append(f"{name} -> tokio: this crate is synchronous")
    for fault in faults:
        print(f"arrows: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"arrows: {len(packages)} crates, all as drawn")


if __name__ == "__main__":
    main()
