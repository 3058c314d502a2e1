# shellcheck shell=bash disable=SC2154
# The Rust toolchain (checked, never installed behind rustup's back) and the tools built with it. Sourced by scripts/setup.

# Fails when there is no cargo at all; what is merely wrong with it is recorded.
check_rust() {
  local found tool sysroot wanted_version
  if ! command -v cargo >/dev/null; then
    lacking cargo "Rust is missing, and Debian 12's own (1.63) is too old: install it with rustup, which then takes the version in rust-toolchain.toml by itself."
    return 1
  fi
  wanted_version="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$LINTEL_ROOT/Cargo.toml")"
  # In the clone, so that rustup fetches the toolchain of rust-toolchain.toml now and not in the middle of a build.
  [[ "$check" == no ]] || export RUSTUP_AUTO_INSTALL=0
  if ! found="$(cd -- "$LINTEL_ROOT" && rustc --version </dev/null 2>&1)"; then
    lacking rustc "rustc does not run here: ${found//$'\n'/ }"
    return 1
  fi
  found="$(cut -d' ' -f2 <<<"$found")"
  if [[ "$(printf '%s\n%s\n' "$wanted_version" "$found" | sort -V | head -n 1)" != "$wanted_version" ]]; then
    lacking rustc "rustc $found is too old, $wanted_version is needed: install Rust with rustup, which takes the version in rust-toolchain.toml by itself."
    return 1
  fi
  wanted test || return 0
  sysroot="$(cd -- "$LINTEL_ROOT" && rustc --print sysroot </dev/null)"
  for tool in clippy rustfmt; do
    [[ -x "$sysroot/bin/cargo-${tool/rustfmt/fmt}" ]] && continue
    if [[ "$check" == yes ]] || ! command -v rustup >/dev/null \
      || ! (cd -- "$LINTEL_ROOT" && rustup component add "$tool" </dev/null >>"$logfile" 2>&1); then
      lacking "$tool" "Rust's $tool is missing: rustup component add $tool"
    fi
  done
}

install_tools() {
  local line kind name version need t
  for line in "${pins[@]}"; do
    read -r kind name version need <<<"$line"
    [[ "$kind" == tool ]] || continue
    wanted "$need" || continue
    command -v "$name" >/dev/null && continue
    if [[ "$check" == yes ]]; then lacking "$name" "$name is not installed."; continue; fi
    step "$name $version (compiled once, takes minutes; log: $logfile)"
    t=$(now_ms)
    # In the cache folder, so that this workspace's configuration has no say in how a tool is built.
    if (cd -- "$LINTEL_CACHE" && CARGO_TARGET_DIR="$LINTEL_CACHE/tools/build" \
      cargo install --locked --root "$LINTEL_CACHE/tools" "$name@$version" </dev/null >>"$logfile" 2>&1); then
      rm -rf -- "$LINTEL_CACHE/tools/build"
      good "$name $version in $(seconds_since "$t")"
    else
      tail -n 8 "$logfile" >&2
      lacking "$name" "$name could not be built (last lines above, all of it in $logfile). To try by hand: cargo install --locked $name@$version"
    fi
  done
}

