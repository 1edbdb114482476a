# make test   the tests; installs what they need where that is allowed
# make check  lint and tests, as the continuous integration runs them
# make race   the tests of concurrent packages under the race detector
# make fuzz   every fuzz target for FUZZTIME (default 10s)
# make bench  benchmarks (bench/README.md tells of those against the kernel)
# make cross  builds and vets for other systems

GO ?= go
FUZZTIME ?= 10s
RACE = ./internal/device/... ./internal/treeblock/... ./internal/drop/... ./internal/cleaner/... ./btrfs/...
CROSS = linux/arm64 linux/s390x darwin/arm64 windows/amd64

.PHONY: build test check lint race fuzz bench cross

build:
	$(GO) build ./...

test:
	bash test/tools.sh
	$(GO) test -timeout 20m ./...

lint:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags invariants ./...
	$(GO) tool staticcheck ./...

check: lint cross test

race:
	$(GO) test -race -short -timeout 20m $(RACE)

cross:
	@for p in $(CROSS); do echo "build for $$p"; GOOS=$${p%/*} GOARCH=$${p#*/} CGO_ENABLED=0 $(GO) build ./... || exit 1; done
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $(GO) vet ./...

fuzz:
	bash test/fuzz.sh $(FUZZTIME)

bench:
	$(GO) test -run '^$$' -bench . ./...
