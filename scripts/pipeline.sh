#!/usr/bin/env bash
# The seven stages on the embedded model, in order: bash scripts/pipeline.sh {demo|full}
#
# demo: minutes, few questions. full: the README's figures, with controls on three seeds. Either can be stopped and started
# again; what is finished is not computed twice. ARTIFACTS names another root than artifacts/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
    demo) responses=1200 steered=200 layered=100 evaluated=400 seeds="0" chosen=300 root=artifacts/demo ;;
    full) responses=3000 steered=1000 layered=300 evaluated=3000 seeds="0 1 2" chosen=1000 root=artifacts/full ;;
    *) echo "error: say demo or full" >&2 && exit 2 ;;
esac
root=${ARTIFACTS:-$root}
model=tiny-reasoner
edited=ThinkEdit-$model
weights=(-0.4 -0.2 -0.1 -0.05 0 0.05 0.1 0.2 0.4 0.8)
common=(--artifacts "$root" --max_length 512)
