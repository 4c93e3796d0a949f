//! What `php --ri heartbus` and `phpinfo()` show.

use crate::shim;
use ext_php_rs::zend::ModuleEntry;
use ext_php_rs::{info_table_end, info_table_header, info_table_row, info_table_start};
use heartbus_core::settings::{self, EventLoop, Listed};

pub(crate) extern "C" fn print(module: *mut ModuleEntry) {
    info_table_start!();
    info_table_row!("Heartbus", "enabled");
    info_table_row!("Version", env!("CARGO_PKG_VERSION"));
    info_table_row!("Engine", concat!("heartbus-core ", env!("CARGO_PKG_VERSION"), ", threads of its own"));
    info_table_row!("Wire", "v1, v2");
    info_table_row!(
        "Features",
        "server, client, all classes of the PHP library, PHP workers, bus socket, many nodes per connection, rate limits, IPv6"
    );
    info_table_row!("Event loops", EventLoop::WORDS.join(", "));
    info_table_row!("Thread safety", "none: for NTS builds of PHP only");
    info_table_end!();
    list("Server setting", &settings::of_server());
    list("Client setting", &settings::of_client());
    // SAFETY: PHP passes the module that it asks about.
    unsafe { shim::heartbus_display_ini(module) };
}

/// The keys of a configuration array, and what they are unless they are set.
fn list(title: &str, rows: &[Listed]) {
    info_table_start!();
    info_table_header!(title, "Default");
    for row in rows.iter().filter(|row| !row.setting.php.name.is_empty()) {
        let names = row.setting.php_names().join(", ");
        let unit = if row.setting.unit.is_empty() { String::new() } else { format!(" {}", row.setting.unit) };
        info_table_row!(names, format!("{}{unit}", row.php_default().replace('`', "")));
    }
    info_table_end!();
}
