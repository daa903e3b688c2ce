SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up upgrade down services clients test chaos bench bench-large cluster-test images-test upgrade-test publish lint fmt clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## Build and start everything, send 3640 records, show the result
	@scripts/up

upgrade: ## Build again and replace the containers of `make up` one by one, without a failed request
	@scripts/upgrade

down: ## Stop what `make up` and `make services` started, keep the data
	@scripts/down

services: ## Start PostgreSQL, Redis and Kafka only
	@scripts/services up

clients: ## Generate clients of the HTTP API into clients/: Rust, TypeScript, Python
	@scripts/clients

test: ## Run format, clippy, docs, unit, integration and end-to-end tests against real services
	@scripts/test

chaos: ## Try to break every promise of docs/promises.md, for more than an hour; ARGS=--help lists shorter runs
	@scripts/chaos $(or $(ARGS),--page docs/promises.md)

bench: ## Measure ingest, reads, latency, memory and start against their baselines
	@scripts/bench

bench-large: ## Measure with 10 million stored orders and with several workers
	@scripts/bench large

cluster-test: ## Install the chart into a real cluster; scale, upgrade, kill, roll back and remove it under load
	@scripts/cluster-test

images-test: ## Build both images in parallel from an empty cache (many minutes)
	@scripts/images-test build

upgrade-test: ## Upgrade a compose project under load; fails on a failed request or a lost order
	@scripts/upgrade-test

publish: ## Push images and chart: make publish REGISTRY=registry.example.com/team
	@scripts/publish "$(REGISTRY)"

lint: ## Check format, clippy, API docs, the words, lines, links and import cycles, and the dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	scripts/lint-text
	scripts/lint-cycles
	scripts/lint-dependencies

fmt: ## Format the code
	cargo fmt --all

clean: ## Stop everything; delete the data of the native services, the logs and the build
	@scripts/clean
