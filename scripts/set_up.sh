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
    # The build of PyTorch without CUDA, where its index can be reached (one try, its dependencies come below);
    # elsewhere any build will do.
    "$venv/bin/python" -m pip install --quiet --no-deps --retries 0 torch==2.13.0 \
        --extra-index-url https://download.pytorch.org/whl/cpu
    "$venv/bin/python" -m pip install --quiet -r requirements-cpu.txt -r requirements-dev.txt
    echo "$stamp" >"$venv/thinksteer.stamp"
fi
export PATH="$venv/bin:$PATH"
