# Sourced by the other scripts: a virtual environment in .venv with everything that CPU-only machines need.
# A new one is made when the requirements changed; THINKSTEER_VENV puts it elsewhere.
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository"
venv=${THINKSTEER_VENV:-$repository/.venv}
stamp=$(cat requirements-cpu.txt requirements-dev.txt | cksum)

if [ "$(cat "$venv/thinksteer.stamp" 2>/dev/null)" != "$stamp" ]; then
    echo "Installing into $venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --upgrade pip
    # Without a GPU the build of PyTorch without CUDA is enough; where it cannot be had, any build will do.
    if ! "$venv/bin/python" -c "import torch" 2>/dev/null; then
        "$venv/bin/python" -m pip install --quiet torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
    fi
    "$venv/bin/python" -m pip install --quiet -r requirements-cpu.txt -r requirements-dev.txt
    echo "$stamp" >"$venv/thinksteer.stamp"
fi
export PATH="$venv/bin:$PATH"
