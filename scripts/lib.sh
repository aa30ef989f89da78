# Shared by the scripts: installing Debian packages, finding the toolchain, saying what happens. Sourced, not run.

say() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# What a build needs, by Debian package name.
build_packages=(libpq-dev libssl-dev zlib1g-dev pkg-config)
# What `ashlar up` and its main job need.
run_packages=(postgresql postgresql-client qemu-utils qemu-block-extra libiscsi-bin e2fsprogs)
# What the tests need besides.
test_packages=(gcc libc6-dev libiscsi-dev openssl open-isns-server open-isns-utils haproxy iproute2)

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# install_packages NAME...: installs what is missing. Says what it cannot install, and then fails.
install_packages() {
    command -v dpkg-query >/dev/null || {
        say "this is no Debian system; not checked: $*"
        return 0
    }
    local missing=() name
    for name in "$@"; do
        is_installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "missing, and only root can install them: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq >&2 || say "apt-get update failed; trying with the package lists that are there"
    # Debian's own cluster, which the package would create and start, is of no use here.
    if [[ " ${missing[*]} " == *" postgresql "* ]] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        "${as_root[@]}" mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2; then
        # One that cannot be installed must not keep the others away.
        local failed=()
        for name in "${missing[@]}"; do
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends "$name" >&2 || failed+=("$name")
        done
        [ ${#failed[@]} -eq 0 ] || fail "cannot be installed: ${failed[*]} (see what apt-get said above)"
    fi
}

# require_swift: fails with the remedy where there is no Swift 6.2 or later.
require_swift() {
    command -v swift >/dev/null ||
        fail "Swift is not installed; install a toolchain of 6.2 or later from https://www.swift.org/install/linux/"
    local version
    version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\.[0-9]*\).*/\1/p' | head -n 1)
    if [ -n "$version" ] && [ "$(printf '%s\n6.2\n' "$version" | sort -V | head -n 1)" != 6.2 ]; then
        fail "Swift $version is too old; install 6.2 or later from https://www.swift.org/install/linux/"
    fi
}
