#!/usr/bin/env python3
"""Tells what each control's outcome depends on, as a digest: a control that fired need not be tried again before that changes.

In: the workspace and the names of controls. Out: one line "NAME DIGEST" each, over the patch, the package whose test it names with
all packages of ours below it, what is versioned beside them, the compiler, and how controls are run. Not in it: the machine.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess

# What tests read that lies in no package of theirs.
SHARED = ["Cargo.lock", "Cargo.toml", "rust-toolchain.toml", ".config/nextest.toml", "scripts/pins.txt", "scripts/lib.sh"]
SHARED_FOLDERS = ["models", "camera-profiles", "scripts/setup.d", "systemd", "monitoring", "docs/reference", "docs/guides"]
ITS_OWN = ["tests/controls/run", "tests/controls/inputs.py", "tests/controls/Cargo.toml"]


def ask(root, *command):
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True, help="the workspace")
    parser.add_argument("--files", type=pathlib.Path, required=True, help="a list of all its files, one a line")
    parser.add_argument("names", nargs="+")
    arguments = parser.parse_args()
    root = arguments.root.resolve()

    metadata = json.loads(ask(root, "cargo", "metadata", "--no-deps", "--locked", "--format-version", "1"))
    folders = {package["name"]: pathlib.Path(package["manifest_path"]).parent for package in metadata["packages"]}
    below = {
        package["name"]: {dependency["name"] for dependency in package["dependencies"] if dependency.get("path")}
        for package in metadata["packages"]
    }
    files = {}
    for line in sorted(set(arguments.files.read_text().splitlines())):
        if (root / line).is_file():
            files[root / line] = hashlib.sha256((root / line).read_bytes()).hexdigest()

    def of(folder):
        # A package of ours within another's folder is no part of that.
        others = [other for other in folders.values() if other != folder and folder in other.parents]
        return {path for path in files if folder in path.parents and not any(other in path.parents for other in others)}

    common = {root / file for file in SHARED + ITS_OWN}.union(*(of(root / folder) for folder in SHARED_FOLDERS))
    compiler = ask(root, "rustc", "--version", "--verbose")
    memory = {}

    def closure(package):
        if package not in memory:
            seen, left = set(), [package]
            while left:
                if (name := left.pop()) not in seen:
                    seen.add(name)
                    left.extend(below[name])
            memory[package] = common.union(*(of(folders[name]) for name in seen))
        return memory[package]

    for name in arguments.names:
        patch = (root / "tests/controls" / f"{name}.patch").read_bytes()
        package = patch.split(b"\n", 1)[0].split()[2].decode()
        digest = hashlib.sha256(compiler.encode() + hashlib.sha256(patch).digest())
        for path in sorted(closure(package)):
            digest.update(f"{path.relative_to(root)} {files.get(path, 'none')}\n".encode())
        print(name, digest.hexdigest()[:40])


if __name__ == "__main__":
    main()
