#!/usr/bin/env bash
# From a fresh clone to a green test run: prepares .venv-test, checks style and types, runs the tests.
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
. "$root/scripts/setup.sh"

fast=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        cat <<END
usage: ./test.sh [--fast] [pytest arguments...]

Prepares .venv-test on its first start, then runs ruff, mypy and all tests that this machine can
run; what was skipped, and why, is listed at the end.

  --fast    leave out the training tests
  PYTHON=/path/to/python ./test.sh    the Python to make .venv-test with (3.10 to 3.13)
END
        exit
        ;;
    --fast) fast=(-m 'not training') ;;
    *) break ;;
    esac
    shift
done

# jax: what is to train without TensorFlow is tested without it.
prepare_environment .venv-test train,test jax
cd "$root"
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=3

failed=
"$python" -m ruff check --output-format concise --extend-exclude '.venv*' . || failed='ruff'
"$python" -m mypy || failed="${failed:+$failed and }mypy"

log=$root/.venv-test/pytest.log
color=no
[ ! -t 1 ] || color=yes
"$python" -m pytest --color=$color "${fast[@]}" "$@" 2>&1 | tee -i "$log" && status=0 || status=$?
if [ -n "$failed" ]; then
    # The last line stays the one that counts the tests.
    printf '\n%s found faults, see the beginning.\n' "$failed"
    tail -n 1 "$log"
    [ "$status" -ne 0 ] || status=1
fi
exit "$status"
