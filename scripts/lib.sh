# shellcheck shell=bash
# What every script here shares: where things are, how lines are printed, where builds go.
#
# In:  LINTEL_CACHE, LINTEL_TEST_DATA, CARGO_TARGET_DIR, NO_COLOR (all optional).
# Out: LINTEL_ROOT, LINTEL_CACHE, LINTEL_PARTS, LINTEL_TEST_DATA (exported) and the functions below.
# Source it; it changes nothing on disk until a function is called.

# A closed standard input would let the next opened file become descriptor 0, and a child read it.
if ! { : <&0; } 2>/dev/null; then exec </dev/null; fi

LINTEL_ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"

# One cache for all clones: what is downloaded or compiled outlives any one of them.
if [[ -z "${LINTEL_CACHE:-}" ]]; then
  if [[ "$(id -u)" -eq 0 ]]; then
    LINTEL_CACHE=/var/cache/lintel
  else
    LINTEL_CACHE="${XDG_CACHE_HOME:-${HOME:?HOME is not set: set LINTEL_CACHE to a folder you may write}/.cache}/lintel"
  fi
fi
[[ "$LINTEL_CACHE" == /* ]] || LINTEL_CACHE="$PWD/$LINTEL_CACHE"
LINTEL_PARTS="${LINTEL_PARTS:-$LINTEL_CACHE/parts}"
LINTEL_TEST_DATA="${LINTEL_TEST_DATA:-$(dirname -- "$LINTEL_ROOT")/shared/data}"
export LINTEL_ROOT LINTEL_CACHE LINTEL_PARTS LINTEL_TEST_DATA

# Tools that setup had to build itself live in the cache too.
case ":$PATH:" in *":$LINTEL_CACHE/tools/bin:"*) ;; *) PATH="$PATH:$LINTEL_CACHE/tools/bin" ;; esac
export PATH

if [[ -t 2 && -z "${NO_COLOR:-}" && "${TERM:-dumb}" != dumb ]]; then
  LINTEL_BOLD=$'\e[1m' LINTEL_RED=$'\e[31m' LINTEL_GREEN=$'\e[32m' LINTEL_YELLOW=$'\e[33m' LINTEL_DIM=$'\e[2m' LINTEL_PLAIN=$'\e[0m'
else
  LINTEL_BOLD='' LINTEL_RED='' LINTEL_GREEN='' LINTEL_YELLOW='' LINTEL_DIM='' LINTEL_PLAIN=''
fi

# Progress goes to standard error, so that standard output stays data.
say()  { printf '%s\n' "$*" >&2; }
step() { printf '%s==>%s %s\n' "$LINTEL_BOLD" "$LINTEL_PLAIN" "$*" >&2; }
good() { printf '    %sok%s   %s\n' "$LINTEL_GREEN" "$LINTEL_PLAIN" "$*" >&2; }
note() { printf '    %s%s%s\n' "$LINTEL_DIM" "$*" "$LINTEL_PLAIN" >&2; }
warn() { printf '%swarning:%s %s\n' "$LINTEL_YELLOW" "$LINTEL_PLAIN" "$*" >&2; }
fail() { printf '%serror:%s %s\n' "$LINTEL_RED" "$LINTEL_PLAIN" "$*" >&2; }
die()  { fail "$1"; exit "${2:-1}"; }

# Milliseconds since the epoch, without starting a process.
now_ms() { local t=${EPOCHREALTIME/[.,]/}; printf '%s' "${t%???}"; }
# `seconds_since MS` -> "1.2 s"
seconds_since() { local ms=$(($(now_ms) - $1)); printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100)); }
# `megabytes BYTES` -> "23.7 MB"
megabytes() { printf '%d.%d MB' $(($1 / 1000000)) $(($1 % 1000000 / 100000)); }

# Makes sure that builds survive the clone: without CARGO_TARGET_DIR and without a `target` here, `target` becomes a
# link into the cache, so that the programs are still found at target/release.
lintel_target() {
  [[ -z "${CARGO_TARGET_DIR:-}" ]] || return 0
  local target="$LINTEL_ROOT/target"
  if [[ -L "$target" ]]; then
    mkdir -p -- "$(readlink -m -- "$target")"
  elif [[ ! -e "$target" ]]; then
    mkdir -p -- "$LINTEL_CACHE/target"
    ln -s -- "$LINTEL_CACHE/target" "$target"
  fi
}

# A build folder keeps what older sources were built to, and a full disk fails a build after half an hour: with little room left,
# what our own crates were built to goes, which takes minutes to build again. The libraries stay.
make_room() {
  local target="${CARGO_TARGET_DIR:-$LINTEL_ROOT/target}" enough=$((15 * 1024 * 1024)) least=$((4 * 1024 * 1024)) left
  left=$(df --output=avail -k -- "$target/" 2>/dev/null | tail -n 1) || return 0
  ((left < enough)) || return 0
  if [[ -d "$target/release" ]]; then
    note "$((left / 1024 / 1024)) GB left for builds: clearing what older sources were built to"
    local members
    mapfile -t members < <(cargo metadata --manifest-path "$LINTEL_ROOT/Cargo.toml" --no-deps --format-version 1 --locked |
      python3 -c 'import json, sys; [print("--package", package["name"], sep="\n") for package in json.load(sys.stdin)["packages"]]')
    rm -rf -- "$target/release/incremental"
    (cd -- "$LINTEL_ROOT" && cargo clean --release --quiet "${members[@]}")
    left=$(df --output=avail -k -- "$target/" | tail -n 1)
  fi
  ((left >= least)) || warn "only $((left / 1024 / 1024)) GB left on the disk of $target, which may not be enough for a build from nothing"
}

# Makes folder $2 equal to the sources in clone $1 and touches only what differs, so that cargo rebuilds only that.
copy_sources() {
  local files
  files=$(git -C "$1" ls-files --cached --others --exclude-standard)
  copy_files "$1" "$2" <<<"$files"
}

# The same for the files of any folder $1 that standard input names.
copy_files() {
  local from="$1" to="$2" wanted file
  wanted=$(cat)
  while IFS= read -r file; do
    [[ -f "$from/$file" ]] || continue
    cmp -s -- "$from/$file" "$to/$file" && continue
    mkdir -p -- "$to/$(dirname -- "$file")"
    cp -- "$from/$file" "$to/$file"
  done <<<"$wanted"
  comm -13 <(sort <<<"$wanted") <(cd "$to" && find . -type f ! -path ./.git -printf '%P\n' | sort) | while IFS= read -r file; do
    rm -- "$to/$file"
  done
}

# Goes on in one fixed copy of the sources, whichever clone this is: cargo goes by the times of files, and in a fresh clone
# every file is new. Not when builds go elsewhere (CARGO_TARGET_DIR, or a `target` folder of the clone's own), when
# another run has the copy, and without git, which lists the sources.
run_from_copy() { # script, arguments...
  local script="$1" copy="$LINTEL_CACHE/source" lock
  shift
  [[ -z "${LINTEL_COPY:-}" && -z "${CARGO_TARGET_DIR:-}" ]] || return 0
  [[ -L "$LINTEL_ROOT/target" || ! -e "$LINTEL_ROOT/target" ]] || return 0
  git -C "$LINTEL_ROOT" rev-parse --git-dir >/dev/null 2>&1 || return 0
  mkdir -p -- "$copy"
  exec {lock}>"$copy.lock"
  if ! flock --nonblock "$lock"; then
    exec {lock}>&-
    return 0
  fi
  lintel_target
  copy_sources "$LINTEL_ROOT" "$copy"
  # Some scripts ask git which commit this is.
  printf 'gitdir: %s\n' "$(git -C "$LINTEL_ROOT" rev-parse --absolute-git-dir)" >"$copy/.git"
  # Somebody else built there since: then the times of the copy's files say nothing.
  if [[ ! -e "$copy.built" || -n "$(find "$LINTEL_CACHE/target/" -path '*/.fingerprint/*' -newer "$copy.built" -print -quit)" ]]; then
    find "$copy" -type f -exec touch -- {} +
  fi
  LINTEL_COPY="$copy" exec "$copy/scripts/$script" "$@"
}

# After a build in the copy: what lies in the build folder is the copy's.
built() { [[ -z "${LINTEL_COPY:-}" ]] || touch -- "$LINTEL_COPY.built"; }

# Where the built programs are.
lintel_bin_dir() { printf '%s/release' "${CARGO_TARGET_DIR:-$LINTEL_ROOT/target}"; }
