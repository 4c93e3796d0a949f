<?php

/**
 * Loads the harness, and refuses to test anything but the extension: a suite that quietly tests something else is worse
 * than none. HEARTBUS_REFERENCE=/path/to/the/php/library runs the `api` suite against the original instead, which shows
 * that the expectations are its behaviour and not ours.
 */

spl_autoload_register(function (string $class): void {
    $file = __DIR__ . '/support/' . str_replace(['Heartbus\\Tests\\', '\\'], ['', '/'], $class) . '.php';
    if (str_starts_with($class, 'Heartbus\\Tests\\') && is_file($file)) {
        require $file;
    }
});

$reference = getenv('HEARTBUS_REFERENCE');
if ($reference) {
    spl_autoload_register(function (string $class) use ($reference): void {
        $file = $reference . '/src/' . str_replace(['PfinalClub\\AsyncioHeartbeat\\', '\\'], ['', '/'], $class) . '.php';
        if (is_file($file)) {
            require $file;
        }
    });
} elseif (!extension_loaded('heartbus')) {
    fwrite(STDERR, "The heartbus extension is not loaded: use scripts/test-php\n");
    exit(1);
}

// Crowds of connections: as many descriptors as the system allows us.
['hard openfiles' => $descriptors] = posix_getrlimit();
posix_setrlimit(POSIX_RLIMIT_NOFILE, $descriptors, $descriptors);

// Whatever a test started must not outlive the run, even one that dies of a fatal error.
register_shutdown_function([Heartbus\Tests\PhpProcess::class, 'killAll']);
