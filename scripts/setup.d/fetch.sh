# shellcheck shell=bash disable=SC2154
# Fetches packages from PyPI and npm with their ordinary clients. Sourced by scripts/setup, whose variables it uses.
# What a client gives is used only if its sha256 is the pinned one.

hash_of() { local h; h="$(sha256sum -- "$1")"; printf '%s' "${h%% *}"; }

# Runs a fetch up to three times; its output goes to the log. Once that was in vain, the network is taken to be away and
# the other packages get one attempt each, so that a machine without a network hears about it soon.
attempts=3
patiently() {
  local attempt
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    "$@" </dev/null >>"$logfile" 2>&1 && return 0
    ((attempt == attempts)) || sleep $((attempt * 2))
  done
  attempts=1
  return 1
}

# Whether the program that fetches from this client's registry is here; records what is lacking if not.
client_ready() {
  case "$1" in
    wheel | sdist)
      find_python_with_pip && return 0
      # Without root: Python's venv module carries a pip of its own, if Debian's python3-venv is here.
      python3 -m venv "$LINTEL_CACHE/tools/pip" >>"$logfile" 2>&1 && find_python_with_pip && return 0
      lacking pip "Python's pip is missing: sudo apt-get install python3-pip" ;;
    npm)
      command -v npm >/dev/null && return 0
      lacking npm "npm is missing: sudo apt-get install npm" ;;
  esac
  return 1
}

# The pin names one wheel, so pip is told the target instead of looking at the Python that happens to run it.
fetch_wheel() { # spec sha256 folder
  local -a platforms=()
  local tag
  for tag in 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${tag}_$machine"); done
  printf '%s --hash=sha256:%s\n' "$1" "$2" >"$3/requirements.txt"
  patiently "$python_with_pip" -m pip --disable-pip-version-check --retries 2 download --quiet --no-deps --only-binary=:all: \
    --implementation cp --python-version 3.11 --abi cp311 "${platforms[@]}" \
    --require-hashes -r "$3/requirements.txt" -d "$3"
}

# pip asks a source archive's build backend for metadata; scripts/sdist-backend answers in its place, so that no code of
# the archive runs and nothing else is fetched.
fetch_sdist() { # spec sha256 folder
  local -a pep517=()
  if "$python_with_pip" -m pip download --help 2>/dev/null | grep -q -- --use-pep517; then pep517=(--use-pep517); fi
  printf '%s --hash=sha256:%s\n' "$1" "$2" >"$3/requirements.txt"
  PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$LINTEL_ROOT/scripts/sdist-backend" \
    patiently "$python_with_pip" -m pip --disable-pip-version-check --retries 2 download --quiet --no-deps --no-binary=:all: \
    --no-build-isolation "${pep517[@]}" --ignore-requires-python \
    --require-hashes -r "$3/requirements.txt" -d "$3"
}

fetch_npm() { # spec sha256 folder
  # npm's own retries wait for minutes when there is no network; `patiently` retries sooner.
  (cd -- "$3" && patiently npm pack "$1" --ignore-scripts --no-update-notifier --loglevel=error --prefer-offline \
    --fetch-retries=1 --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=2000 --pack-destination "$3")
}

# Makes sure that `downloads` holds the package of this pin line, whole. Says which archive it was.
fetch() {
  local client spec file bytes sha folder t logged
  read -r _ _ client spec _ file bytes sha <<<"$1"
  if [[ -f "$downloads/$file" ]]; then
    [[ "$(hash_of "$downloads/$file")" == "$sha" ]] && return 0
    warn "$downloads/$file is damaged: fetching it again"
    rm -f -- "$downloads/$file"
  fi
  client_ready "$client" || return 1
  t=$(now_ms)
  logged="$(stat -c %s -- "$logfile")"
  folder="$(mktemp -d -- "$downloads/.fetch.XXXXXX")"
  if ! "fetch_$client" "$spec" "$sha" "$folder" || [[ ! -f "$folder/$file" ]]; then
    tail -c "+$((logged + 1))" -- "$logfile" | tail -n 2 >&2
    rm -rf -- "$folder"
    lacking "$spec" "$spec could not be fetched (${client/wheel/pip}; its last lines are above, all of them in $logfile). Is there a network? Run scripts/setup again when there is."
    return 1
  fi
  if [[ "$(hash_of "$folder/$file")" != "$sha" ]]; then
    lacking "$spec" "$spec: $file has sha256 $(hash_of "$folder/$file"), but $sha is pinned: refused. The registry or something between here and there gave another file."
    rm -rf -- "$folder"
    return 1
  fi
  mv -f -- "$folder/$file" "$downloads/$file"
  rm -rf -- "$folder"
  good "$spec  $(megabytes "$bytes") in $(seconds_since "$t")"
}
