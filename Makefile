# `make` alone lists what there is. Variables: VENV, PYTHON, DETECTRON2=/path/to/source, ARGS.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
# The newest of these is the proof that setup ran for this state of the pins.
STAMP := $(VENV)/setup.stamp
# Where the demo trains; by default a new run each time.
ifndef DEMO
DEMO := multirun/$(shell date +%Y-%m-%d_%H-%M-%S)_demo
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo format lint types layers test test-slow test-gpu check tensorboard monitor sweep bench-sweep bench-predict bench-scenes bench-cfar numbers serve lock clean \
	docker-build docker-up docker-down docker-logs docker-shell docker-ps docker-run docker-demo docker-tensorboard docker-monitor docker-serve

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-19s %s\n", $$1, $$2}'

setup:  ## virtual environment with everything, Detectron2 included (DETECTRON2=/path compiles that source)
	@VENV='$(VENV)' DETECTRON2='$(DETECTRON2)' docker/environment/setup.sh

$(STAMP): docker/environment/requirements.txt docker/environment/setup.sh pyproject.toml
	@VENV='$(VENV)' docker/environment/setup.sh

demo: $(STAMP)  ## the whole way on simulated images, a few minutes on a CPU
	$(BIN)/python -m sar_experiments task=check usecase=demo hardware=cpu
	$(BIN)/python -m sar_experiments usecase=demo hardware=cpu output=$(DEMO) $(ARGS)
	$(BIN)/python -m sar_experiments task=predict hardware=cpu weights=$(DEMO) source=multirun/.simulated/demo/scene.tif
	$(BIN)/python -m sar_experiments task=evaluate model=cfar usecase=demo hardware=cpu output=$(DEMO)_cfar
	$(BIN)/python -m sar_experiments task=report source='[$(DEMO),$(DEMO)_cfar]' output=$(DEMO)_report

format: $(STAMP)  ## write code in our style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP)  ## style, without writing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy sar_experiments

layers: $(STAMP)  ## who may import whom
	$(BIN)/lint-imports --no-logo

test: $(STAMP)  ## all tests that need no GPU and are fast (under five minutes on two cores)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile $(ARGS)

test-slow: $(STAMP)  ## the slow ones
	$(BIN)/pytest -m 'slow and not gpu' $(ARGS)

test-gpu: $(STAMP)  ## those that need a GPU; fails where there is none
	REQUIRE_GPU=1 $(BIN)/pytest -m gpu $(ARGS)

check: lint types layers test  ## what a change must pass

tensorboard: $(STAMP)  ## curves and pictures of all runs on port 6010 (from afar: ssh -L 6010:localhost:6010 user@server)
	$(BIN)/tensorboard --logdir multirun --port 6010 --bind_all

monitor: $(STAMP)  ## live table of all runs (ARGS=--once: plain text, once; source=DIR: those below DIR)
	@$(BIN)/python -m sar_experiments task=monitor $(if $(source),source=$(source)) $(ARGS)

sweep: $(STAMP)  ## several runs: make sweep usecase=ships ARGS='solver.base_lr=1e-4,2e-4' (name=NAME to come back to it)
	$(BIN)/python -m sar_experiments --multirun $(if $(usecase),usecase=$(usecase)) $(if $(name),sweep.name=$(name)) $(ARGS)

bench-sweep: $(STAMP)  ## makespan of sweeps against the ideal and Hydra's own launchers, about ten minutes
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/sweep.py --queued 200

docker-build:  ## the image, for your own user (BUILD_ARGS='--build-arg DETECTRON2=compiled'); docker/README.md
	@docker/compose.sh build

docker-up:  ## train in a container: make docker-up usecase=ships CUDA_DEVICES=1 ARGS='solver.base_lr=2e-4'
	@docker/compose.sh up

docker-logs:  ## follow it (usecase=, CUDA_DEVICES= as with docker-up)
	@docker/compose.sh logs

docker-shell:  ## a shell in it, or in a new container where it does not run
	@docker/compose.sh shell

docker-run:  ## one command in a container, to its end: make docker-run ARGS='task=predict weights=multirun/RUN source=/data/x.tif'
	@docker/compose.sh run

docker-demo:  ## make demo in a container: does everything work?
	@docker/compose.sh demo

docker-down:  ## stop it, checkpoint first; without usecase= all containers of yours, never anybody else's
	@docker/compose.sh down

docker-ps:  ## your containers
	@docker/compose.sh ps

docker-tensorboard:  ## TensorBoard in a container, port 6010 (TENSORBOARD_BIND=127.0.0.1 admits ssh tunnels alone)
	@docker/compose.sh tensorboard

docker-monitor:  ## the live table of runs and GPUs in a container
	@docker/compose.sh monitor

docker-serve:  ## find objects over HTTP: make docker-serve WEIGHTS=multirun/RUN CUDA_DEVICES=0
	@docker/compose.sh serve

bench-predict: $(STAMP)  ## speed, memory and agreement with a plain loop and SAHI (ARGS="--weights=RUN --sahi-python=...")
	$(BIN)/python benchmarks/predict.py $(ARGS)

bench-cfar: $(STAMP)  ## false-alarm rate of the CFAR against the asked one
	$(BIN)/python benchmarks/cfar_rate.py $(ARGS)

numbers: $(STAMP)  ## measure again what README and docs quote (ARGS="--only sizes --update")
	$(BIN)/python benchmarks/quoted_numbers.py $(ARGS)

bench-scenes: $(STAMP)  ## objects found in whole scenes by each way of prediction (ARGS="RUN --batches 1 4")
	$(BIN)/python benchmarks/scene_accuracy.py $(ARGS)

serve: $(STAMP)  ## find objects over HTTP, with a page to drop scenes on: make serve weights=multirun/RUN
	$(BIN)/python -m sar_experiments task=serve weights='$(weights)' $(ARGS)

lock: $(STAMP)  ## write docker/environment/requirements.txt anew
	VENV='$(VENV)' docker/environment/lock.sh

clean:  ## remove caches and builds; never multirun/ and never the environment
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
