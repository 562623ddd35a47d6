#!/usr/bin/env bash
# Runs a command of main.py in an environment: infra/run-job.sh prod bootstrap-sync acme_corp --apply
# The environment is the end of the datasets' names (acme_corp_prod); project and location come from PIPELINE_OPS_*.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "Say the environment and the command, e.g.: $0 prod bootstrap-sync" >&2
  exit 2
fi
export PIPELINE_OPS_ENV="$1"
shift
exec "${PYTHON:-python}" "$(dirname "$0")/../main.py" "$@"
