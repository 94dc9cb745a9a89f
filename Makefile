# The usual commands. `make` lists them.
TOOL = go tool -modfile=.ci/tools/go.mod

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## run the stack and a deactivation
	go run ./cmd/leaver-dev --once --ephemeral

dev: ## run the stack until Ctrl-C
	go run ./cmd/leaver-dev

build: ## build ./leaver
	go build -o leaver ./cmd/leaver

test: ## run all tests
	go test ./...

short: ## run the tests that take less than a second each
	go test -short ./...

race: ## run all tests with the race detector
	go test -race -timeout 30m ./...

lint: ## format, vet and lint
	$(TOOL) gofumpt -w .
	go vet ./...
	$(TOOL) golangci-lint run ./...

schema: ## write internal/database/schema_dump.txt again
	go test ./internal/database -run TestSchema -update

histories: ## record workflow histories that are missing
	go test ./internal/e2e -run TestRecordHistories -record

ci: ## what must pass before a commit lands
	.ci/run

.PHONY: help demo dev build test short race lint schema histories ci
