# imgward: `make` lists the targets. Everything works without a network once
# the Go modules and the Debian packages are there.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build install deps lint test test-xen xen-shell xen-bin fuzz bench demo clean

# The file systems' programs are not on every user's path.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

PREFIX ?= /usr/local
FUZZTIME ?= 20s
PKG ?= ./...
CASE ?= *
# The library of the command line comes without its writers of manuals, which would
# take a tenth of the program's start.
BUILD := CGO_ENABLED=0 go build -trimpath -tags urfave_cli_no_docs
STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.7.0

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-9s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## one static binary, bin/imgward
	$(BUILD) -o bin/imgward ./cmd/imgward

install: build ## the binary into $(PREFIX)/bin, and its manual page
	install -D -m 755 bin/imgward $(DESTDIR)$(PREFIX)/bin/imgward
	install -D -m 644 imgward.8 $(DESTDIR)$(PREFIX)/share/man/man8/imgward.8

deps: ## the Debian packages that test, demo and bench need (as root)
	@scripts/deps

lint: ## gofmt, go vet, staticcheck; golangci-lint where it is installed
	@bad=$$(gofmt -l .); [ -z "$$bad" ] || { echo "not gofmt'ed:"; echo "$$bad"; exit 1; }
	go vet $(PKG)
	$(STATICCHECK) $(PKG)
	@! command -v golangci-lint >/dev/null || golangci-lint run $(PKG)

test: deps lint ## every test this machine can run; REQUIRE=all makes a skip a failure
	@scripts/test $(PKG)

test-xen: xen-bin ## cases on a real Xen under QEMU (as root; CASE=glob for some of them)
	@BIN=$(CURDIR)/bin testdata/xen/run '$(CASE)'

xen-shell: xen-bin ## a shell in that Xen's dom0
	@BIN=$(CURDIR)/bin testdata/xen/boot "$$(testdata/xen/build)"

xen-bin: build
	@scripts/deps xen
	$(BUILD) -o bin/refuses ./testdata/xen/refuses

fuzz: ## each fuzz target for FUZZTIME (20s)
	@for pkg in $$(go list $(PKG)); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$pkg; \
		done; \
	done

bench: deps build ## copies, and checks of an idle and a crowded host, beside their peers, and what the hold costs and how soon it breaks; BENCH_SIZE, BENCH_DIR, BENCH_ONLY
	@go run ./bench
	@go test ./cmd/imgward -run '^$$' -bench Check -benchtime 11x
	@go test ./cmd/imgward -run '^$$' -bench Hold -benchtime 11x
	@go test ./guard -run '^$$' -bench 'XenWatch|Rescan' -benchtime 50x

demo: deps build ## what imgward refuses and why, on throw-away images
	@testdata/demo/demo.sh

clean: ## remove what was built
	rm -rf bin
