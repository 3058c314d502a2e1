# shellcheck shell=bash disable=SC2154
# System packages and the system user. Sourced by scripts/setup, whose variables it uses; fills apt_missing.

# Debian's own list of what is installed, read once: name -> version.
declare -A installed=()
read_installed() {
  local name version status
  command -v dpkg-query >/dev/null || return 0
  while read -r status name version; do
    [[ "$status" == ii* ]] && installed["${name%%:*}"]="$version"
  done < <(dpkg-query -W -f '${db:Status-Abbrev} ${binary:Package} ${Version}\n' 2>/dev/null)
}

apt_missing=()
find_missing_packages() {
  local line kind name need oldest
  for line in "${pins[@]}"; do
    read -r kind name need oldest <<<"$line"
    [[ "$kind" == apt ]] || continue
    wanted "$need" || continue
    if [[ -z "${installed[$name]:-}" ]]; then
      apt_missing+=("$name")
    elif [[ "$oldest" != - ]] && dpkg --compare-versions "${installed[$name]#*:}" lt "$oldest"; then
      lacking "$name" "$name ${installed[$name]} is too old: at least $oldest is needed (Debian 12 has it)."
    fi
  done
}

# The programs that fetch are needed only while something is to be fetched; any copy on the path will do.
python_with_pip=''
find_python_with_pip() {
  [[ -z "$python_with_pip" ]] || return 0
  local candidate
  for candidate in python3 /usr/bin/python3 "$LINTEL_CACHE/tools/pip/bin/python3"; do
    if command -v "$candidate" >/dev/null && "$candidate" -m pip --version >/dev/null 2>&1; then
      python_with_pip="$candidate"
      return 0
    fi
  done
  return 1
}

add_fetching_packages() {
  local client
  for client in "$@"; do
    case "$client" in
      wheel | sdist)
        command -v unzip >/dev/null || apt_missing+=(unzip)
        find_python_with_pip || apt_missing+=(python3-pip) ;;
      npm) command -v npm >/dev/null || apt_missing+=(npm) ;;
    esac
  done
  mapfile -t apt_missing < <(printf '%s\n' "${apt_missing[@]}" | sort -u | sed '/^$/d')
}

# Debian starts a service when it installs one. The hub runs a broker of its own, so a broker that appears on this
# machine only because of us must not also listen on 1883: it is kept from starting, now and at the next boot. One that
# was here before is left exactly as it is.
policy=/usr/sbin/policy-rc.d
install_packages() {
  local line="apt-get install -y --no-install-recommends ${apt_missing[*]}"
  local new_broker=no our_policy=no t
  if ! command -v apt-get >/dev/null; then
    lacking "${apt_missing[*]}" "this is not Debian (no apt-get): install the equivalents of: ${apt_missing[*]}; then run scripts/setup --no-apt."
    return
  fi
  if [[ "$am_root" == no ]]; then
    lacking "${apt_missing[*]}" "system packages are missing and this is not root. Run: sudo apt-get update && sudo $line"
    return
  fi
  step "system packages: ${apt_missing[*]}"
  note "this can take a few minutes; log: $logfile"
  [[ " ${apt_missing[*]} " == *' mosquitto '* ]] && new_broker=yes
  if [[ "$new_broker" == yes && ! -e "$policy" ]]; then
    our_policy=yes
    # shellcheck disable=SC2064  # expanded now on purpose
    trap "rm -f '$policy'" EXIT
    # shellcheck disable=SC2016  # the script's own $1
    printf '#!/bin/sh\n# Left by an interrupted scripts/setup of Lintel: safe to delete.\n[ "$1" = mosquitto ] && exit 101\nexit 0\n' >"$policy"
    chmod 755 "$policy"
  fi
  t=$(now_ms)
  local result=0
  # An update fails if any one source of this machine is away; whether that matters shows in the installation.
  run_apt update || true
  run_apt install -y --no-install-recommends "${apt_missing[@]}" || result=$?
  if [[ "$our_policy" == yes ]]; then rm -f "$policy"; trap - EXIT; fi
  if ((result != 0)); then
    tail -n 15 "$logfile" >&2
    lacking "${apt_missing[*]}" "apt-get failed (last lines above, all of it in $logfile). Is there a network? To try by hand: $line"
    return
  fi
  if [[ "$new_broker" == yes && -d /run/systemd/system ]]; then
    systemctl disable --quiet mosquitto.service >>"$logfile" 2>&1 || true
    note "Debian's own mosquitto.service is installed but not enabled: the hub starts a private broker"
  fi
  good "${#apt_missing[@]} package(s), $(sed -n 's/^Need to get \([^ ]* [kMG]\?B\).*/\1/p' "$logfile" | tail -n 1) in $(seconds_since "$t")"
}

run_apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@" \
    </dev/null >>"$logfile" 2>&1
}

# Programs out of packages that would start a service if they were installed. apt checks the archive as it does for others.
take_programs() {
  local line kind name package path need folder t
  for line in "${pins[@]}"; do
    read -r kind name package path need <<<"$line"
    [[ "$kind" == program ]] || continue
    wanted "$need" || continue
    command -v "$name" >/dev/null && continue
    if [[ "$check" == yes ]]; then lacking "$name" "$name is not installed."; continue; fi
    if [[ "$use_apt" == no ]] || ! command -v apt-get >/dev/null; then
      lacking "$name" "$name is missing: put it on the path (Debian has it in the package $package)."
      continue
    fi
    step "$name (out of Debian's $package, which is not installed)"
    t=$(now_ms)
    folder="$(mktemp -d -- "$LINTEL_CACHE/.program.XXXXXX")"
    # The lists of packages may be older than the archive; only root can have newer ones.
    if { download_package "$package" "$folder" || { [[ "$am_root" == yes ]] && run_apt update && download_package "$package" "$folder"; }; } \
      && dpkg-deb -x "$folder"/*.deb "$folder/unpacked" >>"$logfile" 2>&1 \
      && install -D -m 755 -- "$folder/unpacked/$path" "$LINTEL_CACHE/tools/bin/$name"; then
      good "$name in $(seconds_since "$t")"
    else
      lacking "$name" "$name could not be got (see $logfile). To try by hand: apt-get download $package; dpkg-deb -x $package*.deb unpacked; then put unpacked/$path on the path."
    fi
    rm -rf -- "$folder"
  done
}

download_package() {
  (cd -- "$2" && run_apt download "$1")
}

# PostgreSQL refuses to run as root, so the hub starts it as this user when root starts the hub.
make_user() {
  [[ "$am_root" == yes ]] || return 0
  id -u lintel >/dev/null 2>&1 && return 0
  if [[ "$check" == yes ]]; then
    lacking "user lintel" "the system user 'lintel', which runs PostgreSQL when root starts the hub, does not exist."
    return 0
  fi
  step "system user lintel (runs PostgreSQL and the broker; no login)"
  useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin lintel >>"$logfile" 2>&1 \
    || lacking "user lintel" "useradd failed (log: $logfile): create a system user 'lintel' by hand."
}

check_traversable() {
  [[ "$am_root" == yes && -e "$LINTEL_PARTS/postgres/bin/postgres" ]] && id -u lintel >/dev/null 2>&1 || return 0
  runuser -u lintel -- test -x "$LINTEL_PARTS/postgres/bin/postgres" && return 0
  lacking "access for lintel" "the user 'lintel' cannot reach $LINTEL_PARTS/postgres/bin/postgres: every folder on that path must be passable by others (chmod o+x), or choose another place: LINTEL_CACHE=/var/cache/lintel scripts/setup"
}
