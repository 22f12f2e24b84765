# shellcheck shell=bash
# Sourced by the other scripts: a virtual environment in .venv with what the requirements files named as arguments ask for.
# They are installed again when they changed; THINKSTEER_VENV puts the environment elsewhere.
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository" || exit
venv=${THINKSTEER_VENV:-$repository/.venv}
stamp=$(cat requirements-common.txt "$@" | cksum)

if ! grep -qsx "$stamp" "$venv/thinksteer.stamps"; then
    echo "Installing $* into $venv"
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --upgrade pip
    # The build of PyTorch without CUDA, where its index can be reached (one try, its dependencies come below);
    # elsewhere any build will do.
    "$venv/bin/python" -m pip install --quiet --no-deps --retries 0 torch==2.13.0 \
        --extra-index-url https://download.pytorch.org/whl/cpu
    "$venv/bin/python" -m pip install --quiet "${@/#/-r}"
    # CUDA builds, beside a PyTorch that has none (see requirements-cpu.txt).
    "$venv/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
    echo "$stamp" >>"$venv/thinksteer.stamps"
fi
export PATH="$venv/bin:$PATH"
