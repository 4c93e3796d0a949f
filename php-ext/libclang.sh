#!/bin/sh
# Prints the libclang that bindgen will load to read PHP's headers, or fails: there is none that is of use. Looks where bindgen looks
# (its clang-sys), and takes what that takes: libclang-cpp, which many packages bring along, is another library, and a libclang without
# the headers that belong to the compiler finds no stddef.h. scripts/setup and phpize's configure ask.

# use FILE: ends the search, with the library or without. It comes from the package libclang1-N, its headers from libclang-common-N-dev.
use() {
    for header in "$(dirname "$1")"/clang/*/include/stddef.h /usr/lib*/clang/*/include/stddef.h /usr/lib/llvm*/lib*/clang/*/include/stddef.h \
        "$(clang -print-resource-dir 2>/dev/null)"/include/stddef.h; do
        [ ! -f "$header" ] || { printf '%s\n' "$1"; exit 0; }
    done
    # Whoever tells clang where to look has them elsewhere.
    [ -z "${BINDGEN_EXTRA_CLANG_ARGS:-}" ] || { printf '%s\n' "$1"; exit 0; }
    exit 1
}

look_in() {
    for found in "$1"/libclang.so "$1"/libclang-*.so "$1"/libclang.so.* "$1"/libclang-*.so.*; do
        case $found in
            */libclang-cpp.*) ;;
            *) [ ! -f "$found" ] || use "$found" ;;
        esac
    done
}

# Where it is set it is the only place: a folder, or the library itself.
if [ -n "${LIBCLANG_PATH+set}" ]; then
    case ${LIBCLANG_PATH##*/} in
        libclang-cpp.*) ;;
        libclang.so | libclang.so.* | libclang-*.so | libclang-*.so.*) [ ! -f "$LIBCLANG_PATH" ] || use "$LIBCLANG_PATH" ;;
    esac
    look_in "$LIBCLANG_PATH"
    exit 1
fi

if prefix=$("${LLVM_CONFIG_PATH:-llvm-config}" --prefix 2>/dev/null); then
    for folder in bin lib lib64; do look_in "$prefix/$folder"; done
fi
IFS=:
for folder in ${LD_LIBRARY_PATH:-} ${LIBRARY_PATH:-}; do look_in "$folder"; done
unset IFS
for folder in /usr/local/llvm*/lib* /usr/local/lib*/*/* /usr/local/lib*/* /usr/local/lib* /usr/lib*/*/* /usr/lib*/* /usr/lib*; do
    look_in "$folder"
done
exit 1
