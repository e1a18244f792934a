# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
#
# make demo            metric depth from a recorded drive, through ROS 2
# make test            linters, the import rule, types, the whole suite
# make test-gpu        what needs a GPU, on a machine that has one
# make compiler-gate   compile every graph with NVIDIA's compiler, without a GPU
# make bindings-gate   try the runtime trt on NVIDIA's own Python packages, without a GPU
# make accuracy        measure baselines and models: out/accuracy.json, docs/accuracy.md
# make bench           measure speed: out/bench.json, docs/performance.md
# make soak            faults thrown at the running node: out/reliability.json
# Everything is installed into $(VENV) on first use; a second run starts at once.

PYTHON ?= python3
VENV ?= .venv
DRIVE ?= $(firstword $(wildcard $(DEFAULT_DRIVE)) synthetic)
DEFAULT_DRIVE := ../shared/data/kitti_raw/2011_09_26/2011_09_26_drive_0013_sync
OUT ?= out/demo
RATE ?= 1.0
MODEL ?= compact
ACCURACY_STREET ?= $(DEFAULT_DRIVE)
ACCURACY_ROOM ?= ../shared/data/hololens_rgbd
ACCURACY_PRIOR ?= config/training/compact_single.yaml
SECONDS ?= 600
SEED ?= 0
BIN := $(VENV)/bin

DEMO_NEEDS := core cpu bag viz ros-wheels
TEST_NEEDS := $(DEMO_NEEDS) train test
files = $(1:%=requirements/%.txt)
stamp = $(VENV)/.ready-$(shell cat constraints.txt $(call files,$(1)) | sha256sum | cut -c1-16)
define install
	@echo "[setup] installing $(1) into $(VENV) (first time: some minutes)"
	@$(BIN)/pip install -qq --disable-pip-version-check --progress-bar off \
		-c constraints.txt $(patsubst %,-r %,$(call files,$(2))) \
		|| { echo "[setup] FAILED: see pip's message above. ROS wheels exist for Linux on x86_64;" \
			"elsewhere install ROS 2 and use colcon build. Run the command again to retry."; exit 2; }
	@touch $@ $(DEMO_STAMP)
	@echo "[setup] done"
endef
# The wheels keep their ROS packages where the virtual environment is. A ROS installation that the
# shell has sourced is left out: two of them in one process do not work.
ros_env = $(if $(ROS_DISTRO),env -u PYTHONPATH -u LD_LIBRARY_PATH -u RMW_IMPLEMENTATION \
	-u ROS_DISTRO AMENT_PREFIX_PATH=$(abspath $(VENV)),\
	AMENT_PREFIX_PATH=$${AMENT_PREFIX_PATH:-$(abspath $(VENV))})

DEMO_STAMP := $(call stamp,$(DEMO_NEEDS))
TEST_STAMP := $(call stamp,$(TEST_NEEDS))

.PHONY: help demo test test-gpu lint compiler-gate bindings-gate accuracy bench clean soak \
	clip-prior-ablation
.DEFAULT_GOAL := help

help:
	@echo "make demo [DRIVE=path] [RATE=1.0] [MODEL=compact] [OUT=out/demo]"
	@echo "    play a drive through the depth node and write $(OUT)/: montage.png, summary.json, demo.rrd"
	@echo "    DRIVE: KITTI raw drive, folder with images/ and K.txt, rosbag2 or MCAP, or synthetic"
	@echo "make test    linters, import rule, types and all tests"
	@echo "make lint    the linters only"
	@echo "make test-gpu"
	@echo "    the tests that need an NVIDIA GPU, with TensorRT and cuda-bindings, with a torch for CUDA,"
	@echo "    or with all of them (docs/runtimes.md)"
	@echo "make compiler-gate"
	@echo "    compile every graph with NVIDIA's compiler, which needs no GPU (downloads 150 MB)"
	@echo "make bindings-gate"
	@echo "    hold the calls of the runtime trt against NVIDIA's Python packages of five versions of"
	@echo "    TensorRT and three of CUDA, which needs no GPU (downloads 30 MB)"
	@echo "make accuracy [ACCURACY_STREET=path] [ACCURACY_ROOM=path]"
	@echo "    measure baselines and shipped models on drives with ground truth:"
	@echo "    out/accuracy.json and docs/accuracy.md"
	@echo "make bench [ARGS=--quick]"
	@echo "    measure how fast the node is: out/bench.json and docs/performance.md (with --quick,"
	@echo "    within a minute, out/bench.json alone)"
	@echo "make soak [SECONDS=600] [SEED=0]"
	@echo "    throw faults at the running node for so long, fuzz its parsers:"
	@echo "    out/reliability.json and docs/reliability.md"
	@echo "make clip-prior-ablation"
	@echo "    what a language prior is worth, on small real rooms: out/clip_prior_ablation.json and"
	@echo "    the table of docs/clip_prior.md; goes on where it was interrupted"
	@echo "make clean   remove $(VENV) and everything that was built or written"

demo: $(DEMO_STAMP)
	@$(ros_env) $(BIN)/python -m hybrid_depth_ros.demo --drive '$(DRIVE)' --out '$(OUT)' \
		--rate '$(RATE)' --model '$(MODEL)'

test: lint
	@echo "[test] running the suite"
	@$(ros_env) $(BIN)/python -m pytest -q

lint: $(TEST_STAMP)
	@echo "[lint] ruff";         $(BIN)/ruff check .
	@echo "[lint] import rule";  $(BIN)/lint-imports
	@echo "[lint] types";        $(BIN)/mypy

# TensorRT, cuda-bindings and a torch for CUDA are not installed by this: they have to fit the
# machine's driver
test-gpu: $(TEST_STAMP)
	@$(BIN)/python -m pytest -q -rsP test/gpu test/training/gpu/test_session.py

# the wheels' other dependencies are a GPU build of ONNX Runtime and CUDA, which this needs none of
compiler-gate: $(TEST_STAMP)
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps -r requirements/compiler-gate.txt
	@$(ros_env) $(BIN)/python -m pytest -q -rs test/core/runtime/test_compiler_gate.py \
		test/training/deploy/test_configurable_graphs.py

# Python packages alone, without the libraries they are for; one folder each, for they share names
TRT_BINDINGS := tensorrt_bindings==8.6.1 tensorrt_cu12_bindings==10.0.1 \
	tensorrt_cu12_bindings==10.3.0 tensorrt_cu13_bindings==10.16.1.11 \
	tensorrt_cu13_bindings==11.4.0.106
CUDA_BINDINGS := cuda-bindings==12.8.0 cuda-bindings==12.9.10 cuda-bindings==13.5.0
bindings = $(VENV)/bindings/$(subst ==,-,$(1))
empty :=
colons = $(subst $(empty) $(empty),:,$(foreach package,$(1),$(abspath $(call bindings,$(package)))))
bindings-gate: $(TEST_STAMP)
	@$(foreach package,$(TRT_BINDINGS) $(CUDA_BINDINGS),[ -d $(call bindings,$(package)) ] || \
		$(BIN)/pip install -qq --disable-pip-version-check --no-deps --only-binary :all: \
		--target $(call bindings,$(package)) $(package) \
		$(if $(findstring cuda-,$(package)),cuda-pathfinder) || exit 2;)
	@TENSORRT_BINDINGS=$(call colons,$(TRT_BINDINGS)) CUDA_BINDINGS=$(call colons,$(CUDA_BINDINGS)) \
		$(BIN)/python -m pytest -q -rs test/core/runtime/test_trt_bindings.py

# the position-only prior is made of the training data: without it that row is left out
accuracy: $(TEST_STAMP)
	@$(BIN)/python -m hybrid_depth_training accuracy --street '$(ACCURACY_STREET)' \
		--room '$(ACCURACY_ROOM)' --prior_from '$(ACCURACY_PRIOR)' \
		--json out/accuracy.json --markdown docs/accuracy.md

bench: $(DEMO_STAMP)
	@$(ros_env) $(BIN)/python -m hybrid_depth_ros.bench $(ARGS)

soak: $(TEST_STAMP)
	@$(ros_env) $(BIN)/python -m hybrid_depth_ros.soak --seconds '$(SECONDS)' --seed '$(SEED)' \
		--out out --markdown docs/reliability.md

clip-prior-ablation: $(TEST_STAMP)
	@$(BIN)/python -m hybrid_depth_training clip_prior_ablation \
		config/training/clip_prior_ablation.yaml --out out/clip_prior_ablation.json \
		--markdown docs/clip_prior.md

$(BIN)/pip:
	@echo "[setup] creating the virtual environment $(VENV)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 10) <= v <= (3, 13))' \
		|| { echo "[setup] $(PYTHON) is $$($(PYTHON) --version 2>&1); expected Python 3.10 to 3.13." \
			"Run: make PYTHON=python3.11 ..."; exit 2; }
	@$(PYTHON) -m venv $(VENV) && test -x $@ \
		|| { rm -rf $(VENV); echo "[setup] Python cannot create a virtual environment." \
			"Run: sudo apt-get install python3-venv python3-pip"; exit 2; }

$(DEMO_STAMP): | $(BIN)/pip
	$(call install,the demo's packages,$(DEMO_NEEDS))

# one pip command for everything, so that one resolution sees every constraint
$(TEST_STAMP): | $(BIN)/pip
	$(call install,the packages of the test-suite and of training,$(TEST_NEEDS))

clean:
	rm -rf $(VENV) build install log out runs dist .pytest_cache .mypy_cache .ruff_cache
	rm -rf .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
