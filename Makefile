SHELL := /bin/bash
# Our own copy if the machine has none: `make` needs only Python 3.11+ and git.
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
# Stage commands say `python`: they get the one of .venv.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo repro report experiments params check-data check-model stage1 compare transfer exam bench test lint format doctor docs clean

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet uv

.venv/.ready: pyproject.toml uv.lock | $(filter .uv/bin/uv,$(UV))
	$(UV) sync --frozen --compile-bytecode --quiet $(SYNC)
	touch $@

setup: .venv/.ready ## Install everything into .venv (SYNC="options of uv sync")

demo: setup ## Run the whole loop on the embedded floor plans (minutes on two cores)
	dvc repro
	@echo
	@echo "Metrics: reports/metrics.json   Pictures: reports/samples.png, outputs/published/samples/"
	@python tools/timed_report.py
	@python tools/committed_run.py

repro: setup ## Run every stage that is not up to date with params.yaml
	dvc repro

report: setup ## Write reports/report_timed.html: the report with each stage's time and hardware
	python tools/timed_report.py

experiments: setup ## Compare experiments: the settings that differ, and the final scores
	@dvc exp show --only-changed --drop '.*/|conf|params|derived|training|held_out.(?!final.(kid|critic_gap|cov))'

params: setup ## Compose params.yaml from conf/ for `dvc repro` (`dvc exp run` does it itself)
	@python -c "import os; from dvc.utils.hydra import compose_and_dump as dump; \
	dump('params.yaml', os.path.abspath('conf'), None, 'config', os.path.abspath('src'), [])"
	@python stages/check_config.py --out outputs/config.ok

check-data: setup ## Say in a second what a run would make of SOURCE=folder (SECONDS=60 looks longer)
	@python tools/check_data.py $(if $(SOURCE),"$(SOURCE)") --seconds $(or $(SECONDS),1)

check-model: setup ## Say in seconds what a run would make of a base model, MODEL=folder of diffusers
	@python tools/check_model.py "$(MODEL)"

stage1: setup ## Remake data/stage1 from scratch (about two hours on two cores)
	dvc exp run -S autoencoder.pretrained=null -S base.pretrained=null train_base
	python data/stage1/export.py
	$(MAKE) params

compare: setup ## Compare objectives over training seeds, as benchmarks/compare/plan.yaml says (hours; resumes)
	python benchmarks/compare/compare.py

transfer: setup ## Run the default on other images and another network; docs/transfer.md (hours; resumes; RUNS=letters for one)
	python benchmarks/transfer/transfer.py $(RUNS)

exam: setup ## Try to fool every figure with garbage and damage, on this run's images; docs/exam.md
	python tools/exam.py

bench: setup ## Measure speed, start-up and memory in docs/benchmarks.md (ONLY=training,memory for some)
	python benchmarks/speed/bench.py $(if $(ONLY),--only $(ONLY))

# One thread for each worker: two workers with two threads each would wait for one another.
# One worker more than cores, because some tests wait for a disk or a queue.
test: setup ## Run the tests
	OMP_NUM_THREADS=1 pytest -m "not timing" --dist loadgroup --maxprocesses 8 \
		--numprocesses $$(python -c "import os; print(os.cpu_count() + 1)")
	pytest -m timing tests/pipeline/test_pipeline.py

lint: setup ## Check style and types
	ruff check .
	ruff format --check .
	mypy

format: setup ## Format the code
	ruff check --fix .
	ruff format .

doctor: ## Say what is wrong with this machine or checkout, and how to fix it
	@command -v python3 >/dev/null || { echo "wrong    python        is not installed -> install \
	Python 3.13, or uv (https://docs.astral.sh/uv/), whose \`make setup\` brings one"; exit 1; }
	@python3 tools/doctor.py

docs: setup ## Remake docs/parameters.md from the comments in conf/
	python tools/parameters.py

clean: ## Remove what runs left in the workspace, but not DVC's cache
	rm -rf outputs .state .pytest_cache .mypy_cache .ruff_cache
