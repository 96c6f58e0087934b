#!/usr/bin/env bash
# The whole GPU job in steps of ten minutes at most: CUDA tests, throughput, training from scratch and distilled, all small ones alike,
# QAT, its ablation, export. Start it again until it says "all done"; a finished step is not repeated, and training goes on where it was stopped.
#
#   scripts/gpu_run.sh IMAGENETTE.tar.gz|IMAGENETTE_FOLDER OUT
#
# Needs the package with its extras (pip install -e '.[dev,teacher]', and timm for the throughput of other models), nvcc for NNCF's
# kernels and one CUDA device. Never run on a GPU yet. All steps but the CUDA tests went through on a CPU, with
#
#   DEVICE=cpu COMPILE= QAT_STEPS=2 LIMIT=1500 SETTINGS="image_size=32 epochs=1 batch_size=8 warmup_epochs=0 teacher_views=1 val_every=1" \
#     THROUGHPUT="--models lavit_mobile_s --batch-size 2 --image-size 64 --seconds 1 --modes eager" \
#     scripts/gpu_run.sh lavit_edge/pictures_cc0 OUT
set -euo pipefail
data="$1" out="$2" limit="${LIMIT:-540}" device="${DEVICE:-cuda}"
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
read -ra settings <<<"${SETTINGS:-}"  # for a trial on a small machine
workers=$(($(nproc) > 2 ? $(nproc) - 2 : 1))
train() {  # NAME RECIPE [SETTING...]
  local name="$1" recipe="$2"; shift 2
  step "train-$name" python -m lavit_edge.train --data "$data" --out "$out/$name" --recipe "$recipe" --device "$device" \
    ${COMPILE---compile} --cache "$out/cache" --workers "$workers" --save-minutes 1 --resume --set seed=0 "$@" "${settings[@]}"
}
quantize() {  # NAME CHECKPOINT [OPTION...]
  local name="$1" checkpoint="$2"; shift 2
  step "quantize-$name" bash -c 'rm -rf "$1"; shift; exec "$@"' - "$out/$name" \
    python -m lavit_edge.quantize --checkpoint "$out/$checkpoint/checkpoint" --data "$data" --out "$out/$name" --device "$device" \
    --max-steps "${QAT_STEPS:-600}" --epochs 10 "$@"
}

[ "$device" = cuda ] && step tests pytest -q -m cuda -n 0 -s
step throughput python benchmarks/train_throughput.py --device "$device" --data "$data" --workers "$workers" ${THROUGHPUT-}
teacher=(teacher=efficientnet_lite0 mix_probability=0.3)
runs=(mobile-s-distilled mobile-s-scratch tiny-distilled tiny-scratch)
train mobile-s-distilled imagenette_mobile_s "${teacher[@]}"
train mobile-s-scratch imagenette_mobile_s
train tiny-distilled imagenette_tiny "${teacher[@]}"
train tiny-scratch imagenette_tiny
for model in $(python -c 'from lavit_edge import list_models; print(*(n for n in list_models() if n.endswith("_nano")))'); do
  train "alike-$model" less_attention "model=$model" image_size=160 epochs=100 mix_probability=1.0
  runs+=("alike-$model")
done
for name in "${runs[@]}"; do quantize "$name-int8" "$name"; done
quantize ablation-labels mobile-s-distilled --no-teacher
quantize ablation-scores mobile-s-distilled --float-layers '*.query.conv' '*.key.conv' '*.theta' '*.psi'
quantize ablation-frozen mobile-s-distilled --freeze-ranges 0.67
for name in "${runs[@]}"; do
  # exit code 1: exported, but a gate failed; parity.json says which
  step "export-$name" bash -c '"$@" || [ $? = 1 ]' - python -m lavit_edge.export --checkpoint "$out/$name-int8" --data "$data" --out "$out/$name-bundle"
done
for name in "${runs[@]}"; do echo "== $name"; tail -n 1 "$out/$name/log.csv"; done
for name in "$out"/quantize-*.log; do echo "== $name"; tail -n 12 "$name"; done
cat "$out/throughput.log"
echo "all done"
