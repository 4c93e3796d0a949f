# Two commands are enough: `make run` and `make test`. Both set up what is missing and say what they install.
# The work is done by the small scripts in scripts/, which can be called directly as well.

PORT ?= 9501
PREFIX ?= /usr/local
DESTDIR ?=

.DEFAULT_GOAL := help
.PHONY: help run demo check test bench doctor build install uninstall setup settings header fuzz clean

help:
	@echo "make run     build, then start a heartbeat server on port $(PORT) (PORT=9600 make run picks another)"
	@echo "make demo    the same with 1,000 real clients for ten seconds"
	@echo "make check   what changes want: formatting, lints, Rust tests, headers, stubs, a look at C and PHP (6 minutes at most)"
	@echo "make test    every test: Rust, C, PHP in real processes, formatting, lints"
	@echo "make bench   measure everything, write docs/BENCHMARKS.md (35 minutes; QUICK=1 make bench takes 3)"
	@echo "make doctor  check whether this machine is set up for many connections"
	@echo "make build   build/heartbus.so, build/libheartbus.so, build/libheartbus.a"
	@echo "make install the C library below PREFIX=$(PREFIX), DESTDIR= in front; make uninstall removes it again"
	@echo "make setup   install what building needs (Debian 12)"
	@echo "make settings  write what is made from the rows of settings again: tables in the pages, the header, the types of the stubs"
	@echo "make header  generate include/heartbus.h and include/heartbus_ffi.h again"
	@echo "make fuzz    fuzz the decoder for ten minutes (SECONDS=60 make fuzz for one); wants a nightly toolchain"
	@echo "make clean   remove everything that was built"

run: build
	@exec scripts/php php-examples/server.php --port $(PORT)

demo: build
	@exec scripts/demo

check:
	@scripts/setup test
	@exec scripts/test --quick

test:
	@scripts/setup test
	@exec scripts/test

bench: build
	@scripts/setup bench
	@exec scripts/bench

doctor:
	@exec scripts/doctor

build: setup
	@scripts/build

# After `make build`, which is not done here: whoever installs is often another user.
install uninstall:
	@PREFIX="$(PREFIX)" LIBDIR="$(LIBDIR)" DESTDIR="$(DESTDIR)" scripts/install $(filter-out --install,--$@)

setup:
	@scripts/setup build

settings:
	@HEARTBUS_UPDATE=1 cargo test --quiet --locked -p heartbus-core --test settings
	@exec scripts/header

header:
	@scripts/setup build
	@exec scripts/header

fuzz:
	@exec scripts/fuzz $(SECONDS)

clean:
	cargo clean
	rm -rf build
