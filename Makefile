# What a developer runs. `make ci` is what decides whether a change lands.
GO ?= go
FUZZTIME ?= 10s

.PHONY: build test race lint bench contest contest-quick fuzz million vuln ci

build: ## a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' ./cmd/headgate

test: ## the browser's need a chromium on the PATH, and are skipped without
	$(GO) test ./...
	cd bench && $(GO) test ./...
	cd browser && $(GO) test ./...

race: ## needs a C compiler
	$(GO) test -race ./...
	cd bench && $(GO) test -race ./...

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'gofmt would change these'; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=tools.mod staticcheck ./...
	@test -z "$$($(GO) fix -diff ./... 2>&1)" || { $(GO) fix -diff ./...; exit 1; }
	cd bench && $(GO) vet ./... && $(GO) tool -modfile=../tools.mod staticcheck ./...
	cd browser && $(GO) vet ./... && $(GO) tool -modfile=../tools.mod staticcheck ./...
	@cd bench && { test -z "$$($(GO) fix -diff ./... 2>&1)" || { $(GO) fix -diff ./...; exit 1; }; }
	@cd browser && { test -z "$$($(GO) fix -diff ./... 2>&1)" || { $(GO) fix -diff ./...; exit 1; }; }

bench: ## each benchmark once; for figures see docs/figures.md
	$(GO) test -run '^$$' -bench . -benchtime 1x ./...

contest: ## headgate beside its peers, all of it: under 45 minutes, writes bench/results
	cd bench && $(GO) run . -out results

contest-quick: ## a part of it: under 3 minutes, writes bench/quick
	cd bench && $(GO) run . -quick -out quick

fuzz: ## every fuzz target for FUZZTIME
	FUZZTIME=$(FUZZTIME) sh scripts/fuzz.sh

million: build ## a million rows: peak memory and the cost of each row
	sh scripts/million.sh

vuln: ## needs the network
	$(GO) tool -modfile=tools.mod govulncheck ./...

ci:
	.ci/run
