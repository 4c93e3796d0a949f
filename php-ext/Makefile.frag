# Cargo knows what is up to date: it is asked each time.
#
# The environment stays as it is where it leads to the right PHP anyway: then this build and every other one of this tree
# share their work. `make test` and `make install` of phpize want a libtool archive for each module; all they read of it
# is the module's name.
$(phplibdir)/heartbus.la: heartbus-cargo
	@echo "dlname='heartbus.so'" > $@

.PHONY: heartbus-cargo
heartbus-cargo:
	@set -e; \
	if test "`command -v php-config`" != "$(HEARTBUS_PHP_CONFIG)"; then \
		PHP_CONFIG="$(HEARTBUS_PHP_CONFIG)"; PHP="$(PHP_EXECUTABLE)"; export PHP_CONFIG PHP; \
	fi; \
	target="$${CARGO_TARGET_DIR:-$(HEARTBUS_ROOT)/target}"; \
	cd "$(HEARTBUS_ROOT)"; \
	"$(CARGO)" build --release --locked --target-dir "$$target" -p heartbus-php; \
	mkdir -p "$(phplibdir)"; \
	new="$(phplibdir)/.heartbus.so.new"; \
	cp "$$target/release/libheartbus_php.so" "$$new"; \
	mv -f "$$new" "$(phplibdir)/heartbus.so"
