dnl For phpize: configures the build of the heartbus extension, which is cargo's work. Makefile.frag calls it.

PHP_ARG_ENABLE([heartbus],
  [whether to enable Heartbus],
  [AS_HELP_STRING([--enable-heartbus], [Enable Heartbus])],
  [yes])

if test "$PHP_HEARTBUS" != "no"; then
  if test "$PHP_THREAD_SAFETY" = "yes"; then
    AC_MSG_ERROR([Heartbus does not support thread-safe (ZTS) builds of PHP. The engine brings its own threads; use a PHP without thread safety (NTS).])
  fi

  AC_MSG_CHECKING([for PHP 8.1 or newer])
  HEARTBUS_PHP=`$PHP_CONFIG --version`
  HEARTBUS_PHP_VERNUM=`$PHP_CONFIG --vernum`
  if test "$HEARTBUS_PHP_VERNUM" -lt 80100; then
    AC_MSG_ERROR([Heartbus needs PHP 8.1 or newer, this is $HEARTBUS_PHP.])
  fi
  AC_MSG_RESULT([$HEARTBUS_PHP])

  dnl rustup adds itself to login shells only; pecl and package builds often have no such shell.
  AC_PATH_PROG([CARGO], [cargo], [], [$PATH:$HOME/.cargo/bin])
  if test -z "$CARGO"; then
    AC_MSG_ERROR([Heartbus is built with Rust, and there is no cargo. Install Rust 1.85 or newer from https://rustup.rs, or name cargo with CARGO=/path/to/cargo.])
  fi
  AC_MSG_CHECKING([for Rust 1.85 or newer])
  dnl cargo's own version is the toolchain's.
  HEARTBUS_RUST=`$CARGO --version 2>/dev/null | $SED -n 's/^cargo \([[0-9.]]*\).*/\1/p'`
  HEARTBUS_RUST_VERNUM=`echo "$HEARTBUS_RUST" | $AWK -F. '{ print [$]1 * 1000 + [$]2 }'`
  if test -z "$HEARTBUS_RUST"; then
    AC_MSG_ERROR([$CARGO --version does not work. With rustup: rustup default stable])
  elif test "$HEARTBUS_RUST_VERNUM" -lt 1085; then
    AC_MSG_ERROR([Heartbus needs Rust 1.85 or newer, this is $HEARTBUS_RUST. With rustup: rustup update stable])
  fi
  AC_MSG_RESULT([$HEARTBUS_RUST])

  dnl The bindings are made from PHP's headers, by libclang.
  AC_MSG_CHECKING([for libclang and its headers])
  HEARTBUS_LIBCLANG=`sh "$abs_srcdir/libclang.sh"` || HEARTBUS_LIBCLANG=no
  AC_MSG_RESULT([$HEARTBUS_LIBCLANG])
  if test "$HEARTBUS_LIBCLANG" = "no"; then
    AC_MSG_WARN([no libclang where it usually is, or not the headers that belong to it: the build will fail unless LIBCLANG_PATH names its folder (Debian: apt-get install libclang-dev)])
  fi

  dnl Cargo runs elsewhere: it needs absolute names.
  AC_PATH_PROG([HEARTBUS_PHP_CONFIG], [$PHP_CONFIG], [$PHP_CONFIG])
  HEARTBUS_ROOT=`cd "$abs_srcdir/.." && pwd`
  if test ! -f "$HEARTBUS_ROOT/core/Cargo.toml"; then
    AC_MSG_ERROR([there is no core/ beside php-ext/: the extension is built inside the whole source tree of Heartbus])
  fi

  PHP_SUBST(CARGO)
  PHP_SUBST(HEARTBUS_PHP_CONFIG)
  PHP_SUBST(HEARTBUS_ROOT)
  PHP_ADD_BUILD_DIR([modules])
  PHP_ADD_MAKEFILE_FRAGMENT([$abs_srcdir/Makefile.frag], [$abs_srcdir], [$abs_builddir])
  PHP_MODULES="$PHP_MODULES \$(phplibdir)/heartbus.la"
fi
