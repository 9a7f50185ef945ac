# `make demo` and `make test` are all you need; each sets up and builds what is missing.
# A sourced ROS 2 distribution is used; without one, ROS 2 comes as wheels into .venv: Kilted, or
# Jazzy with WHEELS=jazzy.

SHELL := /bin/bash
# Set in many containers; then Python would compile all libraries again at every start, half a second for the node.
export PYTHONDONTWRITEBYTECODE :=
.DEFAULT_GOAL := help
.PHONY: help build demo test test-all coverage bench stress soak model lint docs pictures site check-site lock sbom audit clean

ifdef ROS_DISTRO
  ifdef WHEELS
    $(error WHEELS=$(WHEELS), but ROS 2 $(ROS_DISTRO) is sourced: leave WHEELS out, or use a new shell)
  endif
  environment := distribution
  python := python3
  node := ros2 run dan_ros dan_node
else
  environment := $(or $(WHEELS),kilted)
  python := .venv/bin/python
  node := install/dan_ros/lib/dan_ros/dan_node
  export AMENT_PREFIX_PATH := $(CURDIR)/.venv
  export CMAKE_PREFIX_PATH := $(CURDIR)/.venv
  export PATH := $(CURDIR)/.venv/bin:$(PATH)
endif

# Each pytest worker runs its own node and needs about 1 GB. There are two workers more than cores, because tests often
# wait.
WORKERS := $(shell n=$$(nproc); echo $$((n > 6 ? 8 : n + 2)))
PYTEST = python3 -m pytest -n $(WORKERS) --dist worksteal

help: ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

define colcon
	@echo "Building dan_ros with colcon (about a minute) ..."
	@$(python) -m colcon --log-base log build --base-paths . --packages-select dan_ros \
	  --event-handlers console_direct- --cmake-args -DBUILD_TESTING=OFF >build.log 2>&1 \
	  || { cat build.log; echo "The build failed; its output is above and in build.log." >&2; exit 1; }
	@rm -f build.log
endef

build: ## Install what is missing, and build the package with colcon into install/.
	@python3 tools/make_environment.py $(environment)
	$(colcon)
	@echo "Built. '. ./env.sh' prepares a shell for dan-ros, python3 and the node: $(node)"

# Installs and builds only what the demo needs; `make build` and `make test` add the rest.
demo: ## Run the node on a moving face, or on SOURCE=0, SOURCE=video.mp4, SOURCE=folder.
	@python3 tools/make_environment.py --demo $(environment)
	$(colcon)
	@. ./env.sh && python3 -m dan_ros.demo.demo --out demo $(if $(SOURCE),--source "$(SOURCE)")

test: build ## Run the tests, in about 4 minutes on two cores; ARGS goes to pytest.
	@. ./env.sh && python3 -c 'import rclpy, dan_ros.msg' && $(PYTEST) $(ARGS)

test-all: build ## Run the tests and the slow ones in test/slow, in under 15 minutes.
	@. ./env.sh && python3 -c 'import rclpy, dan_ros.msg' && $(PYTEST) test dan_ros $(ARGS)

coverage: build ## Run all tests and list the lines that none of them reaches; fails below 95 %.
	@rm -rf coverage && mkdir -p coverage
	@. ./env.sh && python3 -m coverage run -m pytest -n $(WORKERS) --dist worksteal test dan_ros $(ARGS) && \
	python3 -m coverage combine -q && python3 -m coverage report --fail-under=95

bench: build ## Compare each part with a plain implementation; takes minutes.
	@. ./env.sh && python3 benchmarks/bench.py --out bench $(ARGS)

stress: build ## Repeat the robustness tests 6 to 10 times as often; takes half an hour.
	@. ./env.sh && python3 benchmarks/stress.py --out stress $(ARGS)

soak: build ## Run the node for MINUTES=30 with injected faults; fails if it grows or slows down.
	@. ./env.sh && python3 benchmarks/soak.py --out soak --minutes $(or $(MINUTES),30) $(ARGS)

lint: build ## Check style and types with ruff and mypy.
	@. ./env.sh && python3 -m ruff check . && python3 -m ruff format --check . && python3 -m mypy

# Resumes the training in runs/ferplus if there is one; otherwise it starts from the weights START.
model: build ## Train the bundled model and its int8 version from DATA=folder of FER+; takes hours.
	@test -n "$(DATA)" || { echo "give DATA=folder with FER+; docs/models.md lists its files" >&2; exit 2; }
	@. ./env.sh && cd "$(CURDIR)" && \
	dan-ros train ferplus --data "$(DATA)" --out runs/ferplus \
	  $(if $(wildcard runs/ferplus/last.pt),--resume,$(if $(START),--start "$(START)")) && \
	dan-ros convert runs/ferplus/best.safetensors --fp16 -o runs/ferplus/raw.onnx && \
	dan-ros export runs/ferplus/raw.onnx --as-is --fit-prior "$(DATA)" \
	  -o runs/ferplus/dan_ferplus.onnx && \
	dan-ros export runs/ferplus/dan_ferplus.onnx --int8 --calibrate "$(DATA)" \
	  -o runs/ferplus/dan_ferplus_int8.onnx && \
	dan-ros evaluate "$(DATA)" runs/ferplus/dan_ferplus_int8.onnx --out runs/ferplus/evaluation

docs: build ## Generate docs/parameters.md and config/dan.yaml from the table of parameters.
	@. ./env.sh && python3 tools/write_parameters.py

pictures: build ## Make the moving picture, the timeline and the picture of the attention heads in docs/
	@. ./env.sh && python3 tools/make_moving_picture.py && python3 tools/make_timeline_picture.py && \
	python3 -c 'import cv2, skimage; cv2.imwrite("docs/portrait.png", skimage.data.astronaut()[..., ::-1])' && \
	dan-ros explain docs/portrait.png --out docs/attention-heads.jpg; rm -f docs/portrait.png

# dan-ros itself is imported, for the page of its commands.
.site/ready: requirements/site.txt requirements/core.txt
	@python3 -m venv .site && touch .site/COLCON_IGNORE
	@.site/bin/pip install --quiet -r requirements/core.txt -r requirements/site.txt && touch $@

site: .site/ready ## Build the documentation site in site/; a broken link is an error.
	@NO_MKDOCS_2_WARNING=1 .site/bin/python -m mkdocs build --quiet
	@echo "site/index.html. To search in it: python3 -m http.server --directory site"

check-site: site ## Check pages of the site in Chromium: accessibility, keyboard, width, search.
	@.site/bin/python tools/check_site.py

# These tools need the network and no test needs them, so they get a separate environment.
.tools/ready: requirements/tools.txt
	@python3 -m venv .tools && touch .tools/COLCON_IGNORE
	@.tools/bin/pip install --quiet -r requirements/tools.txt && touch $@

lock: .tools/ready ## Update requirements/lock.txt: versions and hashes of the ROS-free library's packages.
	@.tools/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' \
	  requirements/core.txt requirements/bag.txt -o requirements/lock.txt

sbom: .tools/ready ## Write a bill of materials of the locked library to dist/sbom.json (CycloneDX).
	@mkdir -p dist && .tools/bin/uv venv --quiet --clear .tools/library
	@.tools/bin/uv pip sync --quiet --require-hashes --python .tools/library requirements/lock.txt
	@PYTHONWARNINGS=ignore .tools/bin/cyclonedx-py environment .tools/library --pyproject pyproject.toml \
	  --output-reproducible -o dist/sbom.json
	@echo "dist/sbom.json"

audit: .tools/ready ## Look up known vulnerabilities of the locked packages; needs the network.
	@.tools/bin/python tools/audit.py

clean: ## Remove all build outputs except .venv.
	rm -rf build install log demo bench stress soak coverage dist site .site .tools
