//! Compiles the C shim against the headers of the PHP that `php-config` (or the one in `PHP_CONFIG`) describes.

use std::process::Command;

fn main() {
    const SOURCES: [&str; 3] = ["src/shim.c", "src/time_limit.c", "src/classes/state.c"];
    SOURCES.iter().for_each(|source| println!("cargo:rerun-if-changed={source}"));
    println!("cargo:rerun-if-env-changed=PHP_CONFIG");
    let php_config = std::env::var("PHP_CONFIG").unwrap_or_else(|_| "php-config".into());
    let output = Command::new(&php_config).arg("--includes").output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {php_config} (is php-dev installed?): {error}"));
    let includes = String::from_utf8(output.stdout).expect("php-config prints paths");

    let mut build = cc::Build::new();
    for include in includes.split_whitespace().filter_map(|flag| flag.strip_prefix("-I")) {
        // PHP's own headers warn about unused parameters; ours should not.
        build.flag("-isystem").flag(include);
    }
    build.files(SOURCES).warnings(true).extra_warnings(true).compile("heartbus_shim");
    // timer_create() was there before glibc 2.34 took it in.
    println!("cargo:rustc-link-lib=rt");
}
