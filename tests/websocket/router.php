<?php

// For PHP's own web server: the page, and what it found, which goes to the file that FOUND names.
if (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) === '/done') {
    file_put_contents(getenv('FOUND') . '.new', file_get_contents('php://input'));
    rename(getenv('FOUND') . '.new', getenv('FOUND'));
    return true;
}
header('Content-Type: text/html; charset=utf-8');
readfile(__DIR__ . '/page.html');
