# Sourced by the other scripts: where we are, how we speak, and where rustup puts cargo.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# rustup adds itself to login shells only; a cron job or a CI runner often has no such shell.
if ! command -v cargo >/dev/null && [ -x "${HOME:-}/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
fi

# What cargo builds is looked for in target/.
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET CARGO_BUILD_TARGET_DIR
export CARGO_NET_RETRY=${CARGO_NET_RETRY:-10}

say() { printf '==> %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# again COMMAND...: tries up to five times, for what needs a network.
again() {
    local pause
    for pause in 2 5 10 20; do
        "$@" && return
        sleep "$pause"
    done
    "$@"
}

# Of this repository, whoever owns it: in a container that is often somebody else.
own_git() { git -c safe.directory="$root" "$@"; }

# The number in the name by which programs find the C library: it changes when they could no longer run with it.
abi_version() { sed -n 's/^#define HEARTBUS_ABI_VERSION //p' include/heartbus.h; }
