# Sourced by the other scripts: where we are, how we speak, and where rustup puts cargo.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# rustup adds itself to login shells only; a cron job or a CI runner often has no such shell.
if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
fi

say() { printf '==> %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The number in the name by which programs find the C library: it changes when they could no longer run with it.
abi_version() { sed -n 's/^#define HEARTBUS_ABI_VERSION //p' include/heartbus.h; }
