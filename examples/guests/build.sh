#!/bin/sh
# Rebuilds prebuilt/*.wasm and prebuilt/SHA256SUMS. It installs nothing; README.md says what it
# needs. GUESTS_TARGET_DIR and GUESTS_OUT choose other places to build in and copy to.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target_dir=${GUESTS_TARGET_DIR:-$here/target/wasm}
out=${GUESTS_OUT:-$here/prebuilt}
version=1.96.0
source=/usr/src/rustc-$version
linker=/usr/lib/llvm-22/bin/wasm-ld

fail() {
    echo "build.sh: $1" >&2
    echo "On Debian 12 with bookworm-security, as root: apt-get update &&" >&2
    echo "  apt-get install --no-install-recommends rustc-web cargo-web rust-web-src lld-22" >&2
    exit 1
}

case $(/usr/bin/rustc --version 2>/dev/null) in
"rustc $version "*) ;;
*) fail "needs rustc $version as /usr/bin/rustc" ;;
esac
[ -x /usr/bin/cargo ] || fail "needs /usr/bin/cargo"
[ -d "$source/library/std" ] || fail "needs the standard library's source in $source"
[ -x "$linker" ] || fail "needs $linker"

# There is no prebuilt std for wasm32 in Debian's package, so cargo builds it (-Zbuild-std, for
# which a stable compiler wants RUSTC_BOOTSTRAP). Remapped paths keep the bytes the same anywhere.
unset RUSTFLAGS RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR="$target_dir"
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker"
unit=$(printf '\037')
flags="--remap-path-prefix=$here=/guests"
flags="$flags$unit--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
flags="$flags$unit--remap-path-prefix=$source=/rustc"
export CARGO_ENCODED_RUSTFLAGS="$flags"

cd "$here"
/usr/bin/cargo build --release --locked --workspace \
    --target wasm32-unknown-unknown -Zbuild-std=std,panic_abort

mkdir -p "$out"
rm -f "$out"/*.wasm
install -m 644 "$target_dir"/wasm32-unknown-unknown/release/*.wasm "$out"
cd "$out"
sha256sum *.wasm >SHA256SUMS
wc -c *.wasm
