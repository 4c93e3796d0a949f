//! What `php --ri heartbus` and `phpinfo()` show.

use crate::config;
use crate::shim;
use ext_php_rs::zend::ModuleEntry;
use ext_php_rs::{info_table_end, info_table_row, info_table_start};

pub extern "C" fn print(module: *mut ModuleEntry) {
    info_table_start!();
    info_table_row!("Heartbus", "enabled");
    info_table_row!("Version", env!("CARGO_PKG_VERSION"));
    info_table_row!("Engine", concat!("heartbus-core ", env!("CARGO_PKG_VERSION"), ", threads of its own"));
    info_table_row!("Wire", "v1, v2");
    info_table_row!(
        "Features",
        "server, client, all classes of the PHP library, PHP workers, bus socket, many nodes per connection, rate limits, IPv6"
    );
    info_table_row!("Event loops", config::loop_names());
    info_table_row!("Thread safety", "none: for NTS builds of PHP only");
    info_table_end!();
    // SAFETY: PHP passes the module that it asks about.
    unsafe { shim::heartbus_display_ini(module) };
}
