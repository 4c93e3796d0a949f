<?php

/**
 * The page of an example, served by PHP's own web server: what is in the example's folder `page/`, the JavaScript client below `/heartbus/`, and
 * `/settings.json`, which says where the WebSocket is.
 *
 * For examples: that web server is made for trying things out. In production nginx, or whatever serves your pages, does this.
 */

/** What a page may load: nothing but what comes from here, and it talks to nobody but the bus. */
const PAGE_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'";

const PAGE_TYPES = ['html' => 'text/html', 'css' => 'text/css', 'js' => 'text/javascript', 'svg' => 'image/svg+xml'];

if (PHP_SAPI === 'cli-server') {
    answer_request((string) getenv('EXAMPLE_PAGE'), parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) ?: '/');
    return true;
}

/**
 * Starts the web server beside this process; it ends with it.
 *
 * @param string $folder with the page's files, index.html first
 * @param string $address host:port
 * @param array<string, mixed> $settings for the page
 */
function serve_page(string $folder, string $address, array $settings): void
{
    // Whoever answers there later is ours.
    $isFree = @stream_socket_server("tcp://$address");
    $isFree === false || fclose($isFree);
    $command = [PHP_BINARY, '-d', 'display_errors=stderr', '-S', $address, __FILE__];
    if (is_executable('/usr/bin/setpriv')) {
        // Also when we are killed.
        array_unshift($command, '/usr/bin/setpriv', '--pdeathsig', 'TERM');
    }
    $environment = ['EXAMPLE_PAGE' => $folder, 'EXAMPLE_SETTINGS' => json_encode($settings, JSON_THROW_ON_ERROR)] + getenv();
    $quiet = ['file', '/dev/null', 'a'];
    $server = $isFree ? proc_open($command, [['file', '/dev/null', 'r'], $quiet, $quiet], $pipes, null, $environment) : null;
    for ($tries = 0; $isFree && $tries < 250; $tries++) {
        if (!proc_get_status($server)['running']) {
            break;
        }
        if ($connection = @stream_socket_client("tcp://$address", $code, $message, 1)) {
            fclose($connection);
            register_shutdown_function(static function () use ($server): void {
                proc_terminate($server);
                proc_close($server);
            });
            return;
        }
        usleep(20_000);
    }
    fwrite(STDERR, "The page cannot be served at http://$address: is something else there? --web takes another address.\n");
    exit(1);
}

function answer_request(string $folder, string $path): void
{
    header('Content-Security-Policy: ' . PAGE_POLICY);
    header('X-Content-Type-Options: nosniff');
    header('Cache-Control: no-store');
    if ($path === '/settings.json') {
        header('Content-Type: application/json');
        echo getenv('EXAMPLE_SETTINGS');
        return;
    }
    // A plain name in one of two folders, and nothing else.
    $isPlain = preg_match('~^/(heartbus/)?([a-z0-9_-]+)\.(html|css|js|svg)$~', $path === '/' ? '/index.html' : $path, $found) === 1;
    $file = $isPlain ? ($found[1] === '' ? $folder : __DIR__ . '/../clients/js/dist') . "/$found[2].$found[3]" : '';
    if (!is_file($file)) {
        http_response_code(404);
        echo 'Not found';
        return;
    }
    header('Content-Type: ' . PAGE_TYPES[$found[3]] . '; charset=utf-8');
    readfile($file);
}
