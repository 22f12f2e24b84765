# shellcheck shell=bash
# Sourced by the other scripts: a virtual environment in .venv with what the requirements files named as arguments ask for.
# They are installed again when they changed; THINKSTEER_VENV puts the environment elsewhere, PYTHON names the Python that
# it is made with.
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository" || exit
venv=${THINKSTEER_VENV:-$repository/.venv}
stamp=$(cat requirements-common.txt "$@" | cksum)

fits() { # python: one that the project runs on and that the pinned PyTorch has builds for
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null
}

if ! grep -qsx "$stamp" "$venv/thinksteer.stamps"; then
    python=$venv/bin/python
    if [ ! -x "$python" ]; then
        candidates=("${PYTHON:-python3}")
        [ -n "${PYTHON-}" ] || candidates+=(python3.14 python3.13 python3.12 python3.11)
        for python in "${candidates[@]}"; do
            # Debian's Python makes environments only with the package python3-venv.
            if fits "$python" && "$python" -c 'import ensurepip' 2>/dev/null; then break; fi
            python=
        done
        if [ -z "$python" ]; then
            echo "error: no Python 3.11 to 3.14 with venv among ${candidates[*]}: install one, or give PYTHON=PATH" >&2
            return 2
        fi
    elif ! fits "$python"; then
        echo "error: $venv is of $("$python" --version), not of Python 3.11 to 3.14: remove it, then run this again" >&2
        return 2
    fi
    echo "Installing $* into $venv"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
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
