#!/usr/bin/env bash
# The whole GPU job in steps of ten minutes at most: CUDA tests, training from scratch and distilled, QAT. Start it again until it says
# "all done"; a finished step is not repeated, and training goes on where it was stopped.
#
#   scripts/gpu_run.sh IMAGENETTE.tar.gz|IMAGENETTE_FOLDER OUT
#
# Needs the package with its extras (pip install -e '.[dev,teacher]') and one CUDA device. Never run on a GPU yet.
set -euo pipefail
data="$1" out="$2" limit="${LIMIT:-540}"
mkdir -p "$out"
end=$((SECONDS + limit))

step() {  # NAME COMMAND...: runs the command once, within the time that is left
  local name="$1"; shift
  [ -e "$out/$name.done" ] && return
  local left=$((end - SECONDS))
  if [ "$left" -lt 30 ]; then echo "time is up before $name; start again"; exit 3; fi
  echo "== $name, at most $left s"
  local code=0
  timeout --signal=TERM --kill-after=60 "$left" "$@" >>"$out/$name.log" 2>&1 || code=$?
  if [ "$code" = 143 ] || [ "$code" = 124 ]; then echo "$name goes on at the next start"; exit 3; fi
  if [ "$code" != 0 ]; then tail -n 20 "$out/$name.log"; echo "$name failed with $code"; exit 1; fi
  touch "$out/$name.done"
}

if [ -f "$data" ]; then
  step unpack bash -c "mkdir -p '$out/data' && tar xzf '$data' -C '$out/data'"
  data="$(dirname "$(find "$out/data" -maxdepth 3 -type d -name train | head -n 1)")"
fi
workers=$(($(nproc) - 2))
train() {  # NAME SETTINGS...
  local name="$1"; shift
  step "train-$name" python -m lavit_edge.train --data "$data" --out "$out/$name" --device cuda --compile --workers "$workers" \
    --save-minutes 1 --resume "$@"
}

step tests pytest -q -m cuda -s
train nano-distilled --recipe imagenette_nano --set teacher=efficientnet_lite0 mix_probability=0.3
step qat-nano python -m lavit_edge.quantize --checkpoint "$out/nano-distilled/checkpoint" --data "$data" --out "$out/nano-int8" \
  --device cuda --epochs 2
train nano-scratch --recipe imagenette_nano
train tiny-distilled --recipe imagenette_tiny --set teacher=efficientnet_lite0 mix_probability=0.3
for name in nano-distilled nano-scratch tiny-distilled; do echo "== $name"; tail -n 1 "$out/$name/log.csv"; done
echo "all done"
