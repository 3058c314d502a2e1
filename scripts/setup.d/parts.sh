# shellcheck shell=bash disable=SC2154
# Pins, and the parts that are made of them: unpack, check every file, rename into place. Sourced by scripts/setup.

pins=()
while IFS= read -r line; do
  read -r kind _ <<<"$line"
  [[ -z "$kind" || "$kind" == \#* ]] || pins+=("$line")
done <"$LINTEL_ROOT/scripts/pins.txt"

# Whether something that `run`, `test` or `coverage` needs is asked for: everybody needs what `run` does.
wanted() { [[ "$1" == run || "$1" == "$scope" ]]; }
# Whether a pin for this architecture, or for any, is meant for this machine.
for_this_machine() { [[ "$1" == any || "$1" == "$machine" ]]; }

# Prints the pin lines that make up a part on this machine, and the packages they come from.
part_pins() {
  local line part package arch
  local -A packages=()
  for line in "${pins[@]}"; do
    read -r kind part package arch _ <<<"$line"
    [[ "$kind" == part && "$part" == "$1" ]] && printf '%s\n' "$line"
    if [[ ("$kind" == file || "$kind" == tree) && "$part" == "$1" ]] && for_this_machine "$arch"; then
      packages["$package"]=1
      printf '%s\n' "$line"
    fi
  done
  for line in "${pins[@]}"; do
    read -r kind package _ _ arch _ <<<"$line"
    [[ "$kind" == package && -n "${packages[$package]:-}" ]] && for_this_machine "$arch" && printf '%s\n' "$line"
  done
  return 0
}

# A part's name in the store: another pin makes another name.
stored_name() { printf '%s-%s' "$1" "$(part_pins "$1" | sha256sum | cut -c1-16)"; }

# Takes some files or folders out of an archive.
unpack() { # archive, folder, members...
  local archive="$1" folder="$2" member
  local -a globs=()
  shift 2
  mkdir -p -- "$folder"
  case "$archive" in
    *.whl)
      # unzip wants a pattern for a folder; a pattern that matches nothing is no error as long as another one does.
      for member in "$@"; do globs+=("$member" "$member/*"); done
      unzip -q -o "$archive" "${globs[@]}" -d "$folder" ;;
    *) tar -xzf "$archive" -C "$folder" --no-same-owner "$@" ;;
  esac </dev/null >>"$logfile" 2>&1
}

# One hash for a folder: names and contents of all its files, in byte order.
tree_hash() { (cd -- "$1" && find . -type f -print0 | sed -z 's|^\./||' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1); }

# Compares a part's folder with its pins; prints what differs.
part_differs() { # part folder
  local line kind package arch path name sha
  while read -r line; do
    read -r kind _ package arch path name sha <<<"$line"
    case "$kind" in
      file) [[ -f "$2/$name" && "$(hash_of "$2/$name")" == "$sha" ]] || printf '%s: %s\n' "$package" "$path" ;;
      tree) [[ -d "$2" && "$(tree_hash "$2")" == "$path" ]] || printf '%s: the %s files\n' "$package" "$1" ;;
    esac
  done < <(part_pins "$1")
}

# For --verify: a part that is no longer as pinned counts as missing. It is moved out of the way, not deleted, so that a
# program which runs from it goes on until the new one is there. With --check nothing is moved, only told.
set_aside_if_damaged() { # part, name in the store
  local differs
  [[ -d "$store/$2" ]] || return 0
  differs="$(part_differs "$1" "$store/$2")"
  [[ -n "$differs" ]] || return 0
  warn "$1: not as pinned: ${differs//$'\n'/; }"
  if [[ "$check" == yes ]]; then
    lacking "$1" "the part '$1' is damaged: run scripts/setup --verify to install it anew."
  else
    mv -T -- "$store/$2" "$(mktemp -u -- "$store/.bad.XXXXXX")"
  fi
}

# Unpacks and checks one part beside its place and renames it there. Each archive is read once.
install_part() { # part, name in the store
  local line kind package arch path name folder differs t
  local -A members=()
  while read -r line; do
    read -r kind _ <<<"$line"
    [[ "$kind" != package ]] || fetch "$line" || return 0
  done < <(part_pins "$1")
  t=$(now_ms)
  folder="$(mktemp -d -- "$store/.unpack.XXXXXX")"
  while read -r line; do
    read -r kind _ package arch path name <<<"$line"
    case "$kind" in
      file) members[$package]+=" $path" ;;
      tree) for path in $name; do members[$package]+=" $path"; done ;;
    esac
  done < <(part_pins "$1")
  for package in "${!members[@]}"; do
    read -ra paths <<<"${members[$package]}"
    # What goes wrong here shows as a file that differs, below.
    unpack "$(archive_of "$package")" "$folder/.from/$package" "${paths[@]}" || true
  done
  arrange "$1" "$folder"
  differs="$(part_differs "$1" "$folder")"
  if [[ -n "$differs" ]]; then
    rm -rf -- "$folder"
    lacking "$1" "$1: after unpacking, these files are not the pinned ones: ${differs//$'\n'/; }. Is the disk full? (log: $logfile)"
    return 0
  fi
  chmod -R u+w,go-w,a+rX -- "$folder"
  mv -T -- "$folder" "$store/$2"
  good "$1 unpacked and checked, $(megabytes "$(du -sb -- "$store/$2" | cut -f1)") in $(seconds_since "$t")"
}

# Moves unpacked files to their names in the part; a tree keeps the names it has.
arrange() { # part folder
  local line kind package path name
  while read -r line; do
    read -r kind _ package _ path name _ <<<"$line"
    case "$kind" in
      file) [[ ! -f "$2/.from/$package/$path" ]] || mv -- "$2/.from/$package/$path" "$2/$name" ;;
      tree) mv -- "$2/.from/$package"/* "$2/" ;;
    esac
  done < <(part_pins "$1")
  rm -rf -- "$2/.from"
}

# The downloaded archive of a package on this machine.
archive_of() {
  local line kind name arch file
  for line in "${pins[@]}"; do
    read -r kind name _ _ arch file _ <<<"$line"
    if [[ "$kind" == package && "$name" == "$1" ]] && for_this_machine "$arch"; then
      printf '%s/%s' "$downloads" "$file"
      return
    fi
  done
}

# Shows a stored part at its public place, by renaming a finished link over whatever was there.
link_part() { # link, name in the store, folder inside
  local link="$LINTEL_PARTS/$1" up=''
  [[ "$1" == */* ]] && up=../
  local target="${up}.store/$2"
  [[ "$3" == . ]] || target+="/$3"
  [[ "$(readlink -- "$link" 2>/dev/null)" == "$target" ]] && return 0
  mkdir -p -- "$(dirname -- "$link")"
  rm -rf -- "$link.new"
  ln -s -- "$target" "$link.new"
  if [[ -d "$link" && ! -L "$link" ]]; then
    lacking "$1" "$link is a folder that setup did not make: move it away and run scripts/setup again."
    rm -f -- "$link.new"
    return 0
  fi
  mv -T -- "$link.new" "$link"
}
